"""Held-out training identities: the only people on whom a model may be chosen. The test set never is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dinogrl import runtime
from dinogrl.distances import DISTANCES
from dinogrl.errors import DataError
from dinogrl.evaluation import evaluate_distances
from dinogrl.records import Embeddings, Modality, Tracklet


@dataclass(frozen=True)
class Split:
    """Training tracklets parted by identity. ``pairs`` are positions in ``fit``."""

    fit: list[Tracklet]
    held: list[Tracklet]
    pairs: list[tuple[int, int]]


def split_identities(tracklets: Sequence[Tracklet], pairs: Sequence[tuple[int, int]], share: float, seed: int) -> Split:
    """Hold out ``share`` of the identities (two at least; none where ``share`` is 0), drawn from ``seed`` alone.

    Raises :class:`DataError` where fewer than two would be left to learn from.
    """
    identities = sorted({tracklet.identity for tracklet in tracklets})
    if len(identities) < 2:
        raise DataError(f"the training part has {len(identities)} identity; telling people apart is learned from two or more")
    count = 0 if share == 0 else max(2, round(share * len(identities)))
    if count > len(identities) - 2:
        raise DataError(
            f"cannot hold out {count} of {len(identities)} training identities, two must be left to learn from; "
            "give more people, or set training.selection=last"
        )
    order = np.random.default_rng(runtime.derived_seed(seed, "holdout")).permutation(identities)
    held = set(order[:count].tolist())
    kept = [row for row, tracklet in enumerate(tracklets) if tracklet.identity not in held]
    place = {row: position for position, row in enumerate(kept)}
    return Split(
        fit=[tracklets[row] for row in kept],
        held=[tracklet for tracklet in tracklets if tracklet.identity in held],
        pairs=[(place[a], place[b]) for a, b in pairs if a in place],
    )


def holdout_score(embeddings: Embeddings, distance: str) -> dict[str, float]:
    """Rank-1 and mAP in both directions between held-out infrared and visible tracklets, and ``score``, the mean of the four."""
    infrared = embeddings.take(embeddings.modalities == Modality.INFRARED)
    visible = embeddings.take(embeddings.modalities == Modality.VISIBLE)
    if not len(infrared) or not len(visible):
        raise DataError("the held-out identities lack one modality; raise training.holdout or set training.selection=last")
    rates: dict[str, float] = {}
    for name, query, gallery in (("infrared_to_visible", infrared, visible), ("visible_to_infrared", visible, infrared)):
        distances = DISTANCES[distance](query.parts, gallery.parts)
        scores = evaluate_distances(distances, query.identities, gallery.identities, query.cameras, gallery.cameras)
        rates |= {f"{name}_rank1": scores.rank(1), f"{name}_mAP": scores.mAP}
    return {**rates, "score": sum(rates.values()) / len(rates)}
