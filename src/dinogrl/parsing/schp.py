"""SCHP as its authors use it: each picture laid into the network's square, parsed, and laid back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from dinogrl import runtime
from dinogrl.data.frames import Image
from dinogrl.data.transforms import normalise
from dinogrl.errors import CheckpointError
from dinogrl.parsing.labels import ATR, LIP, PASCAL, LabelSet
from dinogrl.parsing.parser import Parsing, parsing_of
from dinogrl.parsing.schp_network import SchpNetwork
from dinogrl.parsing.weights import channels_of, fill, read_weights

SIDES = {LIP: 473, ATR: 512, PASCAL: 512}
"""Side of the square that each of the authors' three networks was trained on, in pixels."""


class SchpParser:
    """SCHP with one of the authors' files (``exp-schp-...-lip.pth``, ``-atr.pth``, ``-pascal-person-part.pth``)."""

    def __init__(self, network: nn.Module, labels: LabelSet, side: int, fingerprint: str, device: str = "auto") -> None:
        self.identity = f"schp {labels.name} {fingerprint}"
        self._side = side
        self._device = runtime.device(device)
        self._network = network.eval().to(self._device)

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[Image]) -> list[Parsing]:
        """See :class:`dinogrl.parsing.parser.HumanParser`."""
        matrices = [to_square(picture.shape[0], picture.shape[1], self._side) for picture in pictures]
        squares = np.stack([laid(picture, matrix, self._side) for picture, matrix in zip(pictures, matrices, strict=True)])
        scores = self._network(torch.from_numpy(normalise(squares)).flip(1).to(self._device))  # blue first
        scores = F.interpolate(scores, (self._side, self._side), mode="bilinear", align_corners=True).cpu()
        return [
            parsing_of(laid_back(square, matrix, picture.shape[0], picture.shape[1]).softmax(dim=0))
            for square, matrix, picture in zip(scores, matrices, pictures, strict=True)
        ]


def load_schp(weights: Path, device: str = "auto") -> SchpParser:
    """The authors' network for the file's number of classes: 20 is LIP, 18 ATR, 7 Pascal-Person-Part.

    The compiled norm that these files were trained with scales by the absolute value of its weight; ours are made so. Raises
    :class:`CheckpointError` for a file that is none of these.
    """
    read = read_weights(weights)
    tensors = {name: tensor.abs() if name.endswith(".weight") and tensor.ndim == 1 else tensor for name, tensor in read.items()}
    classes = channels_of(tensors, "decoder.conv4.weight", weights, "SCHP")
    known = {len(labels.classes): labels for labels in SIDES}
    if classes not in known:
        raise CheckpointError(f"{weights} tells {classes} classes apart; SCHP's files have {', '.join(map(str, known))}")
    labels = known[classes]
    for i in (1, 2, 3, 4):
        channels_of(tensors, f"layer{i}.0.conv1.weight", weights, "SCHP")
    depths = [sum(name.startswith(f"layer{i}.") and name.endswith(".conv1.weight") for name in tensors) for i in (1, 2, 3, 4)]
    network = SchpNetwork(classes, channels_of(tensors, "bn1.weight", weights, "SCHP"), depths)
    return SchpParser(network, labels, SIDES[labels], fill(network, tensors, weights), device)


def to_square(height: int, width: int, side: int) -> NDArray[np.float64]:
    """Similarity (2,3) that lays a picture's pixel centres into the middle of a square, its longer side from edge to edge."""
    scale = (side - 1) / max(height - 1, width - 1, 1)
    return np.array([[scale, 0, (side - 1) / 2 - scale * (width - 1) / 2], [0, scale, (side - 1) / 2 - scale * (height - 1) / 2]])


def laid(picture: NDArray[np.uint8], matrix: NDArray[np.float64], side: int) -> NDArray[np.uint8]:
    """The square (side,side,C), black beside the picture."""
    square = cv2.warpAffine(np.ascontiguousarray(picture), matrix, (side, side), flags=cv2.INTER_LINEAR)
    return np.asarray(square, dtype=np.uint8)


def laid_back(scores: Tensor, matrix: NDArray[np.float64], height: int, width: int) -> Tensor:
    """Scores (classes,side,side) of the square -> (classes,height,width) of the picture."""
    back = cv2.invertAffineTransform(matrix)
    return torch.stack(
        [torch.from_numpy(cv2.warpAffine(plane, back, (width, height), flags=cv2.INTER_LINEAR)) for plane in scores.numpy()]
    )
