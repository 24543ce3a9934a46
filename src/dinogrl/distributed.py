"""The only door to torch.distributed: the same calls in one process and in many."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist


def active() -> bool:
    """Is a process group running?"""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Number of this process, 0 where there is one."""
    return dist.get_rank() if active() else 0


def world_size() -> int:
    """How many processes work together."""
    return dist.get_world_size() if active() else 1


def barrier() -> None:
    """Wait for all processes."""
    if active():
        dist.barrier()


class _GatherWithGradient(torch.autograd.Function):
    """all_gather whose backward sums the gradients of every process into the part that came from this one."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, tensor: Tensor) -> Tensor:
        parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:  # type: ignore[override]
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        size = gradient.shape[0] // dist.get_world_size()
        return gradient[dist.get_rank() * size : (dist.get_rank() + 1) * size]


def gather(tensor: Tensor) -> Tensor:
    """Rows of all processes, in order of rank; gradients flow back. Every process must hold the same number of rows."""
    if not active() or dist.get_world_size() == 1:
        return tensor
    gathered: Tensor = _GatherWithGradient.apply(tensor)
    return gathered
