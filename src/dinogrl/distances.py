"""How far two tracklets are apart: three distances over part embeddings, made tile by tile.

Each takes ``a`` (N,P,D) and ``b`` (M,P,D), NumPy arrays or torch tensors, and returns (N,M) of the same sort on the same device:
float64 where both inputs are float64, else float32. Beside the result only one tile is held in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dinogrl.catalog import Catalog
from dinogrl.errors import DataError

Array: TypeAlias = np.ndarray | Tensor

ROWS, COLUMNS = 512, 1024  # of a tile: three of them fit a core's cache
# |x|^2 + |y|^2 - 2xy loses its digits where x and y nearly agree. In float32 the square is off by at most some 5e-7 of the norms'
# sum (measured, D = 256), so below this share of it the distance would be off by more than 1e-5 of itself.
CLOSE = 0.02


class Distance(Protocol):
    """(N,P,D) x (M,P,D) -> (N,M), smaller is nearer."""

    def __call__(self, a: Array, b: Array) -> Array: ...


def mean_part_distance(a: Array, b: Array) -> Array:
    """Mean over the P parts of the Euclidean distance: the published distance of DinoGRL.

    Off by less than 1e-5 of the float64 truth, near-duplicates included. Raises :class:`DataError` for shapes that do not fit.
    """
    x, y = _tensors(a, b)
    out = x.new_empty(len(x), len(y))
    for rows, columns in _tiles(len(x), len(y)):
        out[rows, columns] = _mean_part_tile(x[rows], y[columns])
    return _like(a, out)


def euclidean_distance(a: Array, b: Array) -> Array:
    """Euclidean distance of the vectors (P*D) that the parts make when they are laid end to end. Errors as above."""
    x, y = _tensors(a, b)
    return mean_part_distance(_as(a, x.reshape(len(x), 1, -1)), _as(a, y.reshape(len(y), 1, -1)))


def cosine_distance(a: Array, b: Array) -> Array:
    """One minus the cosine between the vectors (P*D) that the parts make when they are laid end to end, in 0..2. Errors as above.

    Made as half the squared distance of the unit vectors, so that it stays exact where two vectors nearly agree.
    """
    x, y = _tensors(a, b)
    units = [F.normalize(t.reshape(len(t), 1, -1).double(), dim=-1).to(t.dtype) for t in (x, y)]
    out = x.new_empty(len(x), len(y))
    for rows, columns in _tiles(len(x), len(y)):
        out[rows, columns] = _mean_part_tile(units[0][rows], units[1][columns]).square_().div_(2)
    return _like(a, out)


DISTANCES: Catalog[Distance] = Catalog(
    "distance",
    {"mean_part": mean_part_distance, "euclidean": euclidean_distance, "cosine": cosine_distance},
)


def _mean_part_tile(x: Tensor, y: Tensor) -> Tensor:
    """(n,P,D) x (m,P,D) -> (n,m)."""
    centre = y.mean(0)  # distances do not change, the norms and with them the rounding errors shrink
    x, y = x - centre, y - centre
    x_norms, y_norms = x.square().sum(-1), y.square().sum(-1)
    total = torch.zeros(len(x), len(y), dtype=torch.float64, device=x.device)
    for part in range(x.shape[1]):
        squares = torch.addmm(y_norms[:, part], x[:, part], y[:, part].T, alpha=-2).add_(x_norms[:, part, None])
        if x.dtype == torch.float32 and squares.min() < CLOSE * (x_norms[:, part].max() + y_norms[:, part].max()):
            squares = _exact_squares(x[:, part].double(), y[:, part].double())
        total += squares.clamp_(min=0).sqrt_()
    return total.div_(x.shape[1]).to(x.dtype)


def _exact_squares(x: Tensor, y: Tensor) -> Tensor:
    return torch.addmm(y.square().sum(-1), x, y.T, alpha=-2).add_(x.square().sum(-1, keepdim=True))


def _tiles(rows: int, columns: int) -> Iterator[tuple[slice, slice]]:
    for i in range(0, rows, ROWS):
        for j in range(0, columns, COLUMNS):
            yield slice(i, i + ROWS), slice(j, j + COLUMNS)


def _tensors(a: Array, b: Array) -> tuple[Tensor, Tensor]:
    if a.ndim != 3 or b.ndim != 3 or a.shape[1:] != b.shape[1:] or 0 in (*a.shape[1:], *b.shape[1:]):
        raise DataError(
            f"cannot compare part embeddings {tuple(a.shape)} with {tuple(b.shape)}: expected (N,P,D) and (M,P,D) with the same"
            " P and D; embed both with the same model"
        )
    x, y = (t if isinstance(t, Tensor) else torch.from_numpy(np.require(t, requirements=("C", "W"))) for t in (a, b))
    kind = torch.float64 if x.dtype == y.dtype == torch.float64 else torch.float32
    if x.device.type == "mps":  # has no float64
        x, y = x.cpu(), y.cpu()
    return x.detach().to(kind), y.detach().to(x.device, kind)


def _as(example: Array, value: Tensor) -> Array:
    return value if isinstance(example, Tensor) else value.numpy()


def _like(example: Array, value: Tensor) -> Array:
    return value.to(example.device) if isinstance(example, Tensor) else value.numpy()
