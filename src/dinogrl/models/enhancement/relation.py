"""The sums over a signed relation map, without the map.

The relation of position i to position j is affine in the one number that stands at j: f_ij = a_i * k_j + b_i. Which j are positive
for an i is then a matter of one threshold on k: with k sorted, the positive ones are a run from one end, and sums over a run are
differences of prefix sums. O(C log C) for each row of C positions instead of O(C^2), the same values and gradients.

:class:`Keys` is what a chain asks of the keys: :class:`SortedKeys` answers so, :class:`PairedKeys` by looking at every pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass
class RelationSums:
    """For each i, with f_ij = a_i k_j + b_i. All (..., C).

    ``plus0`` = sum_j relu(f_ij), ``plus1`` = sum_j relu(f_ij) k_j; ``minus0`` and ``minus1`` the same of relu(-f_ij).
    """

    plus0: Tensor
    plus1: Tensor
    minus0: Tensor
    minus1: Tensor


class Keys(Protocol):
    """The keys k of many rows, (N,...,C), ready to be asked for relations."""

    def split(self, sizes: list[int]) -> Sequence[Keys]:
        """The keys of the first ``sizes[0]`` rows, of the next ``sizes[1]``, ..."""

    def signed_sums(self, a: Tensor, b: Tensor) -> RelationSums:
        """Sums of both signs of f_ij = a_i k_j + b_i."""


@dataclass
class SortedKeys:
    """k in ascending order (..., C) and the prefix sums of k and its square (..., C+1), the first 0."""

    ordered: Tensor
    sums: Tensor
    squares: Tensor

    def split(self, sizes: list[int]) -> list[SortedKeys]:
        columns = zip(*(tensor.split(sizes) for tensor in (self.ordered, self.sums, self.squares)), strict=True)
        return [SortedKeys(*column) for column in columns]

    def signed_sums(self, a: Tensor, b: Tensor) -> RelationSums:
        return signed_relation_sums(a, b, self)


@dataclass
class PairedKeys:
    """k (..., C) as it is. Sums look at every pair of positions: O(C^2), but no sorting, no search, no differences of long sums.

    For programs that cannot search (exported graphs) or have no float64.
    """

    keys: Tensor

    def split(self, sizes: list[int]) -> list[PairedKeys]:
        return [PairedKeys(keys) for keys in self.keys.split(sizes)]

    def signed_sums(self, a: Tensor, b: Tensor) -> RelationSums:
        k = self.keys[..., None, :]
        f = a[..., None] * k + b[..., None]  # (..., C, C)
        plus, minus = f.relu(), (-f).relu()
        return RelationSums(plus.sum(-1), (plus * k).sum(-1), minus.sum(-1), (minus * k).sum(-1))


def sort_keys(keys: Tensor) -> SortedKeys:
    """Sort ``keys`` (..., C) once for all the relations that they will be in.

    In float64 where the device has it: a short run is the difference of two long sums.
    """
    exact = keys if keys.device.type == "mps" else keys.double()
    ordered = exact.sort(dim=-1).values
    return SortedKeys(ordered, _prefix_sums(ordered), _prefix_sums(ordered.square()))


def _prefix_sums(values: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(values[..., :1]), values.cumsum(-1)], dim=-1)


def signed_relation_sums(a: Tensor, b: Tensor, keys: SortedKeys) -> RelationSums:
    """Sums of both signs. ``a`` and ``b`` (..., C); the keys may have more or fewer positions than ``a``."""
    a, b = a.to(keys.ordered.dtype), b.to(keys.ordered.dtype)
    many = keys.ordered.shape[-1]
    with torch.no_grad():
        rising = a >= 0
        # adding 0 turns -0 into 0, so that a division by it has the sign of the numerator
        threshold = -b / (a + 0.0)
        run = torch.searchsorted(keys.ordered.detach().contiguous(), threshold.contiguous(), right=True)
        number = torch.where(rising, many - run, run).to(a.dtype)
    total1, total2 = keys.sums[..., -1:], keys.squares[..., -1:]
    before1, before2 = keys.sums.gather(-1, run), keys.squares.gather(-1, run)
    run1 = torch.where(rising, total1 - before1, before1)
    run2 = torch.where(rising, total2 - before2, before2)
    plus0 = a * run1 + b * number
    plus1 = a * run2 + b * run1
    # relu(f) - relu(-f) = f, and the sums of f are known
    return RelationSums(plus0, plus1, plus0 - (a * total1 + b * many), plus1 - (a * total2 + b * total1))
