"""The shipped recipes at sizes that run in milliseconds: the same classes, other numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from dinogrl.models.build import build_model
from dinogrl.models.dinogrl import DinoGRL
from dinogrl.recipes import Recipe, load_recipe

_APPEARANCE = ["model.appearance.width=4", "model.appearance.depths=[1,2,1,1]", "model.pooling.width=12"]
_GAIT = [
    "model.gait.prior.shape={width: 16, depth: 4, heads: 2, positions: 6}",
    "model.gait.prior.height=112",
    "model.gait.prior.width=56",
    "model.gait.prior.blocks=[1,3]",
    "model.gait.prior.weights=null",
    "model.gait.prior.random_init=true",
    "model.gait.map_height=16",
    "model.gait.map_width=8",
    "model.gait.channels=4",
    "model.gait.embed=16",
    "model.gait.width=4",
    "model.gait.depths=[1,1,1,1]",
]
_ENHANCEMENT = ["model.enhancement.channels=6"]


def tiny_recipe(name: str, *more: str) -> Recipe:
    """A shipped recipe made small."""
    overrides = list(_APPEARANCE)
    if load_recipe(name).model.gait is not None:
        overrides += _GAIT
    if load_recipe(name).model.enhancement is not None:
        overrides += _ENHANCEMENT
    return load_recipe(name, [*overrides, *more])


def tiny_model(name: str, *more: str, identities: int = 5, seed: int = 0) -> DinoGRL:
    """Its network, with weights and running statistics that are nobody's start: nothing is zero, nothing is the identity."""
    torch.manual_seed(seed)
    model = build_model(tiny_recipe(name, *more), identities)
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if tensor.is_floating_point() and tensor.numel() > 1 and tensor.std() == 0 and "prior" not in key:
                tensor += torch.rand_like(tensor) * 0.3 + 0.1
    return model


def clips(batch: int = 4, times: int = 3, height: int = 64, width: int = 32, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Frames (B,T,3,H,W) and alternating modalities (B,)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(batch * times, 3, height // 8, width // 8, generator=generator)
    frames = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear").unflatten(0, (batch, times))
    return frames, torch.arange(batch) % 2
