"""Where a run stands, as one atomic file: enough to go on as if it had never stopped."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dinogrl import checkpoints
from dinogrl.errors import CheckpointError, TrainingError
from dinogrl.recipes import Recipe


@dataclass
class Position:
    """The next step to do, and the best held-out score so far.

    ``step`` counts optimiser steps inside ``epoch``, ``total`` those since the start of the run. All random draws are functions
    of the recipe's seed and these numbers, so no generator's state needs to be kept.
    """

    epoch: int = 0
    step: int = 0
    total: int = 0
    best: dict[str, float] = field(default_factory=dict)


def save_state(path: Path, position: Position, model: nn.Module, optimiser: Optimizer, recipe: Recipe) -> None:
    """Write position, network and optimiser to ``path``, whole or not at all."""
    tensors: dict[str, Tensor] = {f"model.{name}": value for name, value in model.state_dict().items()}
    for index, slots in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{slot}": value for slot, value in slots.items() if isinstance(value, Tensor)}
    checkpoints.save(path, tensors, "training", {"position": asdict(position), "recipe": recipe.model_dump(mode="json")})


def load_state(path: Path, model: nn.Module, optimiser: Optimizer, recipe: Recipe) -> Position:
    """Put a saved state back.

    Raises :class:`TrainingError` where it belongs to another recipe (``_FREE`` fields may differ), or to a network of other shapes:
    data with more or fewer people.
    """
    tensors, facts = checkpoints.load(path, "training")
    differences = _differences(facts["recipe"], recipe.model_dump(mode="json"))
    if differences:
        raise TrainingError(f"{path.parent} holds a run of another recipe ({'; '.join(differences)}); use another --out")
    weights = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    own = model.state_dict()
    checkpoints.expect_keys(weights, own, str(path))
    misfits = [
        f"{name} was {tuple(weights[name].shape)}, now {tuple(own[name].shape)}"
        for name in own
        if weights[name].shape != own[name].shape
    ]
    if misfits:
        raise TrainingError(
            f"{path.parent} holds a run on other training data or weights ({'; '.join(misfits[:2])}); "
            "give those that it began with, or use another --out"
        )
    model.load_state_dict(weights)
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimiser."):
            _, index, slot = name.split(".", 2)
            slots.setdefault(int(index), {})[slot] = value
    try:
        optimiser.load_state_dict({"state": slots, "param_groups": optimiser.state_dict()["param_groups"]})
    except ValueError as error:
        raise CheckpointError(f"{path}: the optimiser's state does not fit: {error}") from error
    _lay_out_like_parameters(optimiser)
    return Position(**facts["position"])


def _lay_out_like_parameters(optimiser: Optimizer) -> None:
    """Give each moment the memory layout of its parameter (channels last, for convolutions), which a file does not keep.

    The fused optimisers walk parameter and moments side by side through memory; other strides would pair the wrong elements.
    """
    for parameter, slots in optimiser.state.items():
        for name, value in slots.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                slots[name] = torch.empty_like(parameter).copy_(value)


# Fields that say how and how long a run goes, not what it learns from; a run that a broken frame stopped may go on without it.
_FREE = {f"training.{name}" for name in ("device", "epochs", "checkpoint_minutes", "compile", "recompute")}
_FREE |= {"data.workers", "data.broken_frames"}


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key in sorted(old.keys() | new.keys()):
        name, a, b = f"{prefix}{key}", old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += _differences(a, b, f"{name}.")
        elif a != b and name not in _FREE:
            found.append(f"{name} was {a!r}, now {b!r}")
    return found
