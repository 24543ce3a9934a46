"""Sums over signed relations and the whole enhancement, against the literal C x C maps."""

from __future__ import annotations

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dinogrl.models.enhancement.local_to_global import LocalToGlobal
from dinogrl.models.enhancement.queries import LatentQuery, ReprojectedQuery
from dinogrl.models.enhancement.relation import PairedKeys, signed_relation_sums, sort_keys

STRIPES = (1, 2, 4, 8, 16)


def literal_sums(a: Tensor, b: Tensor, k: Tensor) -> list[Tensor]:
    relation = a[..., :, None] * k[..., None, :] + b[..., :, None]
    plus, minus = relation.relu(), (-relation).relu()
    return [plus.sum(-1), (plus * k[..., None, :]).sum(-1), minus.sum(-1), (minus * k[..., None, :]).sum(-1)]


numbers = st.sampled_from([-3.0, -1.0, -0.5, -0.0, 0.0, 0.25, 1.0, 2.0])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=7))
def test_sums_hold_for_ties_zeros_and_both_signs_of_slope(rows: list[tuple[float, float, float]]) -> None:
    a, b, k = torch.tensor(rows, dtype=torch.float64).T
    found = signed_relation_sums(a, b, sort_keys(k))
    for have, want in zip((found.plus0, found.plus1, found.minus0, found.minus1), literal_sums(a, b, k), strict=True):
        torch.testing.assert_close(have, want, rtol=0, atol=1e-12)


def test_gradients_of_the_sums_are_those_of_the_literal_form() -> None:
    torch.manual_seed(3)
    inputs = [torch.randn(2, 3, 40, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    weights = torch.randn(4, 2, 3, 40, dtype=torch.float64)
    a, b, k = inputs
    found = signed_relation_sums(a, b, sort_keys(k))
    have = torch.autograd.grad((torch.stack([found.plus0, found.plus1, found.minus0, found.minus1]) * weights).sum(), inputs)
    want = torch.autograd.grad((torch.stack(literal_sums(a, b, k)) * weights).sum(), inputs)
    for h, w in zip(have, want, strict=True):
        torch.testing.assert_close(h, w, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("latent", [True, False])
def test_keys_that_look_at_every_pair_make_the_same_enhancement(latent: bool) -> None:
    torch.manual_seed(5)
    enhancement = LocalToGlobal(STRIPES, (2, 4, 8, 16), channels=6, latent=latent).eval()
    with torch.no_grad():
        for parameter in enhancement.parameters():
            parameter += torch.rand_like(parameter) * 0.2
    parts = [torch.randn(3, sum(STRIPES), 20, dtype=torch.float64) for _ in range(2)]
    sorted_first = torch.stack(enhancement(*parts))
    enhancement.read_keys = PairedKeys
    torch.testing.assert_close(torch.stack(enhancement(*parts)), sorted_first, rtol=1e-10, atol=1e-10)


def project(weight: Tensor, bias: Tensor, signal: Tensor) -> Tensor:
    """A 1x1 convolution from one channel: (B,C) -> (B,L,C)."""
    return F.conv1d(signal[:, None], weight[:, None, None], bias)


def literal_reprojected(
    query: ReprojectedQuery, at: int, direction: int, feature: Tensor, stripes: list[Tensor], train: bool
) -> Tensor:
    """The published form, with its (C,C) maps and real batch norms; returns the feature and moves the batch norms along."""
    take = lambda name: getattr(query, name)[at, direction]  # noqa: E731
    for key in stripes:
        q = project(take("query_weight"), take("query_bias"), feature)
        k = project(take("key_weight"), take("key_bias"), key)
        v = project(take("value_weight"), take("value_bias"), key)
        relation = q.transpose(1, 2) @ k / key.shape[1]
        update = 0
        for sign, side in enumerate((relation.relu(), (-relation).relu())):
            gathered = (side @ v.transpose(1, 2)).transpose(1, 2)  # (B,L,C)
            out = F.conv1d(gathered, take("out_weight")[sign][None, :, None], take("out_bias")[sign][None])
            mean, var = query.running_mean[at, direction, sign, None], query.running_var[at, direction, sign, None]
            gain, shift = take("gain")[sign, None], take("shift")[sign, None]
            update = update + (1 - 2 * sign) * F.batch_norm(out, mean, var, gain, shift, training=train)[:, 0]
        feature = feature + update
    return feature


def literal_latent(
    query: LatentQuery, at: int, direction: int, chain: int, feature: Tensor, stripes: list[Tensor], train: bool
) -> Tensor:
    """The paper's form: the query (B,L,C) itself is the state."""
    take = lambda name: getattr(query, name)[at, direction]  # noqa: E731
    q = project(take("query_weight"), take("query_bias"), feature)
    for step, key in enumerate(stripes):
        k = project(take("key_weight"), take("key_bias"), key)
        v = project(take("value_weight"), take("value_bias"), key)
        relation = q.transpose(1, 2) @ k / key.shape[1]
        update = 0
        for sign, side in enumerate((relation.relu(), (-relation).relu())):
            out = F.conv1d((side @ v.transpose(1, 2)).transpose(1, 2), take("mix")[sign][:, :, None])
            x, z = take("mix")[sign] @ take("value_weight"), take("mix")[sign] @ take("value_bias")
            m1, m0, v11, v10, v00 = query.running[step, chain, direction, sign].unbind()
            mean, var = x * m1 + z * m0, x * x * v11 + 2 * x * z * v10 + z * z * v00
            if train:
                mean, var = out.mean((0, 2)), out.var((0, 2), correction=0)
            normed = (out - mean[:, None]) / (var[:, None] + 1e-5).sqrt()
            update = update + (1 - 2 * sign) * (normed * take("gain")[sign][:, None] + take("shift")[sign][:, None])
        q = q + update
    back = torch.einsum("l,blc->bc", take("back"), q)[:, None]
    mean, var = query.back_running[chain, direction, None].unbind(-1)
    gain, shift = take("back_gain")[None], take("back_shift")[None]
    return feature + F.batch_norm(back, mean.clone(), var.clone(), gain, shift, training=train)[:, 0]


def literal(
    module: LocalToGlobal, granularities: tuple[int, ...], gait: Tensor, appearance: Tensor, train: bool
) -> tuple[Tensor, Tensor]:
    first = {n: sum(STRIPES[:i]) for i, n in enumerate(STRIPES)}
    results: list[list[Tensor]] = [[], []]
    for n in granularities:
        chain = module.chains.index(n)
        at = chain if len(module.query.query_weight) > 1 else 0
        for direction, (own, other) in enumerate(((gait, appearance), (appearance, gait))):
            stripes = [other[:, first[n] + step] for step in range(n)]
            if isinstance(module.query, LatentQuery):
                enhanced = literal_latent(module.query, at, direction, chain, own[:, 0], stripes, train)
            else:
                assert isinstance(module.query, ReprojectedQuery)
                enhanced = literal_reprojected(module.query, at, direction, own[:, 0], stripes, train)
            results[direction].append(enhanced)
    return torch.stack(results[0], dim=1), torch.stack(results[1], dim=1)


def random_module(granularities: tuple[int, ...], shared: bool, latent: bool) -> LocalToGlobal:
    torch.manual_seed(5)
    module = LocalToGlobal(STRIPES, granularities, channels=7, shared=shared, latent=latent).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
        for name, buffer in module.named_buffers():
            if "running" in name:
                # covariances must stay below the variances
                buffer += 0.1 * torch.rand_like(buffer)
    return module


@pytest.mark.parametrize(("shared", "latent", "train", "batch"), [*product([True, False], [True, False], [True, False], [1, 3])])
def test_enhancement_is_the_literal_form_with_its_gradients(shared: bool, latent: bool, train: bool, batch: int) -> None:
    granularities = (2, 4, 8)
    module = random_module(granularities, shared, latent).train(train)
    inputs = [torch.randn(batch, sum(STRIPES), 20, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    learned = list(module.parameters())
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    weight = torch.randn(2, batch, 3, 20, dtype=torch.float64)

    have = torch.stack(module(*inputs))
    gradients = torch.autograd.grad((have * weight).sum(), [*inputs, *learned], allow_unused=True)
    after = {name: buffer.clone() for name, buffer in module.named_buffers()}
    for name, buffer in module.named_buffers():
        buffer.copy_(before[name])
    want = torch.stack(literal(module, granularities, *inputs, train=train))
    expected = torch.autograd.grad((want * weight).sum(), [*inputs, *learned], allow_unused=True)

    torch.testing.assert_close(have, want, rtol=1e-10, atol=1e-10)
    for name, h, w in zip(["gait", "appearance", *dict(module.named_parameters())], gradients, expected, strict=True):
        scale = 1.0 if w is None else max(1.0, float(w.abs().max()))
        h, w = (torch.zeros(()) if g is None else g for g in (h, w))
        assert float((h - w).abs().max()) < 1e-10 * scale, name
    if not latent:  # the literal form has moved real batch norms
        moved = dict(module.named_buffers())
        for name in ("query.running_mean", "query.running_var"):
            torch.testing.assert_close(after[name], moved[name], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("latent", [True, False])
def test_enhancement_starts_as_the_identity_and_answers_in_the_order_asked(latent: bool) -> None:
    gait, appearance = torch.randn(2, 4, 31, 16).unbind()
    module = LocalToGlobal(STRIPES, (8, 2), channels=5, latent=latent)
    enhanced = module(gait, appearance)
    for own, more in zip((gait, appearance), enhanced, strict=True):
        assert more.shape == (4, 2, 16)
        torch.testing.assert_close(more, own[:, :1].expand(-1, 2, -1))
    one, two = random_module((8, 2), False, latent).eval(), random_module((2, 8), False, latent).eval()
    two.load_state_dict(one.state_dict())
    torch.testing.assert_close(one(gait, appearance)[0], two(gait, appearance)[0].flip(1))


def test_a_chain_looks_at_its_own_stripes_only() -> None:
    module = random_module((2, 16), False, True).eval()
    gait, appearance = torch.randn(2, 3, 31, 16).unbind()
    changed = appearance.clone()
    changed[:, 15:] += 1  # the sixteen stripes
    before, after = module(gait, appearance)[0], module(gait, changed)[0]
    torch.testing.assert_close(before[:, 0], after[:, 0])
    assert not torch.allclose(before[:, 1], after[:, 1])


def test_the_projection_back_keeps_mean_and_unbiased_variance() -> None:
    query = LatentQuery(sets=2, channels=4, steps=2, granularities=2).double().train()
    state = 3 + torch.randn(3, 2, 2, 5, 7, dtype=torch.float64)
    query.end(torch.zeros(2, 2, 5, 7, dtype=torch.float64), state)
    mean, variance = query.back_running.unbind(-1)
    torch.testing.assert_close(mean, 0.1 * state[2].mean((2, 3)))
    torch.testing.assert_close(variance, 0.9 + 0.1 * state[2].var((2, 3), correction=1))


def test_running_statistics_of_the_latent_form_approach_those_of_the_batch() -> None:
    module = random_module((2, 4), False, True)
    gait, appearance = torch.randn(2, 6, 31, 16, dtype=torch.float64).unbind()
    module.train()
    for _ in range(200):
        trained = module(gait, appearance)
    tested = module.eval()(gait, appearance)
    for a, b in zip(trained, tested, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-2, atol=2e-2)
    assert isinstance(module.query, nn.Module)
