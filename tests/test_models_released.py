"""The published code's network: its files in both directions, and its stored numbers."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dinogrl.errors import CheckpointError
from dinogrl.losses.objective import Objective
from dinogrl.models.build import build_model
from dinogrl.models.dinogrl import DinoGRL
from dinogrl.models.pretrained import load_mask_branch
from dinogrl.models.streams.silhouette import MaskEncoder
from dinogrl.models.weights import FILES, load_released, read_released, released_identities, to_released
from dinogrl.recipes import load_recipe
from tiny_models import clips, tiny_model

TIMES_THE_REFERENCES_OWN_ROUNDING = 4


# ---- the files


def test_there_and_back_at_small_size() -> None:
    one, two, batch = tiny_model("dinogrl-released", seed=0), tiny_model("dinogrl-released", seed=1), clips(2)
    files = to_released(one)
    assert load_released(two, *(files[name] for name in FILES)) == []
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name]), name
    with torch.no_grad():
        assert torch.equal(one.eval()(*batch).parts, two.eval()(*batch).parts)


def test_names_and_shapes_are_the_published_ones(shared: Path) -> None:
    published = published_shapes(shared)
    with torch.device("meta"):
        model = build_model("dinogrl-released", identities=500, start_weights=False)
    files = to_released(model)
    for file, tensors in files.items():
        have = {name: list(tensor.shape) for name, tensor in tensors.items()}
        unused = {name for name in published[file] if name not in have}
        assert {name: published[file][name] for name in have} == have
        assert all(part in name for name in unused for part in [next(p for p in ("GAP.p", ".gcn_", ".bn_t.") if p in name)])


def test_unused_tensors_are_named_and_dropped_and_others_refused() -> None:
    model = tiny_model("dinogrl-released")
    best_model, best_model2, best_shape = (dict(to_released(model)[name]) for name in FILES)
    more = {"dinov2.gait_net.gcn_s.stgc_p2p.A_res": torch.ones(2), "dinov2.Mask_Branch.bn_t.running_mean": torch.ones(2)}
    dropped = load_released(model, {**best_model, "share_encoder.GAP.p": torch.ones(1)}, best_model2, best_shape | more)
    assert dropped == ["best_model: share_encoder.GAP.p", *(f"best_shape: {name}" for name in more)]
    with pytest.raises(CheckpointError, match=r"best_model2 does not fit.*1 unexpected: enhance_more"):
        load_released(model, best_model, {**best_model2, "enhance_more": torch.ones(1)}, best_shape)
    theta = best_model2.pop("enhance_app_net_3.theta.weight")
    with pytest.raises(CheckpointError, match=r"1 missing: enhance_app_net_3\.theta\.weight"):
        load_released(model, best_model, best_model2, best_shape)
    with pytest.raises(CheckpointError, match=r"theta\.weight is \(2, 1, 1\), expected \(6, 1, 1\)"):
        load_released(model, best_model, {**best_model2, "enhance_app_net_3.theta.weight": theta[:2]}, best_shape)
    with pytest.raises(CheckpointError, match=r"best_model does not fit"):
        load_released(model, best_shape, best_model2, best_model)


def test_identities_are_read_from_the_file() -> None:
    files = to_released(tiny_model("dinogrl-released", identities=9))
    assert released_identities(files["best_shape"]) == 9
    with pytest.raises(CheckpointError, match=r"BNNecks\.fc_bin is .*9\), expected .*5\)"):
        load_released(tiny_model("dinogrl-released"), *(files[name] for name in FILES))
    with pytest.raises(CheckpointError, match="right order"):
        released_identities(files["best_model2"])


def test_other_recipes_have_no_published_form() -> None:
    with pytest.raises(CheckpointError, match="dinogrl-released"):
        to_released(tiny_model("dinogrl"))


def test_files_are_read_without_running_anything(tmp_path: Path) -> None:
    tensors = {"module.a": torch.ones(2)}
    torch.save({"state_dict": tensors}, tmp_path / "wrapped.pth")
    assert list(read_released(tmp_path / "wrapped.pth")) == ["a"]
    torch.save({"epoch": 3, "a": torch.ones(1)}, tmp_path / "more.pth")
    with pytest.raises(CheckpointError, match=r"more than tensors \(epoch\)"):
        read_released(tmp_path / "more.pth")
    torch.save({"a": tmp_path}, tmp_path / "code.pth")
    with pytest.raises(CheckpointError, match="nothing in it was run"):
        read_released(tmp_path / "code.pth")


def test_published_mask_branch(tmp_path: Path, shared: Path) -> None:
    with np.load(shared / "reference" / "golden" / "eval_forward.npz") as stored:
        given, want = (torch.from_numpy(stored[name]) for name in ("maskbranch_in", "maskbranch_out"))
    rule = golden_rule(shared)
    prefix = "dinov2.Mask_Branch."
    keys = {name: shape for name, shape in published_shapes(shared)["best_shape"].items() if name.startswith(prefix)}
    branch = {name.removeprefix(prefix): make(rule, "best_shape", name, shape) for name, shape in keys.items()}
    torch.save({"model": branch}, tmp_path / "MaskBranch_vits14.pt")
    mask = MaskEncoder(384)
    load_mask_branch(str(tmp_path / "MaskBranch_vits14.pt"), mask)
    rows = given.reshape(1, 1, -1, 384)
    have = mask.eval()(rows, (1, rows.shape[2]))
    torch.testing.assert_close(have.flatten(), want.flatten(), rtol=1e-4, atol=1e-5)


# ---- the stored numbers, full size


def golden_rule(shared: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_common", shared / "reference" / "golden" / "golden_common.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def published_shapes(shared: Path) -> dict[str, dict[str, list[int]]]:
    keys = json.loads((shared / "reference" / "state_dict_keys.json").read_text())["state_dicts"]
    return {file.removesuffix(".pth"): shapes for file, shapes in keys.items()}


def make(rule: ModuleType, file: str, name: str, shape: list[int]) -> Tensor:
    return torch.from_numpy(np.asarray(rule.tensor_for(file, name, tuple(shape))))


@pytest.fixture(scope="module")
def released(shared: Path) -> DinoGRL:
    """The published network with the weights of the stored numbers and 20 identities."""
    rule, files = golden_rule(shared), []
    for file, shapes in published_shapes(shared).items():
        own = {name: [20 if name.endswith("BNNecks.fc_bin") and n == 500 else n for n in s] for name, s in shapes.items()}
        files.append({name: make(rule, file, name, s) for name, s in own.items() if ".gcn_" not in name})
    model = build_model("dinogrl-released", identities=20, start_weights=False)
    load_released(model, *files)
    return model


@pytest.fixture(scope="module")
def stored_clips(shared: Path) -> tuple[Tensor, Tensor]:
    rule = golden_rule(shared)
    frames = torch.from_numpy(rule.normalise(rule.make_images(rule.INPUT_SEED))).unflatten(0, (4, 6))
    return frames, torch.tensor([0, 0, 1, 1])


class Watch:
    """Keeps what modules put out."""

    def __init__(self) -> None:
        self.seen: dict[str, Any] = {}

    def out(self, name: str) -> Callable[..., None]:
        return lambda _, __, output: self.seen.__setitem__(name, output)

    def into(self, name: str) -> Callable[..., None]:
        return lambda _, given: self.seen.__setitem__(name, given[0])


@pytest.mark.slow
def test_every_stage_of_the_published_forward_pass(released: DinoGRL, stored_clips: tuple[Tensor, Tensor], shared: Path) -> None:
    golden, gait, watch = shared / "reference" / "golden", released.gait, Watch()
    assert gait is not None and released.gait_parts is not None and released.gait_neck is not None and gait.fusion is not None
    hooks = [
        module.register_forward_hook(watch.out(name))
        for name, module in {
            "app_stage1": released.appearance.layers.layer3[-1],
            "shape_stage1": gait.layers.layer3[-1],
            "tokens": gait.prior,
            "pre_part": gait.encoders["gait"],
            "pre_rgb": gait.encoders["appearance"],
            "fusion": gait.fusion,
            "app_stage3": released.appearance_parts,
            "shape_stage3": released.gait_parts,
        }.items()
    ]
    hooks += [
        released.appearance_parts.register_forward_pre_hook(watch.into("app_stage2")),
        released.gait_parts.register_forward_pre_hook(watch.into("shape_stage2")),
    ]
    with torch.no_grad():
        output = released.eval()(*stored_clips)
        logits = {"shape": released.gait_neck(output.parts[:, :35]), "app": released.appearance_neck(output.parts[:, 35:])}
    for hook in hooks:
        hook.remove()
    seen, maps = watch.seen, output.maps
    assert maps is not None and maps.probabilities is not None and maps.gait_prior is not None and maps.appearance_prior is not None
    stages = {
        "app_stage1": seen["app_stage1"][[0, 12]][:, ::4],
        "shape_stage1": seen["shape_stage1"][[0, 12]][:, ::4],
        "dino_last": seen["tokens"].last.flatten(1, 2)[[0, 12]],
        "dino_mid4": seen["tokens"].blocks.flatten(1, 2)[[0, 12]][:, ::8],
        "mask_softmax": maps.probabilities.flatten(0, 1).permute(0, 2, 3, 1),
        "mask_body": maps.silhouette.flatten(0, 1),
        "denoising": maps.gait_prior.flatten(0, 1).permute(0, 2, 3, 1)[[0, 8, 12, 20]],
        "appearance": maps.appearance_prior.flatten(0, 1).permute(0, 2, 3, 1)[[0, 8, 12, 20]],
        "pre_part": seen["pre_part"][0],
        "pre_rgb": seen["pre_rgb"][0],
        "fusion": seen["fusion"][13],
        "shape_parts": output.parts[:, :35].transpose(1, 2),
        "app_parts": output.parts[:, 35:].transpose(1, 2),
        "embedding": output.embedding.transpose(1, 2),
        **{f"{stream}_stage{n}": seen[f"{stream}_stage{n}"].transpose(1, 2) for stream in ("app", "shape") for n in (2, 3)},
        **{f"{stream}_logits": logits[stream].transpose(1, 2) for stream in logits},
    }
    meta = json.loads((golden / "eval_forward_meta.json").read_text())
    with np.load(golden / "eval_forward.npz") as stored:
        for name, have in stages.items():
            want = torch.from_numpy(stored[name])
            error = (have.reshape(want.shape) - want).abs().max().item()
            allowed = TIMES_THE_REFERENCES_OWN_ROUNDING * meta[name]["fp32_vs_fp64_max_abs_diff"]
            assert error <= allowed, f"{name}: {error:.2e} away, allowed {allowed:.2e}"
        assert maps.foreground is not None
        assert np.array_equal(maps.foreground.flatten(0, 1).numpy(), stored["foreground"] != 0)


@pytest.mark.slow
def test_a_training_step_of_the_published_network(released: DinoGRL, stored_clips: tuple[Tensor, Tensor], shared: Path) -> None:
    """Losses, running statistics and every gradient's norm, with clip 1 losing its gait prior.

    In float64 all of this agrees to 1e-5; float32, which takes a third of the time, wanders through 16 steps of batch norms over
    four clips, in the stored reference as here, so most gradients are held to a few percent.
    """
    golden = shared / "reference" / "golden"
    meta = json.loads((golden / "train_forward_meta.json").read_text())["drop"]
    assert released.gait is not None
    released.gait.mask.dropout = 0.0
    released.gait.choose_drops = lambda clips, share: [(clip, which) for clip, which in meta["dropped"]]
    output = released.train()(*stored_clips)
    losses = Objective(load_recipe("dinogrl-released").objective)(output, torch.tensor([3, 7, 3, 7]))
    losses["total"].backward()
    names = {
        "id_loss": "identity_appearance",
        "tri_loss": "triplet_appearance",
        "sid_loss": "identity_gait",
        "stri_loss": "triplet_gait",
        "loss_connect_shape": "mask_smoothness",
        "loss_mse": "mask",
        "loss_connect_part": "smoothness",
        "loss_diversity": "diversity",
        "total": "total",
    }
    for theirs, ours in names.items():
        assert losses[ours].item() == pytest.approx(meta["losses_fp64"][theirs], rel=2e-3), theirs
    files = to_released(released)
    with np.load(golden / "train_forward.npz") as stored:
        assert output.maps is not None and output.maps.foreground is not None
        assert np.array_equal(output.maps.foreground.flatten().numpy(), stored["drop/foreground_nonzero"].astype(bool).flatten())
        for key in (key for key in stored.files if key.startswith("drop/buf/")):
            file, name = key.removeprefix("drop/buf/").split(".", 1)
            np.testing.assert_allclose(files[file][name].numpy(), stored[key], rtol=2e-3, atol=1e-4, err_msg=key)
    gradients = {name: p.grad if p.grad is not None else torch.zeros_like(p) for name, p in released.named_parameters()}
    values = {name: tensor.clone() for name, tensor in released.state_dict().items()}
    with torch.no_grad():  # the gradients take the place of the parameters, and the published names come with them
        for name, parameter in released.named_parameters():
            parameter.copy_(gradients[name])
    moved = to_released(released)
    errors = []
    for key, figures in meta["grad_norm_and_sum_fp64"].items():
        file, name = key.split(".", 1)
        if figures is not None and figures[0] > 1e-6:
            errors.append(abs(moved[file][name].double().norm().item() / figures[0] - 1))
    released.load_state_dict(values)
    assert len(errors) == 383
    assert np.median(errors) < 1e-2
    assert np.quantile(errors, 0.9) < 5e-2
