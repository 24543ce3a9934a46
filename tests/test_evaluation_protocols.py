"""Protocols as data: who meets whom, under each name."""

from __future__ import annotations

import random
import tracemalloc

import numpy as np
import pytest

from dinogrl.data.datasets import DATASETS
from dinogrl.distances import DISTANCES
from dinogrl.errors import DataError, UnknownNameError
from dinogrl.evaluation import evaluate
from dinogrl.evaluation.evaluate import camera_pairs
from dinogrl.evaluation.protocols import BOTH, DEFAULTS, INFRARED_TO_VISIBLE, LISTS, PROTOCOLS, VISIBLE_TO_INFRARED, choose_protocol
from dinogrl.evaluation.ranking import Meeting
from dinogrl.records import Embeddings, Modality


def some_side(visible: int, infrared: int, prefix: str = "t") -> Embeddings:
    """Visible and infrared rows in turn, as far as they go; the id tells the modality and the number."""
    names = sorted([(i, f"{prefix}v{i}") for i in range(visible)] + [(i, f"{prefix}i{i}") for i in range(infrared)])
    modalities = np.array([Modality.VISIBLE if name[len(prefix)] == "v" else Modality.INFRARED for _, name in names])
    n = len(names)
    return Embeddings(
        parts=np.arange(n * 2, dtype=np.float32).reshape(n, 1, 2),
        tracklet_ids=[name for _, name in names],
        identities=np.arange(n) % 5,
        cameras=np.arange(n) % 3,
        modalities=modalities,
        fingerprint="f",
        frames=[[f"{name}.jpg"] for _, name in names],
    )


def test_every_protocol_is_whole() -> None:
    assert {"hitsz-vcm", "buptcampus-legacy", "buptcampus-full", "buptcampus-camera", "folder"} <= set(PROTOCOLS)
    assert set(DEFAULTS) == set(DATASETS), "every dataset that can be read can be scored"
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name and protocol.summary.endswith(".") and protocol.frames >= 1
        assert protocol.lists in LISTS and protocol.directions


def test_frames_and_cameras_are_those_of_each_datasets_own_protocol() -> None:
    """Sampling, T, and whether a query's own identity in its own camera is struck out."""
    rules = {name: (p.sampling, p.frames, p.drop_same_camera) for name, p in PROTOCOLS.items()}
    assert rules == {
        "hitsz-vcm": ("segments", 6, True),
        "buptcampus-legacy": ("uniform", 10, False),
        "buptcampus-full": ("uniform", 10, False),
        "buptcampus-camera": ("uniform", 10, True),
        **dict.fromkeys(("sysu-mm01", "sysu-mm01-multi", "sysu-mm01-indoor", "sysu-mm01-indoor-multi"), ("segments", 1, False)),
        "regdb": ("segments", 1, False),
        "llcm": ("segments", 1, True),
        "folder": ("segments", 6, True),
    }


def test_vcm_swaps_the_lists() -> None:
    query, gallery = some_side(0, 6, "q"), some_side(8, 0, "g")
    assert PROTOCOLS["hitsz-vcm"].sides(query, gallery, INFRARED_TO_VISIBLE) == (query, gallery)
    assert PROTOCOLS["hitsz-vcm"].sides(query, gallery, VISIBLE_TO_INFRARED) == (gallery, query)


@pytest.mark.parametrize("direction", BOTH, ids=lambda d: d.name)
def test_bupt_takes_one_modality_of_each_list(direction) -> None:
    query, gallery = PROTOCOLS["buptcampus-full"].sides(some_side(5, 6, "q"), some_side(9, 7, "g"), direction)
    assert (query.modalities == direction.query).all() and (gallery.modalities == direction.gallery).all()
    assert all(name.startswith("q") for name in query.tracklet_ids)
    assert all(name.startswith("g") for name in gallery.tracklet_ids)
    assert len(query) == {Modality.VISIBLE: 5, Modality.INFRARED: 6}[direction.query]


def test_bupt_legacy_gives_the_published_counts() -> None:
    """540 + 536 queries and 2,422 + 2,422 gallery tracklets lose the visible remainder of batches of 64."""
    query, gallery = some_side(540, 536, "q"), some_side(2422, 2422, "g")
    legacy = PROTOCOLS["buptcampus-legacy"]
    sides = {d.name: legacy.sides(query, gallery, d) for d in BOTH}
    counts = {name: tuple(map(len, pair)) for name, pair in sides.items()}
    assert counts == {"infrared_to_visible": (536, 2368), "visible_to_infrared": (512, 2422)}
    assert 536 + 512 == 1048 and 2368 + 2422 == 4790
    kept = sides["visible_to_infrared"][0].tracklet_ids
    assert kept == [f"qv{i}" for i in range(512)], "the last ones are lost, the order stays"
    assert sides["infrared_to_visible"][0].frames[0] == ["qi0.jpg"]


def test_bupt_legacy_keeps_whole_batches() -> None:
    legacy = PROTOCOLS["buptcampus-legacy"]
    assert len(legacy.sides(some_side(128, 3), some_side(64, 3), VISIBLE_TO_INFRARED)[0]) == 128
    with pytest.raises(DataError, match=r"buptcampus-legacy.*visible_to_infrared.*batches of 64.*another protocol"):
        legacy.sides(some_side(20, 20), some_side(64, 64), VISIBLE_TO_INFRARED)


@pytest.mark.parametrize("direction", BOTH, ids=lambda d: d.name)
def test_folder_pools_lists_of_one_modality_each_and_counts_no_tracklet_twice(direction) -> None:
    both = some_side(4, 3, "a")
    infrared, visible = both.take(both.modalities == Modality.INFRARED), both.take(both.modalities == Modality.VISIBLE)
    for lists in ((infrared, visible), (both, both), (infrared, both)):
        query, gallery = PROTOCOLS["folder"].sides(*lists, direction)
        assert len(query) + len(gallery) == 7 and not set(query.tracklet_ids) & set(gallery.tracklet_ids)
        assert (query.modalities == direction.query).all() and (gallery.modalities == direction.gallery).all()
        assert len(query.frames) == len(query), "the pictures stay with their tracklets"


def test_folder_keeps_to_its_lists_where_it_has_two() -> None:
    query, gallery = PROTOCOLS["folder"].sides(some_side(4, 3, "q"), some_side(2, 5, "g"), VISIBLE_TO_INFRARED)
    assert query.tracklet_ids == ["qv0", "qv1", "qv2", "qv3"] and gallery.tracklet_ids == [f"gi{i}" for i in range(5)]


def test_an_empty_side_is_one_clear_line() -> None:
    with pytest.raises(DataError, match="the gallery has no visible tracklet"):
        PROTOCOLS["buptcampus-full"].sides(some_side(3, 3), some_side(0, 3), INFRARED_TO_VISIBLE)


def test_choice_by_dataset() -> None:
    assert choose_protocol("auto", "hitsz-vcm").name == "hitsz-vcm"
    assert {dataset: default for dataset, default in DEFAULTS.items() if default != dataset} == {"buptcampus": "buptcampus-full"}
    assert choose_protocol("buptcampus-legacy", "buptcampus").visible_batch == 64
    with pytest.raises(UnknownNameError, match="did you mean 'hitsz-vcm'"):
        choose_protocol("hitsz-vmc", "hitsz-vcm")


def test_rules_about_some_cameras_are_for_no_other_dataset() -> None:
    assert choose_protocol("sysu-mm01-indoor-multi", "sysu-mm01").draw is not None
    for name, dataset in (("sysu-mm01-indoor", "hitsz-vcm"), ("llcm", "sysu-mm01"), ("sysu-mm01", "regdb")):
        with pytest.raises(
            DataError, match=rf"protocol {name} is about the cameras of .*, this dataset is {dataset}; choose {dataset} "
        ):
            choose_protocol(name, dataset)
    assert choose_protocol("hitsz-vcm", "folder").drop_same_camera, "rules that name no camera fit any tracklets"


def an_image_set(modality: Modality, cameras: tuple[int, ...]) -> Embeddings:
    """Three images of each of six people in each camera, file names not in the order of rows."""
    cells = [(i, c, k) for i in range(6) for c in cameras for k in range(3)]
    noise = np.random.default_rng(int(modality))
    own = np.random.default_rng(8).standard_normal((6, 1, 5))
    ids = np.array([i for i, _, _ in cells])
    return Embeddings(
        parts=(own[ids] + 1.5 * noise.standard_normal((len(cells), 1, 5))).astype(np.float32),
        tracklet_ids=[f"cam{c}/{i:04d}/{2 - k:04d}.jpg" for i, c, k in cells],
        identities=ids,
        cameras=np.array([c for _, c, _ in cells]),
        modalities=np.full(len(cells), int(modality)),
        fingerprint="f",
    )


def test_gallery_is_drawn_as_the_datasets_own_code_draws_it() -> None:
    """Seeded by the trial, through people and cameras in order, one of the sorted names: written out here the literal way."""
    gallery = an_image_set(Modality.VISIBLE, (1, 2, 4, 5))
    draw = PROTOCOLS["sysu-mm01-indoor"].draw
    assert draw is not None
    for trial in range(3):
        random.seed(trial)
        expected = []
        for identity in range(6):
            for camera in (1, 2):
                names = [n for n in gallery.tracklet_ids if n.startswith(f"cam{camera}/{identity:04d}/")]
                expected.append(random.choice(sorted(names)))
        assert [gallery.tracklet_ids[row] for row in draw.rows(gallery, trial)] == expected


def test_sysu_scores_are_means_over_ten_draws() -> None:
    query, gallery = an_image_set(Modality.INFRARED, (3, 6)), an_image_set(Modality.VISIBLE, (1, 2, 4, 5))
    protocol = PROTOCOLS["sysu-mm01"]
    result = evaluate(query, gallery, protocol)
    assert list(result.directions) == ["infrared_to_visible"]
    outcome = result.directions["infrared_to_visible"]
    firsts, precisions, penalties = [], [], []
    for drawn in protocol.galleries(gallery):
        assert len(drawn) == 24
        matrix = DISTANCES["mean_part"](query.parts, drawn.parts)
        for q in range(len(query)):
            kept = [g for g in np.argsort(matrix[q], kind="stable") if (query.cameras[q], drawn.cameras[g]) != (3, 2)]
            right = [drawn.identities[g] == query.identities[q] for g in kept]
            places = np.flatnonzero(right)
            precisions.append(np.mean([(i + 1) / (place + 1) for i, place in enumerate(places)]))
            penalties.append(len(places) / (places[-1] + 1))
            met = list(dict.fromkeys(int(drawn.identities[g]) for g in kept))
            firsts.append(met.index(int(query.identities[q])))
    assert outcome.scores.mAP == pytest.approx(np.mean(precisions))
    assert outcome.scores.mINP == pytest.approx(np.mean(penalties))
    assert outcome.scores.rank(1) == pytest.approx(np.mean(np.array(firsts) == 0))
    assert outcome.scores.rank(3) == pytest.approx(np.mean(np.array(firsts) < 3))
    assert outcome.scores.gallery == 24 and outcome.intervals["mAP"].low < outcome.scores.mAP < outcome.intervals["mAP"].high
    assert outcome.gallery.tracklet_ids == next(protocol.galleries(gallery)).tracklet_ids, "pictures are of the first draw"
    scores, identities = outcome.all_queries
    np.testing.assert_allclose(scores.precision, precisions)
    assert identities.tolist() == 10 * query.identities.tolist()
    assert np.isfinite(outcome.distances.negative).all(), "no distance of two that never meet"
    few = evaluate(query.take(query.identities < 4), gallery, protocol, max_rank=3, confidence=False)
    assert few.people == set(range(6)), "who is in the gallery alone is of the test too"
    assert few.directions["infrared_to_visible"].intervals == {} and len(few.directions["infrared_to_visible"].scores.cmc) == 3
    pairs = {(a, b) for a in (3, 6) for b in (1, 2, 4, 5)}
    assert set(camera_pairs(outcome, protocol)) == pairs - {(3, 2)}, "the protocol decides who meets whom"


def test_llcm_and_regdb_go_both_ways() -> None:
    query = an_image_set(Modality.INFRARED, (1, 2, 4))
    gallery = an_image_set(Modality.VISIBLE, (1, 2, 3))
    everything = Embeddings(
        np.concatenate([query.parts, gallery.parts]),
        query.tracklet_ids + gallery.tracklet_ids,
        *(np.concatenate([getattr(query, n), getattr(gallery, n)]) for n in ("identities", "cameras", "modalities")),
        "f",
    )
    llcm = evaluate(everything, everything, "llcm")
    assert {name: (o.scores.queries, o.scores.gallery) for name, o in llcm.directions.items()} == {
        "infrared_to_visible": (54, 18),
        "visible_to_infrared": (54, 18),
    }
    assert evaluate(everything, everything, "regdb").directions["visible_to_infrared"].scores.gallery == 54


@pytest.mark.parametrize("words", [False, True])
def test_who_meets_whom_is_counted_without_all_pairs_of_a_person(words: bool) -> None:
    """A small site: one person seen thousands of times makes millions of pairs."""
    people, cameras = np.arange(3000) % 2 * 7 - 3, np.arange(3000) // 2 % 3
    labels = people, people[:2000], cameras, cameras[:2000]
    meeting = Meeting(*(np.array(values, dtype=str) if words else values for values in labels))
    tracemalloc.start()
    met, matched = meeting.met(), meeting.any_match()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6, f"{peak / 1e6:.0f} MB"
    alike = np.array(
        [np.sum((labels[1] == person) & (labels[3] == camera)) for person, camera in zip(people, cameras, strict=True)]
    )
    np.testing.assert_array_equal(met, 2000 - alike)
    assert matched
    assert not Meeting(people, people, cameras * 0, cameras * 0).any_match(), "all of them are struck out"
    assert not Meeting(people, people + 1, cameras, cameras + 9).any_match()
