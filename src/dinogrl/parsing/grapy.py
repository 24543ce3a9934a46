"""Grapy-ML as its authors test it: at several sizes and mirrored, the scores averaged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinogrl import runtime
from dinogrl.data.frames import Image
from dinogrl.errors import CheckpointError
from dinogrl.parsing.grapy_network import SHARED_HEADS, GrapyNetwork
from dinogrl.parsing.labels import ATR, CIHP, LABELS, PASCAL, LabelSet
from dinogrl.parsing.parser import Parsing, by_size, parsing_of
from dinogrl.parsing.weights import channels_of, fill, read_weights

SCALES = (1.0, 0.5, 0.75, 1.25, 1.5, 1.75)
"""The authors' sizes."""
HEIGHT = 512
"""Pictures are made this many pixels high before. The authors' are of that order, a surveillance camera's crops a quarter of it;
this step is ours."""
WIDEST = 2
"""So many times that height a picture gets wide at most: a strip a few pixels high would fill the memory."""
# parameters of the file that take no part in parsing
_UNUSED = ("transform.", "semantic.", "semantic_aux_")


class GrapyParser:
    """Grapy-ML with one of the authors' files (``CIHP_trained.pth``, ``GPM-ML_multi-dataset.pth``, ``GPM-ML_finetune_PASCAL.pth``).

    ``scales`` and ``mirror``: what the scores are averaged over. ``height``: of a picture at scale 1, in pixels; None leaves it.
    """

    def __init__(
        self,
        network: nn.Module,
        labels: LabelSet,
        fingerprint: str,
        device: str = "auto",
        *,
        scales: Sequence[float] = SCALES,
        mirror: bool = True,
        height: int | None = HEIGHT,
    ) -> None:
        sizes = "" if (tuple(scales), mirror, height) == (SCALES, True, HEIGHT) else f" {tuple(scales)} {mirror} {height}"
        self.identity = f"grapy-ml {labels.name} {fingerprint}{sizes}"
        self._classes = len(labels.classes)
        self._scales, self._mirror, self._height = tuple(scales), mirror, height
        self._device = runtime.device(device)
        self._network = network.eval().to(self._device)
        order = list(range(len(labels.classes)))
        for left, right in labels.sides:
            order[left], order[right] = right, left
        self._mirrored_order = torch.tensor(order, device=self._device)

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[Image]) -> list[Parsing]:
        """See :class:`dinogrl.parsing.parser.HumanParser`. Pictures of one size go through the network together."""
        return by_size(pictures, lambda group: list(map(parsing_of, self._scores(np.stack(group)).softmax(dim=1))))

    def _scores(self, pictures: Image) -> Tensor:
        """Mean scores (N,classes,H,W) of pictures (N,H,W,3)."""
        own = pictures.shape[1:3]
        inputs = torch.from_numpy(pictures[..., ::-1].copy()).to(self._device).permute(0, 3, 1, 2).float()  # blue first
        grow = 1.0 if self._height is None else min(self._height / own[0], WIDEST * self._height / own[1])
        size = (max(round(own[0] * grow), 1), max(round(own[1] * grow), 1))
        total = torch.zeros(len(pictures), self._classes, *size, device=self._device)
        for scale in self._scales:
            scaled = (max(int(size[0] * scale), 1), max(int(size[1] * scale), 1))
            resized = F.interpolate(inputs, scaled, mode="bilinear", antialias=True, align_corners=False)
            scores = self._both_ways(resized / 127.5 - 1)
            total += F.interpolate(scores, size, mode="bilinear", align_corners=True)
        return F.interpolate(total / len(self._scales), own, mode="bilinear", antialias=True, align_corners=False)

    def _both_ways(self, pictures: Tensor) -> Tensor:
        if not self._mirror:
            return torch.as_tensor(self._network(pictures))
        straight, mirrored = self._network(torch.cat([pictures, pictures.flip(-1)])).chunk(2)
        return (straight + mirrored[:, self._mirrored_order].flip(-1)) / 2


def load_grapy(
    weights: Path,
    device: str = "auto",
    *,
    labels: str | None = None,
    scales: Sequence[float] = SCALES,
    mirror: bool = True,
    height: int | None = HEIGHT,
) -> GrapyParser:
    """The authors' network for one dataset (20 classes: CIHP, 18: ATR, 7: Pascal), or the one for three, of which ``labels`` says
    which is to be read: ``cihp``, ``pascal`` or ``atr``. Raises :class:`CheckpointError` for a file that is neither, and where
    ``labels`` is lacking or wrong."""
    tensors = read_weights(weights)
    shared = f"sem2{next(iter(SHARED_HEADS))}.weight" in tensors
    chosen = _shared_labels(weights, labels) if shared else _own_labels(tensors, weights, labels)
    network = GrapyNetwork(chosen, SHARED_HEADS if shared else None)
    fingerprint = fill(network, tensors, weights, unused=_UNUSED)
    return GrapyParser(network, chosen, fingerprint, device, scales=scales, mirror=mirror, height=height)


def _shared_labels(weights: Path, labels: str | None) -> LabelSet:
    known = {known.name: known for known in SHARED_HEADS.values()}
    if labels is None or LABELS[labels].name not in known:
        raise CheckpointError(f"{weights} was trained on several datasets; give labels {', '.join(known)}, not {labels}")
    return known[labels]


def _own_labels(tensors: dict[str, Tensor], weights: Path, labels: str | None) -> LabelSet:
    classes = channels_of(tensors, "sem2.weight", weights, "Grapy-ML")
    known = {len(known.classes): known for known in (CIHP, ATR, PASCAL)}
    if classes not in known:
        raise CheckpointError(f"{weights} tells {classes} classes apart; Grapy-ML's files have {', '.join(map(str, known))}")
    if labels is not None and LABELS[labels] != known[classes]:
        raise CheckpointError(f"{weights} has the {classes} classes of {known[classes].name}, not those of {labels}")
    return known[classes]
