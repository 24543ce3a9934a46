"""Single moments of simulated people, each seen by both modalities at once: what the small prior is trained on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray

from dinogrl import runtime
from dinogrl.simulation.world import World

MOMENTS_A_WALK = 4


@dataclass(frozen=True)
class Moments:
    """``visible`` and ``infrared`` (N,H,W,3) uint8, pixel on pixel, and ``parts`` (N,H,W) uint8 labels of the body's parts."""

    visible: NDArray[np.uint8]
    infrared: NDArray[np.uint8]
    parts: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.parts)

    def split(self, rows: int) -> tuple[Moments, Moments]:
        """The first ``rows`` moments, and the rest. Moments of one person lie together."""
        first, rest = slice(None, rows), slice(rows, None)
        return (
            Moments(self.visible[first], self.infrared[first], self.parts[first]),
            Moments(self.visible[rest], self.infrared[rest], self.parts[rest]),
        )


def render_moments(
    count: int,
    people: int,
    size: tuple[int, int],
    *,
    seed: int,
    workers: int = 2,
    on_progress: Callable[[int], None] | None = None,
) -> Moments:
    """Draw ``count`` moments of ``people`` people of the split "prior", at ``size`` (height, width), in order of person.

    ``on_progress`` is told how many are drawn. The same for any number of ``workers``.
    """
    walks = -(-count // MOMENTS_A_WALK)
    draw = partial(_walk, seed=seed, people=people, walks=walks, size=size)
    drawn: list[Moments] = []
    # Fresh processes, not forks: a fork of a process that runs torch's threads can hang.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for moments in pool.map(draw, range(walks), chunksize=8):
            drawn.append(moments)
            if on_progress is not None:
                on_progress(min(len(drawn) * MOMENTS_A_WALK, count))
    visible, infrared, parts = (
        np.concatenate([getattr(m, name) for m in drawn])[:count] for name in ("visible", "infrared", "parts")
    )
    return Moments(visible, infrared, parts)


def _walk(number: int, *, seed: int, people: int, walks: int, size: tuple[int, int]) -> Moments:
    """A few moments, far apart, of one walk."""
    world = World(seed, occlusion=0.3)
    rng = np.random.default_rng(runtime.derived_seed(seed, "moments", number))
    person = number * people // walks
    seen, unseen = world.pair("prior", person, int(rng.integers(12)), number, MOMENTS_A_WALK * 3, *size)
    chosen = slice(None, None, 3)
    return Moments(seen.frames[chosen], unseen.frames[chosen], seen.parts[chosen])
