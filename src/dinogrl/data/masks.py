"""Masks that a human parser has written beside a dataset: one grey PNG a frame, 255 where the person is.

The mask of ``ROOT/a/b/0001.jpg`` is ``MASKS/a/b/0001.png``, ROOT being the dataset's root; a folder MASKS given by a relative path
begins there too. A simulated world's true silhouettes lie so, in its folder ``silhouettes``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dinogrl.data.frames import by_distance, fault, read_frame
from dinogrl.errors import DataError
from dinogrl.recipes.schema import BrokenFrames
from dinogrl.records import Tracklet

CARD = "parser.json"
"""File in a folder of masks that says what made them, where ``dinogrl parse`` did."""
LEVELS = 3
"""A tracklet's paths may begin below the dataset's root (``Train``, ``DATA``): so many folders upwards are tried."""


def mask_path(tracklet: Tracklet, index: int, folder: str) -> Path:
    """Where the mask of a frame lies. Raises :class:`DataError` where it is not there."""
    frame = tracklet.path(index)
    root = Path(tracklet.root)
    for start in (root, *root.parents)[:LEVELS]:
        path = start / folder / frame.relative_to(start).with_suffix(".png")
        if path.is_file():
            return path
    raise DataError(f"frame {frame} has no mask in the folder {folder}; data.masks needs one for every frame, under its name")


def read_masks(
    tracklet: Tracklet, indices: NDArray[np.int64], size: tuple[int, int], folder: str, broken: BrokenFrames = "stop"
) -> NDArray[np.uint8]:
    """Masks of a clip, (T,H,W). Raises :class:`DataError` for one that is missing or broken.

    ``broken``: of a frame that cannot be read, and so has no mask, as in :func:`dinogrl.data.frames.read_clip`.
    """
    masks = np.empty((len(indices), *size), np.uint8)
    for place, index in enumerate(indices.tolist()):
        try:
            path = mask_path(tracklet, index, folder)
        except DataError:
            if broken == "stop" or fault(tracklet.path(index), full=True) is None:
                raise
            path = _nearest(tracklet, index, folder)
        masks[place] = read_frame(path, size)[..., 0]
    return masks


def expect_masks(tracklets: Sequence[Tracklet], folder: str, broken: BrokenFrames = "stop") -> None:
    """Look for the mask of every tracklet's last frame, before a run begins that would meet the gap hours later.

    Parsers go from tracklet to tracklet, so this finds what one left that was stopped. Raises :class:`DataError` for the lack of
    any but those of frames that, by ``broken``, need none.
    """
    lacking = [tracklet for tracklet in tracklets if not _has_last(tracklet, folder, broken)]
    if lacking:
        raise DataError(
            f"{len(lacking)} of {len(tracklets)} tracklets lack masks in the folder {folder}, the first is {lacking[0].id!r};"
            " each frame needs one; a `dinogrl parse` that was stopped goes on when it is called again"
        )


def _has_last(tracklet: Tracklet, folder: str, broken: BrokenFrames) -> bool:
    last = len(tracklet.frames) - 1
    try:
        mask_path(tracklet, last, folder)
    except DataError:
        return broken == "neighbour" and fault(tracklet.path(last), full=True) is not None
    return True


def _nearest(tracklet: Tracklet, index: int, folder: str) -> Path:
    for other in by_distance(tracklet, index):
        try:
            return mask_path(tracklet, other, folder)
        except DataError:
            continue
    raise DataError(f"no frame of tracklet {tracklet.id!r} has a mask in the folder {folder}")
