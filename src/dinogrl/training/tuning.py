"""How the largest parts of a network are run in training; what they compute stays the same."""

from __future__ import annotations

from torch import nn

from dinogrl import memory
from dinogrl.models.backbones.recompute import Recomputing
from dinogrl.models.backbones.resnet import Layers
from dinogrl.recipes.schema import Training


def tune(network: nn.Module, recipe: Training) -> None:
    """Set up ``recipe.recompute`` and ``recipe.compile``, and what this process does with freed memory."""
    memory.keep_freed_memory()
    for part in network.modules():
        if isinstance(part, Recomputing):
            part.recompute = recipe.recompute
    resnets = [part for part in network.modules() if isinstance(part, Layers)]
    for resnet in resnets:
        resnet.recompute = 3 if recipe.recompute else 0  # the last layer's results are wanted at once
        if recipe.compile:
            resnet.compile()
