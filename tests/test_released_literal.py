"""The published network against the same written down literally, in float64: other weights, other inputs, any length, one clip."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dinogrl.losses.objective import Objective
from dinogrl.models.dinogrl import DinoGRL
from dinogrl.models.weights import to_released
from literal import Literal, Published
from tiny_released import BLOCKS, HEADS, MAP_SIZE, PRIOR_SIZE, Files, small_files, small_model, small_released_recipe


def clips(seed: int, batch: int, times: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(batch * times, 3, 8, 4, generator=generator, dtype=torch.float64)
    fine = torch.randn(batch * times, 3, 256, 128, generator=generator, dtype=torch.float64)
    return (F.interpolate(coarse, (256, 128)) + 0.2 * fine).unflatten(0, (batch, times))


def literally(
    files: Files, frames: Tensor, modality: Tensor, identity: Tensor, train: bool, dropped: list[tuple[int, int]]
) -> tuple[Literal, Files]:
    """The literal network's answer, and its tensors, of which the learned ones keep their gradient."""
    own = {file: {n: t.double() if t.is_floating_point() else t for n, t in tensors.items()} for file, tensors in files.items()}
    for tensors in own.values():
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and "running" not in name:
                tensor.requires_grad_()
    network = Published(own, train, HEADS, BLOCKS)
    return network(frames, modality, identity, PRIOR_SIZE, MAP_SIZE, dropped), own


def published_gradients(model: DinoGRL) -> Files:
    """Our gradients under the published names: they take the place of the parameters in a copy, and the names come with them."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter, source in zip(other.parameters(), model.parameters(), strict=True):
            parameter.copy_(torch.zeros_like(source) if source.grad is None else source.grad)
    return to_released(other)


@pytest.mark.parametrize(("seed", "modality", "times"), [(1, [0, 0, 1, 1], 2), (2, [1, 0, 1], 1), (3, [1], 7), (4, [0, 0], 3)])
def test_embedding_is_that_of_the_literal_network(seed: int, modality: list[int], times: int) -> None:
    """Any order of modalities, one of them alone, one clip alone, any number of frames; the published code can do none of these."""
    files, frames, which = small_files(seed=seed), clips(seed, len(modality), times), torch.tensor(modality)
    model = small_model(files).double().eval()
    with torch.no_grad():
        have = model(frames, which)
    want, _ = literally(files, frames, which, torch.zeros(len(which), dtype=torch.long), train=False, dropped=[])
    assert have.parts.shape == (len(modality), 70, 12) and have.gait_parts == 35
    assert have.maps is not None and have.maps.foreground is not None
    share = have.maps.foreground.double().mean()
    assert 0.05 < share < 0.95  # else the comparison would say little
    assert torch.equal(have.maps.foreground.flatten(0, 1), want.foreground > 0)
    torch.testing.assert_close(have.parts, want.parts.detach(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("seed", "modality", "identity", "dropped"),
    [
        (5, [0, 1, 0, 1], [3, 3, 1, 1], []),
        (6, [0, 0, 1, 1], [2, 4, 2, 4], [(1, 0), (2, 1)]),
        (7, [0, 1, 1], [0, 0, 4], [(0, 1)]),
        (8, [1], [2], []),
    ],
)
def test_a_training_step_is_that_of_the_literal_network(
    seed: int, modality: list[int], identity: list[int], dropped: list[tuple[int, int]]
) -> None:
    """Parts, cosines, every loss and every gradient; identities need not have equally many clips."""
    files, frames, which, who = (
        small_files(seed=seed),
        clips(seed, len(modality), 2),
        torch.tensor(modality),
        torch.tensor(identity),
    )
    model = small_model(files).double().train()
    assert model.gait is not None
    model.gait.choose_drops = lambda clips, share: dropped
    output = model(frames, which)
    losses = Objective(small_released_recipe().objective)(output, who)
    losses["total"].backward()
    want, tensors = literally(files, frames, which, who, train=True, dropped=dropped)
    want.losses["total"].backward()
    torch.testing.assert_close(output.parts, want.parts, rtol=1e-8, atol=1e-8)
    assert output.logits is not None
    torch.testing.assert_close(output.logits, want.logits, rtol=1e-7, atol=1e-8)
    for name in want.losses:
        assert losses[name].item() == pytest.approx(want.losses[name].item(), rel=1e-6, abs=1e-9), name
    compared = 0
    for file, named in published_gradients(model).items():
        for name, have in named.items():
            expected = tensors[file][name].grad if tensors[file][name].is_floating_point() else None
            if expected is not None:
                scale = max(1e-3, float(expected.abs().max()))
                assert float((have - expected).abs().max()) < 1e-5 * scale, f"{file}.{name}"
                compared += 1
    assert compared > 130
