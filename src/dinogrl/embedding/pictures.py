"""The frames of one tracklet as a caller has them: paths, arrays, tensors or Pillow images -> RGB arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dinogrl.data.frames import Image, read_frame, resize
from dinogrl.errors import DataError, in_one_line


@runtime_checkable
class PillowImage(Protocol):
    """What is needed of an image of Pillow, which need not be installed."""

    mode: str
    """Of its pixels: "RGB", "L" and many more."""

    def convert(self, mode: str) -> Any:
        """The same picture in another mode."""
        ...


Frame: TypeAlias = str | Path | NDArray[np.uint8] | Tensor | PillowImage
"""One picture: a file, or pixels of any size as an array or tensor (H,W,3) RGB or (H,W) grey, uint8, or an image of Pillow."""


def listed(frames: Iterable[Frame]) -> list[Frame]:
    """The frames in their order; an array or tensor of four axes is taken apart.

    Raises :class:`DataError` for what has no frames or no order, and for a single picture, which looks like a row of others.
    """
    if isinstance(frames, (str, Path)):
        raise DataError(f"given {frames}, expected the frames of one tracklet, a list: sorted(Path({str(frames)!r}).glob('*.jpg'))")
    shape = getattr(frames, "shape", None)
    if shape is not None and len(shape) != 4:
        raise DataError(f"given one array {tuple(shape)}, expected the frames of one tracklet: a list of them, or (T,H,W,3)")
    if not isinstance(frames, Iterable) or isinstance(frames, (Set, Mapping, bytes)):
        raise DataError(f"given a {type(frames).__name__}, expected the frames of one tracklet in order of time, a list")
    found = list(frames)
    if not found:
        raise DataError("a tracklet without frames cannot be embedded; give one frame at least")
    return found


def pixels(frame: Frame, size: tuple[int, int]) -> Image:
    """One frame as RGB (H,W,3) uint8 of ``size``. Raises :class:`DataError` for what cannot be read as one."""
    if isinstance(frame, (str, Path)):
        return read_frame(frame, size)
    if isinstance(frame, PillowImage) and not isinstance(frame, type):  # Pillow's class itself has all its images have
        frame = _of_pillow(frame)
    if isinstance(frame, Tensor):
        frame = _of_tensor(frame)
    if not isinstance(frame, np.ndarray):
        raise DataError(f"given a {type(frame).__name__} for a frame, expected a path, an array, a tensor or an image of Pillow")
    frame = np.asarray(frame)  # a matrix stays of two axes whatever is done to it
    grey = frame.ndim == 2 or (frame.ndim == 3 and frame.shape[2] == 1)
    if frame.dtype != np.uint8 or not (grey or (frame.ndim == 3 and frame.shape[2] == 3)) or not frame.size:
        raise DataError(
            f"a frame must be an array of uint8, RGB (H,W,3) or grey (H,W), given {frame.shape} of {frame.dtype}{_advice(frame)}"
        )
    if grey:
        frame = np.repeat(frame.reshape(*frame.shape[:2], 1), 3, axis=2)
    return resize(np.require(frame, requirements=["C", "W"]), size)  # a frozen array, as Pillow's, would make torch complain


def _of_pillow(image: PillowImage) -> NDArray[np.uint8]:
    if image.mode.startswith(("I", "F")):  # Pillow would cut off at 255: a 16-bit infrared picture would be white
        raise DataError(
            f"given an image of Pillow of mode {image.mode}, expected 8 bits a pixel; scale its numbers to 0 to 255 first"
        )
    try:
        return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:  # it reads its file only now
        raise DataError(f"given an image of Pillow that cannot be read ({in_one_line(error, 120)}); restore its file") from error


def _of_tensor(frame: Tensor) -> NDArray[Any]:
    try:
        found: NDArray[Any] = frame.detach().cpu().numpy()
    except (TypeError, NotImplementedError) as error:  # bfloat16, sparse, without data: there are no such arrays
        raise DataError(
            f"a frame must be uint8, RGB (H,W,3) or grey (H,W), given a tensor {tuple(frame.shape)} of {frame.dtype}: "
            f"{in_one_line(error, 120)}"
        ) from error
    return found


def _advice(frame: NDArray[Any]) -> str:
    if frame.ndim == 3 and frame.shape[0] in {1, 3} and frame.shape[2] not in {1, 3}:
        return "; the colours come last: frame.transpose(1, 2, 0), or frame.permute(1, 2, 0) of a tensor"
    if np.issubdtype(frame.dtype, np.floating):
        return "; give the picture's own numbers, 0 to 255, not normalised: they are normalised here"
    return ""
