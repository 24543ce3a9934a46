"""Re-ranking: a gallery item is near when it and the query have the same neighbours. Always an option that the result names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from dinogrl.catalog import Catalog
from dinogrl.distances import Distance
from dinogrl.errors import DataError
from dinogrl.evaluation.reciprocal import k_reciprocal
from dinogrl.records import Embeddings


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
        q_first, q_second, g_first, g_second = (
            _rows_of(half, side.tracklet_ids).parts for side in (query, gallery) for half in (self.first, self.second)
        )
        total = np.array(distance(query.parts, gallery.parts), dtype=np.float32)
        total *= self.plain
        for q, g, share in (
            (query.parts, gallery.parts, 1 - self.plain),
            (q_first, g_second, self.halves),
            (q_second, g_first, self.halves),
        ):
            reranked = k_reciprocal(q, g, distance, self.k1, self.k2, self.original)
            reranked *= share
            total += reranked
        return total


Halves = Callable[[], tuple[Embeddings, Embeddings]]

NAMED: Catalog[Callable[[dict[str, Any], Halves], Reranker]] = Catalog(
    "re-ranking of a result",
    {
        "k_reciprocal": lambda numbers, halves: KReciprocal(**numbers),
        "temporal_k_reciprocal": lambda numbers, halves: TemporalKReciprocal(*halves(), **numbers),
    },
)


def named_reranker(options: Mapping[str, str | int | float | bool], halves: Halves) -> Reranker | None:
    """The re-ranking that a result's options name, made anew, or None where they name none.

    ``halves`` gives the embeddings of the tracklets' first and second halves, and is asked only where they are needed. Raises
    :class:`DataError` for numbers that the re-ranking does not know, :class:`UnknownNameError` for an unknown one.
    """
    if "rerank" not in options:
        return None
    numbers = {name.removeprefix("rerank_"): value for name, value in options.items() if name.startswith("rerank_")}
    for name, value in numbers.items():
        if not isinstance(value, int if name in {"k1", "k2"} else int | float):
            raise DataError(f"the option rerank_{name} is {value!r}, expected a number, k1 and k2 whole ones; evaluate again")
    try:
        return NAMED[str(options["rerank"])](numbers, halves)
    except TypeError as error:
        raise DataError(f"the options of the re-ranking {options['rerank']!r} cannot be read ({error}); evaluate again") from error


def _rows_of(half: Embeddings, tracklets: Sequence[str]) -> Embeddings:
    place = {name: i for i, name in enumerate(half.tracklet_ids)}
    missing = [name for name in tracklets if name not in place]
    if missing:
        raise DataError(f"temporal re-ranking has no half of {len(missing)} tracklets, the first {missing[0]!r}; embed both halves")
    return half.take(np.array([place[name] for name in tracklets]))
