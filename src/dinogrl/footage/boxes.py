"""Boxes of persons in one picture, and the few things that are asked of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Boxes:
    """``boxes`` (N,4): left, top, width, height in pixels; ``scores`` (N,) in 0..1."""

    boxes: Floats
    scores: Floats

    def __post_init__(self) -> None:
        assert self.boxes.shape == (len(self.scores), 4), f"boxes must be (N,4) beside (N,) scores, got {self.boxes.shape}"

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def none(cls) -> Boxes:
        """Nobody."""
        return cls(np.zeros((0, 4)), np.zeros(0))


def overlap(box: Floats, others: Floats) -> Floats:
    """Intersection over union of one box (4,) with others (N,4) -> (N,)."""
    shared = _shared(box, others)
    return np.asarray(shared / np.maximum(box[2] * box[3] + others[:, 2] * others[:, 3] - shared, 1e-9))


def nesting(box: Floats, others: Floats) -> Floats:
    """Intersection of one box (4,) with others (N,4), over the smaller of the two -> (N,): 1 where one holds the other."""
    return np.asarray(_shared(box, others) / np.maximum(np.minimum(box[2] * box[3], others[:, 2] * others[:, 3]), 1e-9))


def _shared(box: Floats, others: Floats) -> Floats:
    corner = np.maximum(box[:2], others[:, :2])
    opposite = np.minimum(box[:2] + box[2:], others[:, :2] + others[:, 2:])
    return np.asarray(np.prod(np.maximum(opposite - corner, 0), axis=1))


def merged(found: Boxes, threshold: float) -> Boxes:
    """One box for each cluster of boxes that overlap by more than ``threshold``: their mean, weighted by score.

    The best box leads its cluster, as in non-maximum suppression, and its score counts; the mean of the cluster stands stiller from
    picture to picture than its best box does.
    """
    order = np.lexsort((*found.boxes.T, -found.scores))
    boxes, scores = found.boxes[order], found.scores[order]
    left = np.ones(len(boxes), bool)
    clusters, best = [], []
    for leader in range(len(boxes)):
        if not left[leader]:
            continue
        members = left & (overlap(boxes[leader], boxes) > threshold)
        members[leader] = True
        clusters.append(np.average(boxes[members], axis=0, weights=scores[members]))
        best.append(scores[leader])
        left &= ~members
    return Boxes(np.array(clusters).reshape(-1, 4), np.array(best))


def alone(found: Boxes, threshold: float = 0.7) -> Boxes:
    """Without boxes that hold a better one, or lie in one: a person's legs, or a street with a person in it."""
    kept: list[int] = []
    for index in np.lexsort((*found.boxes.T, -found.scores)):
        if not np.any(nesting(found.boxes[index], found.boxes[kept]) > threshold):
            kept.append(int(index))
    return Boxes(found.boxes[kept], found.scores[kept])
