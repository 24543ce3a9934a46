"""Protocols as data: who meets whom, under each name."""

from __future__ import annotations

import numpy as np
import pytest

from dinogrl.errors import DataError, UnknownNameError
from dinogrl.evaluation.protocols import BOTH, INFRARED_TO_VISIBLE, LISTS, PROTOCOLS, VISIBLE_TO_INFRARED, choose_protocol
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
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name and protocol.summary.endswith(".") and protocol.frames >= 1
        assert protocol.lists in LISTS and protocol.directions


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
def test_folder_pools_its_lists_and_counts_no_tracklet_twice(direction) -> None:
    both = some_side(4, 3, "a")
    query, gallery = PROTOCOLS["folder"].sides(both, both, direction)
    assert len(query) + len(gallery) == 7 and not set(query.tracklet_ids) & set(gallery.tracklet_ids)
    query, gallery = PROTOCOLS["folder"].sides(some_side(4, 3, "q"), some_side(2, 5, "g"), direction)
    assert {len(query), len(gallery)} == {6, 8}
    assert (query.modalities == direction.query).all() and (gallery.modalities == direction.gallery).all()


def test_an_empty_side_is_one_clear_line() -> None:
    with pytest.raises(DataError, match="the gallery has no visible tracklet"):
        PROTOCOLS["buptcampus-full"].sides(some_side(3, 3), some_side(0, 3), INFRARED_TO_VISIBLE)


def test_choice_by_dataset() -> None:
    assert choose_protocol("auto", "hitsz-vcm").name == "hitsz-vcm"
    assert choose_protocol("buptcampus-legacy", "buptcampus").visible_batch == 64
    with pytest.raises(UnknownNameError, match="did you mean 'hitsz-vcm'"):
        choose_protocol("hitsz-vmc", "hitsz-vcm")
