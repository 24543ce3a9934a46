"""How the largest parts of a network are run in training; what they compute stays the same."""

from __future__ import annotations

from torch import nn

from dinogrl import memory
from dinogrl.models.backbones.resnet import Layers, Stem
from dinogrl.models.streams.gait import MapEncoder
from dinogrl.models.streams.silhouette import GaitPrior
from dinogrl.recipes.schema import Training


def tune(network: nn.Module, recipe: Training) -> None:
    """Set up ``recipe.recompute`` and ``recipe.compile``, and what this process does with freed memory."""
    memory.keep_freed_memory()
    for part in network.modules():
        if isinstance(part, (Stem, MapEncoder, GaitPrior)):
            part.recompute = recipe.recompute
    resnets = [part for part in network.modules() if isinstance(part, Layers)]
    for resnet in resnets:
        resnet.recompute = 4 if recipe.recompute else 0
        if recipe.compile:
            resnet.compile()
    if recipe.recompute:
        resnets[-1].recompute -= 1  # what comes last is wanted again at once
