"""From decoded frames to the network's input: random changes (training) and ImageNet normalisation.

Drawing and applying are apart: :func:`draw` decides what happens to a clip, :func:`apply` does it. With one :class:`Change` for the
whole clip the person moves as before; with one a frame (published code) crops, flips and colours differ between neighbours.
The order is the published one: crop and flip, normalise, erase, change colour, so colour changes act on normalised values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from dinogrl.recipes.schema import Augment
from dinogrl.records import Modality

Float = NDArray[np.float32]

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)
GREY = np.array([0.2989, 0.5870, 0.1140], np.float32)
ERASE_FILL = np.array([0.4914, 0.4822, 0.4465], np.float32).reshape(3, 1, 1)
ERASE_AREA = (0.02, 0.4)
ERASE_ASPECT = (0.3, 1 / 0.3)

_TABLE = ((np.arange(256, dtype=np.float32) / 255 - IMAGENET_MEAN[:, None]) / IMAGENET_STD[:, None]).astype(np.float32)

Colour = Literal["keep", "red", "green", "blue", "grey"]
_COPIES: tuple[Colour, ...] = ("red", "green", "blue")
_CHANNEL: dict[Colour, int] = {"red": 0, "green": 1, "blue": 2}


@dataclass(frozen=True, slots=True)
class Rectangle:
    """Pixels ``top .. top + height - 1`` by ``left .. left + width - 1``."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Change:
    """What happens to a frame, or to all frames of a clip alike. ``down`` and ``right`` shift the picture, black moves in."""

    down: int = 0
    right: int = 0
    flip: bool = False
    erase: Rectangle | None = None
    colour: Colour = "keep"


def draw(
    augment: Augment, modality: Modality, frames: int, size: tuple[int, int], rng: np.random.Generator, flip_all: bool = False
) -> list[Change]:
    """Draw the changes of a clip: one for all frames with ``augment.per == "track"``, else one for each of the T frames.

    ``size`` = (H, W). ``flip_all`` flips the whole clip on top (drawn outside, once for both clips of an aligned pair).
    """
    colours = augment.infrared_channel
    if modality is Modality.VISIBLE:
        colours = augment.visible_channel if rng.random() < augment.visible_channel_probability else "none"
    return [_draw_one(augment, colours, size, rng, flip_all) for _ in range(1 if augment.per == "track" else frames)]


def _draw_one(augment: Augment, colours: str, size: tuple[int, int], rng: np.random.Generator, flip_all: bool) -> Change:
    pad = augment.crop_padding
    down, right = rng.integers(-pad, pad + 1, 2).tolist()
    flip = bool(rng.random() < augment.flip)
    erase = _draw_rectangle(size, rng) if rng.random() < augment.erase else None
    return Change(down, right, flip != flip_all, erase, _COLOUR_DRAWS[colours](rng))


def _draw_rectangle(size: tuple[int, int], rng: np.random.Generator) -> Rectangle | None:
    """A rectangle by random erasing's rule: area, then aspect, until it fits; None when a hundred did not."""
    height, width = size
    for _ in range(100):
        area = rng.uniform(*ERASE_AREA) * height * width
        aspect = rng.uniform(*ERASE_ASPECT)
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < h < height and 0 < w < width:
            return Rectangle(int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1)), h, w)
    return None


def _keep(rng: np.random.Generator) -> Colour:
    return "keep"


def _exchange(rng: np.random.Generator) -> Colour:
    """One of the three channels takes the place of all."""
    return _COPIES[int(rng.integers(3))]


def _adaptive_grey(rng: np.random.Generator) -> Colour:
    """CAJ's channel-adaptive grey: a quarter each for R, G and B, an eighth for grey, an eighth for no change."""
    draws: tuple[Colour, ...] = (*_COPIES, *_COPIES, "grey", "keep")
    return draws[int(rng.integers(8))]


_COLOUR_DRAWS = {"none": _keep, "exchange": _exchange, "adaptive-grey": _adaptive_grey}


def normalise(clip: NDArray[np.uint8]) -> Float:
    """(T,H,W,3) uint8 -> (T,3,H,W) float32, ``(value / 255 - mean) / std`` of ImageNet."""
    return apply(clip, [Change()])


def apply(clip: NDArray[np.uint8], changes: Sequence[Change], out: Float | None = None) -> Float:
    """(T,H,W,3) uint8 -> (T,3,H,W) float32, changed and normalised.

    ``changes`` has one entry for the clip, or T. ``out`` is written and returned when given.
    """
    frames, height, width, _ = clip.shape
    assert len(changes) in (1, frames), f"{len(changes)} changes for {frames} frames"
    if out is None:
        out = np.empty((frames, 3, height, width), np.float32)
    for number in range(frames):  # frame by frame: one frame stays in the processor's cache from first to last step
        change = changes[number % len(changes)]
        _normalise_into(_moved(clip[number], change), out[number])
        if change.erase is not None:
            box = change.erase
            out[number, :, box.top : box.top + box.height, box.left : box.left + box.width] = ERASE_FILL
        if change.colour != "keep":
            _recolour(out[number], change.colour)
    return out


def move_masks(masks: NDArray[np.uint8], changes: Sequence[Change], out: Float) -> None:
    """(T,H,W) uint8 -> ``out`` (T,H,W) float32 in 0..1: shifted and flipped with their frames, background moves in.

    Nothing is erased: what a parser saw, it saw in the whole picture.
    """
    for number, mask in enumerate(masks):
        moved = _moved(mask[..., None], changes[number % len(changes)])
        np.divide(moved.reshape(mask.shape), 255, out=out[number], dtype=np.float32)


def _moved(frame: NDArray[np.uint8], change: Change) -> NDArray[np.uint8]:
    """(H,W,3): shifted, then flipped. A crop out of a picture with a black border is a shift that lets black move in."""
    height, width, _ = frame.shape
    if change.down or change.right:
        canvas = np.zeros_like(frame)
        into = _window(height, change.down), _window(width, change.right)
        canvas[into] = frame[_window(height, -change.down), _window(width, -change.right)]
        frame = canvas
    return np.asarray(cv2.flip(frame, 1), dtype=np.uint8) if change.flip else frame


def _window(length: int, shift: int) -> slice:
    """Where a row of pixels lands that is moved by ``shift`` and cut off at both ends."""
    return slice(min(max(shift, 0), length), max(length + min(shift, 0), 0))


def _normalise_into(frame: NDArray[np.uint8], out: Float) -> None:
    """A table of 256 values a channel: one pass, straight into the batch."""
    for channel, plane in enumerate(cv2.split(frame)):
        cv2.LUT(plane, _TABLE[channel], dst=out[channel])


def _recolour(frame: Float, colour: Colour) -> None:
    """(3,H,W), in place: all three channels become one of them, or their grey."""
    source = frame[_CHANNEL[colour]].copy() if colour in _CHANNEL else np.tensordot(GREY, frame, axes=1)
    frame[...] = source
