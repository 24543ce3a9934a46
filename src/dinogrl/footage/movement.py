"""Boxes in which nothing moves: a detector of little judgement takes cones and parked cars for persons, always the same ones."""

from __future__ import annotations

import cv2
import numpy as np

from dinogrl.data.frames import Image
from dinogrl.footage.boxes import Boxes

LEAST_MOVING = 0.25
"""Share of a box's pixels that must differ from the background. On a street clip, false boxes have under 0.1 and walkers over
0.35.
"""
MEMORY = 60.0
"""Seconds in which the background is learnt. Somebody who stands still becomes background after about a third of them."""

_ROWS = 288  # the background is kept this small: a person of 48 pixels in 1080 rows is 13 then, enough to see that it moves


class MovementGate:
    """Lets only those boxes pass in which something differs from the background (a mixture of Gaussians, Zivkovic, ICPR 2004).

    For a camera that stands. Where it pans everything moves, and every box passes. ``rate``: pictures a second.
    """

    def __init__(self, rate: float) -> None:
        pictures = max(rate * MEMORY, 1.0)
        self._background = cv2.createBackgroundSubtractorMOG2(history=round(pictures), varThreshold=16, detectShadows=False)
        self._background.setBackgroundRatio(0.7)
        self._learning = 1 / pictures
        self._seen = False

    def __call__(self, image: Image, found: Boxes) -> Boxes:
        """To be asked once for each picture, in order."""
        scale = min(_ROWS / image.shape[0], 1.0)
        size = (max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        moving = self._background.apply(small, learningRate=self._learning if self._seen else 1.0) > 0
        moving &= self._seen  # of the first picture alone nobody knows what moves
        self._seen = True
        passing = np.array([_share(moving, box * scale) > LEAST_MOVING for box in found.boxes], bool)
        return Boxes(found.boxes[passing], found.scores[passing])


def _share(moving: np.ndarray, box: np.ndarray) -> float:
    """Share of a box's pixels that move."""
    left, top, right, bottom = np.maximum(np.round([box[0], box[1], box[0] + box[2], box[1] + box[3]]), 0).astype(int)
    inside = moving[top:bottom, left:right]
    return float(inside.mean()) if inside.size else 0.0
