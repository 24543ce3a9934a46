"""Which frames of a tracklet make a clip: a clip has T frames whatever the tracklet's length m."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dinogrl.catalog import Catalog

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Sampling:
    """``train(m, T, rng)`` and ``test(m, T)``: T indices into m frames, ascending."""

    train: Callable[[int, int, np.random.Generator], Indices]
    test: Callable[[int, int], Indices]


def segment_starts(length: int, frames: int) -> Indices:
    """First frame of each of T chunks of ceil(m / T) frames; where the tracklet has ended, its last frame.

    m = 13, T = 6 gives 0, 3, 6, 9, 12, 12.
    """
    _check(length, frames)
    return np.minimum(np.arange(frames) * -(-length // frames), length - 1)


def segment_random(length: int, frames: int, rng: np.random.Generator) -> Indices:
    """One random frame of each of those chunks; a chunk that reaches over the end is filled up with the last frame."""
    _check(length, frames)
    step = -(-length // frames)
    return np.minimum(np.arange(frames) * step + rng.integers(0, step, frames), length - 1)


def uniform(length: int, frames: int) -> Indices:
    """T evenly spaced frames from the first on, as ``numpy.linspace`` without its end point rounds them down."""
    _check(length, frames)
    return np.linspace(0, length, frames, endpoint=False).astype(np.int64)


def random_sorted(length: int, frames: int, rng: np.random.Generator) -> Indices:
    """T random frames in order; the same one twice only where there are fewer than T."""
    _check(length, frames)
    return np.sort(rng.choice(length, frames, replace=length < frames))


def _check(length: int, frames: int) -> None:
    assert length >= 1 and frames >= 1, f"a clip of {frames} frames from {length}"


SAMPLINGS: Catalog[Sampling] = Catalog(
    "frame sampling",
    {
        "segments": Sampling(train=segment_random, test=segment_starts),  # HITSZ-VCM
        "uniform": Sampling(train=random_sorted, test=uniform),  # BUPTCampus
    },
)
