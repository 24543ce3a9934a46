"""Human parsing by any segmentation network of transformers (SegFormer, UPerNet, BEiT, Mask2Former ...)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dinogrl import runtime
from dinogrl.checkpoints import fingerprint
from dinogrl.data.frames import Image
from dinogrl.errors import CheckpointError
from dinogrl.hub_folders import model_folder
from dinogrl.parsing.parser import Parsing, parsing_of

BACKGROUNDS = ("background", "bg", "_background_")
PERSONS = ("person", "people", "human", "pedestrian", "person;individual;someone;somebody;mortal;soul")
"""What labels may call the background, and a person where there is no background."""


class SegmentationParser:
    """A network of transformers that tells classes of pixels apart. Safetensors only, and never code from a model's folder.

    ``name``: a folder, or owner/name on the hub. ``background``: number of the class that is no person, where the labels do not
    say.
    """

    def __init__(self, name: str, device: str = "auto", *, background: int | None = None) -> None:
        folder = model_folder(name, kind="human parser", instead="")
        try:
            self._prepare, self._network = _load(folder)
        except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(f"{name!r} is no segmentation network of transformers that can be loaded: {reason}") from error
        labels = {int(number): str(label).lower() for number, label in self._network.config.id2label.items()}
        self._persons = person_classes(labels, background, name)
        self._device = runtime.device(device)
        self._network.eval().to(self._device)
        self.identity = f"transformers {name} {fingerprint(self._network.state_dict())} {background}"

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[Image]) -> list[Parsing]:
        """See :class:`dinogrl.parsing.parser.HumanParser`."""
        batch = self._prepare(images=list(pictures), return_tensors="pt").to(self._device)
        probabilities = class_probabilities(self._network(**batch))
        return [
            parsing_of(F.interpolate(one[None], picture.shape[:2], mode="bilinear", align_corners=False)[0], self._persons)
            for one, picture in zip(probabilities, pictures, strict=True)
        ]


def _load(folder: Any) -> tuple[Any, Any]:
    from transformers import (
        AutoConfig,
        AutoImageProcessor,
        AutoModelForSemanticSegmentation,
        AutoModelForUniversalSegmentation,
    )

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    known = [
        family
        for family in (AutoModelForSemanticSegmentation, AutoModelForUniversalSegmentation)
        if type(config) in family._model_mapping
    ]
    if not known:
        raise ValueError(f"{config.model_type} tells no classes of pixels apart")
    network = known[0].from_pretrained(folder, use_safetensors=True, trust_remote_code=False)
    # a crop of the middle would leave heads and feet out
    return AutoImageProcessor.from_pretrained(folder, trust_remote_code=False, backend="pil", do_center_crop=False), network


def person_classes(labels: Mapping[int, str], background: int | None, name: str) -> frozenset[int]:
    """The classes that belong to a person: all but the background, or, where no label is called so, those called a person.

    Raises :class:`CheckpointError` where the labels, number -> lower-case text, say neither.
    """
    if background is not None and background not in labels:
        raise CheckpointError(f"{name!r} has no class {background}; its classes are 0 to {max(labels)}")
    backgrounds = {background} if background is not None else {number for number, label in labels.items() if label in BACKGROUNDS}
    if backgrounds:
        return frozenset(labels) - backgrounds
    persons = frozenset(number for number, label in labels.items() if label in PERSONS)
    if not persons:
        some = ", ".join(f"{number} {label}" for number, label in list(labels.items())[:8])
        raise CheckpointError(f"which class of {name!r} is the background? Give its number ({some} ...)")
    return persons


def class_probabilities(output: Any) -> Tensor:
    """What a segmentation network gave -> probabilities (N,classes,h,w).

    Networks that find masks and name them (MaskFormer and its kin) give (N,Q,classes+1) and (N,Q,h,w): a class's probability is the
    mean over the masks that bear its name.
    """
    if getattr(output, "logits", None) is not None:
        return torch.as_tensor(output.logits).float().softmax(dim=1)
    named = output.class_queries_logits.float().softmax(dim=-1)[..., :-1]
    votes = torch.einsum("nqc,nqhw->nchw", named, output.masks_queries_logits.float().sigmoid())
    return votes / votes.sum(dim=1, keepdim=True).clamp(min=1e-6)
