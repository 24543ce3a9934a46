"""Re-ranking: a gallery item is near when it and the query have the same neighbours. Always an option that the result names.

Both ways hold the distances among all N + M tracklets, 4 (N + M)^2 bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dinogrl.distances import Distance
from dinogrl.errors import DataError
from dinogrl.records import Embeddings

STRIP = 256  # rows of distances made at once


class Reranker(Protocol):
    """Query and gallery of one direction -> distances (N,M), smaller is nearer; ``options`` say what was done, for the result."""

    @property
    def options(self) -> dict[str, str | int | float | bool]: ...

    def __call__(self, query: Embeddings, gallery: Embeddings, distance: Distance) -> np.ndarray: ...


@dataclass(frozen=True)
class KReciprocal:
    """k-reciprocal encoding (Zhong et al., CVPR 2017): Jaccard distance of sets of neighbours, and a share of the old distance.

    ``k1`` neighbours make a set, ``k2`` neighbours' sets are averaged, ``original`` is the share of the distance before.
    """

    k1: int = 20
    k2: int = 6
    original: float = 0.3

    @property
    def options(self) -> dict[str, str | int | float | bool]:
        return {"rerank": "k_reciprocal", "rerank_k1": self.k1, "rerank_k2": self.k2, "rerank_original": self.original}

    def __call__(self, query: Embeddings, gallery: Embeddings, distance: Distance) -> np.ndarray:
        return k_reciprocal(query.parts, gallery.parts, distance, self.k1, self.k2, self.original)


def named_reranker(options: Mapping[str, str | int | float | bool]) -> KReciprocal | None:
    """The re-ranking that a result's options name, where it needs nothing but the embeddings; else None."""
    if options.get("rerank") != "k_reciprocal":
        return None
    return KReciprocal(int(options["rerank_k1"]), int(options["rerank_k2"]), float(options["rerank_original"]))


@dataclass(frozen=True)
class TemporalKReciprocal:
    """Temporal k-reciprocal re-ranking of BUPTCampus: the distance, its re-ranking, and the re-ranking of one half of the query's
    tracklet against the other half of the gallery's, weighed and added. Defaults are those of the dataset's own code.

    ``first`` and ``second``: embeddings of the two halves of every tracklet, found by tracklet id.
    """

    first: Embeddings
    second: Embeddings
    k1: int = 5
    k2: int = 3
    original: float = 0.0
    plain: float = 0.8
    halves: float = 0.1

    @property
    def options(self) -> dict[str, str | int | float | bool]:
        numbers = {f"rerank_{name}": getattr(self, name) for name in ("k1", "k2", "original", "plain", "halves")}
        return {"rerank": "temporal_k_reciprocal", **numbers}

    def __call__(self, query: Embeddings, gallery: Embeddings, distance: Distance) -> np.ndarray:
        def reranked(q: np.ndarray, g: np.ndarray) -> np.ndarray:
            return k_reciprocal(q, g, distance, self.k1, self.k2, self.original)

        q_first, q_second, g_first, g_second = (
            _rows_of(half, side.tracklet_ids).parts for side in (query, gallery) for half in (self.first, self.second)
        )
        whole = self.plain * np.asarray(distance(query.parts, gallery.parts))
        whole += (1 - self.plain) * reranked(query.parts, gallery.parts)
        return np.asarray(whole + self.halves * (reranked(q_first, g_second) + reranked(q_second, g_first)), dtype=np.float32)


def k_reciprocal(
    query: np.ndarray, gallery: np.ndarray, distance: Distance, k1: int = 20, k2: int = 6, original: float = 0.3
) -> np.ndarray:
    """(N,P,D) x (M,P,D) -> re-ranked distances (N,M) float32.

    Distances are divided by the largest of their row before they become weights exp(-d), as in the code of BUPTCampus.
    Raises :class:`DataError` for k below 1 or a share outside 0..1.
    """
    if k1 < 1 or k2 < 1 or not 0 <= original <= 1:
        raise DataError(
            f"re-ranking needs k1, k2 >= 1 and a share of the original in 0..1, given k1={k1}, k2={k2}, share {original}"
        )
    n, everyone = len(query), np.concatenate([query, gallery])
    distances = _all_distances(everyone, distance)
    order = _nearest(distances, max(k1 + 1, k2))
    sets = _encode(distances, order, k1)
    if k2 > 1:
        sets = [_average([sets[j] for j in order[i, :k2]]) for i in range(len(everyone))]
    return np.asarray(original * distances[:n, n:] + (1 - original) * _jaccard(sets, n), dtype=np.float32)


NeighbourSet = tuple[np.ndarray, np.ndarray]  # indices, ascending, and their weights, which sum to 1


def _all_distances(everyone: np.ndarray, distance: Distance) -> np.ndarray:
    """(N+M,N+M), each row divided by its largest entry."""
    distances = np.empty((len(everyone), len(everyone)), dtype=np.float32)
    for start in range(0, len(everyone), STRIP):
        distances[start : start + STRIP] = distance(everyone[start : start + STRIP], everyone)
    distances /= np.maximum(distances.max(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return distances


def _nearest(distances: np.ndarray, k: int) -> np.ndarray:
    """(n,k) nearest of each row, equal ones in order of index."""
    k = min(k, distances.shape[1])
    nearest = np.empty((len(distances), k), dtype=np.int64)
    for i, row in enumerate(distances):
        near = np.flatnonzero(row <= np.partition(row, k - 1)[k - 1])
        nearest[i] = near[np.argsort(row[near], kind="stable")][:k]
    return nearest


def _reciprocal(order: np.ndarray, k: int) -> list[np.ndarray]:
    """For each row those among its k nearest (and itself) that have it among theirs."""
    forward = order[:, : k + 1]
    mutual = (order[forward][:, :, : k + 1] == np.arange(len(order))[:, None, None]).any(axis=2)
    return [row[kept] for row, kept in zip(forward, mutual, strict=True)]


def _encode(distances: np.ndarray, order: np.ndarray, k1: int) -> list[NeighbourSet]:
    """The k-reciprocal neighbours of each row, grown by the sets of neighbours that overlap by more than two thirds."""
    near, close = _reciprocal(order, k1), _reciprocal(order, round(k1 / 2))
    sets = []
    for i, mine in enumerate(near):
        grown = [mine]
        for candidate in mine:
            theirs = close[candidate]
            if np.isin(theirs, mine, assume_unique=True).sum() > 2 / 3 * len(theirs):
                grown.append(theirs)
        index = np.unique(np.concatenate(grown))
        weights = np.exp(-distances[i, index])
        sets.append((index, weights / weights.sum()))
    return sets


def _average(sets: Sequence[NeighbourSet]) -> NeighbourSet:
    index, place = np.unique(np.concatenate([s[0] for s in sets]), return_inverse=True)
    return index, np.bincount(place, np.concatenate([s[1] for s in sets])) / len(sets)


def _jaccard(sets: Sequence[NeighbourSet], queries: int) -> np.ndarray:
    """(N,M) one minus the overlap of weights, by an index from each neighbour to the gallery items that have it."""
    owner = np.repeat(np.arange(len(sets)), [len(s[0]) for s in sets])
    column, weight = np.concatenate([s[0] for s in sets]), np.concatenate([s[1] for s in sets])
    by_column = np.argsort(column, kind="stable")
    by_column = by_column[owner[by_column] >= queries]
    bounds = np.searchsorted(column[by_column], np.arange(len(sets) + 1))
    owner, weight = owner[by_column] - queries, weight[by_column]
    distances = np.ones((queries, len(sets) - queries), dtype=np.float32)
    for i in range(queries):
        index, mine = sets[i]
        lengths = bounds[index + 1] - bounds[index]
        entries = np.repeat(bounds[index] - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
        overlap = np.bincount(owner[entries], np.minimum(weight[entries], np.repeat(mine, lengths)), distances.shape[1])
        distances[i] = 1 - overlap / (2 - overlap)  # both weights sum to 1, so the union is 2 minus the overlap
    return distances


def _rows_of(half: Embeddings, tracklets: Sequence[str]) -> Embeddings:
    place = {name: i for i, name in enumerate(half.tracklet_ids)}
    missing = [name for name in tracklets if name not in place]
    if missing:
        raise DataError(f"temporal re-ranking has no half of {len(missing)} tracklets, the first {missing[0]!r}; embed both halves")
    return half.take(np.array([place[name] for name in tracklets]))
