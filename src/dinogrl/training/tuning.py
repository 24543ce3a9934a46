"""How the largest parts of a network are run in training; what they compute stays the same."""

from __future__ import annotations

from torch import nn

from dinogrl import runtime
from dinogrl.models.backbones.resnet import Layers
from dinogrl.models.streams.silhouette import GaitPrior
from dinogrl.recipes.schema import Training


def tune(network: nn.Module, recipe: Training) -> None:
    """Set up ``recipe.recompute`` and ``recipe.compile``."""
    if recipe.recompute:
        runtime.give_memory_back()
    for part in network.modules():
        if isinstance(part, (Layers, GaitPrior)):
            part.recompute = recipe.recompute
        if isinstance(part, Layers) and recipe.compile:
            part.compile()
