"""Small pictures: thumbnails of tracklets, and the maps of the gait stream in colour."""

from __future__ import annotations

import base64
from functools import lru_cache

import numpy as np

from dinogrl.data.frames import Image, encode_jpeg, encode_png, read_frame, resize
from dinogrl.errors import DataError

THUMB = (144, 72)  # height and width in pixels


@lru_cache(maxsize=4096)
def thumbnail(path: str) -> str | None:
    """A frame as a ``data:`` address, or None where the file is gone or broken."""
    frame = frame_or_none(path)
    return None if frame is None else jpeg_address(frame)


def frame_or_none(path: str) -> Image | None:
    """A frame at the size of a thumbnail, or None where the file is gone or broken: a report must not die of it."""
    try:
        return read_frame(path, THUMB)
    except DataError:
        return None


def jpeg_address(image: Image) -> str:
    """``data:`` address of an image (H,W,3) or (H,W)."""
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(image, quality=78)).decode()


def png_address(image: Image) -> str:
    """The same without loss, for maps with hard edges."""
    return "data:image/png;base64," + base64.b64encode(encode_png(image)).decode()


def in_colour(maps: np.ndarray) -> np.ndarray:
    """(n,C,h,w) feature maps as colour pictures (n,h,w,3) uint8: their three principal components over all n, brightness by size.

    Where all channels are 0 (outside the person, when the maps are masked) the picture is black. The sign of a component is
    fixed, so the same maps always get the same colours.
    """
    n, channels, h, w = maps.shape
    rows = maps.transpose(0, 2, 3, 1).reshape(-1, channels).astype(np.float64)
    strength = np.linalg.norm(rows, axis=1)
    lit = strength > 0.05 * max(strength.max(), 1e-12)
    centred = rows - rows[lit].mean(0) if lit.any() else rows
    _, vectors = np.linalg.eigh(centred[lit].T @ centred[lit])
    axes = vectors[:, ::-1][:, :3]
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])])
    values = np.zeros((len(rows), 3))
    values[:, : axes.shape[1]] = centred @ axes
    low, high = np.percentile(values[lit], [2, 98], axis=0) if lit.any() else (np.zeros(3), np.ones(3))
    colours = np.clip((values - low) / np.maximum(high - low, 1e-9), 0, 1) * 0.85 + 0.15
    colours *= np.clip(strength / max(np.percentile(strength[lit], 90) if lit.any() else 1.0, 1e-12), 0, 1)[:, None]
    return np.asarray((colours * 255).round(), dtype=np.uint8).reshape(n, h, w, 3)


def in_grey(maps: np.ndarray) -> np.ndarray:
    """(n,h,w) probabilities as grey pictures (n,h,w,3) uint8."""
    grey = np.asarray((np.clip(maps, 0, 1) * 255).round(), dtype=np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def enlarged(image: Image, height: int = THUMB[0]) -> Image:
    """The picture at a height for the page."""
    return resize(image, (height, round(image.shape[1] * height / image.shape[0])))
