"""How the parts of a network are run in training; what they compute, and what they learn, stays the same."""

from __future__ import annotations

from torch import nn

from dinogrl import memory
from dinogrl.models.backbones.recompute import Recomputing
from dinogrl.models.backbones.resnet import Layers
from dinogrl.models.dinogrl import DinoGRL
from dinogrl.models.streams.gait import GaitStream
from dinogrl.recipes.schema import Objective, Training


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


def freeze_what_no_loss_reaches(network: DinoGRL, objective: Objective) -> None:
    """Freeze what gets no gradient in any step: parts of the gait stream that its switches cut off, or that only a loss without
    weight looks at. They would stay as they are; but processes that train together wait for the gradient of all that learns."""
    gait = network.gait
    if not isinstance(gait, GaitStream):
        return
    seen = gait.joint and (gait.multiply or not gait.priors)
    silhouette = seen or objective.mask > 0 or objective.mask_smoothness > 0
    shaped = objective.smoothness > 0 or objective.diversity > 0
    priors = [name for name in gait.priors if gait.joint_priors or (name == "gait" and shaped)]
    unreached = [part for name, part in gait.priors.items() if name not in priors]
    if not objective.mask:
        unreached.append(gait.mask.decode)
    if not silhouette:
        read = 1 + max(gait.prior.blocks) if priors else 0
        unreached += [gait.mask.encode, *list(gait.prior.layers(gait.prior.vit))[read:]]  # blocks, where they carry adapters
    for part in unreached:
        part.requires_grad_(False)
