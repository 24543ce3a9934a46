"""Who walks past which camera, when, and by what light."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dinogrl.records import Modality
from dinogrl.runtime import derived_seed
from dinogrl.simulation.settings import Settings

BOTH = (Modality.VISIBLE, Modality.INFRARED)


@dataclass(frozen=True)
class Sighting:
    """One walk of a person past a camera, in one modality or in both at once. ``person`` and ``camera`` count from 0."""

    split: str
    person: int
    camera: int
    walk: int
    modalities: tuple[Modality, ...]


def cast_apart(settings: Settings, split: str, people: int) -> list[Sighting]:
    """Day and night at different times: every walk is seen in one modality.

    Each person has a camera that sees them by day only and another by night only, so that a match is left when matches from the
    query's own camera are dropped; further cameras see either or both.
    """
    sightings = []
    for person in range(people):
        rng = np.random.default_rng(derived_seed(settings.seed, "casting", split, person))
        for place, camera in enumerate(cameras_of(settings, rng)):
            draw = rng.random()
            either = BOTH[int(draw < 0.6)]
            seen = [BOTH[place]] if place < 2 else list(BOTH) if draw < 0.2 else [either]
            for modality in seen:
                first = int(modality) * settings.tracklets
                sightings += [Sighting(split, person, camera, first + k, (modality,)) for k in range(settings.tracklets)]
    return sightings


def cast_together(settings: Settings, split: str, people: int, *, cameras: int | None = None) -> list[Sighting]:
    """Every walk is seen in both modalities at once, by ``cameras`` cameras (None: the share in the settings)."""
    sightings = []
    for person in range(people):
        rng = np.random.default_rng(derived_seed(settings.seed, "casting", split, person))
        for camera in cameras_of(settings, rng)[:cameras]:
            sightings += [Sighting(split, person, camera, k, BOTH) for k in range(settings.tracklets)]
    return sightings


def cast_by_camera(settings: Settings, split: str, people: int, cameras: Mapping[int, Modality]) -> list[Sighting]:
    """Every camera sees in one modality. A person passes the settings' share of the cameras, one of each modality at least."""
    sightings = []
    for person in range(people):
        rng = np.random.default_rng(derived_seed(settings.seed, "casting", split, person))
        order = [int(camera) for camera in rng.permutation(list(cameras))]
        needed = [next(camera for camera in order if cameras[camera] is modality) for modality in BOTH]
        count = max(2, round(settings.seen_by * len(cameras)))
        passed = sorted([*needed, *(camera for camera in order if camera not in needed)][:count])
        sightings += [
            Sighting(split, person, camera, walk, (cameras[camera],)) for camera in passed for walk in range(settings.tracklets)
        ]
    return sightings


def cameras_of(settings: Settings, rng: np.random.Generator) -> list[int]:
    """The cameras that see one person, in random order."""
    count = min(max(2, round(settings.seen_by * settings.cameras)), settings.cameras)
    return [int(camera) for camera in rng.permutation(settings.cameras)[:count]]
