"""The silhouette's parts: statistics without gathering, maps without fine tokens, the centred channel, and the start."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor, nn

from dinogrl.errors import DataError
from dinogrl.models.pooling import horizontal_stripes, set_pooling
from dinogrl.models.streams import gait as gait_module
from dinogrl.models.streams import marked_norm
from dinogrl.models.streams.fusion import AttentionFusion
from dinogrl.models.streams.parsed import ParsedGaitStream
from dinogrl.models.streams.silhouette import (
    AppearancePrior,
    GaitPrior,
    MaskEncoder,
    RowNorm,
    Statistics,
    centred_channel,
    fine_statistics,
    finer,
    person_pixels,
)
from dinogrl.models.streams.start import start_mask
from tiny_models import clips, tiny_model

FINE = (10, 6)


def norm_like(norm: RowNorm) -> nn.BatchNorm1d:
    """torch's own batch norm in the same state."""
    own = nn.BatchNorm1d(norm.num_features, affine=False).to(next(norm.buffers()).dtype)
    own.load_state_dict(norm.state_dict())
    return own.train(norm.training)


def same_state(a: nn.Module, b: nn.Module) -> None:
    for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("train", [True, False])
def test_marked_rows_are_normalised_as_if_they_were_gathered(train: bool) -> None:
    torch.manual_seed(0)
    norm = RowNorm(3).double().train(train)
    rows = torch.randn(4, 5, 3, dtype=torch.float64, requires_grad=True)
    chosen = torch.rand(4, 5) > 0.4
    own, weight = norm_like(norm), torch.randn(int(chosen.sum()), 3, dtype=torch.float64)
    want = own(rows[chosen])
    have = norm(rows, chosen)[chosen]
    torch.testing.assert_close(have, want)
    torch.testing.assert_close(*(torch.autograd.grad((y * weight).sum(), rows)[0] for y in (have, want)))
    same_state(norm, own)


@pytest.mark.parametrize("kind", [GaitPrior, AppearancePrior])
def test_a_batch_without_any_marked_pixel_moves_no_statistics(kind: type) -> None:
    torch.manual_seed(6)
    prior, nobody = kind(8, 4).train(), torch.zeros(3, *FINE, dtype=torch.bool)
    tokens = torch.randn(3, 5, 3, 8)
    prior(tokens, FINE, ~nobody, fine_statistics(tokens, FINE, ~nobody))
    before = {name: value.clone() for name, value in prior.named_buffers()}
    maps = prior(tokens + 5, FINE, nobody, fine_statistics(tokens + 5, FINE, nobody))
    for name, value in prior.named_buffers():
        assert torch.equal(value, before[name]), name
    (maps * nobody[..., None]).sum().backward()
    assert all((p.grad == 0).all() for p in prior.parameters())


def literal_gait_prior(prior: GaitPrior, tokens: Tensor, chosen: Tensor) -> Tensor:
    rows = finer(tokens, FINE)[chosen]
    hidden = prior.reduce(norm_like(prior.norm)(rows))
    return prior.assign(F.gelu(norm_like(prior.inner_norm)(hidden))).softmax(1)


def literal_appearance_prior(prior: AppearancePrior, tokens: Tensor, chosen: Tensor) -> Tensor:
    rows = finer(tokens, FINE)[chosen]
    return norm_like(prior.out_norm)(prior.reduce(norm_like(prior.norm)(rows))).sigmoid()


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(("kind", "literal"), [(GaitPrior, literal_gait_prior), (AppearancePrior, literal_appearance_prior)])
def test_priors_on_coarse_tokens_are_those_on_fine_foreground_rows(kind: type, literal: object, train: bool) -> None:
    torch.manual_seed(1)
    prior = kind(8, 4).double().train(train)
    tokens, chosen = torch.randn(3, 5, 3, 8, dtype=torch.float64) + 2, torch.rand(3, *FINE) > 0.5
    assert callable(literal)
    want = literal(prior, tokens, chosen)
    have = prior(tokens, FINE, chosen, fine_statistics(tokens, FINE, chosen))[chosen]
    torch.testing.assert_close(have, want, rtol=1e-8, atol=1e-8)
    weight = torch.randn_like(want)
    learned = list(prior.parameters())
    for h, w in zip(*(torch.autograd.grad((y * weight).sum(), learned) for y in (have, want)), strict=True):
        torch.testing.assert_close(h, w, rtol=1e-7, atol=1e-9)
    everything = torch.ones(3, *FINE, dtype=torch.bool)
    whole = prior(tokens, FINE, None, fine_statistics(tokens, FINE))
    torch.testing.assert_close(whole.flatten(0, 2), literal(prior, tokens, everything), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("coarse", "fine"), [((5, 3), (10, 6)), ((4, 4), (9, 7)), ((3, 2), (3, 2)), ((6, 6), (4, 3))])
def test_fine_statistics_without_and_with_marks(coarse: tuple[int, int], fine: tuple[int, int]) -> None:
    tokens = torch.randn(3, *coarse, 5, dtype=torch.float64) * 3 + 50
    rows, chosen = finer(tokens, fine), torch.rand(3, *fine) > 0.3
    for mark in (None, chosen):
        picked = rows[chosen if mark is not None else torch.ones_like(chosen)]
        found = fine_statistics(tokens, fine, mark)
        assert found.count == len(picked)
        torch.testing.assert_close(found.mean, picked.mean(0), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(found.variance, picked.var(0, correction=0), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("train", [True, False])
def test_mask_encoder_is_its_formula_and_moves_its_statistics(train: bool) -> None:
    torch.manual_seed(2)
    mask = MaskEncoder(6).double().train(train)
    tokens = 3 * torch.randn(2, 5, 3, 6, dtype=torch.float64) + 1
    own = norm_like(mask.norm)
    want = mask.encode(own(finer(tokens, FINE).reshape(-1, 6))).softmax(1).view(2, *FINE, 2)
    torch.testing.assert_close(mask(tokens, FINE, fine_statistics(tokens, FINE)), want)
    same_state(mask.norm, own)


def test_mask_dropout_acts_in_training_only() -> None:
    mask, tokens = MaskEncoder(64, dropout=0.5), torch.randn(2, 5, 3, 64)
    assert not torch.equal(mask.train()(tokens, FINE), mask(tokens, FINE))
    assert torch.equal(mask.eval()(tokens, FINE), mask(tokens, FINE))


@pytest.mark.parametrize(("height", "rows"), [(64, 5), (16, 1), (32, 2)])
def test_centred_channel_by_counting(height: int, rows: int) -> None:
    generator = torch.Generator().manual_seed(3)
    probabilities = torch.rand(60, height, 4, 2, generator=generator)
    probabilities[30:, :rows] = (probabilities[30:, :rows] + 0.3).clamp(max=1)
    have = centred_channel(probabilities)
    for frame, chosen in zip(probabilities, have, strict=True):
        edge = np.concatenate([frame[:rows, :, 0].numpy(), frame[-rows:, :, 0].numpy()])
        filled = int((edge > 0.5).sum())
        assert torch.equal(chosen, frame[..., 1 if filled > edge.size / 2 else 0])


def test_person_pixels_are_the_dilated_silhouette() -> None:
    silhouette = torch.rand(5, 12, 9) * 0.7
    for frame, person in zip(silhouette, person_pixels(silhouette), strict=True):
        want = ndimage.binary_dilation(frame.numpy() > 0.5, structure=np.ones((3, 3)))
        assert np.array_equal(person.numpy(), want)


def test_attention_fusion_is_a_softmax_over_the_two_sources() -> None:
    torch.manual_seed(4)
    fusion = AttentionFusion(32).eval()
    first, second = torch.randn(2, 3, 32, 6, 4).unbind()
    scores = fusion.score(torch.cat([first, second], dim=1)).view(3, 32, 2, 6, 4).softmax(2)
    torch.testing.assert_close(fusion(first, second), first * scores[:, :, 0] + second * scores[:, :, 1], rtol=1e-4, atol=1e-5)


def test_stripes_and_set_pooling_by_loops() -> None:
    maps = torch.randn(6, 5, 16, 3)
    pooled = set_pooling(maps, frames=3)
    assert torch.equal(pooled, torch.stack([maps[:3].max(0).values, maps[3:].max(0).values]))
    parts = horizontal_stripes(pooled, (1, 2, 4))
    assert parts.shape == (2, 7, 5)
    bounds = [(0, 16), (0, 8), (8, 16), (0, 4), (4, 8), (8, 12), (12, 16)]
    for part, (top, bottom) in enumerate(bounds):
        strip = pooled[:, :, top:bottom].flatten(2)
        torch.testing.assert_close(parts[:, part], strip.mean(2) + strip.max(2).values)
    assert horizontal_stripes(pooled[:, :, :6], (1, 4, 16)).shape == (2, 21, 5)
    halves = pooled.bfloat16()  # sums of many are made in float32
    assert torch.equal(horizontal_stripes(halves, (1, 2, 4)), horizontal_stripes(halves.float(), (1, 2, 4)))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_set_pooling_is_the_same_in_every_layout(layout: torch.memory_format, dtype: torch.dtype) -> None:
    """Gradients too: equal maxima, of which bfloat16 has many, share theirs."""
    values = torch.randn(12, 5, 4, 3).mul(4).round().to(dtype)
    maps, plain = (values.clone(memory_format=form).requires_grad_() for form in (layout, torch.contiguous_format))
    pooled, expected = set_pooling(maps, 4), plain.unflatten(0, (3, 4)).amax(1)
    assert torch.equal(pooled, expected) and pooled.is_contiguous()
    weights = torch.randn(expected.shape).to(dtype)
    (pooled * weights).sum().backward()
    (expected * weights).sum().backward()
    assert maps.grad is not None and plain.grad is not None and torch.equal(maps.grad, plain.grad)


def people(frames: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Tokens (N,16,8,24) of frames in which a standing blob differs from the background, and where it is."""
    generator = torch.Generator().manual_seed(seed)
    person = torch.zeros(frames, 16, 8, dtype=torch.bool)
    for i in range(frames):
        left = 2 + int(torch.randint(0, 3, (1,), generator=generator))
        person[i, 2:14, left : left + 2] = True
    of_person, of_background, of_light = torch.randn(3, 24, generator=generator)
    tokens = 0.5 * torch.randn(frames, 16, 8, 24, generator=generator)
    tokens += torch.where(person[..., None], of_person, of_background)
    # whole frames differ more than the person does, as visible and infrared frames do
    tokens += 3 * torch.randn(frames, 1, 1, 1, generator=generator) * of_light
    return tokens, person


def test_start_finds_the_person_where_frames_differ_more_than_people() -> None:
    tokens, person = people(12)
    mask = MaskEncoder(24)
    start_mask(mask, tokens)
    torch.testing.assert_close(mask.norm.running_mean, tokens.mean((0, 1, 2)))
    torch.testing.assert_close(mask.norm.running_var, tokens.var((0, 1, 2), correction=0))
    other, there = people(12)  # the same world
    probabilities = mask.eval()(other, (16, 8))
    found = centred_channel(probabilities) > 0.5
    overlap = (found & there).sum() / (found | there).sum()
    assert overlap > 0.9
    error = F.mse_loss(mask.reconstruct(probabilities), other)
    assert error < 0.98 * (other - other.mean((0, 1, 2))).square().mean()
    assert person.shape == there.shape


@pytest.mark.parametrize("tokens", [torch.ones(4, 8, 4, 6), torch.arange(4.0)[:, None, None, None].expand(4, 8, 4, 6)])
def test_start_says_so_where_frames_show_nothing_and_leaves_the_encoder_as_it_is(tokens: Tensor) -> None:
    for given in (tokens, tokens * float("nan")):
        mask = MaskEncoder(6)
        before = copy.deepcopy(mask)
        with pytest.raises(DataError, match=r"all alike.*mask_start=random"):
            start_mask(mask, given)
        same_state(mask, before)


def test_start_of_a_model_follows_the_recipe() -> None:
    frames, _ = clips(4)
    for start, moves in (("centre", True), ("random", False)):
        model = tiny_model("dinogrl", f"model.gait.mask_start={start}")
        assert model.gait is not None
        before = model.gait.mask.encode.weight.clone()
        model.start_silhouette(frames)
        assert torch.equal(before, model.gait.mask.encode.weight) != moves
        assert all(p.isfinite().all() for p in model.gait.mask.parameters())
    tiny_model("baseline").start_silhouette(frames)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_reconstruction_error_is_that_of_the_maps_written_out(dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    size, mask = (12, 6), MaskEncoder(10).to(dtype)
    tokens = 3 + torch.randn(5, 4, 3, 10, dtype=dtype) * torch.rand(10, dtype=dtype)
    probabilities = torch.randn(5, *size, 2, dtype=dtype).softmax(3).requires_grad_()
    inputs = [probabilities, mask.decode.weight, mask.decode.bias]
    literal = F.mse_loss(mask.reconstruct(probabilities), finer(tokens, size))
    short = mask.reconstruction_error(probabilities, tokens, fine_statistics(tokens, size))
    torch.testing.assert_close(short, literal)
    for ours, truth in zip(torch.autograd.grad(short, inputs), torch.autograd.grad(literal, inputs), strict=True):
        torch.testing.assert_close(ours, truth)


@pytest.mark.parametrize("some", [True, False])
def test_recomputed_gait_prior_is_the_same_and_counts_the_batch_once(some: bool) -> None:
    torch.manual_seed(4)
    tokens = torch.randn(2, 5, 3, 8, dtype=torch.float64)
    chosen = torch.rand(2, *FINE) > 0.4 if some else None
    found, seen = fine_statistics(tokens, FINE, chosen), []
    kept, again = (GaitPrior(8, 3).double().train() for _ in range(2))
    again.load_state_dict(kept.state_dict())
    again.recompute = True
    counters = [norm.num_batches_tracked for norm in (again.norm, again.inner_norm)]
    for prior in (kept, again):
        prior(tokens, FINE, chosen, found).square().sum().backward()
        seen.append({name: p.grad for name, p in prior.named_parameters()})
    same_state(kept, again)
    assert int(again.inner_norm.num_batches_tracked) == 1
    # the very tensors: processes that train together share the buffers they saw at the start
    assert all(norm.num_batches_tracked is old for norm, old in zip((again.norm, again.inner_norm), counters, strict=True))
    for name, gradient in seen[0].items():
        torch.testing.assert_close(seen[1][name], gradient, rtol=1e-12, atol=1e-15, msg=name)


@pytest.mark.parametrize("at_once", [2**20, 6])
def test_marked_norm_is_differentiated_right_slice_by_slice(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marked_norm, "AT_ONCE", at_once)
    torch.manual_seed(5)
    rows = (2 + torch.randn(11, 3, dtype=torch.float64)).requires_grad_()
    weight = (torch.arange(11)[:, None] % 3 > 0).double()
    assert torch.autograd.gradcheck(lambda x: marked_norm.MarkedNorm.apply(x, weight, 1e-5)[0], rows)
    normed, mean, variance, count = marked_norm.MarkedNorm.apply(rows, weight, 0.0)
    marked = weight[:, 0] > 0
    torch.testing.assert_close(mean, rows[marked].mean(0))
    torch.testing.assert_close(variance, rows[marked].var(0, correction=0))
    torch.testing.assert_close(normed[marked].square().mean(0), torch.ones(3, dtype=torch.float64))
    assert count == marked.sum()


def test_priors_of_the_foreground_alone_have_the_statistics_of_the_persons_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    marks: list[Tensor | None] = []

    def noted(tokens: Tensor, size: tuple[int, int], chosen: Tensor | None = None) -> Statistics:
        marks.append(chosen)
        return fine_statistics(tokens, size, chosen)

    monkeypatch.setattr(gait_module, "fine_statistics", noted)
    output = tiny_model("dinogrl", "model.gait.foreground_only=true").train()(*clips())
    assert marks[0] is None, "the silhouette itself is read from every pixel"
    assert marks[1] is not None and torch.equal(marks[1], output.maps.foreground.flatten(0, 1))


def test_the_mask_loss_rebuilds_tokens_that_do_not_follow_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adapters of the prior could else make its tokens easy to rebuild."""
    rebuilt: list[Tensor] = []
    monkeypatch.setattr(
        MaskEncoder, "reconstruction_error", lambda _, shares, tokens, found: rebuilt.append(tokens) or shares.sum()
    )
    network = tiny_model("dinogrl", "model.gait.prior.lora={blocks: 1}").train()
    assert network(*clips()).parts.requires_grad and not rebuilt[0].requires_grad


def test_every_pixel_of_a_parsers_mask_counts_when_it_is_made_small() -> None:
    stream = ParsedGaitStream(nn.Identity(), nn.Identity(), (4, 4))
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 8] = 1  # at the border of two cells, of which either's middle is four pixels away
    _, maps = stream(mask)
    assert (maps.silhouette[0, 0, :, 1] > 0.05).all()


def test_no_gradient_flows_through_the_statistics_of_tokens() -> None:
    found = fine_statistics(torch.randn(2, 3, 2, 5, requires_grad=True), FINE)
    assert [x.requires_grad for x in (found.mean, found.variance, found.centred)] == [False, False, True]
