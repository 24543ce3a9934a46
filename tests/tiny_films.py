"""Short films with walking figures whose boxes are known, written by PyAV; and a detector that finds exactly these figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from dinogrl.footage.boxes import Boxes

HEIGHT, WIDTH, RATE = 144, 240, 10
COLOURS = ((220, 30, 30), (30, 60, 220), (20, 160, 60))


@dataclass(frozen=True)
class Walker:
    """Walks from ``left`` at ``speed`` pixels a frame, the top of the head in ``row``, from frame ``first`` to before ``last``."""

    left: float
    row: float
    speed: float
    first: int = 0
    last: int = 10**9
    colour: int = 0
    height: int = 60

    def box(self, frame: int) -> tuple[float, float, float, float] | None:
        if not self.first <= frame < self.last:
            return None
        return self.left + self.speed * (frame - self.first), self.row, self.height * 0.4, float(self.height)


TWO = (Walker(10, 60, 2.0, colour=0), Walker(200, 70, -1.5, first=5, last=70, colour=1))
"""Two who pass each other in 90 frames."""


def background() -> np.ndarray:
    """A street in colour: sky, wall, lawn."""
    scene = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    scene[:40] = (140, 180, 230)
    scene[40:90] = (150, 130, 110)
    scene[90:] = (70, 130, 60)
    noise = np.random.default_rng(1).integers(-12, 13, scene.shape)
    return np.clip(scene + noise, 0, 255).astype(np.uint8)


def draw(walkers: Sequence[Walker], frame: int, infrared: bool = False) -> np.ndarray:
    """One picture, RGB. An infrared one is grey."""
    scene = background()
    for walker in walkers:
        box = walker.box(frame)
        if box is None:
            continue
        left, top, width, height = (round(value) for value in box)
        middle, swing = left + width // 2, round(0.12 * height * np.sin(frame * 0.9))
        cv2.circle(scene, (middle, top + height // 9), height // 9, (210, 170, 140), -1)
        cv2.rectangle(
            scene,
            (middle - width // 4, top + height // 5),
            (middle + width // 4, top + height * 3 // 5),
            COLOURS[walker.colour],
            -1,
        )
        for side in (-1, 1):
            cv2.line(
                scene,
                (middle, top + height * 3 // 5),
                (middle + side * swing, top + height - 1),
                (30, 30, 40),
                max(height // 10, 2),
            )
    return np.repeat(cv2.cvtColor(scene, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2) if infrared else scene


def write_film(
    path: Path,
    frames: int,
    picture: Callable[[int], np.ndarray],
    codec: str = "mpeg4",
    rate: int = RATE,
    created: str | None = None,
) -> Path:
    """Encode ``picture(0)`` ... as a film."""
    with av.open(str(path), "w") as container:
        if created is not None:
            container.metadata["creation_time"] = created
        first = picture(0)
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = first.shape[0], first.shape[1], "yuv420p"
        stream.bit_rate = 2_000_000
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(first if number == 0 else picture(number), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


class Finder:
    """Finds every walker by knowing where he is. ``calls`` counts the pictures, at number ``stop_at`` it acts as Ctrl-C does."""

    name = "tiny"
    sees_still = True

    def __init__(self, walkers: Sequence[Walker], step: int = 1, stop_at: int | None = None, start: int = 0) -> None:
        self.walkers, self.step, self.stop_at, self.calls, self._next = walkers, step, stop_at, 0, start

    def __call__(self, image: np.ndarray) -> Boxes:
        frame = self._next * self.step
        if self.stop_at == self._next:
            raise KeyboardInterrupt
        self._next += 1
        self.calls += 1
        found = [box for walker in self.walkers if (box := walker.box(frame)) is not None]
        return Boxes(np.array(found, np.float64).reshape(-1, 4), np.full(len(found), 0.9))
