"""What learns gets a gradient in every step: processes that train together wait for it, and torch is not asked to look."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dinogrl.losses import Objective
from dinogrl.models.build import build_model
from dinogrl.models.enhancement import ENHANCEMENTS
from dinogrl.recipes import load_recipe
from dinogrl.training.tuning import freeze_what_no_loss_reaches
from tiny_recipe import TINY

SWITCHES = {
    "model.gait.joint": [True, False],
    "model.gait.joint_priors": [True, False],
    "model.gait.multiply": [True, False],
    "model.gait.foreground_only": [False, True],
    "model.gait.silhouette": ["enriched", "plain"],
    "model.gait.priors": ["[gait, appearance]", "[gait]", "[appearance]"],
    "model.gait.prior.blocks": ["[1, 3]", "[1]", "[2]"],
    "model.gait.prior.lora": ["null", "{blocks: 3}"],
    "model.gait.mask_dropout": [0.0, 0.5],
    "model.gait.drop_prior": [0.0, 1.0],
    "model.supervise": ["global", "all"],
    "training.recompute": [False, True],
    "objective.mask": [1, 0],
    "objective.mask_smoothness": [0, 1],
    "objective.smoothness": [1, 0],
    "objective.diversity": [1, 0],
    "objective.identity": [1, 0],
    "objective.triplet": [1, 0],
}


MASKS = ["model.gait.silhouette=masks", "data.masks=masks"]


def expect_what_learns_is_what_losses_reach(recipe_name: str, overrides: list[str]) -> None:
    recipe = load_recipe(recipe_name, [*TINY, *overrides])
    network = build_model(recipe, 4).train()
    could_learn = [name for name, weight in network.named_parameters() if weight.requires_grad]
    freeze_what_no_loss_reaches(network, recipe.objective)
    learning = {name for name, weight in network.named_parameters() if weight.requires_grad}
    for name in could_learn:  # as if nothing had been frozen
        network.get_parameter(name).requires_grad_(True)
    frames, modality = torch.rand(8, 2, 3, 64, 32), torch.arange(8) // 2 % 2
    output = network(frames, modality, torch.rand(8, 2, 64, 32) if recipe.data.masks else None)
    Objective(recipe.objective)(output, torch.arange(8) // 4)["total"].backward()
    assert learning == {name for name in could_learn if network.get_parameter(name).grad is not None}


@settings(max_examples=30)
@given(st.fixed_dictionaries({key: st.sampled_from(values) for key, values in SWITCHES.items()}))
def test_any_switches(chosen: dict[str, object]) -> None:
    expect_what_learns_is_what_losses_reach("demo_dinogrl", [f"{key}={value}" for key, value in chosen.items()])


@pytest.mark.parametrize("enhancement", ["null", *(f"{{name: {name}, granularities: [2, 3]}}" for name in ENHANCEMENTS)])
def test_any_enhancement(enhancement: str) -> None:
    stripes = "model.pooling={stripes: [1, 2, 3], width: 8}"
    expect_what_learns_is_what_losses_reach("demo_dinogrl", [stripes, f"model.enhancement={enhancement}"])


@pytest.mark.parametrize(
    ("recipe", "overrides"), [("demo_baseline", ["model.gait=null", "model.enhancement=null"]), ("demo_dinogrl", MASKS)]
)
def test_other_gait_streams(recipe: str, overrides: list[str]) -> None:
    expect_what_learns_is_what_losses_reach(recipe, overrides)
