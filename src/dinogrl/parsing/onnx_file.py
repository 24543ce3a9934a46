"""Human parsing by an ONNX file from anywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dinogrl.catalog import Catalog
from dinogrl.data.frames import Image, resize
from dinogrl.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from dinogrl.errors import CheckpointError, in_one_line
from dinogrl.onnx_sessions import failures, onnx_session
from dinogrl.parsing.parser import Parsing, parsing_of


@dataclass(frozen=True)
class Values:
    """How a file wants its pixels: bytes times ``scale``, less ``mean``, over ``spread``; mean and spread red, green, blue."""

    scale: float = 1.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    spread: tuple[float, ...] = (1.0, 1.0, 1.0)


VALUES: Catalog[Values] = Catalog(
    "range of values",
    {
        "imagenet": Values(1 / 255, tuple(IMAGENET_MEAN.tolist()), tuple(IMAGENET_STD.tolist())),
        "unit": Values(1 / 255),
        "symmetric": Values(1 / 127.5, (1.0, 1.0, 1.0)),
        "bytes": Values(),
    },
)


PIXELS = {"tensor(uint8)": np.uint8, "tensor(float16)": np.float16, "tensor(float)": np.float32, "tensor(double)": np.float64}
"""Kinds of pixels that a file may want, in its words; bytes are given as they are."""


@dataclass(frozen=True)
class OnnxInput:
    """What an ONNX file does not say itself.

    ``size``: height and width, where the file takes any. ``values``: entry of :data:`VALUES`. ``blue_first``: order of the
    channels. ``background``: number of the class that is no person.
    """

    size: tuple[int, int] = (512, 512)
    values: str = "imagenet"
    blue_first: bool = False
    background: int = 0


class OnnxParser:
    """An ONNX file with one picture as input, (N,3,H,W) or (N,H,W,3), and as first output scores or probabilities of classes, a map
    of their numbers, or one channel with the person.

    Pictures are resized to the file's size, whatever their shape.
    """

    def __init__(self, path: Path, settings: OnnxInput | None = None, device: str = "auto") -> None:
        self._settings = settings or OnnxInput()
        self._values = VALUES[self._settings.values]
        self._session = onnx_session(path, "cpu" if device == "auto" else device)
        given = self._session.get_inputs()
        shape = list(given[0].shape) if len(given) == 1 else []
        channels = [place for place in (1, 3) if len(shape) == 4 and shape[place] == 3]
        if len(channels) != 1:
            takes = [(one.name, one.shape) for one in given]
            raise CheckpointError(f"{path} takes {takes}, expected one picture (N,3,H,W) or (N,H,W,3)")
        if given[0].type not in PIXELS or (isinstance(shape[0], int) and shape[0] != 1):
            wanted = f"any number of pictures or one, of {', '.join(PIXELS)}"
            raise CheckpointError(f"{path} takes {shape[0]} pictures of {given[0].type}, expected {wanted}")
        self._input, self._channels_last = given[0], channels == [3]
        sides = shape[1:3] if self._channels_last else shape[2:]
        height, width = (side if isinstance(side, int) else own for side, own in zip(sides, self._settings.size, strict=True))
        self._size = (height, width)
        self._one_by_one = isinstance(shape[0], int)
        self._path = path
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        self.identity = f"onnx {digest} {self._size} {self._settings}"

    def __call__(self, pictures: Sequence[Image]) -> list[Parsing]:
        """See :class:`dinogrl.parsing.parser.HumanParser`. Raises :class:`CheckpointError` for an output of another form, and where
        the file fails on a picture."""
        inputs = np.stack([self._prepared(picture) for picture in pictures])
        groups = np.split(inputs, len(inputs)) if self._one_by_one else [inputs]
        try:
            outputs = np.concatenate([self._session.run(None, {self._input.name: group})[0] for group in groups])
        except failures() as error:
            reason = in_one_line(error, 200)
            raise CheckpointError(f"{self._path} fails on pictures of {self._size} pixels: {reason}") from error
        maps = self._probabilities(outputs)
        persons = frozenset(range(maps.shape[1])) - {self._settings.background}
        return [
            parsing_of(F.interpolate(one[None], picture.shape[:2], mode="bilinear", align_corners=False)[0], persons)
            for one, picture in zip(maps, pictures, strict=True)
        ]

    def _prepared(self, picture: Image) -> NDArray[Any]:
        resized = resize(picture, self._size)
        kind = PIXELS[self._input.type]
        values: NDArray[Any] = resized
        if kind is not np.uint8:
            values = ((resized * self._values.scale - np.array(self._values.mean)) / np.array(self._values.spread)).astype(kind)
        values = values[..., ::-1] if self._settings.blue_first else values
        return np.ascontiguousarray(values if self._channels_last else values.transpose(2, 0, 1))

    def _probabilities(self, output: NDArray[Any]) -> Tensor:
        """(N,classes,h,w), background and person where the file gives one channel."""
        if output.ndim == 4 and self._channels_last:
            output = output.transpose(0, 3, 1, 2)
        if output.ndim == 4 and output.shape[1] == 1:
            output = output[:, 0]
        whole = output.dtype.kind in "iub" or (output.min() >= 0 and output.max() > 1 and np.array_equal(output, np.rint(output)))
        if output.ndim == 3 and whole:
            classes = torch.from_numpy(output.astype(np.int64))
            return F.one_hot(classes, max(int(classes.max()), self._settings.background) + 1).permute(0, 3, 1, 2).float()
        scores = torch.from_numpy(output.astype(np.float32))
        if output.ndim == 3:
            person = scores if scores.min() >= 0 and scores.max() <= 1 else scores.sigmoid()
            return torch.stack([1 - person, person], dim=1)
        if output.ndim != 4:
            raise CheckpointError(f"{self._path} gives {output.shape}, expected scores (N,classes,h,w) or class numbers (N,h,w)")
        sums = scores.sum(dim=1)
        return scores if scores.min() >= 0 and torch.allclose(sums, torch.ones_like(sums), atol=1e-3) else scores.softmax(dim=1)
