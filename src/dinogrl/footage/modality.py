"""Visible or infrared, told from the pixels: an infrared camera's picture is grey.

Compressed video is never quite grey: chroma is stored coarsely and its noise paints faint blotches. So colour is measured on a
picture shrunk to a few cells, where noise averages out, and as the distance from the picture's own tint, since many night cameras
cast everything in one colour. A grey picture of a *visible* camera cannot be told from infrared this way; then the modality must
be given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from dinogrl.data.frames import Image, read_frame
from dinogrl.records import Modality

GREY, COLOURED = 6.0, 8.0
"""Below the first a picture is infrared, above the second visible (see :func:`colourfulness`); between them it stays what it was.
"""
WINDOW = 9
"""Pictures whose median decides, the one in question in their middle: one bright flash or torn picture changes nothing."""

_CELLS = (48, 27)  # columns and rows

T = TypeVar("T")


def colourfulness(image: Image) -> float:
    """How far the colours of a picture (H,W,3) spread about its own tint, in grey levels: 0 grey, a street by day 10 and more.

    The 95th percentile over the cells: a small red coat in a grey winter is enough, a few cells of noise are not.
    """
    cells = cv2.resize(image, _CELLS, interpolation=cv2.INTER_AREA).astype(np.float32)
    opponent = np.stack([cells[..., 0] - cells[..., 1], (cells[..., 0] + cells[..., 1]) / 2 - cells[..., 2]], axis=-1)
    opponent = opponent.reshape(-1, 2)
    light = np.stack([np.ones(len(opponent), np.float32), cells.mean(axis=-1).ravel()], axis=1)
    tint = (
        light @ np.linalg.lstsq(light, opponent, rcond=None)[0]
    )  # what follows from brightness alone: an offset or a gain of a channel
    return float(np.percentile(np.linalg.norm(opponent - tint, axis=1), 95))


def seen_by(frames: Sequence[str | Path]) -> Modality:
    """Of a tracklet's image files; up to nine of them decide. Raises :class:`DataError` for one that cannot be read."""
    chosen = [frames[i] for i in np.linspace(0, len(frames), min(WINDOW, len(frames)), endpoint=False).astype(int)]
    median = float(np.median([colourfulness(read_frame(path)) for path in chosen]))
    return Modality.INFRARED if median < (GREY + COLOURED) / 2 else Modality.VISIBLE


def with_modality(pictures: Iterable[tuple[T, float]]) -> Iterator[tuple[T, Modality]]:
    """Things with the colourfulness of their picture -> the same with a modality; runs ``WINDOW // 2`` things behind.

    The median of a window about each picture decides, so a camera's switch at dusk is found at the very picture.
    """
    half = WINDOW // 2
    values: deque[float] = deque(maxlen=WINDOW)
    waiting: deque[T] = deque()
    current: Modality | None = None

    def decide(position: int) -> Modality:
        """Of the picture whose value stands at ``position`` in ``values``; at the ends of a film its window is shorter."""
        nonlocal current
        median = float(np.median(list(values)[max(position - half, 0) : position + half + 1]))
        if current is None:
            current = Modality.INFRARED if median < (GREY + COLOURED) / 2 else Modality.VISIBLE
        elif median < GREY:
            current = Modality.INFRARED
        elif median > COLOURED:
            current = Modality.VISIBLE
        return current

    for thing, value in pictures:
        values.append(value)
        waiting.append(thing)
        if len(waiting) > half:
            yield waiting.popleft(), decide(len(values) - 1 - half)
    while waiting:
        yield waiting.popleft(), decide(len(values) - 1 - len(waiting))
