"""The whole test on made embeddings: scores, rankings, distance samples, camera pairs, and the file they go to."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dinogrl import checkpoints
from dinogrl.distances import DISTANCES
from dinogrl.embedding.archive import load_embeddings, save_embeddings
from dinogrl.errors import CheckpointError, DataError
from dinogrl.evaluation import PROTOCOLS, evaluate, evaluate_distances, metrics
from dinogrl.evaluation.evaluate import Evaluation, camera_pairs
from dinogrl.evaluation.results import read_metrics, write_metrics
from dinogrl.records import Embeddings, Modality


def people(modality: Modality, identities: int = 8, cameras: int = 3, noise: float = 0.8, fingerprint: str = "f") -> Embeddings:
    """One tracklet of each person in each camera: the person's own vectors, and noise."""
    random = np.random.default_rng(int(modality))
    own = np.random.default_rng(9).standard_normal((identities, 3, 6))
    ids, seen = np.repeat(np.arange(identities) + 500, cameras), np.tile(np.arange(cameras), identities)
    parts = own[ids - 500] + noise * random.standard_normal((len(ids), 3, 6))
    names = [f"{modality.name}-{i}-{c}" for i, c in zip(ids, seen)]
    return Embeddings(
        parts=parts.astype(np.float32),
        tracklet_ids=names,
        identities=ids,
        cameras=seen,
        modalities=np.full(len(ids), int(modality)),
        fingerprint=fingerprint,
        frames=[[f"{name}/{t}.jpg" for t in range(2)] for name in names],
    )


@pytest.fixture
def evaluation() -> Evaluation:
    return evaluate(people(Modality.INFRARED), people(Modality.VISIBLE), "hitsz-vcm", top=6)


@pytest.mark.parametrize("distance", list(DISTANCES))
@pytest.mark.parametrize("protocol", ["hitsz-vcm", "folder"])
def test_scores_are_those_of_the_matrix(protocol: str, distance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "BLOCK", 170)  # seven queries
    result = evaluate(people(Modality.INFRARED), people(Modality.VISIBLE), protocol, distance)
    assert set(result.directions) == {"infrared_to_visible", "visible_to_infrared"}
    for outcome in result.directions.values():
        q, g = outcome.query, outcome.gallery
        matrix = DISTANCES[distance](q.parts, g.parts)
        expected = evaluate_distances(matrix, q.identities, g.identities, q.cameras, g.cameras)
        np.testing.assert_allclose(outcome.scores.cmc, expected.cmc)
        assert outcome.scores.mAP == pytest.approx(expected.mAP) and outcome.scores.mINP == pytest.approx(expected.mINP)
        assert outcome.scores.protocol == protocol
        assert outcome.intervals["mAP"].low <= outcome.scores.mAP <= outcome.intervals["mAP"].high


def test_rankings_samples_and_hardest(evaluation: Evaluation) -> None:
    outcome = evaluation.directions["visible_to_infrared"]
    q, g = outcome.query, outcome.gallery
    matrix = DISTANCES["mean_part"](q.parts, g.parts).astype(np.float64)
    same = q.identities[:, None] == g.identities
    matrix[same & (q.cameras[:, None] == g.cameras)] = np.nan
    np.testing.assert_array_equal(outcome.nearest, np.argsort(matrix, axis=1)[:, :6])
    np.testing.assert_array_equal(outcome.right, np.take_along_axis(same, outcome.nearest, axis=1))
    assert outcome.distances.positive_mean == pytest.approx(np.nanmean(matrix[same]), rel=1e-6)
    assert outcome.distances.negative_mean == pytest.approx(np.nanmean(matrix[~same]), rel=1e-6)
    assert outcome.distances.gap > 0
    assert len(outcome.distances.positive) == (~np.isnan(matrix[same])).sum(), "there are few: all are kept"
    assert all(np.isclose(matrix[~same], value).any() for value in outcome.distances.negative[:100])
    hardest = outcome.hardest(3)
    assert (np.diff(outcome.queries.first[hardest]) <= 0).all()
    assert outcome.queries.first[hardest[0]] == outcome.queries.first.max()
    every = outcome.hardest(24)
    order = list(zip(-outcome.queries.first[every], outcome.queries.precision[every], strict=True))
    assert order == sorted(order) and len({first for first, _ in order}) < 24, "of those who stand alike, the less precise first"


def test_where_fewer_are_met_than_asked_for_nothing_is_right() -> None:
    outcome = evaluate(people(Modality.INFRARED), people(Modality.VISIBLE), "hitsz-vcm", top=30).directions["infrared_to_visible"]
    assert ((outcome.nearest == -1).sum(axis=1) == 7).all(), "24 in the gallery, of whom one is struck out"
    assert not outcome.right[outcome.nearest == -1].any()
    assert (outcome.right.sum(axis=1) == 2).all()


def test_camera_pairs_restrict_both_sides(evaluation: Evaluation) -> None:
    outcome = evaluation.directions["infrared_to_visible"]
    pairs = camera_pairs(outcome, evaluation.protocol)
    assert set(pairs) == {(a, b) for a in range(3) for b in range(3) if a != b}, "the same camera is struck out"
    q, g = outcome.query.take(outcome.query.cameras == 0), outcome.gallery.take(outcome.gallery.cameras == 2)
    matrix = DISTANCES["mean_part"](q.parts, g.parts)
    expected = evaluate_distances(matrix, q.identities, g.identities, q.cameras, g.cameras)
    assert pairs[0, 2].mAP == pytest.approx(expected.mAP) and pairs[0, 2].queries == expected.queries == 8


def test_different_models_are_not_compared() -> None:
    with pytest.raises(DataError, match="embedded by model f, the gallery by other"):
        evaluate(people(Modality.INFRARED), people(Modality.VISIBLE, fingerprint="other"), "hitsz-vcm")


def test_no_rank_below_the_first() -> None:
    sides = (people(modality) for modality in Modality)
    with pytest.raises(DataError, match="max_rank must be at least 1"):
        evaluate(*sides, "hitsz-vcm", max_rank=0)


def test_metrics_file(evaluation: Evaluation, tmp_path: Path) -> None:
    path = tmp_path / "runs" / "metrics.json"
    write_metrics(path, evaluation, dataset="hitsz-vcm", model="dinogrl", frames_per_clip=6, selection="last")
    plain = json.loads(path.read_text())
    assert {"dataset", "protocol", "model", "directions", "frames_per_clip", "versions"} <= set(plain)
    for name, outcome in evaluation.directions.items():
        entry = plain["directions"][name]
        assert {"rank1", "rank5", "rank10", "rank20", "mAP", "mINP", "queries", "gallery"} <= set(entry)
        assert entry["rank1"] == outcome.scores.rank(1) and entry["mAP"] == outcome.scores.mAP
        assert (entry["queries"], entry["gallery"], entry["skipped"], entry["identities"]) == (24, 24, 0, 8)
    assert (plain["protocol"], plain["model"], plain["frames_per_clip"]) == ("hitsz-vcm", "dinogrl", 6)
    assert read_metrics(str(path)).directions["infrared_to_visible"].rank1 == plain["directions"]["infrared_to_visible"]["rank1"]
    assert [p.name for p in path.parent.iterdir()] == ["metrics.json"], "nothing is left beside it"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no metrics.json in"),
        ("{", "not valid JSON"),
        ("{}", "dataset: Field required"),
        ('{"dataset": ' + "9" * 5000 + "}", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"dataset": "a", "protocol": "b", "model": "c", "frames_per_clip": 6, "directions": {"x": {"rank1": 70}}}', "rank1"),
    ],
)
def test_broken_metrics_file_is_one_line(content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        read_metrics(path)
    assert str(path.parent) in str(caught.value) and "metrics.json" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("mapped", [False, True])
def test_embeddings_come_back_from_disk(mapped: bool, tmp_path: Path) -> None:
    saved = people(Modality.INFRARED)
    path = tmp_path / "query.safetensors"
    save_embeddings(path, saved)
    loaded = load_embeddings(path, mapped=mapped)
    assert isinstance(loaded.parts, np.memmap) == mapped
    for name in ("parts", "identities", "cameras", "modalities"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(saved, name))
    assert (loaded.tracklet_ids, loaded.frames, loaded.fingerprint) == (saved.tracklet_ids, saved.frames, saved.fingerprint)
    a, b = (evaluate(e, people(Modality.VISIBLE), PROTOCOLS["hitsz-vcm"]) for e in (saved, loaded))
    assert a.directions["infrared_to_visible"].scores.mAP == b.directions["infrared_to_visible"].scores.mAP


@pytest.mark.parametrize("mapped", [False, True])
def test_a_truncated_archive_is_one_clear_line(mapped: bool, tmp_path: Path) -> None:
    path = tmp_path / "query.safetensors"
    save_embeddings(path, people(Modality.INFRARED))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"query\.safetensors"):
        load_embeddings(path, mapped=mapped)


def test_mapped_vectors_of_another_type_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "query.safetensors"
    save_embeddings(path, people(Modality.INFRARED))
    tensors, facts = checkpoints.load(path, "embeddings")
    checkpoints.save(path, {**tensors, "parts": tensors["parts"].bfloat16()}, "embeddings", facts)
    with pytest.raises(CheckpointError, match="are BF16, expected F32"):
        load_embeddings(path, mapped=True)


@pytest.mark.parametrize("mapped", [False, True])
def test_an_archive_without_vectors_is_one_clear_line(mapped: bool, tmp_path: Path) -> None:
    path = tmp_path / "query.safetensors"
    save_embeddings(path, people(Modality.INFRARED))
    tensors, facts = checkpoints.load(path, "embeddings", leave=("parts",))
    assert "parts" not in tensors
    checkpoints.save(path, tensors, "embeddings", facts)
    with pytest.raises(CheckpointError, match=r"parts|part vectors"):
        load_embeddings(path, mapped=mapped)
