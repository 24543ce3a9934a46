"""The still scene behind the people of one camera, as daylight and as its infrared lamp show it."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from dinogrl.simulation.body import Floats
from dinogrl.simulation.cameras import SCENE, Camera

Bytes = NDArray[np.uint8]


def draw_scenery(rng: np.random.Generator, camera: Camera) -> tuple[Bytes, Bytes]:
    """Visible (720,1280,3) RGB and infrared (720,1280) pictures of an empty place."""
    height, width = SCENE
    colour = np.empty((height, width, 3), np.float32)
    infrared = np.empty((height, width), np.float32)
    foot_of_wall = int(np.clip(camera.ground_row(camera.distance + rng.uniform(4, 9)), 40, height - 60))
    _backdrop(rng, colour, infrared, foot_of_wall)
    _ground(rng, colour, infrared, camera, foot_of_wall)
    for _ in range(int(rng.integers(2, 6))):
        _thing(rng, colour, infrared, foot_of_wall)
    grain = 1 + 0.10 * smooth_noise(rng, SCENE, 5) + 0.08 * smooth_noise(rng, SCENE, 40)
    colour *= grain[..., None]
    infrared *= 1 + 0.10 * smooth_noise(rng, SCENE, 5) + 0.08 * smooth_noise(rng, SCENE, 40)
    infrared *= _lamp_light(rng)
    return _bytes(colour * camera.exposure * np.array(camera.cast, np.float32)), _bytes(infrared * camera.lamp)


def smooth_noise(rng: np.random.Generator, size: tuple[int, int], grain: int) -> Floats:
    """Noise in -1..1 of (H,W) whose blobs are about ``grain`` pixels large."""
    coarse = rng.uniform(-1, 1, (size[0] // grain + 3, size[1] // grain + 3)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (size[1], size[0]), interpolation=cv2.INTER_CUBIC), np.float32)


def _bytes(values: Floats) -> Bytes:
    return np.clip(values * 255, 0, 255).astype(np.uint8)


def _grey(rng: np.random.Generator, low: float, high: float, tint: float = 0.06) -> Floats:
    return np.asarray(rng.uniform(low, high) * (1 + rng.uniform(-tint, tint, 3)), np.float32)


def _backdrop(rng: np.random.Generator, colour: Floats, infrared: Floats, foot: int) -> None:
    """A wall with windows and doors, or a hedge, or a far street."""
    width = SCENE[1]
    colour[:foot], infrared[:foot] = _grey(rng, 0.25, 0.65, 0.08), rng.uniform(0.12, 0.42)
    kind = rng.choice(["wall", "hedge", "street"], p=[0.55, 0.25, 0.2])
    if kind == "wall":
        pitch, left = int(rng.integers(90, 240)), 0
        while left < width:
            wide = int(pitch * rng.uniform(0.35, 0.7))
            top, bottom = int(foot - rng.uniform(150, 330)), int(foot - rng.choice([0, 40, 80]))
            colour[max(top, 0) : max(bottom, 0), left : left + wide] = _grey(rng, 0.08, 0.5, 0.1)
            infrared[max(top, 0) : max(bottom, 0), left : left + wide] = rng.uniform(0.03, 0.3)
            left += pitch
    if kind == "hedge":
        leaves = smooth_noise(rng, (foot, width), 9)[..., None]
        colour[:foot] = np.array([0.2, 0.32, 0.13], np.float32) * (1 + 0.45 * leaves)
        infrared[:foot] = rng.uniform(0.3, 0.55) * (1 + 0.35 * leaves[..., 0])  # living leaves shine in infrared
    if kind == "street":
        fade = np.linspace(0, 1, foot, dtype=np.float32)[:, None]
        colour[:foot] = (0.75 - 0.3 * fade)[..., None] * np.array([0.85, 0.95, 1.05], np.float32)
        infrared[:foot] = 0.04 + 0.12 * fade


def _ground(rng: np.random.Generator, colour: Floats, infrared: Floats, camera: Camera, foot: int) -> None:
    height, width = SCENE
    base, base_infrared = _grey(rng, 0.28, 0.62, 0.1), rng.uniform(0.16, 0.45)
    colour[foot:], infrared[foot:] = base, base_infrared
    joint, size = rng.uniform(0.75, 0.95), rng.uniform(0.8, 2.0)
    turn = camera.course + rng.uniform(-0.2, 0.2)
    if rng.random() < 0.75:  # slabs: two families of parallel lines on the ground, in perspective
        for angle in (turn, turn + np.pi / 2):
            along = np.array([np.cos(angle), np.sin(angle), 0])
            across = np.array([-np.sin(angle), np.cos(angle), 0])
            for k in range(-12, 13):
                ends = np.stack(
                    [np.array([camera.distance, 0, 0]) + across * k * size + along * s for s in np.linspace(-14, 14, 60)]
                )
                ends = ends[ends[:, 0] > 2.5]
                x, y, _ = camera.project(ends.astype(np.float32))
                line = np.stack([x, y], axis=1).round().astype(np.int32)[:, None]
                shade = np.zeros((height, width), np.uint8)
                cv2.polylines(shade, [line], False, 255, 2)
                shade[:foot] = 0
                hit = shade > 0
                colour[hit] = base * joint
                infrared[hit] = base_infrared * joint
    rows = np.linspace(0, 1, height - foot, dtype=np.float32)[:, None]
    colour[foot:] *= (0.85 + 0.25 * rows)[..., None]


def _thing(rng: np.random.Generator, colour: Floats, infrared: Floats, foot: int) -> None:
    """A box, a car-like block, a trunk or a shrub standing at the wall."""
    height, width = SCENE
    x, base = int(rng.integers(0, width)), int(foot + rng.uniform(0, 50))
    wide, tall = int(rng.uniform(15, 160)), int(rng.uniform(50, 220))
    top, left, right = max(base - tall, 0), max(x - wide // 2, 0), min(x + wide // 2, width)
    if right - left < 4 or base - top < 4:
        return
    if rng.random() < 0.4:  # shrub
        blob = np.zeros((height, width), np.uint8)
        cv2.ellipse(blob, (x, base - tall // 3), (max(wide, 40), tall // 2), 0, 0, 360, 255, -1)
        leaves = smooth_noise(rng, SCENE, 8)
        hit = (blob > 0) & (smooth_noise(rng, SCENE, 14) > -0.6)
        colour[hit] = np.array([0.17, 0.27, 0.13], np.float32) * rng.uniform(0.7, 1.2) * (1 + 0.4 * leaves[hit])[:, None]
        infrared[hit] = rng.uniform(0.3, 0.55) * (1 + 0.35 * leaves[hit])
        return
    colour[top:base, left:right] = _grey(rng, 0.08, 0.65, 0.22)
    infrared[top:base, left:right] = rng.uniform(0.05, 0.6)
    colour[top : top + 6, left:right] *= 1.2
    infrared[top : top + 6, left:right] *= 1.2


def _lamp_light(rng: np.random.Generator) -> Floats:
    """Round pool of light with a soft rim."""
    height, width = SCENE
    y = (np.arange(height, dtype=np.float32)[:, None] - height * rng.uniform(0.5, 0.68)) / (height * rng.uniform(0.65, 0.9))
    x = (np.arange(width, dtype=np.float32)[None] - width * rng.uniform(0.42, 0.58)) / (width * rng.uniform(0.5, 0.7))
    light: Floats = np.asarray(0.18 + 0.95 * np.exp(-1.2 * (x * x + y * y)), np.float32)
    return light
