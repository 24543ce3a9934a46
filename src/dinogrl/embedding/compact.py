"""A compact vector for an index: one short vector a tracklet, whose Euclidean distances rank as the part distances do.

The P part vectors (P,D) are laid end to end, each scaled by one number, and projected to d numbers. The mean part distance sums
norms where the Euclidean distance sums squares; near a typical distance s a norm is x/(2s) + s/2 of its square x, so a part whose
distances are typically s counts by 1/sqrt(s). The first directions are the principal components of the training embeddings. What
lies outside of these is sketched by random directions, which keep its length on average: a training set of few tracklets would
otherwise say nothing about people who differ from each other in new ways.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dinogrl.errors import DataError

WIDTH = 256
"""Numbers in a compact vector, unless told."""
SUPPORT = 4
"""Training tracklets for each principal component that is believed."""
_PAIRS = 2000


@dataclass(frozen=True)
class Projection:
    """(N,P,D) part embeddings -> (N,d) compact vectors.

    ``matrix`` (P*D,d) float32 holds the scale of the parts; ``mean`` (P*D,) float32 is taken off first. ``unit``: the parts, laid
    end to end, are brought to length one before, as the cosine distance does.
    """

    mean: NDArray[np.float32]
    matrix: NDArray[np.float32]
    parts: int
    unit: bool = False

    @property
    def width(self) -> int:
        """d."""
        return int(self.matrix.shape[1])

    @property
    def shape(self) -> tuple[int, int]:
        """(P,D) of the embeddings that it takes."""
        return self.parts, len(self.mean) // self.parts

    def __call__(self, parts: NDArray[np.floating]) -> NDArray[np.float32]:
        """(N,P,D) -> (N,d) float32. Raises :class:`DataError` for embeddings of another shape."""
        if parts.ndim != 3 or parts.shape[1:] != self.shape:
            expected = "x".join(str(size) for size in self.shape)
            raise DataError(
                f"a part embedding must be (N,P,D) with {expected} a row, given {parts.shape}; embed with the same model"
            )
        rows = _laid_out(np.asarray(parts, np.float32), self.unit)
        return np.asarray((rows - self.mean) @ self.matrix, np.float32)


def learn_projection(parts: NDArray[np.floating], width: int = WIDTH, *, seed: int = 0, unit: bool = False) -> Projection:
    """Learn a projection to at most ``width`` numbers from embeddings (N,P,D) of training tracklets.

    From one tracklet nothing can be learned: all directions are then random. Raises :class:`DataError` for none.
    """
    count, pieces, depth = parts.shape
    if not count:
        raise DataError("a projection cannot be learned from no tracklet; give one at least, better some hundreds")
    rows = _laid_out(np.asarray(parts, np.float32), unit)
    mean = rows.mean(0)
    scale = np.ones(len(mean), np.float32) if unit else np.repeat(_part_scales(rows.reshape(count, pieces, depth), seed), depth)
    centred = torch.from_numpy((rows - mean) * scale)
    width = min(width, len(mean))
    generator = torch.Generator().manual_seed(seed)
    principal = _principal_directions(centred, min(width, count // SUPPORT), generator)
    directions = _with_sketch(principal, width, generator)
    return Projection(mean, scale[:, None] * directions.numpy(), pieces, unit)


def _laid_out(parts: NDArray[np.float32], unit: bool) -> NDArray[np.float32]:
    rows = parts.reshape(len(parts), parts.shape[1] * parts.shape[2])
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12) if unit else rows


def _part_scales(parts: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """(P,) one over the root of each part's typical distance, the largest part's scale being 1 (a dead part's 0)."""
    first, second = np.random.default_rng(seed).integers(0, len(parts), (2, _PAIRS))
    pairs = first != second
    if not pairs.any():
        return np.ones(parts.shape[1], np.float32)
    typical = np.linalg.norm(parts[first[pairs]] - parts[second[pairs]], axis=2).mean(0)
    if typical.max() <= 0:
        return np.ones(parts.shape[1], np.float32)
    alive = typical > 1e-6 * typical.max()
    scales = np.where(alive, 1 / np.sqrt(np.where(alive, typical, 1)), 0)
    return (scales / scales.max()).astype(np.float32)


def _principal_directions(centred: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """(N,F) -> (F,count) orthonormal, by a randomised range finder: two power steps, a few columns to spare."""
    if not count:
        return centred.new_empty(centred.shape[1], 0)
    spare = min(count + 16, *centred.shape)
    basis = torch.linalg.qr(centred @ torch.randn(centred.shape[1], spare, generator=generator)).Q
    for _ in range(2):
        basis = torch.linalg.qr(centred @ torch.linalg.qr(centred.T @ basis).Q).Q
    return torch.linalg.svd(basis.T @ centred, full_matrices=False).Vh[:count].T.contiguous()


def _with_sketch(principal: torch.Tensor, width: int, generator: torch.Generator) -> torch.Tensor:
    """(F,r) -> (F,width): beside the principal directions, random ones of what is left, scaled to keep its squared length."""
    features, count = principal.shape
    sketched = width - count
    if sketched == 0:
        return principal
    random = torch.randn(features, sketched, generator=generator)
    random -= principal @ (principal.T @ random)
    random = torch.linalg.qr(random).Q
    return torch.cat([principal, random * float(np.sqrt((features - count) / sketched))], dim=1)
