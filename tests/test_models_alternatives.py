"""What every way of enhancing must do, and what each of table 9's alternatives is, written out slowly."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinogrl.errors import RecipeError, UnknownNameError
from dinogrl.losses.objective import Objective
from dinogrl.models.archive import load_model, save_model
from dinogrl.models.build import build_model
from dinogrl.models.enhancement import ENHANCEMENTS, enhanced_features
from dinogrl.models.enhancement.attention_fusion import VectorFusion
from dinogrl.models.enhancement.cross_non_local import CrossNonLocal
from dinogrl.models.enhancement.ms_g3d import StripeGraph, distance_scales, stripe_tree
from dinogrl.models.enhancement.non_local import NonLocalVectors, dot_product, embedded_gaussian
from dinogrl.models.enhancement.shape_guided import GuidedGather
from dinogrl.recipes.schema import Enhancement
from tiny_models import clips, tiny_model, tiny_recipe

STRIPES, WIDTH = (1, 2, 4, 8, 16), 48
CHOICES = [("non_local", {"relation": "embedded_gaussian"}), *((name, {}) for name in ENHANCEMENTS)]
every = pytest.mark.parametrize(("name", "options"), CHOICES, ids=[f"{n}{''.join(o.values())}" for n, o in CHOICES])
RESIDUAL = {"non_local", "cross_non_local", "shape_guided", "local_to_global"}
"""Those that add to the global feature and start as the identity."""


def module(
    name: str, granularities: tuple[int, ...] = (2, 4, 8, 16), stripes: tuple[int, ...] = STRIPES, seed: int = 0, **options: str
) -> nn.Module:
    """An enhancement away from its start: what begins at zero does not hide what lies before it."""
    torch.manual_seed(seed)
    section = Enhancement(name=name, granularities=granularities, channels=6, **options)  # type: ignore[arg-type]
    made = ENHANCEMENTS[name](section, stripes, WIDTH)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return made


def parts(batch: int, count: int = 31, seed: int = 1) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    return torch.randn(batch, count, WIDTH), torch.randn(batch, count, WIDTH)


@every
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("batch", [1, 5])
def test_shapes_for_one_clip_and_for_many(name: str, options: dict[str, str], train: bool, batch: int) -> None:
    for granularities, stripes in (
        ((2, 4, 8, 16), STRIPES),
        ((16,), STRIPES),
        ((8, 2), STRIPES),
        ((3,), (1, 3)),
        ((1, 3), (1, 3, 7)),
    ):
        made = module(name, granularities, stripes, **options).train(train)
        section = Enhancement(name=name, granularities=granularities)
        for enhanced in made(*parts(batch, sum(stripes))):
            assert enhanced.shape == (batch, enhanced_features(section), WIDTH) and enhanced.dtype == torch.float32
            assert enhanced.isfinite().all()
    assert enhanced_features(None) == 0


@every
def test_gradients_reach_every_parameter_and_both_streams(name: str, options: dict[str, str]) -> None:
    made, inputs = module(name, **options).train(), [p.requires_grad_() for p in parts(24)]
    weight = torch.randn(2, 24, 1, WIDTH)
    sum((w * enhanced).sum() for w, enhanced in zip(weight, made(*inputs), strict=True)).backward()
    for key, parameter in made.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
        if not key.endswith(("phi.bias", "key.bias")):  # a softmax does not feel what is added to all of its inputs
            assert parameter.grad.abs().max() > 0, key
    if name != "none":
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in inputs)


@every
def test_a_stream_learns_from_the_other(name: str, options: dict[str, str]) -> None:
    if name == "none":
        return
    made, (gait, appearance) = module(name, **options).eval(), parts(3)
    _, other = parts(3, seed=2)
    with torch.no_grad():
        assert not torch.allclose(made(gait, appearance)[0], made(gait, other)[0], atol=1e-4)
        assert not torch.allclose(made(gait, appearance)[1], made(other, appearance)[1], atol=1e-4)


@every
def test_a_clip_does_not_know_its_neighbours_or_its_place(name: str, options: dict[str, str]) -> None:
    made, (gait, appearance) = module(name, **options).eval(), parts(5)
    order = torch.tensor([3, 0, 4, 1, 2])
    with torch.no_grad():
        together = made(gait, appearance)
        for have, want in zip(made(gait[order], appearance[order]), together, strict=True):
            torch.testing.assert_close(have, want[order], rtol=1e-4, atol=1e-5)
        for have, want in zip(made(gait[2:3], appearance[2:3]), together, strict=True):
            torch.testing.assert_close(have[0], want[2], rtol=1e-4, atol=1e-5)


@every
def test_state_dict_carries_everything(name: str, options: dict[str, str]) -> None:
    one, two = module(name, seed=0, **options), module(name, seed=7, **options)
    one.train()(*parts(6))  # running statistics move
    two.load_state_dict(one.state_dict())
    for a, b in zip(one.eval()(*parts(4)), two.eval()(*parts(4)), strict=True):
        assert torch.equal(a, b)


@every
def test_a_granularity_is_independent_of_the_others_asked_for(name: str, options: dict[str, str]) -> None:
    """Changing the sixteen stripes leaves the feature of the two stripes as it was (but for the tree, which joins them all)."""
    if name in {"none", "ms_g3d"}:
        return
    made, (gait, appearance) = module(name, (2, 16), **options).eval(), parts(3)
    changed = [stream.clone() for stream in (gait, appearance)]
    for stream in changed:
        stream[:, 15:] += torch.randn_like(stream[:, 15:])
    for before, after in zip(made(gait, appearance), made(*changed), strict=True):
        torch.testing.assert_close(before[:, 0], after[:, 0])
        assert not torch.allclose(before[:, 1], after[:, 1], atol=1e-4)


@every
@pytest.mark.parametrize("train", [True, False])
def test_bfloat16_outside_changes_nothing_inside(name: str, options: dict[str, str], train: bool) -> None:
    made, inputs = module(name, **options).train(train), parts(8)
    with torch.no_grad():
        exact = made(*inputs)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = made(*inputs)
    for a, b in zip(exact, rough, strict=True):
        assert b.dtype == torch.float32
        torch.testing.assert_close(a, b)
    half = made(*(stream.bfloat16() for stream in inputs))
    assert all(a.shape == b.shape and b.isfinite().all() for a, b in zip(exact, half, strict=True))


@pytest.mark.parametrize("name", sorted(RESIDUAL))
def test_residual_forms_start_as_the_identity(name: str) -> None:
    made, streams = ENHANCEMENTS[name](Enhancement(name=name, granularities=(4, 2)), STRIPES, WIDTH).train(), parts(4)
    for own, enhanced in zip(streams, made(*streams), strict=True):
        torch.testing.assert_close(enhanced, own[:, :1].expand(-1, 2, -1))


@every
def test_whole_network_takes_a_step_and_comes_back_from_a_file(name: str, options: dict[str, str], tmp_path: Path) -> None:
    words = [f"model.enhancement.name={name}", *(f"model.enhancement.{key}={value}" for key, value in options.items())]
    recipe, model, batch = tiny_recipe("dinogrl", *words), tiny_model("dinogrl", *words).train(), clips(4)
    total = Objective(recipe.objective)(model(*batch), torch.tensor([0, 0, 1, 1]))["total"]
    total.backward()
    lost = [key for key, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.isfinite().all())]
    assert total.isfinite() and not lost
    save_model(tmp_path / "model.safetensors", model, recipe, 5, {})
    with torch.no_grad():
        again = load_model(tmp_path / "model.safetensors").network
        assert torch.equal(again(*batch).embedding, model.eval()(*batch).embedding)


def test_none_is_the_network_without_enhancement() -> None:
    named, absent = tiny_model("dinogrl", "model.enhancement.name=none"), tiny_model("dinogrl_sasgl")
    assert named.state_dict().keys() == absent.state_dict().keys()
    absent.load_state_dict(named.state_dict())
    assert torch.equal(named.eval()(*clips(2)).embedding, absent.eval()(*clips(2)).embedding)


def test_wrong_names_and_lists() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'non_local'"):
        build_model(tiny_recipe("dinogrl", "model.enhancement.name=nonlocal"), 3)
    with pytest.raises(RecipeError, match="at least 1 item"):
        tiny_recipe("dinogrl", "model.enhancement.granularities=[]")
    with pytest.raises(RecipeError, match="named twice"):
        tiny_recipe("dinogrl", "model.enhancement.granularities=[2,2]")


# -- each alternative, the slow way ---------------------------------------------------------------------------------------------


def shaken(made: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return made.eval()


@pytest.mark.parametrize("gaussian", [True, False])
def test_non_local_by_loops(gaussian: bool) -> None:
    torch.manual_seed(3)
    block, x = shaken(NonLocalVectors(6, 4, embedded_gaussian if gaussian else dot_product)), torch.randn(2, 5, 6)
    query, key, value = (F.linear(x, m.weight, m.bias) for m in (block.theta, block.phi, block.g))
    want = torch.zeros(2, 5, 4)
    for b in range(2):
        for i in range(5):
            products = torch.stack([query[b, i] @ key[b, j] for j in range(5)])
            weights = products.exp() / products.exp().sum() if gaussian else products / 5
            for j in range(5):
                want[b, i] += weights[j] * value[b, j]
    torch.testing.assert_close(block(x), x + block.out(want), rtol=1e-4, atol=1e-5)


def test_attention_fusion_mixes_the_two_and_weights_sum_to_one() -> None:
    torch.manual_seed(3)
    fuse, own, other = shaken(VectorFusion(12)), torch.randn(4, 12), torch.randn(4, 12)
    mixed = fuse(own, other)
    share = (mixed - other) / (own - other)
    assert ((share > 0) & (share < 1)).all()
    scores = fuse.score(torch.cat([own, other], dim=1))
    torch.testing.assert_close(share, torch.sigmoid(scores[:, :12] - scores[:, 12:]), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(fuse(own, own), own)


def test_cross_non_local_asks_by_the_other_stream_and_gathers_its_own() -> None:
    torch.manual_seed(3)
    block = shaken(CrossNonLocal(6))
    own, stripes, other = torch.randn(2, 6), torch.randn(2, 3, 6), torch.randn(2, 6)
    pooled = torch.stack([own, torch.maximum(stripes[:, 0], stripes[:, 1]), stripes[:, 2]], dim=1)
    query = F.linear(other, block.theta.weight, block.theta.bias)
    key, value = (F.linear(pooled, m.weight, m.bias) for m in (block.phi, block.g))
    weights = torch.stack([(query * key[:, j]).sum(1) for j in range(3)], dim=1).exp()
    weights = weights / weights.sum(1, keepdim=True)
    gathered = sum(weights[:, j, None] * value[:, j] for j in range(3))
    torch.testing.assert_close(block(own, stripes, other), own + block.out(gathered), rtol=1e-4, atol=1e-5)


def test_guided_gather_is_scaled_attention() -> None:
    torch.manual_seed(3)
    block = shaken(GuidedGather(8))
    own, stripes, guide = torch.randn(2, 8), torch.randn(2, 5, 8), torch.randn(2, 8)
    attended = F.scaled_dot_product_attention(block.query(guide)[:, None], block.key(stripes), block.value(stripes))[:, 0]
    torch.testing.assert_close(block(own, stripes, guide), own + block.out(attended), rtol=1e-4, atol=1e-5)


def test_tree_of_stripes_is_binary_and_hangs_together() -> None:
    tree = stripe_tree(STRIPES)
    assert torch.equal(tree, tree.T) and tree.sum() == 2 * 30
    children = {node: sorted(j for j in range(31) if tree[node, j] and j > node) for node in range(15)}
    assert all(children[node] == [2 * node + 1, 2 * node + 2] for node in range(15))
    thirds = stripe_tree((1, 2, 3, 6))
    assert thirds.sum() == 2 * 11, "every stripe but the root hangs below one other"
    assert thirds[1, 3] and thirds[2, 5] and thirds[3, 6] and thirds[3, 7]


def test_scales_are_the_distances_on_the_graph() -> None:
    tree = stripe_tree(STRIPES)
    distance = torch.full((31, 31), 99)
    for node in range(31):
        front, seen, steps = [node], {node}, 0
        while front:
            for found in front:
                distance[node, found] = steps
            front = [j for i in front for j in range(31) if tree[i, j] and j not in seen]
            seen |= set(front)
            steps += 1
    for k, scale in enumerate(distance_scales(tree, 5)):
        assert torch.equal(scale > 0, (distance == k) | (distance == 0))
        assert torch.equal(scale, scale.T)


def test_graph_convolution_by_its_formula_and_both_streams_are_neighbours() -> None:
    torch.manual_seed(3)
    graph = shaken(StripeGraph((1, 2, 4), (2, 4), 6))
    gait, appearance = torch.randn(3, 7, 6), torch.randn(3, 7, 6)
    nodes = torch.cat([gait, appearance], dim=1)
    mixed = torch.cat([(graph.adjacency[k] + graph.residual[k]) @ nodes for k in range(5)], dim=2)
    answers = graph.out(mixed)
    assert (answers >= 0).all()
    for start, enhanced in zip((0, 7), graph(gait, appearance), strict=True):
        for g, (low, high) in enumerate(pairwise((1, 3, 7))):
            torch.testing.assert_close(enhanced[:, g], answers[:, start + low : start + high].mean(1), rtol=1e-4, atol=1e-5)
    assert graph.adjacency[1, 0, 7] > 0 and graph.adjacency[1, 0, 8] > 0 and graph.adjacency[1, 0, 10] == 0
    assert torch.equal(graph.adjacency.roll((7, 7), (1, 2)), graph.adjacency), "the streams stand alike"
