"""From what was seen to a picture: scenery behind, light on the person, things before, blur, and the sensor's noise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from dinogrl.records import Modality
from dinogrl.simulation.body import Floats
from dinogrl.simulation.cameras import Camera
from dinogrl.simulation.figure import Figure, Part
from dinogrl.simulation.occluders import Occluder, occluder_cover
from dinogrl.simulation.render import Boxes, Touched, Visible
from dinogrl.simulation.scenery import Bytes
from dinogrl.simulation.shading import daylight, infrared, pattern_weights


@dataclass(frozen=True)
class Film:
    """What stays the same through one tracklet. ``scene_visible`` (720,1280,3) and ``scene_infrared`` (720,1280) lie behind."""

    camera: Camera
    scene_visible: Bytes
    scene_infrared: Bytes
    figure: Figure
    boxes: Boxes
    occluder: Occluder | None
    height: int
    width: int


def develop(
    film: Film, figure: Figure, boxes: Boxes, visible: Visible, touched: Touched, modality: Modality, rng: np.random.Generator
) -> Bytes:
    """(T,H,W,3) pictures of some frames of a tracklet. ``rng`` draws the noise."""
    weights = pattern_weights(figure, touched)
    camera, height, width = film.camera, film.height, film.width
    by_day = modality == Modality.VISIBLE
    points = daylight(figure, touched, weights, camera) if by_day else infrared(figure, touched, weights, camera)[:, None]
    channels = points.shape[1]
    drawn = np.zeros((visible.limb.size, channels), np.float32)
    drawn[touched.index] = points * 255
    drawn = drawn.reshape(*visible.limb.shape, channels)
    scene = film.scene_visible if by_day else film.scene_infrared
    noise = _noise_tile(channels) * np.float32(255 * (camera.noise_visible if by_day else camera.noise_infrared))
    smear = _smear(boxes, height)
    pictures = np.empty((*visible.limb.shape, 3), np.uint8)
    for frame in range(len(pictures)):
        behind = _behind(scene, boxes, frame, height, width, channels)
        behind *= _contact_shadow(figure, camera, boxes, frame, height, width, 0.55 if by_day else 0.35)
        cover = visible.cover[frame][..., None]
        picture = behind + cover * (drawn[frame] - behind)
        if film.occluder is not None:
            share, light = occluder_cover(film.occluder, boxes, frame, height, width)
            own = np.array(film.occluder.colour if by_day else (film.occluder.infrared,), np.float32) * 200
            picture += share[..., None] * (light[..., None] * own - picture)
        picture = cv2.GaussianBlur(picture, (0, 0), max(camera.blur * height, 0.3)).reshape(height, width, channels)
        if smear > 1:
            picture = cv2.blur(picture, (smear, 1)).reshape(height, width, channels)
        top, left = rng.integers(0, noise.shape[0] - height), rng.integers(0, noise.shape[1] - width)
        picture += noise[top : top + height, left : left + width]
        pictures[frame] = np.clip(picture, 0, 255)  # one grey fills all three channels
    return pictures


def unhidden(film: Film, boxes: Boxes, visible: Visible) -> Visible:
    """The same view with the pixels that a pole or bush hides taken from silhouette and parts."""
    if film.occluder is None:
        return visible
    free = np.stack([occluder_cover(film.occluder, boxes, t, film.height, film.width)[0] < 0.5 for t in range(len(visible.limb))])
    parts = np.where(free, visible.parts, np.uint8(Part.BACKGROUND)).astype(np.uint8)
    return Visible(visible.limb, visible.cover, visible.depth, parts, visible.silhouette & free)


def _behind(scene: Bytes, boxes: Boxes, frame: int, height: int, width: int, channels: int) -> Floats:
    """The part of the scenery inside the box, as large as the frame."""
    scale_x, scale_y = 1 / float(boxes.scale_x[frame]), 1 / float(boxes.scale_y[frame])
    matrix = np.array([[scale_x, 0, boxes.left[frame] + scale_x / 2], [0, scale_y, boxes.top[frame] + scale_y / 2]], np.float64)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    cut = cv2.warpAffine(scene, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return cut.reshape(height, width, channels).astype(np.float32)


def _contact_shadow(figure: Figure, camera: Camera, boxes: Boxes, frame: int, height: int, width: int, strength: float) -> Floats:
    """(H,W,1) factor that darkens the ground under everybody's feet."""
    factor = np.ones((height, width), np.float32)
    for owner in np.unique(figure.owner):
        legs = (figure.owner == owner) & ((figure.part == Part.LEFT_LEG) | (figure.part == Part.RIGHT_LEG))
        soles = figure.end[frame, legs]
        soles = soles[np.argsort(soles[:, 2])[:4]].mean(axis=0) * np.array([1, 1, 0], np.float32)
        x, y, depth = camera.project(soles)
        metre = camera.focal / depth
        right = ((np.arange(width, dtype=np.float32) + 0.5) / boxes.scale_x[frame] + boxes.left[frame] - x) / (0.42 * metre)
        down = ((np.arange(height, dtype=np.float32) + 0.5) / boxes.scale_y[frame] + boxes.top[frame] - y) / (0.13 * metre)
        factor *= 1 - np.float32(strength) * np.exp(-down * down)[:, None] * np.exp(-right * right)
    return factor[..., None]


def _smear(boxes: Boxes, height: int) -> int:
    """Motion blur in frame pixels: how far the box moves while the shutter is open (about a twelfth of a frame's time)."""
    if len(boxes.left) < 2:
        return 1
    speed = np.abs(np.diff(boxes.left)).mean() * float(boxes.scale_x.mean())
    return round(float(min(0.08 * speed, 0.02 * height)))


@lru_cache(maxsize=4)
def _noise_tile(channels: int) -> Floats:
    """One fixed tile of sensor noise, slightly soft, from which every frame cuts its own piece."""
    tile = np.random.default_rng(7).standard_normal((1024, 1024, channels)).astype(np.float32)
    soft = 0.75 * tile + 0.5 * np.roll(tile, 1, axis=1)
    return soft
