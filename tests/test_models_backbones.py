"""ResNet, the frozen DINOv2 and their start weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from dinogrl.errors import CheckpointError, UnknownNameError
from dinogrl.models.backbones.attention import cached_attention
from dinogrl.models.backbones.dinov2 import CONFIGS, HUB_NAMES, FrozenDinov2, config_of_shape, position_table
from dinogrl.models.backbones.resnet import Bottleneck, Layers, NonLocal, Stem
from dinogrl.models.build import build_model
from dinogrl.models.pretrained import dinov2_state, load_prior, official_dinov2_state
from tiny_models import tiny_recipe


def small_prior(**more: object) -> FrozenDinov2:
    torch.manual_seed(0)
    prior = FrozenDinov2(config_of_shape(width=16, depth=3, heads=2, positions=4, registers=int(more.pop("registers", 0))), **more)
    with torch.no_grad():
        for parameter in prior.vit.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return prior


def test_resnet50_has_torchvisions_names_and_shapes() -> None:
    shapes = {name: tuple(t.shape) for name, t in [*Stem(64).state_dict().items(), *Layers(64, (3, 4, 6, 3)).state_dict().items()]}
    assert len(shapes) == 318  # torchvision's resnet50 has 320, two of them its classifier's
    assert shapes["conv1.weight"] == (64, 3, 7, 7)
    assert shapes["layer1.0.downsample.0.weight"] == (256, 64, 1, 1)
    assert shapes["layer4.2.conv3.weight"] == (2048, 512, 1, 1)
    assert sum(np.prod(s) for n, s in shapes.items() if "running" not in n and "tracked" not in n) == 23_508_032


def test_layers_end_at_a_sixteenth_and_bottleneck_is_its_formula() -> None:
    assert Layers(4, (1, 1, 1, 1))(torch.randn(2, 4, 16, 8)).shape == (2, 128, 4, 2)
    block, x = Bottleneck(8, 4, stride=2).eval(), torch.randn(2, 8, 6, 6)
    y = F.relu(block.bn2(F.conv2d(F.relu(block.bn1(block.conv1(x))), block.conv2.weight, stride=2, padding=1)))
    assert block.downsample is not None
    torch.testing.assert_close(block(x), F.relu(block.bn3(block.conv3(y)) + block.downsample(x)))


def test_non_local_is_the_sum_over_all_positions_and_starts_as_the_identity() -> None:
    block, x = NonLocal(6, inner=3), torch.randn(2, 6, 4, 3)
    torch.testing.assert_close(block(x), x)
    torch.nn.init.ones_(block.W[1].weight)
    block.eval()
    gathered = torch.zeros(2, 3, 12)
    query, key, value = (p(x).flatten(2) for p in (block.theta, block.phi, block.g))
    for i in range(12):
        for j in range(12):
            gathered[:, :, i] += (query[:, :, i] * key[:, :, j]).sum(1, keepdim=True) * value[:, :, j] / 12
    torch.testing.assert_close(block(x), block.W(gathered.view(2, 3, 4, 3)) + x, rtol=1e-4, atol=1e-5)


def test_non_local_blocks_stand_behind_the_last_blocks_of_their_layer() -> None:
    layers, order = Layers(4, (3, 1, 1, 1), non_local=(2, 0, 0, 1)), list[str]()
    for name, part in layers.named_modules():
        if isinstance(part, (Bottleneck, NonLocal)):
            part.register_forward_hook(lambda *_, name=name: order.append(name))
    layers(torch.randn(2, 4, 16, 8))
    first = ["layer1.0", "layer1.1", "non_local1.0", "layer1.2", "non_local1.1"]
    assert order == [*first, "layer2.0", "layer3.0", "layer4.0", "non_local4.0"]


def test_convolutions_start_by_the_number_of_their_outputs() -> None:
    torch.manual_seed(0)
    convolution = Layers(16, (1, 1, 1, 1)).get_submodule("layer2.0.conv1")
    assert isinstance(convolution, torch.nn.Conv2d) and convolution.weight.shape == (32, 64, 1, 1)
    assert convolution.weight.std().item() == pytest.approx((2 / 32) ** 0.5, rel=0.1)


def test_stem_without_relu_lets_negatives_through() -> None:
    x = torch.randn(2, 3, 32, 16)
    assert Stem(4, relu=True)(x).min() >= 0
    assert Stem(4, relu=False)(x).shape == (2, 4, 8, 4)


@pytest.mark.parametrize("registers", [0, 2])
@pytest.mark.parametrize("size", [(56, 56), (70, 28)])
def test_tokens_are_those_of_the_library(size: tuple[int, int], registers: int) -> None:
    prior, frames = small_prior(size=size, blocks=(0, 2), registers=registers), torch.randn(3, 3, *size)
    tokens = prior(frames)
    with torch.no_grad():
        positions = position_table(prior.vit.embeddings.position_embeddings, size[0] // 14, size[1] // 14)
        x = prior.vit.embeddings.patch_embeddings(frames)
        x = torch.cat([prior.vit.embeddings.cls_token.expand(3, -1, -1), x], dim=1) + positions
        if registers:
            x = torch.cat([x[:, :1], prior.vit.embeddings.register_tokens.expand(3, -1, -1), x[:, 1:]], dim=1)
        states = []
        for layer in prior.vit.encoder.layer:
            x = layer(x)
            states.append(x[:, 1 + registers :])
        chosen = torch.cat([states[0], states[2]], dim=2)
        chosen = (chosen - chosen.mean(2, keepdim=True)) / (chosen.var(2, keepdim=True, correction=0) + 1e-6).sqrt()
        last = prior.vit.layernorm(states[2])
        if not registers:  # the library resamples the registers' table with antialiasing
            torch.testing.assert_close(prior.vit(frames).last_hidden_state[:, 1:], last, rtol=1e-4, atol=1e-5)
    grid = (size[0] // 14, size[1] // 14)
    torch.testing.assert_close(tokens.last, last.unflatten(1, grid), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(tokens.blocks, chosen.unflatten(1, grid), rtol=1e-4, atol=1e-5)


def test_frames_are_resized_and_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    prior, frames = small_prior(size=(56, 28), blocks=(1,)), torch.randn(5, 3, 32, 16)
    whole = prior(frames)
    resized = F.interpolate(frames, (56, 28), mode="bilinear", align_corners=False)
    torch.testing.assert_close(whole.last, prior(resized).last)
    one_by_one = torch.cat([prior(frame[None]).blocks for frame in frames])
    torch.testing.assert_close(whole.blocks, one_by_one, rtol=1e-4, atol=1e-5)


def test_prepared_weights_follow_the_weights() -> None:
    prior, frames = small_prior(size=(56, 28), blocks=(2,)), torch.randn(2, 3, 56, 28)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        before = prior(frames).last
        assert before.dtype == torch.bfloat16
        torch.testing.assert_close(before, prior(frames).last, rtol=0, atol=0)
    torch.testing.assert_close(before.float(), prior(frames).last, rtol=0.1, atol=0.1)
    with torch.no_grad():
        prior.vit.embeddings.position_embeddings.mul_(8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not torch.allclose(before, prior(frames).last, atol=0.05)
    prior.requires_grad_(True)  # as somebody does who unfreezes a whole network
    with torch.autocast("cpu", dtype=torch.bfloat16):
        unfrozen = prior(frames).last
    assert not unfrozen.requires_grad
    with torch.no_grad():
        prior.vit.embeddings.position_embeddings.div_(8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(before, prior(frames).last, rtol=0, atol=0)
    exact = small_prior(size=(56, 28), blocks=(2,), precision="float32")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = exact(frames).last
    assert torch.equal(rounded, exact(frames).last.bfloat16())


def test_another_thread_may_prepare_another_precision_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two embedders of one model, one in bfloat16: what is kept changes at any moment."""
    prior, frames = small_prior(size=(56, 28), blocks=(2,)), torch.randn(2, 3, 56, 28)
    expected = prior(frames).last

    def set_and_lose(self: FrozenDinov2, name: str, value: object) -> None:
        torch.nn.Module.__setattr__(self, name, {} if name == "_prepared" else value)

    prior._prepared = {}
    monkeypatch.setattr(FrozenDinov2, "__setattr__", set_and_lose)
    assert torch.equal(prior(frames).last, expected)


def test_position_table_by_scale_is_the_published_one(shared: Path) -> None:
    golden = shared / "reference" / "golden"
    with np.load(golden / "eval_forward.npz") as stored:
        want = torch.from_numpy(stored["pos_embed_32x16_every8"])
    table = golden_tensor(shared, "best_shape", "dinov2.dinov2.pos_embed", (1, 1370, 384))
    have = position_table(table, 32, 16, by="scale")[0]
    rows = have[1:] if want.shape[-2] * 8 == 512 else have
    torch.testing.assert_close(rows[::8].reshape(want.shape), want, rtol=0, atol=1e-5)
    assert (position_table(table, 32, 16)[0, 1:] - have[1:]).abs().max() > 1e-3
    assert position_table(table, 37, 37, by="scale") is table


def golden_tensor(shared: Path, prefix: str, key: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor made by the rule of the stored reference numbers."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("golden_common", shared / "reference" / "golden" / "golden_common.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return torch.from_numpy(np.asarray(module.tensor_for(prefix, key, shape)))


def test_official_weights_load_and_come_back(shared: Path) -> None:
    source = shared / "weights" / "dinov2_vits14.pth"
    prior = FrozenDinov2(CONFIGS["dinov2_vits14"](), size=(28, 28), blocks=(11,), awaiting=True)
    load_prior(prior, source)
    assert not prior.awaiting
    official = torch.load(source, weights_only=True)
    back = official_dinov2_state(prior.vit.state_dict())
    assert all(torch.equal(back[name], tensor) for name, tensor in official.items())
    assert set(back) - set(official) <= {"mask_token"}


def test_older_hub_names_and_the_gated_mlp() -> None:
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14, use_swiglu_ffn=True
    )
    state = Dinov2Model(config).state_dict()
    official = official_dinov2_state(state)
    assert official["blocks.0.mlp.w12.weight"].shape[0] == 2 * state["encoder.layer.0.mlp.gate_proj.weight"].shape[0]
    assert official["blocks.0.attn.qkv.bias"].shape == (48,)
    hub = {f"dinov2.{name}": tensor for name, tensor in state.items() if "_proj" not in name}
    for letter, word in (("q", "query"), ("k", "key"), ("v", "value")):
        for kind in ("weight", "bias"):
            hub[f"encoder.layer.0.attention.attention.{word}.{kind}"] = state[f"encoder.layer.0.attention.{letter}_proj.{kind}"]
    for kind in ("weight", "bias"):
        hub[f"encoder.layer.0.attention.output.dense.{kind}"] = state[f"encoder.layer.0.attention.o_proj.{kind}"]
        hub[f"encoder.layer.0.mlp.weights_in.{kind}"] = official[f"blocks.0.mlp.w12.{kind}"]
        hub[f"encoder.layer.0.mlp.weights_out.{kind}"] = official[f"blocks.0.mlp.w3.{kind}"]
    for source in (official, hub, state):
        found = dinov2_state(source)
        assert found.keys() == state.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


def test_a_hugging_face_directory_states_its_own_size(tmp_path: Path) -> None:
    made = small_prior(size=(112, 56), blocks=(1, 2))
    made.vit.save_pretrained(tmp_path / "prior")
    recipe = tiny_recipe(
        "dinogrl",
        "model.gait.prior.shape=null",
        "model.gait.prior.random_init=false",
        f"model.gait.prior.weights={tmp_path / 'prior'}",
        "model.gait.prior.blocks=[1,2]",
    )
    model, frames = build_model(recipe, 3), torch.randn(2, 3, 64, 32)
    assert model.gait is not None
    torch.testing.assert_close(model.gait.prior(frames).last, made(frames).last)


def test_unusable_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prior = small_prior(size=(56, 28), blocks=(1,))
    state = official_dinov2_state(prior.vit.state_dict())
    del state["norm.weight"]
    save_file(state, tmp_path / "less.safetensors")
    with pytest.raises(CheckpointError, match=r"1 missing: layernorm\.weight"):
        load_prior(prior, tmp_path / "less.safetensors")
    save_file({**state, "norm.weight": torch.ones(3)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"layernorm\.weight is \(3,\), expected \(16,\)"):
        load_prior(prior, tmp_path / "other.safetensors")
    nowhere = ["model.gait.prior.random_init=false", "model.gait.prior.weights=null"]
    monkeypatch.setenv("DINOGRL_DINOV2", str(tmp_path / "absent.pth"))
    with pytest.raises(CheckpointError, match=r"no DINOv2 weights at .*absent\.pth"):
        build_model(tiny_recipe("dinogrl", *nowhere), 3)
    monkeypatch.setenv("DINOGRL_DINOV2", str(tmp_path / "other.safetensors"))
    with pytest.raises(CheckpointError, match="does not fit"):
        build_model(tiny_recipe("dinogrl", *nowhere), 3)
    with pytest.raises(UnknownNameError, match="did you mean 'dinov2_vits14'"):
        build_model(tiny_recipe("dinogrl", "model.gait.prior.name=dinov2_vits", "model.gait.prior.shape=null"), 3)


def test_every_published_prior_has_a_hub_name() -> None:
    assert set(HUB_NAMES) == set(CONFIGS) - {"tiny"}
    assert HUB_NAMES["dinov2_vitg14_reg"] == "facebook/dinov2-with-registers-giant"
    assert CONFIGS["dinov2_vitl14_reg"]().num_register_tokens == 4


def test_resnet_weights_fill_both_stems_and_keep_non_local_blocks(tmp_path: Path) -> None:
    torch.manual_seed(1)
    layers, stem = Layers(4, (1, 2, 1, 1)), Stem(4)
    state = {**stem.state_dict(), **layers.state_dict(), "fc.weight": torch.ones(3, 128), "fc.bias": torch.ones(3)}
    state = {name: tensor for name, tensor in state.items() if not name.startswith("non_local")}
    save_file(state, tmp_path / "resnet.safetensors")
    recipe = tiny_recipe(
        "baseline", f"model.appearance.weights={tmp_path / 'resnet.safetensors'}", "model.appearance.non_local=[0,1,0,0]"
    )
    model = build_model(recipe, 3)
    for own in model.appearance.stems:
        assert torch.equal(own.conv1.weight, stem.conv1.weight)
    assert torch.equal(model.appearance.layers.layer2[1].conv3.weight, layers.layer2[1].conv3.weight)
    with pytest.raises(CheckpointError, match="does not fit"):
        build_model(
            tiny_recipe("baseline", *[f"model.appearance.weights={tmp_path / 'resnet.safetensors'}", "model.appearance.width=8"]), 3
        )


@pytest.mark.parametrize("common", [0.0, 30.0], ids=["plain keys", "keys with much in common"])
def test_attention_in_bfloat16_is_as_exact_as_torchs_own(common: float) -> None:
    torch.manual_seed(1)
    query, key, value = torch.randn(3, 2, 3, 65, 16).unbind(0)
    query, key, value = (t.bfloat16() for t in (query, key + common, value))
    truth = (torch.softmax(query.double() @ key.double().transpose(2, 3) / 4, dim=3) @ value.double()).transpose(1, 2)
    ours, weights = cached_attention(torch.nn.Identity(), query, key, value, None)
    torchs = F.scaled_dot_product_attention(query, key, value).transpose(1, 2)
    assert weights is None and ours.dtype == torch.bfloat16
    assert (ours.double() - truth).norm() < 2 * (torchs.double() - truth).norm() + 0.02 * truth.norm()


def test_attention_lets_gradients_through_where_they_are_wanted() -> None:
    leaf = torch.randn(3, 1, 2, 5, 4, dtype=torch.bfloat16).requires_grad_()
    cached_attention(torch.nn.Identity(), *leaf.unbind(0), None)[0].float().square().sum().backward()
    assert leaf.grad is not None and all(part.abs().sum() > 0 for part in leaf.grad)


@pytest.mark.parametrize("many", [1, 3, 4])
def test_recomputed_layers_give_the_same_gradients_and_count_the_batch_once(many: int) -> None:
    torch.manual_seed(2)
    kept, again = (Layers(4, (2, 1, 1, 1), non_local=(0, 1, 0, 0)).double().train() for _ in range(2))
    again.load_state_dict(kept.state_dict())
    again.recompute = many
    frames = torch.randn(3, 4, 8, 8, dtype=torch.float64)
    seen = []
    for layers in (kept, again):
        x = frames.clone().requires_grad_()
        y = layers(x)
        y.square().mean().backward()
        assert x.grad is not None
        seen.append(
            {
                "y": y.detach(),
                "x": x.grad,
                **{name: p.grad for name, p in layers.named_parameters()},
                **dict(layers.named_buffers()),
            }
        )
    for name, value in seen[0].items():
        torch.testing.assert_close(seen[1][name], value, rtol=1e-12, atol=1e-14, msg=name)
    assert int(again.get_buffer("layer1.0.bn1.num_batches_tracked")) == 1
