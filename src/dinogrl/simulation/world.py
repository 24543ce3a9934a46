"""The world: the same seed gives the same people, cameras and pictures, whoever asks first and however many ask at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dinogrl.errors import DinogrlError
from dinogrl.records import Modality
from dinogrl.runtime import derived_seed
from dinogrl.simulation.body import Body, Floats, draw_body
from dinogrl.simulation.cameras import Camera, draw_camera
from dinogrl.simulation.figure import Figure, dress
from dinogrl.simulation.film import Film, develop, unhidden
from dinogrl.simulation.gait import Gait, Motion, Walk, draw_gait, set_on_feet, walking_motion
from dinogrl.simulation.occluders import draw_occluder
from dinogrl.simulation.render import Boxes, Visible, project, rasterise, touch
from dinogrl.simulation.scenery import Bytes, draw_scenery
from dinogrl.simulation.wardrobe import Outfit, draw_outfit

SPLITS = ("train", "test", "prior")
"""Splits of people; no two share a person. ``prior`` is for pre-training."""


@dataclass(frozen=True)
class Person:
    """One identity: body, way of walking and clothes."""

    body: Body
    gait: Gait
    outfit: Outfit


@dataclass(frozen=True)
class RenderedTracklet:
    """``frames`` (T,H,W,3) uint8 RGB (infrared: three equal channels), ``silhouettes`` (T,H,W) bool, ``parts`` (T,H,W) uint8 labels
    (:class:`dinogrl.simulation.figure.Part`), and the JPEG ``quality`` of the camera."""

    frames: NDArray[np.uint8]
    silhouettes: NDArray[np.bool_]
    parts: NDArray[np.uint8]
    quality: int


class World:
    """People and cameras that all come from ``seed``.

    ``motions``: walks recorded from real people, one group a person; identity i then walks as group ``i % len(motions)``, at a
    tempo of its own, and each walk takes one recording of the group.
    ``occlusion``: share of tracklets in which something comes between. ``looseness`` scales how badly the boxes fit.
    """

    def __init__(
        self, seed: int = 1, *, motions: Sequence[Sequence[Motion]] = (), occlusion: float = 0.3, looseness: float = 1.0
    ) -> None:
        self.seed = seed
        self.motions = tuple(tuple(group) for group in motions)
        self.occlusion = occlusion
        self.looseness = looseness
        self._person = lru_cache(maxsize=64)(self._draw_person)
        self._camera = lru_cache(maxsize=64)(self._draw_camera)
        self._scenery = lru_cache(maxsize=16)(self._draw_scenery)

    def person(self, split: str, identity: int) -> Person:
        """The ``identity``-th person of a split."""
        if split not in SPLITS and split != "passer-by":
            raise DinogrlError(f"unknown split {split!r}; use one of {', '.join(SPLITS)}")
        return self._person(split, identity)

    def camera(self, number: int) -> Camera:
        """Camera ``number``, 0, 1, 2 ..."""
        return self._camera(number)

    def scenery(self, number: int) -> tuple[Bytes, Bytes]:
        """Visible (720,1280,3) and infrared (720,1280) pictures of the empty place before a camera."""
        return self._scenery(number)

    def tracklet(
        self,
        split: str,
        identity: int,
        camera: int,
        modality: Modality,
        walk: int = 0,
        frames: int = 24,
        height: int = 256,
        width: int = 128,
    ) -> RenderedTracklet:
        """One walk of a person past a camera, in one modality. ``walk`` numbers the times that the person comes by."""
        return self._render(split, identity, camera, (modality,), walk, frames, height, width)[0]

    def pair(
        self, split: str, identity: int, camera: int, walk: int = 0, frames: int = 24, height: int = 256, width: int = 128
    ) -> tuple[RenderedTracklet, RenderedTracklet]:
        """The same moments in both modalities, pixel on pixel: visible, infrared."""
        visible, infrared = self._render(
            split, identity, camera, (Modality.VISIBLE, Modality.INFRARED), walk, frames, height, width
        )
        return visible, infrared

    def _rng(self, *parts: int | str) -> np.random.Generator:
        return np.random.default_rng(derived_seed(self.seed, *parts))

    def _draw_person(self, split: str, identity: int) -> Person:
        rng = self._rng("person", split, identity)
        return Person(draw_body(rng), draw_gait(rng), draw_outfit(rng))

    def _draw_camera(self, number: int) -> Camera:
        return draw_camera(self._rng("camera", number), number)

    def _draw_scenery(self, number: int) -> tuple[Bytes, Bytes]:
        return draw_scenery(self._rng("scenery", number), self.camera(number))

    def walk_of(self, split: str, identity: int, recording: int = 0) -> Walk:
        """How a person walks, set on the feet of that person's body. ``recording`` chooses among recorded walks."""
        person = self.person(split, identity)
        if not self.motions:
            return set_on_feet(walking_motion(person.gait), person.body, person.gait.bounce)
        group = self.motions[identity % len(self.motions)]
        recorded = group[recording % len(group)]
        tempo = float(self._rng("tempo", split, identity).uniform(0.9, 1.1))
        return set_on_feet(Motion(recorded.directions, recorded.seconds / tempo), person.body)

    def _render(
        self,
        split: str,
        identity: int,
        camera: int,
        modalities: Sequence[Modality],
        walk: int,
        frames: int,
        height: int,
        width: int,
    ) -> list[RenderedTracklet]:
        assert frames > 0 and 16 <= height <= 1000 and 8 <= width <= 1000, f"cannot draw {frames} frames of {height}x{width}"
        rng = self._rng("walk", split, identity, camera, walk)
        view = self.camera(camera)
        figure = self._walk_by(rng, split, identity, view, frames)
        boxes = self._boxes(rng, figure, view, frames, height, width)
        occluder = None
        if rng.random() < 0.75 * self.occlusion:
            at = int(rng.integers(frames))
            x, y = boxes.left[at] + 0.5 * width / boxes.scale_x[at], boxes.top[at] + 0.95 * height / boxes.scale_y[at]
            occluder = draw_occluder(rng, float(x), float(y), 0.9 * height / float(boxes.scale_y[at]))
        elif rng.random() < 0.25 * self.occlusion / max(1 - 0.75 * self.occlusion, 0.01):
            figure = figure.beside(self._passer_by(rng, figure, view, frames))
        film = Film(view, *self.scenery(camera), figure, boxes, occluder, height, width)
        streams = [self._rng("film", split, identity, camera, walk, int(modality)) for modality in modalities]
        drawn: list[tuple[list[Bytes], list[Visible]]] = [([], []) for _ in modalities]
        for start in range(0, frames, 32):
            chosen = slice(start, min(start + 32, frames))
            part, here = _take_frames(figure, chosen), _take_boxes(boxes, chosen)
            seen = project(part, view, here)
            visible = rasterise(part, seen, height, width)
            middle = view.project(_middle(part))[2]
            touched = touch(seen, visible, middle)
            for stream, modality, (pictures, views) in zip(streams, modalities, drawn):
                pictures.append(develop(film, part, here, visible, touched, modality, stream))
                views.append(unhidden(film, here, visible))
        return [
            RenderedTracklet(
                frames=np.concatenate(pictures),
                silhouettes=np.concatenate([v.silhouette for v in views]),
                parts=np.concatenate([v.parts for v in views]),
                quality=view.quality,
            )
            for pictures, views in drawn
        ]

    def _walk_by(self, rng: np.random.Generator, split: str, identity: int, view: Camera, frames: int) -> Figure:
        """The person on a straight path through the middle of the camera's ground, from either end."""
        person = self.person(split, identity)
        walk = self.walk_of(split, identity, int(rng.integers(1000)))
        tempo = float(rng.uniform(0.93, 1.07))
        times = np.arange(frames, dtype=np.float32) / np.float32(view.frame_rate) * np.float32(tempo)
        start = float(rng.uniform(0, walk.motion.seconds))
        course = view.course + (np.pi if rng.random() < 0.5 else 0) + np.radians(rng.normal(0, 7))
        joints = walk.at(times + np.float32(start), person.body)
        length = walk.stride * float(times[-1]) / walk.motion.seconds
        joints[:, :, 0] -= joints[0, 0, 0] + 0.5 * length
        away = max(view.distance, 0.75 * length + 3)
        aside = rng.normal(0, 0.5, 2)
        return dress(_place(joints, course, away + float(aside[0]), float(aside[1])), person.body, person.outfit)

    def _passer_by(self, rng: np.random.Generator, figure: Figure, view: Camera, frames: int) -> Figure:
        """Somebody who crosses between the camera and the person, the other way, and so hides them for a moment only."""
        number = int(rng.integers(1000))
        person, walk = self.person("passer-by", number), self.walk_of("passer-by", number)
        times = np.arange(frames, dtype=np.float32) / np.float32(view.frame_rate)
        joints = walk.at(times + np.float32(rng.uniform(0, 1)), person.body)
        at = int(rng.integers(frames))
        joints[:, :, 0] -= joints[at, 0, 0]
        path = _middle(figure)
        meeting = path[at] * np.float32(rng.uniform(0.86, 0.92))
        course = (-1 if path[-1, 1] > path[0, 1] else 1) * np.pi / 2 + rng.normal(0, 0.3)
        return dress(_place(joints, course, float(meeting[0]), float(meeting[1])), person.body, person.outfit)

    def _boxes(self, rng: np.random.Generator, figure: Figure, view: Camera, frames: int, height: int, width: int) -> Boxes:
        """Loose boxes around the person: a margin and an offset for the tracklet, slow drift, and a little shake in each frame."""
        x, y, _ = view.project(np.concatenate([figure.start, figure.end], axis=1))
        loose = self.looseness
        top, bottom = y.min(axis=1), y.max(axis=1)
        smooth = np.ones(5) / 5
        tall = np.convolve(np.pad(bottom - top, 2, mode="edge"), smooth, mode="valid")
        drift = [_drift(rng, frames) for _ in range(3)]
        size = tall * (1.14 + loose * (rng.uniform(0.0, 0.14) + 0.03 * drift[0] + rng.normal(0, 0.008, frames)))
        middle_x = 0.5 * (np.quantile(x, 0.15, axis=1) + np.quantile(x, 0.85, axis=1))
        middle_x += loose * tall * (rng.normal(0, 0.02) + 0.02 * drift[1] + rng.normal(0, 0.005, frames))
        middle_y = (
            0.48 * top
            + 0.52 * bottom
            - 0.04 * tall
            + loose * tall * (rng.normal(0, 0.012) + 0.012 * drift[2] + rng.normal(0, 0.004, frames))
        )
        wide = size * width / height * (1 + loose * float(rng.uniform(-0.08, 0.12)))
        if width / height < 0.5:
            wide *= 0.5 * height / width  # a narrow frame still holds a whole step
        return Boxes(*(np.asarray(v, np.float32) for v in (middle_x - wide / 2, middle_y - size / 2, width / wide, height / size)))


def _drift(rng: np.random.Generator, frames: int) -> Floats:
    time = np.arange(frames) / 24
    periods, phases = rng.uniform(0.4, 1.6, 2), rng.uniform(0, 2 * np.pi, 2)
    waves = np.sin(2 * np.pi * periods[:, None] * time + phases[:, None])
    return np.asarray(waves.mean(axis=0), np.float32)


def _place(joints: Floats, course: float, x: float, y: float) -> Floats:
    """Turn a walk along +x to ``course`` (radians) and move it to (x, y)."""
    sine, cosine = np.float32(np.sin(course)), np.float32(np.cos(course))
    turned = joints.copy()
    turned[..., 0] = cosine * joints[..., 0] - sine * joints[..., 1] + np.float32(x)
    turned[..., 1] = sine * joints[..., 0] + cosine * joints[..., 1] + np.float32(y)
    return turned


def _middle(figure: Figure) -> Floats:
    """(T,3) middle of the first limb, the seat."""
    middle: Floats = 0.5 * (figure.start[:, 0] + figure.end[:, 0])
    return middle


def _take_frames(figure: Figure, chosen: slice) -> Figure:
    per_frame = {name: getattr(figure, name)[chosen] for name in ("start", "end", "wide_start", "wide_end", "forward", "left")}
    per_limb = {name: getattr(figure, name) for name in ("depth", "flat", "part", "surface", "owner", "surfaces")}
    return Figure(**per_frame, **per_limb)


def _take_boxes(boxes: Boxes, chosen: slice) -> Boxes:
    return Boxes(boxes.left[chosen], boxes.top[chosen], boxes.scale_x[chosen], boxes.scale_y[chosen])
