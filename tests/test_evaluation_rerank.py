"""Re-ranking against a literal version that writes every set and every matrix out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dinogrl.distances import Array, mean_part_distance
from dinogrl.errors import DataError, UnknownNameError
from dinogrl.evaluation import evaluate, read_metrics, reciprocal, write_metrics
from dinogrl.evaluation.reciprocal import k_reciprocal
from dinogrl.evaluation.rerank import KReciprocal, TemporalKReciprocal, named_reranker
from dinogrl.records import Embeddings, Modality


def literal(query: np.ndarray, gallery: np.ndarray, k1: int, k2: int, original: float) -> np.ndarray:
    everyone = np.concatenate([query, gallery]).astype(np.float64)
    n, total = len(query), len(query) + len(gallery)
    distances = np.array([[np.linalg.norm(a - b, axis=1).mean() for b in everyone] for a in everyone])
    distances /= distances.max(axis=1, keepdims=True)
    order = np.argsort(distances, axis=1, kind="stable")

    def mutual(i: int, k: int) -> set[int]:
        return {int(j) for j in order[i, : k + 1] if i in order[j, : k + 1]}

    encoding = np.zeros((total, total))
    for i in range(total):
        grown = set(mutual(i, k1))
        for j in mutual(i, k1):
            half = mutual(j, int(np.around(k1 / 2)))
            if len(half & mutual(i, k1)) > 2 / 3 * len(half):
                grown |= half
        index = sorted(grown)
        encoding[i, index] = np.exp(-distances[i, index])
        encoding[i] /= encoding[i].sum()
    encoding = np.array([encoding[order[i, :k2]].mean(axis=0) for i in range(total)])
    jaccard = np.array([[1 - np.minimum(a, b).sum() / np.maximum(a, b).sum() for b in encoding[n:]] for a in encoding[:n]])
    return original * distances[:n, n:] + (1 - original) * jaccard


@settings(max_examples=40)
@given(
    st.integers(1, 9), st.integers(1, 12), st.integers(1, 25), st.integers(1, 6), st.sampled_from([0, 0.3, 1]), st.integers(0, 999)
)
def test_agrees_with_the_literal_version(n: int, m: int, k1: int, k2: int, original: float, seed: int) -> None:
    """Rows are made four at a time, so that strips hold queries, gallery items, or both."""
    random = np.random.default_rng(seed)
    query, gallery = (random.standard_normal((size, 2, 3)).astype(np.float32) for size in (n, m))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reciprocal, "STRIP", 4)
        measured = k_reciprocal(query, gallery, mean_part_distance, k1, k2, original)
    assert measured.dtype == np.float32 and measured.shape == (n, m)
    np.testing.assert_allclose(measured, literal(query, gallery, k1, k2, original), atol=1e-5)


def test_memory_does_not_grow_with_the_square_of_all_tracklets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the distances among 30 queries and 300 gallery items no more than a strip is asked for at once."""
    random = np.random.default_rng(0)
    query, gallery = (random.standard_normal((size, 2, 3)).astype(np.float32) for size in (30, 300))
    largest = 0

    def watched(a: Array, b: Array) -> Array:
        nonlocal largest
        largest = max(largest, len(a) * len(b))
        return mean_part_distance(a, b)

    monkeypatch.setattr(reciprocal, "STRIP", 20)
    found = k_reciprocal(query, gallery, watched)
    assert largest == 20 * 330
    monkeypatch.undo()
    np.testing.assert_allclose(k_reciprocal(query, gallery, mean_part_distance), found, atol=1e-6)


def people(modality: Modality, seed: int, noise: float = 1.3) -> Embeddings:
    own = np.random.default_rng(5).standard_normal((20, 2, 6))
    ids, cameras = np.repeat(np.arange(20), 4), np.tile(np.arange(4), 20)
    parts = own[ids] + noise * np.random.default_rng([seed, int(modality)]).standard_normal((80, 2, 6))
    names = [f"{modality.name}{i}" for i in range(80)]
    return Embeddings(parts.astype(np.float32), names, ids, cameras, np.full(80, int(modality)), "f")


def both(seed: int) -> Embeddings:
    sides = [people(modality, seed) for modality in Modality]
    return Embeddings(
        np.concatenate([s.parts for s in sides]),
        sides[0].tracklet_ids + sides[1].tracklet_ids,
        *(np.concatenate([getattr(s, name) for s in sides]) for name in ("identities", "cameras", "modalities")),
        "f",
    )


def test_it_helps_where_people_cluster_and_the_result_names_it(tmp_path: Path) -> None:
    query, gallery = people(Modality.INFRARED, 0), people(Modality.VISIBLE, 0)
    plain = evaluate(query, gallery, "hitsz-vcm")
    for rerank in (KReciprocal(k1=8, k2=3), TemporalKReciprocal(both(1), both(2))):
        better = evaluate(query, gallery, "hitsz-vcm", rerank=rerank)
        for name in plain.directions:
            assert better.directions[name].scores.mAP > plain.directions[name].scores.mAP
        path = tmp_path / "metrics.json"
        write_metrics(path, better, dataset="d", model="m", frames_per_clip=6, options={"flip": True})
        stored = read_metrics(path).options
        assert stored["rerank"] == rerank.options["rerank"] and stored["rerank_k1"] == rerank.k1 and stored["flip"] is True
    assert plain.options == {}


def test_a_reranking_is_made_anew_from_its_options() -> None:
    first, second = both(1), both(2)

    def nobody_asks() -> tuple[Embeddings, Embeddings]:
        raise AssertionError("halves are needed for temporal re-ranking alone")

    assert named_reranker({"flip": True}, nobody_asks) is None
    assert named_reranker(KReciprocal(k1=8, k2=3).options, nobody_asks) == KReciprocal(k1=8, k2=3)
    again = named_reranker(TemporalKReciprocal(first, second, k1=4, halves=0.2).options, lambda: (first, second))
    assert isinstance(again, TemporalKReciprocal) and (again.k1, again.halves) == (4, 0.2) and again.first is first
    with pytest.raises(DataError, match="evaluate again"):
        named_reranker({"rerank": "k_reciprocal", "rerank_speed": 3}, nobody_asks)
    with pytest.raises(UnknownNameError, match="k_reciprocal"):
        named_reranker({"rerank": "k_reciprocl"}, nobody_asks)
    for value in ("x", 1.5):
        with pytest.raises(DataError, match="the option rerank_k1 is"):
            named_reranker({"rerank": "k_reciprocal", "rerank_k1": value}, nobody_asks)


def test_defaults_are_those_of_the_paper_and_of_buptcampus() -> None:
    rerank = TemporalKReciprocal(both(1), both(2))
    assert (rerank.k1, rerank.k2, rerank.original, rerank.plain, rerank.halves) == (5, 3, 0.0, 0.8, 0.1)
    assert KReciprocal() == KReciprocal(k1=20, k2=6, original=0.3)


def test_temporal_is_the_weighed_sum() -> None:
    query, gallery = people(Modality.INFRARED, 0), people(Modality.VISIBLE, 0)
    first, second = both(1), both(2)
    rerank = TemporalKReciprocal(first, second, k1=4, k2=2)
    shuffled = TemporalKReciprocal(first.take(np.random.default_rng(0).permutation(160)), second, k1=4, k2=2)

    def again(q: np.ndarray, g: np.ndarray) -> np.ndarray:
        return k_reciprocal(q, g, mean_part_distance, 4, 2, 0.0)

    f, s = first.parts, second.parts  # visible rows first
    expected = 0.8 * mean_part_distance(query.parts, gallery.parts) + 0.2 * again(query.parts, gallery.parts)
    expected = expected + 0.1 * (again(f[80:], s[:80]) + again(s[80:], f[:80]))
    np.testing.assert_allclose(rerank(query, gallery, mean_part_distance), expected, atol=1e-5)
    np.testing.assert_allclose(shuffled(query, gallery, mean_part_distance), expected, atol=1e-5)


def test_bad_settings_are_one_clear_line() -> None:
    parts = np.zeros((2, 1, 2), np.float32)
    with pytest.raises(DataError, match="k1=0"):
        k_reciprocal(parts, parts, mean_part_distance, k1=0)
    query, gallery = people(Modality.INFRARED, 0), people(Modality.VISIBLE, 0)
    with pytest.raises(DataError, match="no half of 80 tracklets"):
        TemporalKReciprocal(gallery, gallery)(query, gallery, mean_part_distance)
