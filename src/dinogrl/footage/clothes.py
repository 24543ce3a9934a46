"""Does a track still follow the same person? A tracker that goes by boxes alone can change over where two people meet."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from dinogrl.data.frames import Image

WINDOW = 8
"""Crops before and after a moment that are compared."""

_TORSO, _LEGS, _MIDDLE = slice(12, 30), slice(34, 52), slice(10, 22)  # rows, rows and columns of a crop of 64 by 32


def clothes(crop: Image) -> NDArray[np.float32]:
    """Colour of torso and legs in a crop: two medians in Lab, lightness halved, (6,) float32. About 0 to 255 each."""
    small = cv2.resize(crop, (32, 64), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.float32) * np.array([0.5, 1, 1], np.float32)
    parts = [np.median(lab[rows, _MIDDLE].reshape(-1, 3), axis=0) for rows in (_TORSO, _LEGS)]
    return np.concatenate(parts).astype(np.float32)


def newcomer(recent: Sequence[NDArray[np.float32]], threshold: float) -> int:
    """How many of the last crops of a track show somebody else than those before; 0 where all show the same person.

    ``recent``: the clothes of the last crops, ``2 * WINDOW`` of them or fewer. The medians before and after a moment must differ by
    more than ``threshold``, in the torso or in the legs; the moment is the one that leaves the least deviation on either side.
    """
    if len(recent) < 2 * WINDOW:
        return 0
    seen = np.stack(recent)
    if _change(seen, WINDOW) <= threshold:
        return 0
    moments = range(WINDOW // 2, len(seen) - WINDOW // 2 + 1)
    return len(seen) - min(moments, key=lambda moment: _deviation(seen[:moment]) + _deviation(seen[moment:]))


def _change(seen: NDArray[np.float32], moment: int) -> float:
    """Distance of the clothes before and after ``moment``."""
    step = np.median(seen[moment:], axis=0) - np.median(seen[:moment], axis=0)
    return float(max(np.linalg.norm(step[:3]), np.linalg.norm(step[3:])))


def _deviation(seen: NDArray[np.float32]) -> float:
    """How far the clothes of some crops lie from their median, summed."""
    return float(np.abs(seen - np.median(seen, axis=0)).sum())
