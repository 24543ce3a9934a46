"""One picture of many: simulated people in rows, moments of a walk in columns, by day above, by night below."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import simplejpeg

from dinogrl.checkpoints import write_atomically
from dinogrl.simulation.scenery import Bytes
from dinogrl.simulation.world import World


def contact_sheet(
    world: World,
    people: Sequence[int],
    cameras: Sequence[int],
    *,
    moments: int = 6,
    height: int = 128,
    width: int = 64,
    split: str = "test",
) -> Bytes:
    """(rows * 2 * height, columns * moments * width, 3) RGB: a row of pairs a person, a block of columns a camera.

    Each block shows ``moments`` consecutive frames of a walk, visible above the same moments in infrared.
    """
    rows = []
    for person in people:
        blocks = []
        for camera in cameras:
            pair = world.pair(split, person, camera, 0, moments, height, width)
            blocks.append(np.concatenate([np.concatenate(list(tracklet.frames), axis=1) for tracklet in pair], axis=0))
        rows.append(np.concatenate(blocks, axis=1))
    return np.concatenate(rows, axis=0)


def write_contact_sheet(path: Path, world: World, people: Sequence[int] = range(4), cameras: Sequence[int] = (0, 4)) -> None:
    """Write a contact sheet as a JPEG file."""
    sheet = np.ascontiguousarray(contact_sheet(world, people, cameras))
    write_atomically(path, simplejpeg.encode_jpeg(sheet, quality=82, colorspace="RGB"))
