"""Human parsing by any segmentation network of transformers (SegFormer, UPerNet, BEiT, Mask2Former ...)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dinogrl import runtime
from dinogrl.checkpoints import fingerprint
from dinogrl.data.frames import Image
from dinogrl.errors import CheckpointError, in_one_line
from dinogrl.hub_folders import UNLOADABLE, model_folder, without_bars
from dinogrl.parsing.parser import Parsing, by_size, parsing_of

BACKGROUNDS = ("background", "bg", "_background_")
PERSONS = ("person", "people", "human", "pedestrian", "person;individual;someone;somebody;mortal;soul")
"""What labels may call the background, and a person where there is no background."""
MASK_CLASSIFIERS = ("maskformer", "mask2former")
"""Networks of transformers that find masks and name them, in the form that :func:`class_probabilities` reads."""


class SegmentationParser:
    """A network of transformers that tells classes of pixels apart. Safetensors only, and never code from a model's folder.

    ``name``: a folder, or owner/name on the hub. ``background``: number of the class that is no person, where the labels do not
    say. Pictures are resized as the model's folder says, but whole: not cropped, nothing laid beside them.
    """

    def __init__(self, name: str, device: str = "auto", *, background: int | None = None) -> None:
        folder = model_folder(name, kind="human parser", instead="")
        try:
            self._prepare, self._network = _load(folder)
        except UNLOADABLE as error:
            reason = in_one_line(error, 200)
            raise CheckpointError(f"{name!r} is no segmentation network of transformers that can be loaded: {reason}") from error
        labels = {int(number): str(label).lower() for number, label in self._network.config.id2label.items()}
        self._name = name
        self._persons = person_classes(labels, background, name)
        self._device = runtime.device(device)
        self._network.eval().to(self._device)
        self.identity = f"transformers {self._network.config.model_type} {fingerprint(self._network.state_dict())} {background}"

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[Image]) -> list[Parsing]:
        """See :class:`dinogrl.parsing.parser.HumanParser`. Raises :class:`CheckpointError` where the network fails on a picture."""
        return by_size(pictures, self._parsed)

    def _parsed(self, pictures: list[Image]) -> list[Parsing]:
        size = pictures[0].shape[:2]
        try:
            # told where the channels lie: it would guess wrongly for a picture 1 or 3 pixels high
            batch = self._prepare(images=pictures, input_data_format="channels_last", return_tensors="pt").to(self._device)
            probabilities = class_probabilities(self._network(**batch))
        except (ValueError, RuntimeError) as error:
            reason = in_one_line(error, 200)
            raise CheckpointError(f"{self._name!r} cannot parse pictures of {size[0]}x{size[1]} pixels: {reason}") from error
        return [
            parsing_of(F.interpolate(one[None], size, mode="bilinear", align_corners=False)[0], self._persons)
            for one in probabilities
        ]


def _load(folder: Path) -> tuple[Any, Any]:
    """Image processor and network. Raises ValueError and what transformers raises."""
    from transformers import (
        AutoConfig,
        AutoImageProcessor,
        AutoModelForSemanticSegmentation,
        AutoModelForUniversalSegmentation,
    )

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if type(config) in AutoModelForSemanticSegmentation._model_mapping:
        family = AutoModelForSemanticSegmentation
    elif config.model_type in MASK_CLASSIFIERS:
        family = AutoModelForUniversalSegmentation
    else:
        raise ValueError(f"{config.model_type} tells no classes of pixels apart, or in a way that is not read here")
    with without_bars():
        network, told = family.from_pretrained(
            folder, use_safetensors=True, trust_remote_code=False, dtype=torch.float32, output_loading_info=True
        )
    missing = sorted(told["missing_keys"] & {parameter for parameter, _ in network.named_parameters()})
    if missing:  # transformers would leave them random
        raise ValueError(f"its file lacks {len(missing)} of the network's tensors: {', '.join(missing[:3])} ...")
    # the map must cover the whole picture: a crop of the middle would leave heads and feet out
    whole = {"do_center_crop": False, "do_pad": False, "pad_size": None, "keep_aspect_ratio": False}
    return AutoImageProcessor.from_pretrained(folder, trust_remote_code=False, backend="pil", **whole), network


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

    Those of :data:`MASK_CLASSIFIERS` give (N,Q,classes+1) and (N,Q,h,w): a class has the votes of the masks that bear its name.
    What no mask claims, as beside the people where only things have names, is a class more, the last one.
    """
    if getattr(output, "logits", None) is not None:
        return torch.as_tensor(output.logits).float().softmax(dim=1)
    named = output.class_queries_logits.float().softmax(dim=-1)[..., :-1]
    votes = torch.einsum("nqc,nqhw->nchw", named, output.masks_queries_logits.float().sigmoid())
    total = votes.sum(dim=1, keepdim=True)
    return torch.cat([votes / total.clamp(min=1), 1 - total.clamp(max=1)], dim=1)
