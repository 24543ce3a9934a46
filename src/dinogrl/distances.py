"""How far two tracklets are apart: three distances over part embeddings, made tile by tile.

Each takes ``a`` (N,P,D) and ``b`` (M,P,D), NumPy arrays or torch tensors, and returns (N,M) of the same sort on the same device:
float64 where both inputs are float64, else float32. Beside the result only one tile is held in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dinogrl import runtime
from dinogrl.catalog import Catalog
from dinogrl.errors import DataError

Array: TypeAlias = np.ndarray | Tensor

TILE = {"cpu": (512, 1024)}  # rows and columns: what one step works on fits a core's cache
LEAST = 64  # columns of a tile, where there are so many
LARGE_TILE = 4096, 8192  # of an accelerator
# |x|^2 + |y|^2 - 2xy loses its digits where x and y nearly agree: the square is off by at most some 6e-7 (float32) or 1e-15
# (float64) of the norms' sum (measured, D up to 17,920). Below this share of the sum a pair is too close for that.
CLOSE = {torch.float32: 0.05, torch.float64: 1e-7}
MANY = 64  # more than one pair in so many too close for float32: the whole tile is done in float64
CENTRE = 64  # vectors whose mean the others are measured from
CHUNK = 2**21  # numbers handled at once where pairs are done one by one


class Distance(Protocol):
    """(N,P,D) x (M,P,D) -> (N,M), smaller is nearer."""

    def __call__(self, a: Array, b: Array) -> Array: ...


def mean_part_distance(a: Array, b: Array) -> Array:
    """Mean over the P parts of the Euclidean distance: the published distance of DinoGRL.

    Off by less than 1e-5 of the float64 truth, near-duplicates included. Raises :class:`DataError` for shapes that do not fit.
    """
    x, y = _tensors(a, b)
    return _like(a, _tiled(_mean_part_tile, x, y, x.dtype))


def euclidean_distance(a: Array, b: Array) -> Array:
    """Euclidean distance of the vectors (P*D) that the parts make when they are laid end to end. Errors as above."""
    x, y = _tensors(a, b)
    return mean_part_distance(*(_as(a, t.flatten(1)[:, None]) for t in (x, y)))


def cosine_distance(a: Array, b: Array) -> Array:
    """One minus the cosine between the vectors (P*D) that the parts make when they are laid end to end, in 0..2. Errors as above.

    Made as half the squared distance of the unit vectors, so that it stays exact where two vectors nearly agree.
    """
    x, y = _tensors(a, b)
    # in float64, and on in float32 from the tile's centre only: unit vectors may lie close together
    units_x, units_y = (F.normalize(t.flatten(1)[:, None].double(), dim=-1) for t in (x, y))
    return _like(a, _tiled(_half_square_tile, units_x, units_y, x.dtype))


DISTANCES: Catalog[Distance] = Catalog(
    "distance",
    {"mean_part": mean_part_distance, "euclidean": euclidean_distance, "cosine": cosine_distance},
)


def _tiled(tile: Callable[[Tensor, Tensor, torch.dtype], Tensor], x: Tensor, y: Tensor, kind: torch.dtype) -> Tensor:
    """(N,P,D) x (M,P,D) -> (N,M) in ``kind``; on the CPU, tiles are made on all cores, one each."""
    out = x.new_empty(len(x), len(y), dtype=kind)

    def fill(place: tuple[slice, slice]) -> None:
        rows, columns = place
        out[rows, columns] = tile(x[rows], y[columns], kind)

    height, width = TILE.get(x.device.type, LARGE_TILE)
    if x.device.type == "cpu":
        width = min(width, max(LEAST, -(-len(y) // torch.get_num_threads())))  # few columns too are work for every core
    places = [(slice(i, i + height), slice(j, j + width)) for i in range(0, len(x), height) for j in range(0, len(y), width)]
    if x.device.type == "cpu":
        runtime.side_by_side(fill, places)
    else:
        for place in places:
            fill(place)
    return out


def _mean_part_tile(x: Tensor, y: Tensor, kind: torch.dtype) -> Tensor:
    """(n,P,D) x (m,P,D) -> (n,m)."""
    total = torch.zeros(len(x), len(y), dtype=torch.float64, device=x.device)
    for part in range(x.shape[1]):
        total += _squares(x[:, part], y[:, part], kind).sqrt_()
    return total.div_(x.shape[1]).to(kind)


def _half_square_tile(x: Tensor, y: Tensor, kind: torch.dtype) -> Tensor:
    """(n,1,D) x (m,1,D) -> (n,m)."""
    return _squares(x[:, 0], y[:, 0], kind).div_(2).to(kind)


def _squares(x: Tensor, y: Tensor, kind: torch.dtype) -> Tensor:
    """(n,D) x (m,D) -> (n,m) squared Euclidean distances, reckoned in ``kind`` as far as that is fine enough.

    On accelerators in float64: there a setting of the user's can make float32 products as coarse as 1e-3.
    """
    kind = kind if x.device.type == "cpu" else torch.float64
    squares, close = _expanded(x, y, kind)
    if kind != torch.float64 and len(close) > squares.numel() // MANY:
        squares, close = _expanded(x, y, torch.float64)
    for pairs in close.split(max(1, CHUNK // x.shape[1])):
        i, j = pairs.unbind(1)
        squares[i, j] = (x[i].double() - y[j].double()).square_().sum(-1).to(squares.dtype)
    return squares


def _expanded(x: Tensor, y: Tensor, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    """Squared distances (n,m) by one product of matrices, and the pairs (row, column) that are too close for it."""
    # From a centre among them distances are the same, norms and rounding errors smaller; of equal vectors it is exactly theirs.
    first = y[0].to(torch.promote_types(y.dtype, kind))
    centre = first + (y[:CENTRE] - first).mean(0)
    x, y = (x - centre).to(kind), (y - centre).to(kind)
    x_norms, y_norms = (torch.linalg.vector_norm(t, dim=-1).square_() for t in (x, y))
    squares = torch.addmm(y_norms, x, y.T, alpha=-2).add_(x_norms[:, None])
    if squares.min() >= CLOSE[kind] * (x_norms.max() + y_norms.max()):
        return squares, torch.empty(0, 2, dtype=torch.int64, device=x.device)
    return squares, (squares < CLOSE[kind] * (x_norms[:, None] + y_norms)).nonzero()


def _tensors(a: Array, b: Array) -> tuple[Tensor, Tensor]:
    a, b = (t if isinstance(t, Tensor) else np.asarray(t) for t in (a, b))
    if a.ndim != 3 or b.ndim != 3 or a.shape[1:] != b.shape[1:] or 0 in (*a.shape[1:], *b.shape[1:]):
        raise DataError(
            f"cannot compare part embeddings {tuple(a.shape)} with {tuple(b.shape)}: expected (N,P,D) and (M,P,D) with the same"
            " P and D; embed both with the same model"
        )
    x, y = (t if isinstance(t, Tensor) else _tensor(t) for t in (a, b))
    kind = torch.float64 if x.dtype == y.dtype == torch.float64 else torch.float32
    if x.device.type == "mps":  # has no float64
        x, y = x.cpu(), y.cpu()
    return x.detach().to(kind), y.detach().to(x.device, kind)


def _tensor(values: np.ndarray) -> Tensor:
    """Of an array in any order of bytes or of memory, read-only or not; what is longer than float64 becomes float64."""
    if values.dtype.kind not in "biuf":
        raise DataError(f"part embeddings must be numbers, given {values.dtype}; give floats (N,P,D)")
    own = values.dtype.newbyteorder("=") if values.dtype.itemsize <= 8 else np.dtype(np.float64)
    return torch.from_numpy(np.require(values, own, ("C", "W")))


def _as(example: Array, value: Tensor) -> Array:
    return value if isinstance(example, Tensor) else value.numpy()


def _like(example: Array, value: Tensor) -> Array:
    return value.to(example.device) if isinstance(example, Tensor) else value.numpy()
