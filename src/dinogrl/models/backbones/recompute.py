"""Activations that are computed again in the backward pass instead of being kept: less memory for more time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dinogrl import memory


class Recomputing(nn.Module):
    """A part of which training keeps the results only, where ``recompute`` is set."""

    recompute = False

    def kept_or_recomputed(self, function: Callable[..., Tensor], *given: Tensor | None, tidy: bool = False) -> Tensor:
        """``function(*given)``, of this part's own layers; ``tidy`` as in :func:`recomputed`."""
        return recomputed(self, function, *given, tidy=tidy) if self.recompute and self.training else function(*given)


def recomputed(module: nn.Module, function: Callable[..., Tensor], *given: Tensor | None, tidy: bool = False) -> Tensor:
    """``function(*given)``, only its result kept. Same gradients; the batch norms of ``module`` count the batch once.

    ``tidy``: on a CPU, memory that was freed before goes back to the system first, here and when it is computed again.
    """
    tidy = tidy and any(tensor is not None and tensor.device.type == "cpu" for tensor in given)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _again(module, tidy)

    if tidy:
        memory.return_freed_memory()

    result: Tensor = checkpoint(function, *given, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)
    return result


@contextmanager
def _again(module: nn.Module, tidy: bool) -> Iterator[None]:
    if tidy:
        memory.return_freed_memory()
    with _statistics_left_alone(module):
        yield


@contextmanager
def _statistics_left_alone(module: nn.Module) -> Iterator[None]:
    """Batch norms still normalise by the batch, but their running statistics stay: the first pass has moved them already."""
    norms = [part for part in module.modules() if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d))]
    kept = [(norm, norm.momentum, _count(norm)) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, count in kept:
            norm.momentum = momentum
            assert norm.num_batches_tracked is not None
            norm.num_batches_tracked.copy_(count)  # in its place: whoever shares the buffers of a network holds on to this tensor


def _count(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> Tensor:
    assert norm.num_batches_tracked is not None
    return norm.num_batches_tracked.clone()
