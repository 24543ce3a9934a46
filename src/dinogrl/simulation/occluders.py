"""Things that stand between the camera and the person for a while: a pole, a bush."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dinogrl.simulation.body import Floats
from dinogrl.simulation.render import Boxes
from dinogrl.simulation.scenery import smooth_noise


@dataclass(frozen=True)
class Occluder:
    """``kind`` is "pole" or "bush". ``x`` and ``bottom`` in the camera's picture, ``width``, ``height`` in its pixels."""

    kind: str
    x: float
    bottom: float
    width: float
    height: float
    colour: tuple[float, float, float]
    infrared: float
    leaves: Floats


def draw_occluder(rng: np.random.Generator, x: float, bottom: float, person: float) -> Occluder:
    """Draw something at a place in the picture where a person is ``person`` pixels tall."""
    kind = str(rng.choice(["pole", "bush"], p=[0.55, 0.45]))
    shade = float(rng.uniform(0.1, 0.6))
    bush = kind == "bush"
    return Occluder(
        kind=kind,
        x=x,
        bottom=bottom + person * float(rng.uniform(0.05, 0.12)),
        width=person * float(rng.uniform(0.3, 0.6) if bush else rng.uniform(0.04, 0.11)),
        height=person * float(rng.uniform(0.28, 0.5)),
        colour=(0.17, 0.29, 0.12) if bush else (shade, shade * 0.97, shade * 0.93),
        infrared=float(rng.uniform(0.4, 0.65) if bush else rng.uniform(0.1, 0.6)),
        leaves=smooth_noise(rng, (64, 64), 6),
    )


def occluder_cover(occluder: Occluder, boxes: Boxes, frame: int, height: int, width: int) -> tuple[Floats, Floats]:
    """(H,W) share of each pixel that is covered, and (H,W) brightness of what covers it, for one frame."""
    x = (np.arange(width, dtype=np.float32) + 0.5) / boxes.scale_x[frame] + boxes.left[frame] - occluder.x
    y = (np.arange(height, dtype=np.float32) + 0.5) / boxes.scale_y[frame] + boxes.top[frame] - occluder.bottom
    sharp = float(boxes.scale_x[frame])
    if occluder.kind == "pole":
        across = x / (occluder.width / 2)
        cover = np.clip((occluder.width / 2 - np.abs(x)) * sharp + 0.5, 0, 1)
        light = 0.55 + 0.5 * np.sqrt(np.maximum(1 - np.clip(across - 0.25, -1, 1) ** 2, 0))
        return np.broadcast_to(cover, (height, width)), np.broadcast_to(light.astype(np.float32), (height, width))
    column = np.round(x / occluder.width * 30 + 32).astype(int) % 64
    row = np.round(y / occluder.height * 30 + 32).astype(int) % 64
    leaves = occluder.leaves[row[:, None], column[None]]
    inside = 1 - (x[None] / occluder.width) ** 2 - np.where(y < 0, (y / occluder.height) ** 2, 0)[:, None]
    return np.clip((inside + 0.35 * leaves) * 6 - 1, 0, 1), 1 + 0.4 * leaves
