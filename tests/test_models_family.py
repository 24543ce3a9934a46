"""What every recipe's network must do, at tiny sizes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dinogrl.errors import CheckpointError, RecipeError
from dinogrl.losses.objective import Objective
from dinogrl.models.build import build_model
from dinogrl.models.dinogrl import DinoGRL
from dinogrl.records import ModelOutput
from tiny_models import clips, tiny_model, tiny_recipe

# recipe -> parts of the gait stream, of the appearance stream
PARTS = {
    "baseline": (0, 31),
    "dinogrl_sasgl": (31, 31),
    "dinogrl_pbmge": (35, 35),
    "dinogrl": (35, 35),
    "dinogrl-released": (35, 35),
}
recipes = pytest.mark.parametrize("name", PARTS)


def gradients(model: DinoGRL, value: Tensor) -> dict[str, float]:
    """name -> largest absolute gradient of the parameters that ``value`` depends on."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(value, list(named.values()), allow_unused=True, retain_graph=True)
    return {name: float(g.abs().max()) for name, g in zip(named, found, strict=True) if g is not None}


@recipes
@pytest.mark.parametrize(("batch", "times"), [(4, 3), (1, 3), (3, 1)])
def test_shapes_in_training_and_evaluation(name: str, batch: int, times: int) -> None:
    model, (frames, modality) = tiny_model(name), clips(batch, times)
    gait, appearance = PARTS[name]
    trained, tested = model.train()(frames, modality), model.eval()(frames, modality)
    for output in (trained, tested):
        assert isinstance(output, ModelOutput)
        assert output.parts.shape == (batch, gait + appearance, 12) and output.parts.dtype == torch.float32
        assert output.gait_parts == gait
        assert output.embedded is not None and output.embedding.shape == (batch, len(output.embedded), 12)
        assert output.parts.isfinite().all()
        assert (output.maps is None) == (gait == 0)
    assert trained.logits is not None and trained.logits.shape == (batch, gait + appearance, 5)
    assert trained.logits.abs().max() <= 1 + 1e-5
    assert tested.logits is None
    if tested.maps is not None and trained.maps is not None:
        assert tested.maps.silhouette.shape == (batch, times, 16, 8)
        assert tested.maps.enriched is not None and tested.maps.enriched.shape == (batch, times, 16, 16, 8)
        assert tested.maps.mask_error is None
        assert trained.maps.mask_error is not None and trained.maps.mask_error.shape == ()
        assert (tested.maps.gait_prior is None) == (name == "dinogrl_pbmge")


@recipes
def test_a_clip_does_not_know_its_neighbours_or_its_place(name: str) -> None:
    model, (frames, modality) = tiny_model(name).eval(), clips(5)
    with torch.no_grad():
        together = model(frames, modality).parts
        order = torch.tensor([3, 0, 4, 1, 2])
        torch.testing.assert_close(model(frames[order], modality[order]).parts, together[order], rtol=1e-3, atol=1e-3)
        for i in range(2):
            torch.testing.assert_close(model(frames[i : i + 1], modality[i : i + 1]).parts[0], together[i], rtol=1e-3, atol=1e-3)


@recipes
def test_the_order_of_frames_and_repeats_do_not_matter(name: str) -> None:
    model, (frames, modality) = tiny_model(name).eval(), clips(2, times=3)
    with torch.no_grad():
        parts = model(frames, modality).parts
        torch.testing.assert_close(model(frames[:, [2, 0, 1, 0]], modality).parts, parts, rtol=1e-3, atol=1e-3)


@recipes
def test_the_modality_chooses_the_stem(name: str) -> None:
    model, (frames, modality) = tiny_model(name).eval(), clips(4)
    with torch.no_grad():
        mixed = model(frames, modality)
        for m, stem in enumerate(model.appearance.stems):
            alone = model(frames, torch.full((4,), m))
            rows = modality == m
            torch.testing.assert_close(alone.parts[rows], mixed.parts[rows], rtol=1e-3, atol=1e-3)
            if mixed.gait_parts == 31:  # without enhancement the gait stream is blind to the modality
                torch.testing.assert_close(alone.parts[:, :31], mixed.parts[:, :31], rtol=1e-3, atol=1e-3)
            assert not torch.allclose(alone.parts[~rows, -31:], mixed.parts[~rows, -31:], rtol=1e-2), stem


@recipes
def test_mixed_batch_in_training_takes_batch_statistics_by_modality(name: str) -> None:
    model, (frames, modality) = tiny_model(name).train(), clips(4)
    means = []
    for stem, rows in zip(model.appearance.stems, (modality == 0, modality == 1), strict=True):
        means.append(stem.conv1(frames[rows].flatten(0, 1)).mean((0, 2, 3)))
    before = [stem.bn1.running_mean.clone() for stem in model.appearance.stems]
    model(frames, modality)
    for stem, old, mean in zip(model.appearance.stems, before, means, strict=True):
        torch.testing.assert_close(stem.bn1.running_mean, 0.9 * old + 0.1 * mean, rtol=1e-4, atol=1e-5)


@recipes
def test_state_dict_carries_everything(name: str) -> None:
    one, two, batch = tiny_model(name, seed=0).eval(), tiny_model(name, seed=7).eval(), clips(2)
    with torch.no_grad():
        assert not torch.allclose(one(*batch).parts, two(*batch).parts)
        two.load_state_dict(one.state_dict())
        assert torch.equal(one(*batch).parts, two(*batch).parts)


@recipes
def test_a_step_under_bfloat16_is_finite_and_near(name: str) -> None:
    model, batch = tiny_model(name).train(), clips(4)
    objective, identity = Objective(tiny_recipe(name).objective), torch.tensor([0, 0, 1, 1])
    exact = objective(model(*batch), identity)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(*batch)
    rough = objective(output, identity)
    rough["total"].backward()
    assert output.parts.dtype == torch.float32
    for key in {"identity_appearance", "mask"} & set(exact):
        assert rough[key].item() == pytest.approx(exact[key].item(), rel=0.1)
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@recipes
def test_supervised_parts(name: str) -> None:
    output = tiny_model(name).eval()(*clips(2))
    gait, appearance = PARTS[name]
    one = [0, *range(31, appearance)]
    expected = one if not gait else [*one, *(gait + p for p in one)]
    assert output.supervised is not None
    assert output.supervised.tolist() == (list(range(70)) if name == "dinogrl-released" else expected)
    only = tiny_model(name, "model.embed=supervised").eval()(*clips(2))
    assert only.embedding.shape[1] == len(output.supervised)
    everything = tiny_model(name, "model.embed=all").eval()(*clips(2))
    assert torch.equal(everything.embedding, everything.parts)


@pytest.mark.parametrize("name", [n for n in PARTS if n != "baseline"])
def test_the_prior_is_frozen_and_calm(name: str) -> None:
    model = tiny_model(name).train()
    assert model.gait is not None
    assert not any(module.training for module in model.gait.prior.modules())
    assert not any(p.requires_grad for p in model.gait.prior.parameters())
    total = Objective(tiny_recipe(name).objective)(model(*clips(4)), torch.tensor([0, 0, 1, 1]))["total"]
    total.backward()
    assert all(p.grad is None for p in model.gait.prior.parameters())


def test_gradients_reach_everything_that_learns() -> None:
    for name in ("dinogrl", "dinogrl_pbmge", "dinogrl-released"):
        model = tiny_model(name).train()
        total = Objective(tiny_recipe(name).objective)(model(*clips(4)), torch.tensor([0, 0, 1, 1]))["total"]
        total.backward()
        lost = [key for key, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.isfinite().all())]
        assert not lost, (name, lost)


@pytest.mark.parametrize("joint", ["true", "false"])
@pytest.mark.parametrize("joint_priors", ["true", "false"])
def test_joint_learning_switches(joint: str, joint_priors: str) -> None:
    model = tiny_model("dinogrl", f"model.gait.joint={joint}", f"model.gait.joint_priors={joint_priors}").train()
    output = model(*clips(4))
    assert output.maps is not None and output.maps.gait_prior is not None
    reached = gradients(model, output.parts[:, : output.gait_parts].square().sum())
    assert ("gait.mask.encode.weight" in reached) == (joint == "true")
    assert ("gait.priors.gait.reduce.weight" in reached) == (joint_priors == "true")
    assert ("gait.priors.appearance.reduce.weight" in reached) == (joint_priors == "true")
    assert reached["gait.encoders.gait.conv1.weight"] > 0
    # the regularisers reach their own encoder in any case
    assert gradients(model, output.maps.gait_prior.square().sum())["gait.priors.gait.reduce.weight"] > 0
    assert output.maps.mask_error is not None
    assert gradients(model, output.maps.mask_error)["gait.mask.encode.weight"] > 0


def test_each_prior_alone_and_the_plain_silhouette() -> None:
    for chosen, kept in (("[gait]", "gait_prior"), ("[appearance]", "appearance_prior")):
        model = tiny_model("dinogrl", f"model.gait.priors={chosen}").eval()
        maps = model(*clips(2)).maps
        assert maps is not None
        assert [n for n in ("gait_prior", "appearance_prior") if getattr(maps, n) is not None] == [kept]
    plain = tiny_model("dinogrl_pbmge").train()
    output = plain(*clips(4))
    assert gradients(plain, output.parts[:, :35].square().sum())["gait.mask.encode.weight"] > 0


def test_multiplication_empties_the_background() -> None:
    torch.manual_seed(0)
    model = tiny_model("dinogrl").eval()
    assert model.gait is not None
    with torch.no_grad():
        model.gait.mask.encode.weight.mul_(1e4)
        maps = model(*clips(2)).maps
    assert maps is not None and maps.enriched is not None
    outside = maps.silhouette < 1e-6
    assert outside.any()
    assert maps.enriched.abs().sum(2)[outside].max() < 1e-3


def test_foreground_only_leaves_zeros_outside() -> None:
    maps = tiny_model("dinogrl-released").eval()(*clips(2)).maps
    assert maps is not None and maps.gait_prior is not None and maps.appearance_prior is not None and maps.foreground is not None
    assert 0 < maps.foreground.float().mean() < 1
    inside = maps.gait_prior.sum(2)
    torch.testing.assert_close(inside, maps.foreground.float(), rtol=1e-5, atol=1e-5)
    assert (maps.appearance_prior.sum(2)[~maps.foreground] == 0).all()


def test_dropping_a_prior_is_for_training_and_for_the_clips_that_were_drawn() -> None:
    model, batch = tiny_model("dinogrl-released", "model.gait.drop_prior=0.5", "model.gait.mask_dropout=0.0"), clips(4)
    assert model.gait is not None
    seen: list[Tensor] = []
    for which in ("gait", "appearance"):
        model.gait.encoders[which].register_forward_hook(lambda _, given, __: seen.append(given[0].detach()))
    model.gait.choose_drops = lambda batch_size, share: [(1, 0), (3, 1)]
    output = model.train()(*batch)
    gait, appearance = (maps.unflatten(0, (4, 3)).abs().sum((1, 2, 3, 4)) for maps in seen)
    assert (gait > 0).tolist() == [True, False, True, True]
    assert (appearance > 0).tolist() == [True, True, True, False]
    assert output.maps is not None and output.maps.gait_prior is not None
    assert (output.maps.gait_prior[1].abs().sum((1, 2, 3)) > 0).all()  # the losses see the map before the drop
    seen.clear()
    model.eval()(*batch)
    assert all((maps.unflatten(0, (4, 3)).abs().sum((1, 2, 3, 4)) > 0).all() for maps in seen)


def test_drawn_drops_are_the_share_asked_for_and_follow_the_seed() -> None:
    from dinogrl.models.streams.gait import drop_at_random

    torch.manual_seed(4)
    one = drop_at_random(32, 0.2)
    torch.manual_seed(4)
    assert one == drop_at_random(32, 0.2)
    assert [len(drop_at_random(clips, 0.2)) for clips in (2, 4, 8)] == [0, 1, 2]  # rounded, not cut off
    assert len({clip for clip, _ in one}) == 6 and {which for _, which in one} <= {0, 1}
    assert {which for _ in range(40) for _, which in drop_at_random(4, 0.5)} == {0, 1}


def test_granularities_and_stripes_are_arguments() -> None:
    model = tiny_model("dinogrl", "model.pooling.stripes=[1,2,3]", "model.enhancement.granularities=[3]").eval()
    assert model(*clips(2)).parts.shape == (2, 2 * 7, 12)


def test_a_prior_without_weights_is_refused_and_wrong_blocks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DINOGRL_DINOV2", raising=False)
    waiting = build_model(tiny_recipe("dinogrl", "model.gait.prior.random_init=false", "model.gait.prior.weights=checkpoint"), 3)
    with pytest.raises(CheckpointError, match="no weights yet"):
        waiting(*clips(1))
    waiting.load_state_dict(waiting.state_dict())
    waiting(*clips(2))
    with pytest.raises(RecipeError, match="blocks 0 to 3"):
        build_model(tiny_recipe("dinogrl", "model.gait.prior.blocks=[2,5]"), 3)
