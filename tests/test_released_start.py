"""Start weights from elsewhere: a published mask branch and ImageNet ResNets, from files made up in their form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dinogrl.errors import CheckpointError
from dinogrl.models.backbones.resnet import Layers, Stem
from dinogrl.models.build import build_model
from dinogrl.models.pretrained import load_mask_branch, load_resnet
from dinogrl.models.streams.silhouette import MaskEncoder
from tiny_models import tiny_recipe
from tiny_released import made_up

_MASK_SHAPES: dict[str, tuple[int, ...]] = {
    **{f"bn_s.{name}": (384,) for name in ("running_mean", "running_var")},
    **{f"bn_t.{name}": (2,) for name in ("running_mean", "running_var")},
    **{f"bn_{letter}.num_batches_tracked": () for letter in "st"},
    "down_sampling.weight": (2, 384),
    "down_sampling.bias": (2,),
    "up_sampling.weight": (384, 2),
    "up_sampling.bias": (384,),
}


def mask_branch(width: int = 384) -> dict[str, Tensor]:
    shapes = {name: tuple(width if n == 384 else n for n in shape) for name, shape in _MASK_SHAPES.items()}
    prefix = "dinov2.Mask_Branch."
    made = made_up({"best_shape": {prefix + name: shape for name, shape in shapes.items()}})["best_shape"]
    return {name.removeprefix(prefix): tensor for name, tensor in made.items()}


def resnet(width: int = 64, depths: tuple[int, ...] = (3, 4, 6, 3), counters: bool = True) -> dict[str, Tensor]:
    """In torchvision's names, with its classifier."""
    with torch.device("meta"):
        parts = {**Stem(width).state_dict(), **Layers(width, depths).state_dict()}
    shapes = {name: tuple(tensor.shape) for name, tensor in parts.items() if counters or not name.endswith("num_batches_tracked")}
    return made_up({"best_model": {**shapes, "fc.weight": (1000, 32 * width), "fc.bias": (1000,)}})["best_model"]


def test_mask_branch_gives_the_stored_numbers(tmp_path: Path, shared: Path) -> None:
    """MaskBranch_vits14.pt's form, with the weights of the stored numbers."""
    torch.save({"model": mask_branch()}, tmp_path / "MaskBranch_vits14.pt")
    with np.load(shared / "reference" / "golden" / "eval_forward.npz") as stored:
        given, want, error = (torch.from_numpy(stored[f"maskbranch_{name}"]) for name in ("in", "out", "mse"))
    mask = MaskEncoder(384).eval()
    load_mask_branch(str(tmp_path / "MaskBranch_vits14.pt"), mask)
    rows = given.reshape(1, 1, -1, 384)
    have = mask(rows, (1, rows.shape[2]))
    torch.testing.assert_close(have.flatten(), want.flatten(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close((mask.reconstruct(have) - rows).square().mean(), error, rtol=1e-4, atol=1e-6)


def test_mask_branch_starts_a_model_and_nothing_else_replaces_it(tmp_path: Path) -> None:
    torch.save({"model": mask_branch(16)}, tmp_path / "mask.pt")
    recipe = tiny_recipe("dinogrl-released", f"model.gait.mask_start={tmp_path / 'mask.pt'}")
    model = build_model(recipe, identities=3)
    model.start_silhouette(torch.randn(2, 1, 3, 64, 32))
    assert model.gait is not None
    assert torch.equal(model.gait.mask.encode.weight, mask_branch(16)["down_sampling.weight"])
    assert torch.equal(model.gait.mask.decode.bias, mask_branch(16)["up_sampling.bias"])


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ({"model": mask_branch(8)}, r"norm\.running_mean is \(8,\), expected \(16,\)"),
        ({"model": {**mask_branch(16), "more": torch.ones(1)}}, "1 unexpected: more"),
        (
            {"model": {name: t for name, t in mask_branch(16).items() if "up_" not in name}},
            r"2 missing: decode\.bias, decode\.weight",
        ),
        ({"model": 3, "epoch": 1}, "more than tensors"),
        ([1], "holds a list"),
    ],
)
def test_other_files_are_no_mask_branch(tmp_path: Path, content: object, hint: str) -> None:
    torch.save(content, tmp_path / "mask.pt")
    with pytest.raises(CheckpointError, match=hint):
        build_model(tiny_recipe("dinogrl-released", f"model.gait.mask_start={tmp_path / 'mask.pt'}"), identities=3)


@pytest.mark.parametrize("counters", [True, False], ids=["new", "old"])
def test_imagenet_resnet50_fills_stems_and_layers(tmp_path: Path, counters: bool) -> None:
    """torchvision's older files lack the batch norms' counters of steps; others wrap theirs."""
    tensors = resnet(counters=counters)
    torch.save(tensors if counters else {"state_dict": tensors}, tmp_path / "resnet50.pth")
    stems, layers = [Stem(64), Stem(64)], Layers(64, (3, 4, 6, 3))
    load_resnet(str(tmp_path / "resnet50.pth"), stems, layers)
    for module in (*stems, layers):
        for name, tensor in module.state_dict().items():
            assert torch.equal(tensor, tensors.get(name, torch.tensor(0))), name
    assert layers.layer4[0].conv2.stride == (1, 1)  # type: ignore[index, union-attr]


def test_both_streams_of_a_recipe_start_from_it(tmp_path: Path) -> None:
    """The gait network's first block reads another number of channels; where that is the file's own, it is filled too."""
    torch.save(resnet(4, (1, 1, 1, 1)), tmp_path / "resnet.pth")
    source = f"weights={tmp_path / 'resnet.pth'}"
    overrides = ("model.appearance.depths=[1,1,1,1]", "model.gait.embed=4", f"model.appearance.{source}", f"model.gait.{source}")
    model = build_model(tiny_recipe("dinogrl-released", *overrides), identities=3)
    assert model.gait is not None
    want = resnet(4, (1, 1, 1, 1))
    for layers in (model.appearance.layers, model.gait.layers):
        assert torch.equal(layers.get_parameter("layer3.0.conv2.weight"), want["layer3.0.conv2.weight"])
    assert torch.equal(model.appearance.stems[1].get_parameter("conv1.weight"), want["conv1.weight"])


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"layer2.0.conv1.weight": torch.ones(3)}, r"layer2\.0\.conv1\.weight is \(3,\), expected"),
        ({"layer5.0.conv1.weight": torch.ones(3)}, r"1 unexpected: layer5"),
        ({"conv1.weight": torch.ones(3)}, r"conv1\.weight is \(3,\), expected \(4, 3, 7, 7\)"),
    ],
)
def test_a_resnet_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, Tensor], hint: str) -> None:
    torch.save({**resnet(4, (1, 1, 1, 1)), **change}, tmp_path / "resnet.pth")
    with pytest.raises(CheckpointError, match=hint):
        load_resnet(str(tmp_path / "resnet.pth"), [Stem(4)], Layers(4, (1, 1, 1, 1)))
