"""Optimisers by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch.nn import Parameter

from dinogrl.catalog import Catalog
from dinogrl.recipes.schema import Training

Optimiser = torch.optim.Optimizer


def _adam(parameters: Iterable[Parameter], recipe: Training) -> Optimiser:
    return torch.optim.Adam(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True)


def _adamw(parameters: Iterable[Parameter], recipe: Training) -> Optimiser:
    return torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True)


def _sgd(parameters: Iterable[Parameter], recipe: Training) -> Optimiser:
    return torch.optim.SGD(
        parameters,
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.momentum > 0,  # of nothing there is no Nesterov form
        fused=True,
    )


OPTIMISERS: Catalog[Callable[[Iterable[Parameter], Training], Optimiser]] = Catalog(
    "optimiser", {"adam": _adam, "adamw": _adamw, "sgd": _sgd}
)


def make_optimiser(model: torch.nn.Module, recipe: Training) -> Optimiser:
    """The recipe's optimiser over every parameter that learns (the frozen prior does not)."""
    return OPTIMISERS[recipe.optimiser]([p for p in model.parameters() if p.requires_grad], recipe)
