"""Other priors than DINOv2 ViT-S: DINOv3 as the library has it, from the files its authors publish; adapters on the last blocks."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dinogrl.errors import CheckpointError, RecipeError
from dinogrl.losses.objective import Objective
from dinogrl.models.archive import load_model, merged, save_model
from dinogrl.models.backbones.dinov2 import FrozenDinov2
from dinogrl.models.backbones.dinov3 import FrozenDinov3, dinov3_state
from dinogrl.models.backbones.dinov3 import config_of_shape as dinov3_shape
from dinogrl.models.backbones.frozen import FrozenPrior
from dinogrl.models.backbones.lora import LoraLinear, adapt, merge
from dinogrl.models.backbones.priors import CONFIGS, HUB_NAMES, config_of_shape, read_config, shape_of_config
from dinogrl.models.build import build_model
from dinogrl.models.pretrained import load_prior, prior_source
from dinogrl.recipes import load_recipe
from dinogrl.recipes.schema import Lora, Prior, PriorShape
from dinogrl.training.optimisers import make_optimiser
from tiny_models import clips, tiny_model, tiny_recipe

DINOV3 = ["model.gait.prior.shape={family: dinov3, width: 16, depth: 4, heads: 2}", "model.gait.prior.height=64"]
DINOV3 += ["model.gait.prior.width=32"]


def shaken(prior: FrozenPrior, seed: int = 0) -> FrozenPrior:
    """Away from its start: layer scale and registers are nobody's start, adapters do something."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in prior.vit.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return prior


def small(family: str, registers: int = 2, gated: bool = False, **more: object) -> FrozenPrior:
    torch.manual_seed(0)
    shape = PriorShape(family=family, width=16, depth=3, heads=2, positions=4, registers=registers, gated=gated)  # type: ignore[arg-type]
    size = (48, 32) if family == "dinov3" else (42, 28)
    kind = FrozenDinov3 if family == "dinov3" else FrozenDinov2
    return shaken(kind(config_of_shape(shape), size=size, blocks=(0, 2), **more))  # type: ignore[arg-type]


families = pytest.mark.parametrize("family", ["dinov2", "dinov3"])


# -- DINOv3 ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("registers", [0, 3])
def test_tokens_are_those_of_the_library(registers: int, gated: bool) -> None:
    prior, frames = small("dinov3", registers, gated), torch.randn(5, 3, 48, 32)
    tokens = prior(frames)
    with torch.no_grad():
        whole = prior.vit(frames, output_hidden_states=True)
        states = [state[:, 1 + registers :] for state in whole.hidden_states[1:]]
    assert tokens.last.shape == (5, 3, 2, 16) and tokens.blocks.shape == (5, 3, 2, 32)
    torch.testing.assert_close(tokens.last.flatten(1, 2), whole.last_hidden_state[:, 1 + registers :], rtol=1e-4, atol=1e-5)
    chosen = F.layer_norm(torch.cat([states[0], states[2]], dim=2), (32,), eps=1e-6)
    torch.testing.assert_close(tokens.blocks.flatten(1, 2), chosen, rtol=1e-4, atol=1e-5)


def test_bfloat16_is_near_and_positions_are_made_in_float32() -> None:
    prior, frames = small("dinov3"), torch.randn(2, 3, 48, 32)
    exact = prior(frames).last
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = prior(frames).last
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.float(), exact, rtol=0.1, atol=0.1)
    cosine, sine = prior.prepared(torch.bfloat16).positions
    full_cosine, full_sine = prior.prepared(torch.float32).positions
    assert torch.equal(cosine, full_cosine.bfloat16()) and torch.equal(sine, full_sine.bfloat16())


def test_published_sizes() -> None:
    """Millions of parameters as the authors' model cards give them; S+ and H+ have gated MLPs."""
    for name, millions in {"vits16": 21, "vits16plus": 29, "vitb16": 86, "vitl16": 300, "vith16plus": 840}.items():
        config = CONFIGS[f"dinov3_{name}"]()
        with torch.device("meta"):
            model = FrozenDinov3(config, (16, 16), (0,))
        count = sum(p.numel() for p in model.parameters()) / 1e6
        assert count == pytest.approx(millions, rel=0.03), name
        assert config.num_register_tokens == 4 and config.patch_size == 16
    assert HUB_NAMES["dinov3_vits16plus"] == "facebook/dinov3-vits16plus-pretrain-lvd1689m"
    assert set(HUB_NAMES) == set(CONFIGS) - {"tiny"}


def official(state: dict[str, Tensor], gated: bool) -> dict[str, Tensor]:
    """The tensors as DINOv3's authors name them."""
    made = {"rope_embed.periods": torch.ones(4), "storage_tokens": state["embeddings.register_tokens"]}
    names = {"gate_proj": "w1", "up_proj": "w2", "down_proj": "w3"} if gated else {"up_proj": "fc1", "down_proj": "fc2"}
    for name, tensor in state.items():
        short = name.replace("model.layer.", "blocks.").replace("embeddings.patch_embeddings.", "patch_embed.proj.")
        short = short.replace("attention.o_proj", "attn.proj").replace("layer_scale", "ls").replace("lambda1", "gamma")
        for ours, theirs in names.items():
            short = short.replace(f"mlp.{ours}", f"mlp.{theirs}")
        if "attention.q_proj" in short:
            parts = [state.get(name.replace("q_proj", f"{letter}_proj"), torch.zeros_like(tensor)) for letter in "qkv"]
            made[short.replace("attention.q_proj", "attn.qkv")] = torch.cat(parts)
            if short.endswith("bias"):
                made[short.replace("attention.q_proj.bias", "attn.qkv.bias_mask")] = torch.ones(3 * len(tensor))
        elif "_proj" not in short and "register" not in short:
            made[short.replace("embeddings.", "")] = tensor
    return made


@pytest.mark.parametrize("gated", [True, False])
def test_official_files_and_hugging_face_directories_load(gated: bool, tmp_path: Path) -> None:
    made, frames = small("dinov3", gated=gated), torch.randn(2, 3, 48, 32)
    torch.save(official(made.vit.state_dict(), gated), tmp_path / "official.pth")
    made.vit.save_pretrained(tmp_path / "hub")
    assert shape_of_config(read_config(tmp_path / "hub")) == shape_of_config(made.vit.config)
    for source in (tmp_path / "official.pth", tmp_path / "hub"):
        empty = FrozenDinov3(made.vit.config, (48, 32), (0, 2), awaiting=True)
        with pytest.raises(CheckpointError, match="no weights yet"):
            empty(frames)
        load_prior(empty, source)
        assert torch.equal(empty(frames).last, made(frames).last)
    state = made.vit.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in dinov3_state(state).items())
    broken = official(state, gated)
    del broken["norm.weight"]
    torch.save(broken, tmp_path / "broken.pth")
    with pytest.raises(CheckpointError, match=r"1 missing: norm\.weight"):
        load_prior(FrozenDinov3(made.vit.config, (48, 32), (0,)), tmp_path / "broken.pth")


def test_a_network_on_dinov3_trains_and_comes_back_without_its_directory(tmp_path: Path) -> None:
    made = small("dinov3")
    made.vit.save_pretrained(tmp_path / "hub")
    words = ["model.gait.prior.shape=null", "model.gait.prior.name=dinov3_vits16", f"model.gait.prior.weights={tmp_path / 'hub'}"]
    words += ["model.gait.prior.random_init=false", "model.gait.prior.height=48", "model.gait.prior.width=32"]
    recipe = tiny_recipe("dinogrl", *words, "model.gait.prior.blocks=[0,2]")
    torch.manual_seed(0)
    model, batch = build_model(recipe, 5).train(), clips(4)
    assert isinstance(model.gait.prior, FrozenDinov3)  # type: ignore[union-attr]
    losses = Objective(recipe.objective)(model(*batch), torch.tensor([0, 0, 1, 1]))
    losses["total"].backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    save_model(tmp_path / "model.safetensors", model, recipe, 5, {})
    (tmp_path / "hub" / "config.json").unlink()
    again = load_model(tmp_path / "model.safetensors")
    with torch.no_grad():
        assert torch.equal(again.network(*batch).embedding, model.eval()(*batch).embedding)


def test_what_does_not_fit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match="multiples of the patch size 16"):
        load_recipe("dinogrl_dinov3_vits16", ["model.gait.prior.height=462"])
    with pytest.raises(RecipeError, match="multiples of this prior's patch size 16"):
        FrozenDinov3(dinov3_shape(16, 1, 2), (56, 32), (0,))
    monkeypatch.setenv("DINOGRL_DINOV2", str(tmp_path / "two.pth"))
    monkeypatch.setenv("DINOGRL_DINOV3", str(tmp_path / "three.pth"))
    with pytest.raises(CheckpointError, match=r"no DINOv3 weights at .*three\.pth .*DINOGRL_DINOV3"):
        prior_source(Prior(name="dinov3_vits16"))
    with pytest.raises(CheckpointError, match=r"no DINOv2 weights at .*two\.pth .*DINOGRL_DINOV2"):
        prior_source(Prior(name="dinov2_vitb14"))
    with pytest.raises(RecipeError, match=r"lora\.blocks is 4, but this prior has 3 blocks"):
        adapt(small("dinov3"), Lora(blocks=4))
    with pytest.raises(RecipeError, match=r"lora\.layers"):
        load_recipe("dinogrl_lora", ["model.gait.prior.lora.layers=[queries]"])


# -- adapters -------------------------------------------------------------------------------------------------------------------

LORA = ["model.gait.prior.lora={blocks: 2, rank: 3, layers: [query, key, value, output, mlp]}"]


@families
@pytest.mark.parametrize("gated", [True, False])
def test_adapters_begin_as_the_frozen_prior_on_the_last_blocks_only(family: str, gated: bool) -> None:
    prior, size = small(family, gated=gated), (48, 32) if family == "dinov3" else (42, 28)
    frames = torch.randn(2, 3, *size)
    frozen = prior(frames)
    adapt(prior, Lora(blocks=1, rank=2, layers=("query", "value", "mlp")))
    tokens = prior(frames)
    torch.testing.assert_close(tokens.last, frozen.last)
    assert tokens.last.requires_grad and not frozen.last.requires_grad
    with torch.no_grad():
        assert not prior(frames).last.requires_grad
    learns = {name for name, p in prior.vit.named_parameters() if p.requires_grad}
    assert len(learns) == 2 * (2 + (3 if gated else 2)) and all("lora_" in name and ".2." in name for name in learns)


@families
def test_an_adapter_is_its_formula_and_merging_changes_nothing(family: str) -> None:
    prior = small(family)
    adapt(prior, Lora(blocks=2, rank=2, alpha=6, layers=("query", "key", "value", "output", "mlp")))
    shaken(prior)
    linear = next(m for m in prior.vit.modules() if isinstance(m, LoraLinear))
    x = torch.randn(5, linear.in_features)
    weight = linear.weight + 3 * linear.lora_up @ linear.lora_down
    torch.testing.assert_close(linear(x), F.linear(x, weight, linear.bias), rtol=1e-4, atol=1e-5)
    frames = torch.randn(3, 3, *prior.size)
    before = prior(frames)
    one = copy.deepcopy(prior)
    merge(one)
    assert not any("lora" in name for name in one.state_dict())
    assert not any(p.requires_grad for p in one.parameters())
    torch.testing.assert_close(one(frames).last, before.last.detach(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(one(frames).blocks, before.blocks.detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [[], DINOV3], ids=["dinov2", "dinov3"])
def test_a_training_step_moves_the_adapters_and_nothing_else_of_the_prior(shape: list[str]) -> None:
    recipe = tiny_recipe("dinogrl", *shape, *LORA)
    model, batch = tiny_model("dinogrl", *shape, *LORA).train(), clips(4)
    assert model.gait is not None
    prior = model.gait.prior
    with torch.no_grad():
        for name, parameter in prior.named_parameters():
            if "lora_up" in name:
                parameter.normal_(std=0.1)
    before = {name: tensor.clone() for name, tensor in prior.state_dict().items()}
    optimiser = make_optimiser(model, recipe.training)
    with torch.inference_mode():
        model.eval()(*batch)  # what is kept from here on must not stand in the way of learning
    model.train()
    ready = prior.prepared(torch.float32)
    Objective(recipe.objective)(model(*batch), torch.tensor([0, 0, 1, 1]))["total"].backward()
    adapters = [p for name, p in prior.named_parameters() if "lora_" in name]
    assert len(adapters) >= 2 * 2 * 6
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.abs().max() > 0 for p in adapters)
    optimiser.step()
    moved = {name for name, tensor in prior.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved and all("lora_" in name for name in moved)
    assert prior.prepared(torch.float32) is ready, "the frozen part is not copied anew after every step"


@families
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_adapters_follow_autocast_to_either_half_precision(family: str, kind: torch.dtype) -> None:
    """float16 is what ``torch.autocast("cuda")`` takes where nobody says otherwise."""
    prior = small(family)
    adapt(prior, Lora(blocks=1, rank=4))
    frames = torch.randn(2, 3, *prior.size)
    with torch.autocast("cpu", dtype=kind):
        rounded = prior(frames).last
    assert rounded.dtype == kind
    torch.testing.assert_close(rounded.float(), prior(frames).last, rtol=0.1, atol=0.1)
    rounded.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in prior.parameters() if p.requires_grad)


def test_the_start_of_the_silhouette_keeps_no_graph_of_the_adapters() -> None:
    network, seen = tiny_model("dinogrl_lora"), []
    network.get_submodule("gait.prior").register_forward_hook(lambda prior, given, tokens: seen.append(tokens.last.requires_grad))
    network.start_silhouette(clips()[0])
    assert seen == [False]


def test_adapters_learn_in_float32_under_bfloat16() -> None:
    """An update far below bfloat16's step of the weight must have its effect all the same."""
    prior = small("dinov2", registers=0)
    frames = torch.randn(4, 3, *prior.size)
    adapt(prior, Lora(blocks=1, rank=4, layers=("query", "key", "value", "output", "mlp")))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert prior(frames).last.dtype == torch.bfloat16
    linear = next(m for m in prior.vit.modules() if isinstance(m, LoraLinear))
    with torch.no_grad():
        linear.lora_up.copy_(1e-5 * torch.randn_like(linear.lora_up))
    x = torch.randn(200, linear.in_features)
    with torch.no_grad():
        true = linear(x) - F.linear(x, linear.weight, linear.bias)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            own = linear.scale * F.linear(F.linear(x, linear.lora_down), linear.lora_up)
        kept = linear.merged().weight.bfloat16() != linear.weight.bfloat16()
    assert kept.float().mean() < 0.1, "added to the weight, the update would be lost"
    torch.testing.assert_close(own.float(), true, rtol=0.05, atol=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prior(frames).last.float().square().sum().backward()
    assert linear.lora_up.grad is not None and linear.lora_up.grad.dtype == torch.float32


@pytest.mark.parametrize("shape", [[], DINOV3], ids=["dinov2", "dinov3"])
def test_adapters_come_back_from_a_model_file_separate_or_merged(shape: list[str], tmp_path: Path) -> None:
    recipe, batch = tiny_recipe("dinogrl", *shape, *LORA), clips(2)
    model = tiny_model("dinogrl", *shape, *LORA).eval()
    assert model.gait is not None
    shaken(model.gait.prior)
    save_model(tmp_path / "model.safetensors", model, recipe, 5, {})
    trained = load_model(tmp_path / "model.safetensors")
    with torch.no_grad():
        want = model(*batch).embedding
        assert torch.equal(trained.network(*batch).embedding, want)
    plain = merged(trained)
    assert plain.recipe.model.gait is not None and plain.recipe.model.gait.prior.lora is None
    assert plain.fingerprint != trained.fingerprint
    save_model(tmp_path / "merged.safetensors", plain.network, plain.recipe, 5, {})
    again = load_model(tmp_path / "merged.safetensors").network
    with torch.no_grad():
        torch.testing.assert_close(again(*batch).embedding, want, rtol=1e-3, atol=1e-3)
        assert torch.equal(trained.network(*batch).embedding, want), "the model that was merged is as it was"


@pytest.mark.parametrize("recipe", ["dinogrl", "dinogrl_dinov3_vits16", "dinogrl_lora"])
def test_inference_mode_around_anything_changes_nothing_and_stays_out_of_training(recipe: str) -> None:
    """Around loading, around embedding, and a training step afterwards."""
    frames, modality = clips()
    with torch.inference_mode():
        made_inside = tiny_model(recipe).eval()(frames, modality).embedding.clone()
    network = tiny_model(recipe).eval()
    with torch.inference_mode():
        run_inside = network(frames, modality).embedding.clone()
    with torch.no_grad():
        expected = network(frames, modality).embedding
    assert torch.equal(made_inside, expected) and torch.equal(run_inside, expected)
    network.train()(frames, modality).parts.sum().backward()


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "tiny"])
def test_published_priors_have_heads_of_64_and_the_gates_that_their_names_say(name: str) -> None:
    """No weight's shape tells how many heads there are: another number would load, and see something else."""
    shape = shape_of_config(CONFIGS[name]())
    assert shape["width"] == 64 * shape["heads"]
    assert shape["gated"] == ("vitg" in name or "plus" in name)
