"""Tracks, picture by picture, become tracklets: of one person, one modality and one stretch of time, with bad frames left out."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from dinogrl.data.frames import Image, encode_jpeg
from dinogrl.data.sightings import SeenFrame
from dinogrl.footage.boxes import overlap
from dinogrl.footage.clothes import WINDOW, clothes, newcomer
from dinogrl.footage.crops import crop, inside_share, sharpness
from dinogrl.footage.settings import FootageSettings
from dinogrl.footage.track import Tracked
from dinogrl.footage.video import Picture
from dinogrl.records import Modality


@dataclass
class Cut:
    """A tracklet as it grows, and when it is done. ``part`` counts those of a person from 1; ``crops`` are JPEG bytes."""

    person: int
    part: int
    modality: Modality
    frames: list[SeenFrame] = field(default_factory=list)
    crops: list[bytes] = field(default_factory=list)


class Cutter:
    """Fed with every picture in order; gives each tracklet as soon as it is done, and holds the open ones only.

    A track is a person until its clothes change: then the tracker has changed over to somebody else, who gets a number of his own.
    """

    def __init__(self, settings: FootageSettings) -> None:
        self._settings = settings
        self._open: dict[int, Cut] = {}  # by track, as are the next two
        self._person: dict[int, int] = {}
        self._recent: dict[int, deque[NDArray[np.float32]]] = {}
        self._parts: Counter[int] = Counter()
        self._people = 0

    def add(self, picture: Picture, modality: Modality, tracked: Sequence[Tracked]) -> Iterator[Cut]:
        """The tracklets that are done with this picture."""
        for one in tracked:
            image = self._crop(picture, one, tracked)
            if image is None:
                continue
            cut = self._open.get(one.track)
            if cut is not None and self._is_over(cut, picture.time, modality):
                yield from self._finish(one.track)
                if modality is not cut.modality:
                    self._recent.pop(one.track, None)  # what was red is grey now
                cut = None
            if cut is None:
                cut = self._open[one.track] = self._begin(one.track, modality)
            left, top, width, height = (round(value, 2) for value in one.box)
            cut.frames.append(SeenFrame("", picture.index, round(picture.time, 4), (left, top, width, height), round(one.score, 4)))
            cut.crops.append(encode_jpeg(image, self._settings.quality))
            yield from self._part_ways(one.track, image)
        for track in [track for track, cut in self._open.items() if picture.time - cut.frames[-1].time > self._settings.max_gap]:
            yield from self._finish(track)
            del self._recent[track]

    def flush(self) -> Iterator[Cut]:
        """What is still open at the end."""
        for track in list(self._open):
            yield from self._finish(track)

    def _crop(self, picture: Picture, one: Tracked, tracked: Sequence[Tracked]) -> Image | None:
        """The person alone, None where the box is too small, too far outside, too crowded or too blurred."""
        settings = self._settings
        if one.box[3] < settings.min_height or inside_share(picture.image, one.box) < settings.min_inside:
            return None
        others = np.array([other.box for other in tracked if other is not one]).reshape(-1, 4)
        if np.any(overlap(np.array(one.box), others) > settings.max_crowding):
            return None
        image = crop(picture.image, one.box)
        return image if sharpness(image) >= settings.min_sharpness else None

    def _is_over(self, cut: Cut, time: float, modality: Modality) -> bool:
        too_long = len(cut.frames) >= self._settings.max_frames
        return too_long or modality is not cut.modality or time - cut.frames[-1].time > self._settings.max_gap

    def _begin(self, track: int, modality: Modality) -> Cut:
        """An empty tracklet of whoever the track follows."""
        if track not in self._person:
            self._people += 1
            self._person[track] = self._people
        person = self._person[track]
        return Cut(person, self._parts[person] + 1, modality)

    def _part_ways(self, track: int, image: Image) -> Iterator[Cut]:
        """Where the last crops of a track show somebody else, end the tracklet before them and begin one of another person."""
        recent = self._recent.setdefault(track, deque(maxlen=2 * WINDOW))
        recent.append(clothes(image))
        count = newcomer(recent, self._settings.max_change)
        if not count:
            return
        before = self._open[track]
        kept = max(len(before.frames) - count, 0)
        del self._person[track]
        after = self._begin(track, before.modality)
        after.frames, after.crops = before.frames[kept:], before.crops[kept:]
        before.frames, before.crops = before.frames[:kept], before.crops[:kept]
        yield from self._finish(track)
        self._open[track] = after
        self._recent[track] = deque(list(recent)[-count:], maxlen=2 * WINDOW)

    def _finish(self, track: int) -> Iterator[Cut]:
        cut = self._open.pop(track)
        if len(cut.frames) >= self._settings.min_frames:
            self._parts[cut.person] = cut.part
            cut.frames = [replace(frame, file=f"{number:04d}.jpg") for number, frame in enumerate(cut.frames, start=1)]
            yield cut
