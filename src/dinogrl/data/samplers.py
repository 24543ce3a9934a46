"""Who is in a training batch. What a sampler draws is a pure function of (seed, epoch, step): no state, so a run resumes anywhere.

A batch has P identities, and of each C visible and C infrared clips. Its rows are the visible clips, then the infrared ones, each
grouped by identity in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dinogrl.errors import DataError
from dinogrl.records import Modality, Tracklet
from dinogrl.runtime import derived_seed


@dataclass(frozen=True, slots=True)
class Pick:
    """One row of a batch: the position of its tracklet, its row in the whole batch, and the row whose frame numbers it shares.

    ``shared`` is the row itself, except in a pixel-aligned pair, where both clips carry the row of the visible one.
    """

    tracklet: int
    row: int
    shared: int


class BatchSampler(Protocol):
    """Identities and tracklets of every step. ``natural_steps``: steps that go once through the tracklets."""

    natural_steps: int
    skipped: list[int]
    """Identities that cannot be in any batch (seen by one modality only)."""

    def batch(self, epoch: int, step: int) -> list[Pick]:
        """The 2 P C rows of the whole batch."""
        ...


class IdentityBalanced:
    """Tracklets of both modalities drawn independently (HITSZ-VCM).

    Identities do not repeat until fewer than P are left; the tracklets of an identity repeat only where it has fewer than C.
    Raises :class:`DataError` when fewer than P identities have been seen by both modalities.
    """

    def __init__(self, tracklets: Sequence[Tracklet], identities: int, clips: int, seed: int) -> None:
        self.identities, self.clips, self.seed = identities, clips, seed
        self._of: dict[Modality, dict[int, list[int]]] = {Modality.VISIBLE: {}, Modality.INFRARED: {}}
        for position, tracklet in enumerate(tracklets):
            self._of[tracklet.modality].setdefault(tracklet.identity, []).append(position)
        seen = [set(of) for of in self._of.values()]
        self._pool = sorted(seen[0] & seen[1])
        self.skipped = sorted(seen[0] ^ seen[1])
        _check_pool(len(self._pool), len(self.skipped), identities)
        most = max(sum(len(of[identity]) for identity in self._pool) for of in self._of.values())
        self.natural_steps = math.ceil(most / (identities * clips))

    def batch(self, epoch: int, step: int) -> list[Pick]:
        """See :class:`BatchSampler`."""
        rng = np.random.default_rng(derived_seed(self.seed, "tracklets", epoch, step))
        chosen = _identities(self._pool, self.identities, self.seed, epoch, step)
        tracklets = [
            position
            for of in (self._of[Modality.VISIBLE], self._of[Modality.INFRARED])
            for identity in chosen
            for position in _take(of[identity], self.clips, rng)
        ]
        return [Pick(position, row, row) for row, position in enumerate(tracklets)]


class AlignedPairs:
    """Pixel-aligned pairs (BUPTCampus): of each identity C pairs, each giving a visible and an infrared clip of the same frames.

    An identity's pairs come from different cameras as far as it has them. Raises :class:`DataError` when fewer than P identities
    have a pair.
    """

    def __init__(
        self, tracklets: Sequence[Tracklet], pairs: Sequence[tuple[int, int]], identities: int, clips: int, seed: int
    ) -> None:
        self.identities, self.clips, self.seed = identities, clips, seed
        self._tracklets = tracklets
        self._of: dict[int, list[tuple[int, int]]] = {}
        for visible, infrared in pairs:
            first, second = tracklets[visible], tracklets[infrared]
            assert first.identity == second.identity, f"{first.id!r} and {second.id!r} are no pair"
            assert (first.modality, second.modality) == (Modality.VISIBLE, Modality.INFRARED), "a pair is (visible, infrared)"
            self._of.setdefault(first.identity, []).append((visible, infrared))
        self._pool = sorted(self._of)
        self.skipped = sorted({tracklet.identity for tracklet in tracklets} - self._of.keys())
        _check_pool(len(self._pool), len(self.skipped), identities)
        self.natural_steps = math.ceil(len(pairs) / (identities * clips))

    def batch(self, epoch: int, step: int) -> list[Pick]:
        """See :class:`BatchSampler`."""
        rng = np.random.default_rng(derived_seed(self.seed, "tracklets", epoch, step))
        chosen = _identities(self._pool, self.identities, self.seed, epoch, step)
        pairs = [pair for identity in chosen for pair in self._spread(self._of[identity], rng)]
        visible = [Pick(first, row, row) for row, (first, _) in enumerate(pairs)]
        infrared = [Pick(second, len(pairs) + row, row) for row, (_, second) in enumerate(pairs)]
        return visible + infrared

    def _spread(self, pairs: list[tuple[int, int]], rng: np.random.Generator) -> list[tuple[int, int]]:
        """C of the pairs, at random, one of every camera before a second of any."""
        turns: list[tuple[int, tuple[int, int]]] = []
        used: dict[int, int] = {}
        for index in rng.permutation(len(pairs)).tolist():
            camera = self._tracklets[pairs[index][0]].camera
            turns.append((used.get(camera, 0), pairs[index]))
            used[camera] = used.get(camera, 0) + 1
        ordered = [pair for _, pair in sorted(turns, key=lambda turn: turn[0])]
        return [ordered[index % len(ordered)] for index in range(self.clips)]


def rows_of_rank(batch: list[Pick], identities: int, rank: int, world_size: int) -> list[Pick]:
    """The part of a batch that one of several processes works on: its share of the identities, with all their clips.

    Put together over the ranks, the parts are the batch. Raises :class:`DataError` when the identities do not divide.
    """
    if identities % world_size:
        raise DataError(
            f"{identities} identities a batch cannot be split over {world_size} processes; "
            f"set training.batch.identities to a multiple of {world_size}"
        )
    per_modality = len(batch) // 2
    clips = per_modality // identities
    share = identities // world_size * clips
    start = rank * share
    return batch[start : start + share] + batch[per_modality + start : per_modality + start + share]


def _identities(pool: list[int], per_batch: int, seed: int, epoch: int, step: int) -> list[int]:
    """Identities of a step. The pool is dealt out in whole batches and shuffled anew for every round of the epoch."""
    batches = len(pool) // per_batch
    dealing, place = divmod(step, batches)
    order = np.random.default_rng(derived_seed(seed, "identities", epoch, dealing)).permutation(len(pool))
    return [pool[index] for index in order[place * per_batch : (place + 1) * per_batch].tolist()]


def _take(positions: list[int], number: int, rng: np.random.Generator) -> list[int]:
    """``number`` of the positions at random; each once before any a second time."""
    order: list[int] = []
    while len(order) < number:
        order += [positions[index] for index in rng.permutation(len(positions)).tolist()]
    return order[:number]


def _check_pool(usable: int, skipped: int, wanted: int) -> None:
    if usable >= wanted:
        return
    left = f" ({skipped} were seen by one modality only)" if skipped else ""
    advice = f"set training.batch.identities to {usable} or less" if usable >= 2 else "add tracklets of the other modality"
    raise DataError(
        f"a batch needs {wanted} identities with visible and infrared training tracklets, there are {usable}{left}; {advice}"
    )
