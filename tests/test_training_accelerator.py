"""An accelerator works on its own while a step asks it nothing: no value of it is read, and nothing is sent to it but the batch.

Every other copy waits until the device has done all that was queued. Torch's meta device stands in for it: its tensors have shapes
and no values, so that reading one raises; what is sent to it, a dispatch mode sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dinogrl.losses import Objective
from dinogrl.models.build import build_model
from dinogrl.recipes import Recipe
from dinogrl.records import ClipBatch
from dinogrl.training.tuning import tune
from tiny_models import tiny_recipe

ACCELERATOR = torch.device("meta")
ENHANCEMENTS = ("none", "non_local", "attention_fusion", "cross_non_local", "shape_guided", "ms_g3d")


class NothingSent(TorchDispatchMode):
    """Raises where an operator meets tensors of both sides, unless it is a copy that waits for nobody.

    A CPU's tensor without dimensions goes along with the operator's arguments.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        sides = {leaf.device.type for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and leaf.dim()}
        if kwargs.get("device") is not None and not kwargs.get("non_blocking"):
            sides.add(torch.device(kwargs["device"]).type)
        assert "cpu" not in sides or "meta" not in sides, f"{func} has the accelerator wait"
        return func(*args, **kwargs)


class NoNumbersSent(TorchFunctionMode):
    """Raises where Python's numbers become a tensor, or an index: they are one of the CPU first."""

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            assert not any(isinstance(part, list) for part in index), "a list as an index has the accelerator wait"
        made = func in (torch.tensor, torch.as_tensor, Tensor.new_tensor) and not isinstance(args[-1], Tensor)
        assert not made, f"{func} has the accelerator wait"
        return func(*args, **kwargs)


@pytest.fixture(autouse=True)
def no_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in knows none."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)


def step(recipe: Recipe) -> None:
    network = build_model(recipe, 4).to(ACCELERATOR).train()
    tune(network, recipe.training)
    objective = Objective(recipe.objective)
    frames, half = torch.zeros(8, 2, 3, recipe.data.height, recipe.data.width), torch.arange(8) // 4
    batch = ClipBatch(frames, half, torch.arange(8) % 4 // 2, half, list("abcdefgh")).to(ACCELERATOR)
    with NothingSent(), NoNumbersSent():
        objective(network(*batch.inputs), batch.identity)["total"].backward()
        network.eval()
        with torch.no_grad():
            assert network(*batch.inputs).embedding.device == ACCELERATOR


@pytest.mark.parametrize(
    "name",
    ["dinogrl", "dinogrl-released", "dinogrl_lora", "dinogrl_dinov3_vits16", "dinogrl_sasgl", "dinogrl_pbmge", "baseline"],
)
def test_a_step_asks_the_accelerator_nothing(name: str) -> None:
    step(tiny_recipe(name))


@pytest.mark.parametrize("name", ENHANCEMENTS)
def test_nor_does_any_other_enhancement(name: str) -> None:
    step(tiny_recipe("dinogrl", f"model.enhancement.name={name}"))


@pytest.mark.parametrize(
    "way", ["training.recompute=true", "model.gait.joint=false", "model.gait.foreground_only=true", "model.gait.mask_dropout=0.5"]
)
def test_nor_does_any_other_way_of_training(way: str) -> None:
    step(tiny_recipe("dinogrl", way))


def test_what_waits_is_noticed() -> None:
    there, here = torch.zeros(3, device=ACCELERATOR), torch.zeros(3)
    with NothingSent(), NoNumbersSent():
        for wait in (
            lambda: here.to(ACCELERATOR),
            lambda: there + here,
            lambda: there[[0, 1]],
            lambda: there[..., [0, 1]],
            lambda: torch.tensor([1.0], device=ACCELERATOR),
            lambda: there.new_tensor([1.0]),
            lambda: there.tolist(),
        ):
            with pytest.raises(AssertionError, match="wait"):
                wait()
        for ask in (lambda: there.sum().item(), lambda: there[there > 0]):
            with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
                ask()
        assert here.to(ACCELERATOR, non_blocking=True).device == (there + 2).device


def test_only_what_the_network_reads_is_sent() -> None:
    masks = torch.zeros(2, 1, 8, 4)
    batch = ClipBatch(torch.zeros(2, 1, 3, 8, 4), torch.arange(2), torch.arange(2), torch.arange(2), ["a", "b"], 1, masks)
    moved = batch.to(ACCELERATOR)
    assert moved.masks is not None and {moved.frames.device, moved.identity.device, moved.masks.device} == {ACCELERATOR}
    assert moved.modality is batch.modality and moved.camera is batch.camera and moved.replaced_frames == 1
