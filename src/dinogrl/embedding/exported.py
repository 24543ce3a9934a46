"""An exported model behind the face of a trained one: whatever takes a network takes it too.

An exported file holds one graph, frames (B,T,H,W,3) uint8 and modality (B,) int64 in, embedding (B,P,D) float32 out, and a header:
JSON that says which model it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from dinogrl.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from dinogrl.errors import CheckpointError
from dinogrl.models.archive import TrainedModel
from dinogrl.recipes import Recipe, recipe_from_values
from dinogrl.records import ModelOutput

HEADER = "dinogrl"
"""Under this name every format keeps the header."""
FORMAT: Literal["1"] = "1"

Run = Callable[[NDArray[np.uint8], NDArray[np.int64]], NDArray[np.float32]]
"""Frames (B,T,H,W,3) and modality (B,) -> embedding (B,P,D)."""


class ExportedNetwork(nn.Module):
    """Normalised frames (B,T,3,H,W), modality (B,) -> :class:`ModelOutput` whose parts are the embedding, on the frames' device.

    The graph wants pixels: normalised frames came from 8 bits, and go back to them without loss.
    """

    def __init__(self, run: Run, gait_parts: int) -> None:
        super().__init__()
        self.run = run
        self.gait_parts = gait_parts

    def forward(self, frames: Tensor, modality: Tensor) -> ModelOutput:
        # OpenVINO would answer such a call with an earlier answer, and every later one wrongly
        assert 0 not in frames.shape and modality.shape == frames.shape[:1], "a modality for each clip, and frames in it"
        mean, deviation = (torch.from_numpy(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        pixels = ((frames.float().cpu() * deviation + mean) * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 1, 3, 4, 2)
        vectors = self.run(pixels.contiguous().numpy(), modality.cpu().numpy())
        return ModelOutput(torch.from_numpy(vectors).to(frames.device), self.gait_parts)


class Header(BaseModel):
    """What a file says of its model, for this program and for others: ``frames`` T, ``height`` and ``width`` are the recipe's."""

    model_config = ConfigDict(frozen=True, strict=True)

    format: Literal["1"] = FORMAT
    fingerprint: str
    precision: str
    frames: int = Field(ge=1)
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    gait_parts: int = Field(ge=0)
    identities: int = Field(ge=1)
    recipe: dict[str, Any]
    facts: dict[str, Any]


@dataclass(frozen=True)
class ExportedModel:
    """What :class:`dinogrl.models.archive.TrainedModel` is, for an exported file.

    ``fingerprint`` is that of the weights it was made of; where it does not compute in float32 its precision stands behind, since
    its vectors are not quite the same.
    """

    network: ExportedNetwork
    recipe: Recipe
    identities: int
    fingerprint: str
    facts: dict[str, Any]
    extras: dict[str, Tensor] = field(default_factory=dict)


def header_of(trained: TrainedModel, precision: str) -> str:
    """The header of an export of ``trained``."""
    network, data = trained.network, trained.recipe.data
    embedded = network.embedded.tolist()
    gait_parts = len(embedded) // 2 if network.gait is not None else 0
    header = Header(
        fingerprint=trained.fingerprint if precision == "float32" else f"{trained.fingerprint}-{precision}",
        precision=precision,
        frames=data.frames,
        height=data.height,
        width=data.width,
        gait_parts=gait_parts,
        identities=trained.identities,
        recipe=trained.recipe.model_dump(mode="json"),
        facts=trained.facts,
    )
    return json.dumps(header.model_dump())


def read_header(text: str | None, path: Path) -> Header:
    """The header. Raises :class:`CheckpointError` where there is none, one of another format, or a broken one."""
    try:
        values = json.loads(text or "null")
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path}: its header is broken ({error}); export the model again") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise CheckpointError(f"{path} was not written by dinogrl export, or by another version of it; export the model again")
    try:
        return Header.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors()[:4])
        raise CheckpointError(f"{path}: its header is broken ({problems}); export the model again") from error


def exported_model(run: Run, header: Header, path: Path) -> ExportedModel:
    """A graph that runs, and its header, put together. Raises :class:`dinogrl.errors.RecipeError` for a recipe that is none."""
    recipe = recipe_from_values(header.recipe, source=f"recipe inside {path}")
    network = ExportedNetwork(run, header.gait_parts).eval()
    return ExportedModel(network, recipe, header.identities, header.fingerprint, header.facts)
