"""Learning rate over the epochs."""

from __future__ import annotations

import math

from dinogrl.catalog import Catalog
from dinogrl.recipes.schema import Training


def _warmup(recipe: Training, epoch: float) -> float:
    """Linear from ``warmup_start`` to 1 over the first ``warmup_epochs``."""
    if epoch >= recipe.warmup_epochs:
        return 1.0
    return recipe.warmup_start + (1 - recipe.warmup_start) * epoch / recipe.warmup_epochs


def steps(recipe: Training, epoch: float) -> float:
    """Warm-up, then a tenth at each milestone passed; constant within an epoch (paper, section 4.2; form of the published code)."""
    whole = math.floor(epoch)
    passed = sum(whole >= milestone for milestone in recipe.milestones)
    return _warmup(recipe, whole) * 0.1**passed


def cosine(recipe: Training, epoch: float) -> float:
    """Warm-up, then along half a cosine to 0 at the last epoch; changes with every step."""
    rest = max(recipe.epochs - recipe.warmup_epochs, 1)
    done = min(max(epoch - recipe.warmup_epochs, 0.0) / rest, 1.0)
    return _warmup(recipe, epoch) * 0.5 * (1 + math.cos(math.pi * done))


SCHEDULES = Catalog("schedule", {"steps": steps, "cosine": cosine})


def learning_rate(recipe: Training, epoch: float) -> float:
    """Learning rate at ``epoch``, a number with a fraction: 2.5 is the middle of the third epoch."""
    return recipe.learning_rate * SCHEDULES[recipe.schedule](recipe, epoch)
