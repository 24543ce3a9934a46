"""The one door to image files: decoding, resizing, encoding. Images are uint8 RGB arrays (H,W,3).

JPEG goes through simplejpeg (the same pixels as Pillow, and it refuses truncated files), everything else through OpenCV.
Resizing is bilinear with antialiasing where it shrinks, as in the published code: torch's kernel differs from Pillow's by at most
one grey level, while OpenCV's plain bilinear, which skips pixels when it shrinks, differs by ten and more.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from torch.nn import functional

from dinogrl.checkpoints import part_beside
from dinogrl.data.tiff_orientation import as_stored
from dinogrl.errors import DataError, in_one_line
from dinogrl.recipes.schema import BrokenFrames
from dinogrl.records import Tracklet

Image = NDArray[np.uint8]

_JPEG = b"\xff\xd8\xff"
_JPEG_END = b"\xff\xd9"
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB\x60\x82"
_MOST_PIXELS = 2**28
"""Of a JPEG: some hundred bytes can declare 2**32, and would take 13 GB and a minute. OpenCV has a limit of its own."""
_ADVICE = "restore the file, or remove it"
ADVICE_IN_DATASETS = (
    "restore the file, or have the frame beside it taken: train with data.broken_frames=neighbour (--resume too), "
    "evaluate, embed or fill a gallery with --broken-frames neighbour"
)
"""Of frames that a dataset's index names: none of them may be removed."""


def read_frame(path: str | Path, size: tuple[int, int] | None = None, *, advice: str = _ADVICE) -> Image:
    """Decode an image file, and resize it to ``size`` = (height, width) when given.

    Raises :class:`DataError`, with path, fault and ``advice``, for a file that is missing, empty, cut short or no image.
    """
    try:
        # a pipe must not be opened: reading it would wait for ever
        content = Path(path).read_bytes() if stat.S_ISREG(os.stat(path).st_mode) else None  # noqa: PTH116 - half a million files
    except FileNotFoundError as error:
        raise DataError(f"frame {path} is missing; {advice}") from error
    except (OSError, ValueError) as error:  # ValueError: a name that no file system takes
        raise DataError(f"frame {path} cannot be read ({error}); {advice}") from error
    if content is None:
        raise DataError(f"frame {path} cannot be read (it is no file); {advice}")
    try:
        image = decode(content)
    except DataError as error:
        raise DataError(f"frame {path} {error}; {advice}") from error
    return image if size is None else resize(image, size)


def decode(content: bytes) -> Image:
    """Decode the bytes of an image file. Raises :class:`DataError` (``"is empty"``, ``"is truncated ..."``, ``"is no image"``)."""
    if not content:
        raise DataError("is empty")
    if content.startswith(_JPEG):
        return _decode_jpeg(content)
    if content.startswith(_PNG) and _PNG_END not in content[-64:]:
        raise DataError("is truncated or broken (no end of PNG)")  # OpenCV would fill the rest with black
    return _decode_other(content)


def _decode_jpeg(content: bytes) -> Image:
    try:
        height, width = simplejpeg.decode_jpeg_header(content)[:2]
        if height * width > _MOST_PIXELS:
            raise DataError(f"would unfold to {height}x{width} pixels, more than any frame has")
        image: Image = simplejpeg.decode_jpeg(content, "RGB", fastdct=False, fastupsample=False)
    except DataError:
        raise
    except ValueError as error:
        if "colorspace" in str(error).lower() or "color" in str(error).lower():
            return _decode_other(content)  # CMYK, which libjpeg does not convert
        raise DataError(f"is truncated or broken ({error})") from error
    return image


def _decode_other(content: bytes) -> Image:
    try:
        image = cv2.imdecode(np.frombuffer(as_stored(content), np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise DataError(f"is truncated or broken ({in_one_line(error, 120)})") from error
    if image is None:
        raise DataError("is no image, or a broken one")
    return np.asarray(image, dtype=np.uint8)


def fault(path: str | Path, full: bool = False) -> str | None:
    """What is wrong with an image file, or None. ``full`` decodes it.

    Otherwise a JPEG or PNG is judged by its first and last bytes, and decoded only where these leave a doubt.
    """
    try:
        status = os.stat(path)  # noqa: PTH116 - half a million files; and a pipe must not be opened, reading it would wait for ever
        if not stat.S_ISREG(status.st_mode):
            return "is no file"
        if status.st_size == 0:
            return "is empty"
        with open(path, "rb") as file:  # noqa: PTH123
            if not full:
                start = file.read(16)
                file.seek(max(status.st_size - 64, 0))
                end = file.read().rstrip(b"\0\r\n ")
                if (start.startswith(_JPEG) and end.endswith(_JPEG_END)) or (start.startswith(_PNG) and end.endswith(_PNG_END)):
                    return None
                file.seek(0)
            decode(file.read())
    except FileNotFoundError:
        return "is missing"
    except DataError as error:
        return str(error)
    except (OSError, ValueError) as error:  # ValueError: a name that no file system takes
        return f"cannot be read ({error})"
    return None


def resize(image: Image, size: tuple[int, int]) -> Image:
    """Bilinear, antialiased where it shrinks; ``size`` = (height, width). The same array when nothing is to be done."""
    if image.shape[:2] == size:
        return image
    planes = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[
        None
    ]  # (1,3,H,W), channels last in memory: the fast path
    resized = functional.interpolate(planes, size=size, mode="bilinear", antialias=True, align_corners=False)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


def read_clip(
    tracklet: Tracklet, indices: NDArray[np.int64], size: tuple[int, int], broken: BrokenFrames = "stop"
) -> tuple[Image, int]:
    """Frames of a tracklet, (T,H,W,3), and how many of the T were replaced.

    A frame that stands in the clip several times is decoded once. ``broken``: an unreadable frame either raises
    :class:`DataError`, or is replaced by the nearest readable one of the tracklet (the earlier of two equally near); it still
    raises when the whole tracklet is unreadable.
    """
    clip = np.empty((len(indices), *size, 3), np.uint8)
    replaced = 0
    first_use: dict[int, int] = {}
    for position, index in enumerate(indices.tolist()):
        if index in first_use:
            clip[position] = clip[first_use[index]]
            continue
        try:
            clip[position] = read_frame(tracklet.path(index), size, advice=ADVICE_IN_DATASETS)
        except DataError:
            if broken == "stop":
                raise
            clip[position] = _nearest_readable(tracklet, index, size)
            replaced += int(np.count_nonzero(indices == index))
        first_use[index] = position
    return clip, replaced


def by_distance(tracklet: Tracklet, index: int) -> list[int]:
    """The other frames of a tracklet, the nearest first; of two equally near ones the earlier."""
    return sorted((i for i in range(len(tracklet.frames)) if i != index), key=lambda i: (abs(i - index), i))


def _nearest_readable(tracklet: Tracklet, index: int, size: tuple[int, int]) -> Image:
    for other in by_distance(tracklet, index):
        try:
            return read_frame(tracklet.path(other), size)
        except DataError:
            continue
    raise DataError(f"no frame of tracklet {tracklet.id!r} can be read (the first is {tracklet.path(0)}); remove the tracklet")


def encode_jpeg(image: Image, quality: int = 95) -> bytes:
    """JPEG bytes of an RGB (H,W,3) or grey (H,W) image."""
    if image.ndim == 2:
        return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(image[..., None]), quality=quality, colorspace="GRAY"))
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=quality, colorspace="RGB"))


def encode_png(image: Image) -> bytes:
    """PNG bytes of an RGB (H,W,3) or grey (H,W) image."""
    ordered = image if image.ndim == 2 else image[..., ::-1]
    done, buffer = cv2.imencode(".png", np.ascontiguousarray(ordered))
    assert done, "PNG encoding cannot fail on a uint8 image"
    return bytes(buffer.tobytes())


def write_image(path: Path, image: Image, quality: int = 95) -> None:
    """Write a .png as PNG, anything else as JPEG: beside first, then renamed, so that no half image is ever seen."""
    content = encode_png(image) if path.suffix.lower() == ".png" else encode_jpeg(image, quality)
    beside = part_beside(path)
    try:
        beside.write_bytes(content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
