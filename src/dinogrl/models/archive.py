"""A trained model as one file: weights (the frozen prior's too), the resolved recipe, and how it came to be."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from dinogrl import checkpoints
from dinogrl.errors import CheckpointError, in_one_line
from dinogrl.models.backbones import lora
from dinogrl.models.backbones.priors import CONFIGS, shape_of_config
from dinogrl.models.build import build_model
from dinogrl.models.dinogrl import DinoGRL
from dinogrl.models.streams.gait import GaitStream
from dinogrl.recipes import Recipe, recipe_from_values

EXTRA = "extra."
"""Begins the names of tensors that lie in a model file beside the weights, such as what searching needs."""


@dataclass(frozen=True)
class TrainedModel:
    """A network with its weights, in evaluation mode, and what is known of it.

    ``fingerprint`` is 16 hex digits of the weights; ``facts`` say which dataset and epoch, and how the model was chosen.
    ``extras`` are the tensors that :func:`replace_extras` put beside the weights.
    """

    network: DinoGRL
    recipe: Recipe
    identities: int
    fingerprint: str
    facts: dict[str, Any]
    extras: dict[str, Tensor] = field(default_factory=dict)


def save_model(path: str | Path, network: DinoGRL, recipe: Recipe, identities: int, facts: dict[str, Any]) -> None:
    """Write a model file, whole or not at all."""
    everything = {**facts, "recipe": _self_contained(recipe, network).model_dump(mode="json"), "identities": identities}
    checkpoints.save(Path(path), network.state_dict(), "model", everything)


def load_model(path: str | Path) -> TrainedModel:
    """Read a model file. Raises :class:`CheckpointError` where the file is broken or does not fit its own recipe."""
    path = Path(path)
    tensors, facts = checkpoints.load(path, "model")
    extras = {name.removeprefix(EXTRA): tensors.pop(name) for name in list(tensors) if name.startswith(EXTRA)}
    recipe = recipe_from_values(facts.pop("recipe", None), source=f"recipe inside {path}")
    identities = facts.pop("identities", None)
    if not isinstance(identities, int) or identities < 1:
        raise CheckpointError(f"{path} was made for {identities!r} identities, expected a positive number: its header is broken")
    network = empty_network(recipe, identities, path)
    wanted = network.state_dict()
    checkpoints.expect_keys(tensors, wanted, str(path))
    misfits = [name for name, value in wanted.items() if value.shape != tensors[name].shape]
    if misfits:
        raise CheckpointError(f"{path} does not fit its own recipe: wrong shape of {', '.join(misfits[:8])}")
    strange = [name for name, value in wanted.items() if value.is_floating_point() != tensors[name].is_floating_point()]
    if strange:
        first = strange[0]
        raise CheckpointError(f"{path}: {first} is {tensors[first].dtype}, expected {wanted[first].dtype}: the file is broken")
    network.load_state_dict(tensors)
    return TrainedModel(network.eval(), recipe, identities, checkpoints.fingerprint(tensors), facts, extras)


def empty_network(recipe: Recipe, identities: int, path: Path) -> DinoGRL:
    """The network that the header of the file ``path`` describes, before its weights.

    Raises :class:`CheckpointError` for one that cannot be made.
    """
    try:
        return build_model(recipe, identities, start_weights=False)
    except RuntimeError as error:  # torch's word for sizes that no memory holds
        raise CheckpointError(f"{path}: a network as its header says cannot be made ({in_one_line(error, 120)})") from error


def merged(trained: TrainedModel) -> TrainedModel:
    """The same model with the adapters of its prior folded into the weights: a plain frozen prior, in the recipe too."""
    if not isinstance(trained.network.gait, GaitStream) or trained.network.gait.prior.first_adapted is None:
        return trained
    network = copy.deepcopy(trained.network)
    assert isinstance(network.gait, GaitStream)
    lora.merge(network.gait.prior)
    values = trained.recipe.model_dump(mode="json")
    values["model"]["gait"]["prior"]["lora"] = None
    recipe = recipe_from_values(values, source=f"recipe {trained.recipe.name}")
    return replace(trained, network=network, recipe=recipe, fingerprint=checkpoints.fingerprint(network.state_dict()))


def replace_extras(path: Path, extras: Mapping[str, Tensor]) -> None:
    """Put tensors beside the weights of a model file, in the place of those that it has. Its fingerprint stays.

    Raises :class:`CheckpointError` for a file that is no model.
    """
    tensors, facts = checkpoints.load(path, "model")
    weights = {name: value for name, value in tensors.items() if not name.startswith(EXTRA)}
    checkpoints.save(path, {**weights, **{EXTRA + name: value for name, value in extras.items()}}, "model", facts)


def _self_contained(recipe: Recipe, network: DinoGRL) -> Recipe:
    """The same recipe, with the size of its prior written out where no well-known name gives it."""
    if recipe.model.gait is None or not isinstance(network.gait, GaitStream):
        return recipe
    config = network.gait.prior.vit.config
    if config.to_dict() == CONFIGS[recipe.model.gait.prior.name]().to_dict() and recipe.model.gait.prior.name != "tiny":
        return recipe
    values = recipe.model_dump(mode="json")
    values["model"]["gait"]["prior"]["shape"] = shape_of_config(config)
    return recipe_from_values(values, source=f"recipe {recipe.name}")
