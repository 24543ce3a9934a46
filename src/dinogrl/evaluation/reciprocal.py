"""k-reciprocal re-ranking: two tracklets are near when they are neighbours of the same tracklets.

Of the distances among all N + M tracklets a strip of rows is held at a time, of each row what is near: beside the result, 4 N M
bytes, memory grows with N + M alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dinogrl import runtime
from dinogrl.distances import Distance
from dinogrl.errors import DataError

STRIP = 256  # rows of distances made at once

NeighbourSet = tuple[np.ndarray, np.ndarray]  # indices, ascending, and their weights, which sum to 1


def k_reciprocal(
    query: np.ndarray, gallery: np.ndarray, distance: Distance, k1: int = 20, k2: int = 6, original: float = 0.3
) -> np.ndarray:
    """(N,P,D) x (M,P,D) -> re-ranked distances (N,M) float32 (Zhong et al., CVPR 2017).

    Distances are divided by the largest of their row before they become weights exp(-d), as in the code of BUPTCampus.
    Raises :class:`DataError` for k below 1 or a share outside 0..1.
    """
    if k1 < 1 or k2 < 1 or not 0 <= original <= 1:
        raise DataError(
            f"re-ranking needs k1, k2 >= 1 and a share of the original in 0..1, given k1={k1}, k2={k2}, share {original}"
        )
    n, everyone = len(query), np.concatenate([query, gallery])
    survey = _survey(everyone, n, distance, max(k1 + 1, k2))
    sets = _weigh(_grown(survey.order, k1), everyone, survey.largest, distance)
    if k2 > 1:
        sets = [_average([sets[j] for j in survey.order[i, :k2]]) for i in range(len(everyone))]
    result = survey.crossing
    result *= original
    _add_jaccard(result, sets, 1 - original)
    return result


@dataclass
class _Survey:
    """What is kept of the distances among T = N + M tracklets: of each row the largest (T,) and the columns of the nearest (T,k),
    nearest first, equal ones in order of index; and the distances from query to gallery (N,M) as shares of their row's largest."""

    largest: np.ndarray
    order: np.ndarray
    crossing: np.ndarray


def _survey(everyone: np.ndarray, queries: int, distance: Distance, k: int) -> _Survey:
    total = len(everyone)
    k = min(k, total)
    found = _Survey(np.empty(total, np.float32), np.empty((total, k), np.int64), np.empty((queries, total - queries), np.float32))
    for start in range(0, total, STRIP):
        strip = np.asarray(distance(everyone[start : start + STRIP], everyone))
        rows = slice(start, start + len(strip))
        found.largest[rows] = np.maximum(strip.max(axis=1), np.finfo(np.float32).tiny)
        bounds = np.partition(strip, k - 1, axis=1)[:, k - 1]
        for i, (row, bound) in enumerate(zip(strip, bounds, strict=True), start):
            near = np.flatnonzero(row <= bound)
            found.order[i] = near[np.argsort(row[near], kind="stable")][:k]
        mine = strip[: max(0, queries - start), queries:]
        found.crossing[start : start + len(mine)] = mine / found.largest[rows][: len(mine), None]
    return found


def _reciprocal(order: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each row its k nearest and itself, and which of them have it among theirs."""
    forward = order[:, : k + 1]
    mutual = np.zeros(forward.shape, dtype=bool)
    for place in range(forward.shape[1]):
        mutual |= forward[forward, place] == np.arange(len(order))[:, None]
    return forward, mutual


def _grown(order: np.ndarray, k1: int) -> list[np.ndarray]:
    """The k-reciprocal neighbours of each row, grown by those neighbours' own (of half k1) that overlap by more than two thirds."""
    near, is_near = _reciprocal(order, k1)
    close, is_close = _reciprocal(order, round(k1 / 2))
    marked = np.zeros(len(order), dtype=bool)
    sets = []
    for i in range(len(order)):
        mine = near[i, is_near[i]]
        marked[mine] = True
        theirs, valid = close[mine], is_close[mine]
        overlapping = (marked[theirs] & valid).sum(axis=1) > 2 / 3 * valid.sum(axis=1)
        sets.append(np.unique(np.concatenate([mine, theirs[valid & overlapping[:, None]]])))
        marked[mine] = False
    return sets


def _weigh(sets: Sequence[np.ndarray], everyone: np.ndarray, largest: np.ndarray, distance: Distance) -> list[NeighbourSet]:
    """Weights exp(-d) of each row's neighbours, d being the share of the row's largest distance."""
    weights: list[np.ndarray] = [np.empty(0)] * len(sets)

    def weigh(i: int) -> None:
        made = np.exp(-np.asarray(distance(everyone[i : i + 1], everyone[sets[i]]))[0] / largest[i])
        weights[i] = made / made.sum()

    runtime.side_by_side(weigh, range(len(sets)))
    return list(zip(sets, weights, strict=True))


def _average(sets: Sequence[NeighbourSet]) -> NeighbourSet:
    index, place = np.unique(np.concatenate([s[0] for s in sets]), return_inverse=True)
    return index, np.bincount(place, np.concatenate([s[1] for s in sets])) / len(sets)


def _add_jaccard(result: np.ndarray, sets: Sequence[NeighbourSet], share: float) -> None:
    """Add ``share`` of one minus the overlap of weights to (N,M).

    Made by an index from each neighbour to the gallery items that have it.
    """
    queries, gallery = result.shape
    owner = np.repeat(np.arange(gallery), [len(s[0]) for s in sets[queries:]])
    column, weight = (np.concatenate(values) for values in zip(*sets[queries:], strict=True))
    by_column = np.argsort(column, kind="stable")
    bounds = np.searchsorted(column[by_column], np.arange(len(sets) + 1))
    owner, weight = owner[by_column], weight[by_column]
    for i in range(queries):
        index, mine = sets[i]
        lengths = bounds[index + 1] - bounds[index]
        entries = np.repeat(bounds[index] - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
        overlap = np.bincount(owner[entries], np.minimum(weight[entries], np.repeat(mine, lengths)), gallery)
        result[i] += share * (1 - overlap / (2 - overlap))  # both weights sum to 1, so the union is 2 minus the overlap
