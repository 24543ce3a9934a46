"""Batch-all triplet loss, part by part (paper, equation 3)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from dinogrl.catalog import Catalog


def squared(vectors: Tensor) -> Tensor:
    """(P,N,D) -> (P,N,N) squared Euclidean distances, never below 0."""
    norms = vectors.square().sum(-1)
    return F.relu(norms[:, :, None] + norms[:, None, :] - 2 * vectors @ vectors.transpose(1, 2))


def euclidean(vectors: Tensor) -> Tensor:
    """(P,N,D) -> (P,N,N) Euclidean distances. The gradient at distance 0 is 0 (the ReLU masks the root's infinite slope)."""
    return squared(vectors).sqrt()


PAIR_DISTANCES: Catalog[Callable[[Tensor], Tensor]] = Catalog("triplet distance", {"euclidean": euclidean, "squared": squared})


def triplet_loss_of_parts(
    parts: Tensor, identity: Tensor, *, margin: float = 0.2, distance: Callable[[Tensor], Tensor] = euclidean
) -> Tensor:
    """One loss a part, (P,), from ``parts`` (B,P,D) and ``identity`` (B,).

    All triplets of an anchor, a clip of the same identity (the anchor itself too, at distance 0, as in the published code) and
    one of another identity; the hinge ``relu(d_ap - d_an + margin)`` is averaged over the triplets where it is not 0. A part
    without such triplets gives 0. Any number of clips an identity may stand in the batch. Visible and infrared clips of an identity
    are positives of each other: this is what pulls the modalities together.
    """
    with torch.autocast(parts.device.type, enabled=False):  # differences of large norms: float32 at least
        vectors = parts.transpose(0, 1)
        vectors = vectors.float() if vectors.dtype in (torch.bfloat16, torch.float16) else vectors
        apart = distance(vectors)  # (P,B,B)
        same = identity[:, None] == identity[None, :]
        valid = same[:, :, None] & ~same[:, None, :]  # (B,B,B) anchor, positive, negative
        hinge = F.relu(apart[:, :, :, None] - apart[:, :, None, :] + margin) * valid
        active = (hinge > 0).sum(dim=(1, 2, 3))
        return hinge.sum(dim=(1, 2, 3)) / (active + 1e-9)


def triplet_loss(
    parts: Tensor, identity: Tensor, *, margin: float = 0.2, distance: Callable[[Tensor], Tensor] = euclidean
) -> Tensor:
    """Mean over the parts of :func:`triplet_loss_of_parts`."""
    return triplet_loss_of_parts(parts, identity, margin=margin, distance=distance).mean()
