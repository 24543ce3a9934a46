"""Tracks, picture by picture, become tracklets: of one person, one modality and one stretch of time, with bad frames left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from dinogrl.data.frames import encode_jpeg
from dinogrl.data.sightings import SeenFrame
from dinogrl.footage.boxes import overlap
from dinogrl.footage.crops import crop, inside_share, sharpness
from dinogrl.footage.settings import FootageSettings
from dinogrl.footage.track import Tracked
from dinogrl.footage.video import Picture
from dinogrl.records import Modality


@dataclass
class Cut:
    """A tracklet as it grows, and when it is done. ``part`` counts the tracklets of a track from 1; ``crops`` are JPEG bytes."""

    track: int
    part: int
    modality: Modality
    frames: list[SeenFrame] = field(default_factory=list)
    crops: list[bytes] = field(default_factory=list)


class Cutter:
    """Fed with every picture in order; gives each tracklet as soon as it is done, and holds the open ones only."""

    def __init__(self, settings: FootageSettings) -> None:
        self._settings = settings
        self._open: dict[int, Cut] = {}
        self._parts: dict[int, int] = {}

    def add(self, picture: Picture, modality: Modality, persons: Sequence[Tracked]) -> Iterator[Cut]:
        """The tracklets that end before this picture."""
        for person in persons:
            jpeg = self._crop(picture, person, persons)
            if jpeg is None:
                continue
            cut = self._open.get(person.track)
            if cut is not None and self._is_over(cut, picture.time, modality):
                yield from self._finish(person.track)
                cut = None
            if cut is None:
                cut = self._open[person.track] = Cut(person.track, self._parts.get(person.track, 0) + 1, modality)
            left, top, width, height = (round(value, 2) for value in person.box)
            name = f"{len(cut.frames) + 1:04d}.jpg"
            cut.frames.append(
                SeenFrame(name, picture.index, round(picture.time, 4), (left, top, width, height), round(person.score, 4))
            )
            cut.crops.append(jpeg)
        for track in [track for track, cut in self._open.items() if picture.time - cut.frames[-1].time > self._settings.max_gap]:
            yield from self._finish(track)

    def flush(self) -> Iterator[Cut]:
        """What is still open at the end."""
        for track in list(self._open):
            yield from self._finish(track)

    def _crop(self, picture: Picture, person: Tracked, persons: Sequence[Tracked]) -> bytes | None:
        """JPEG of a person, None where the box is too small, too far outside, too crowded or too blurred."""
        settings = self._settings
        if person.box[3] < settings.min_height or inside_share(picture.image, person.box) < settings.min_inside:
            return None
        others = np.array([other.box for other in persons if other is not person]).reshape(-1, 4)
        if np.any(overlap(np.array(person.box), others) > settings.max_crowding):
            return None
        cut = crop(picture.image, person.box)
        return encode_jpeg(cut, settings.quality) if sharpness(cut) >= settings.min_sharpness else None

    def _is_over(self, cut: Cut, time: float, modality: Modality) -> bool:
        too_long = len(cut.frames) >= self._settings.max_frames
        return too_long or modality is not cut.modality or time - cut.frames[-1].time > self._settings.max_gap

    def _finish(self, track: int) -> Iterator[Cut]:
        cut = self._open.pop(track)
        if len(cut.frames) >= self._settings.min_frames:
            self._parts[track] = cut.part
            yield cut
