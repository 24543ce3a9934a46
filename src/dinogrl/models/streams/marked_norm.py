"""Batch norm by the marked rows alone, in little memory: millions of values are read in slices, and only the input is kept."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dinogrl.models.precision import full

AT_ONCE = 2**20
"""Values of a slice; in float32 they stay in a processor's cache."""


class MarkedNorm(torch.autograd.Function):
    """Rows (N,C) less the mean, over the deviation, of those rows whose ``weight`` (N,1) is 1 (else 0).

    Gives the normalised rows in their own type, mean (C,), variance (C,) and how many rows are marked. Gradients flow through the
    rows, not through the statistics that are given out.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        marked = weight.sum()
        count = marked.clamp_min(1)
        mean = sum((w * full(x)).sum(0) for x, w in _slices(rows, weight)) / count
        variance = sum((w * (full(x) - mean).square()).sum(0) for x, w in _slices(rows, weight)) / count
        scale = torch.rsqrt(variance + eps)
        result = torch.empty_like(rows)
        for x, y in _slices(rows, result):
            y.copy_((full(x) - mean).mul_(scale))
        ctx.save_for_backward(rows, weight, mean, scale, count)
        ctx.mark_non_differentiable(mean, variance, marked)
        return result, mean, variance, marked

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, None, None]:
        rows, weight, mean, scale, count = ctx.saved_tensors
        total, along = torch.zeros_like(mean), torch.zeros_like(mean)
        for x, g in _slices(rows, gradient):
            g = full(g)
            total += g.sum(0)
            along += (g * ((full(x) - mean) * scale)).sum(0)
        result = torch.empty_like(rows)
        for x, w, g, y in _slices(rows, weight, gradient, result):
            # every row counts in its own value; the marked ones also in the mean and in the deviation
            y.copy_(scale * (full(g) - w / count * (total + (full(x) - mean) * scale * along)))
        return result, None, None


def _slices(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """The same rows of all tensors, a slice at a time."""
    many = max(1, AT_ONCE // tensors[0].shape[1])
    return list(zip(*(tensor.split(many) for tensor in tensors), strict=True))
