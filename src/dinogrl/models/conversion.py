"""The authors' three published files as one model file of ours."""

from __future__ import annotations

from pathlib import Path

from dinogrl import runtime
from dinogrl.models.archive import save_model
from dinogrl.models.build import build_model
from dinogrl.models.weights import load_released, read_released, released_identities
from dinogrl.recipes import load_recipe

RECIPE = "dinogrl-released"


def convert_released(best_model: Path, best_model2: Path, best_shape: Path, out: Path) -> list[str]:
    """Write the model file ``out`` of the recipe ``dinogrl-released``; gives the names of the tensors that are never used.

    Raises :class:`CheckpointError` for files that are missing, unsafe, in the wrong order or of another network.
    """
    files = [read_released(path) for path in (best_model, best_model2, best_shape)]
    recipe = load_recipe(RECIPE)
    identities = released_identities(files[2])
    network = build_model(recipe, identities, start_weights=False)
    unused = load_released(network, *files)
    facts = {"dataset": "not recorded", "selection": "by its authors, on the test set", "versions": runtime.versions()}
    save_model(out, network.state_dict(), recipe, identities, facts)
    return unused
