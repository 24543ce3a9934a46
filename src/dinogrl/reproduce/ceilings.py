"""What a machine can do at most, measured: matrix products and copies of memory. Rates elsewhere are given as a share of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from dinogrl import runtime
from dinogrl.models.backbones.pointwise import convolved


@dataclass(frozen=True)
class Ceilings:
    """FLOP/s of large matrix products in two precisions, bytes/s that a copy reads and writes.

    Where torch convolves by another library than it multiplies, products are done in both ways; the faster one counts.
    """

    float32: float
    bfloat16: float
    copy: float


def measure_ceilings(device: torch.device, repetitions: int = 3) -> Ceilings:
    """Best of ``repetitions``, with as many threads as torch has now."""
    side = 8192 if device.type == "cuda" else 2048

    def product(dtype: torch.dtype) -> float:
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        ways = [lambda: a @ b]
        if runtime.convolves_by_onednn(device):
            ways.append(lambda: convolved(a.view(8, -1, side), b))
        return max(2 * side**3 / best_seconds(way, device, repetitions) for way in ways)

    source = torch.randn(2**26, device=device)  # 256 MiB: more than any cache
    target = torch.empty_like(source)
    copied = 2 * source.nbytes / best_seconds(lambda: target.copy_(source), device, repetitions)
    return Ceilings(product(torch.float32), product(torch.bfloat16), copied)


def best_seconds(work: Callable[[], object], device: torch.device, repetitions: int, enough: float = 30.0) -> float:
    """Shortest wall time of ``work``, after one call to warm up. Calls that fill ``enough`` seconds are not repeated further."""
    times: list[float] = []
    while len(times) <= repetitions and sum(times) < enough:
        start = time.perf_counter()
        work()
        runtime.synchronise(device)
        times.append(time.perf_counter() - start)
    return min(times[1:] or times)
