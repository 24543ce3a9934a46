"""A trained model as one file: weights (the frozen prior's too), the resolved recipe, and how it came to be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dinogrl import checkpoints
from dinogrl.models.build import build_model
from dinogrl.recipes import Recipe, recipe_from_values


@dataclass(frozen=True)
class TrainedModel:
    """A network with its weights, in evaluation mode, and what is known of it.

    ``fingerprint`` is 16 hex digits of the weights; ``facts`` say which dataset and epoch, and how the model was chosen.
    """

    network: nn.Module
    recipe: Recipe
    identities: int
    fingerprint: str
    facts: dict[str, Any]


def save_model(path: Path, weights: dict[str, Tensor], recipe: Recipe, identities: int, facts: dict[str, Any]) -> None:
    """Write a model file, whole or not at all."""
    everything = {**facts, "recipe": recipe.model_dump(mode="json"), "identities": identities}
    checkpoints.save(path, weights, "model", everything)


def load_model(path: Path) -> TrainedModel:
    """Read a model file. Raises :class:`CheckpointError` where the file is broken or does not fit its own recipe."""
    tensors, facts = checkpoints.load(path, "model")
    recipe = recipe_from_values(facts.pop("recipe"), source=f"recipe inside {path}")
    identities = int(facts.pop("identities"))
    network = build_model(without_downloads(recipe), identities)
    checkpoints.expect_keys(tensors, network.state_dict(), str(path))
    network.load_state_dict(tensors)
    return TrainedModel(network.eval(), recipe, identities, checkpoints.fingerprint(tensors), facts)


def without_downloads(recipe: Recipe) -> Recipe:
    """The same recipe, starting from no file: for a network whose weights are about to be loaded."""
    values = recipe.model_dump(mode="json")
    values["model"]["appearance"]["weights"] = None
    if values["model"]["gait"] is not None:
        values["model"]["gait"]["weights"] = None
        values["model"]["gait"]["mask_start"] = "random"
        values["model"]["gait"]["prior"]["random_init"] = True
    return recipe_from_values(values, source=f"recipe {recipe.name}")
