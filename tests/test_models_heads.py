"""The linear maps and the classifiers that every part has for itself."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dinogrl.models.heads import BNNeck, PartLinear
from dinogrl.models.pooling import horizontal_stripes
from dinogrl.models.precision import laid_out
from dinogrl.models.vector_norm import VectorNorm
from tiny_models import tiny_model


@pytest.mark.parametrize("head", [PartLinear(3, 20, 5), BNNeck(3, 20, 5)])
def test_heads_keep_full_precision_under_autocast(head: nn.Module) -> None:
    """Their inputs have much in common: rounded to three digits, what tells people apart would go."""
    vectors = 100 + torch.randn(4, 3, 20)
    want = head.eval()(vectors)
    with torch.autocast("cpu", torch.bfloat16):
        have = head(vectors)
    assert have.dtype == torch.float32
    torch.testing.assert_close(have, want, rtol=0, atol=0)


def test_stripes_of_half_precision_are_pooled_in_full() -> None:
    maps = torch.rand(2, 5, 8, 4).bfloat16()
    assert torch.equal(horizontal_stripes(maps, (1, 3)), horizontal_stripes(maps.float(), (1, 3)))


def test_one_vector_alone_is_normalised_in_training_as_in_evaluation() -> None:
    norm, vector = VectorNorm(4), torch.randn(1, 4)
    norm.running_var.fill_(1e-4)
    assert torch.equal(norm.train()(vector), norm.eval()(vector))


def test_full_precision_on_a_cpu_goes_plane_by_plane() -> None:
    """Of rows side by side torch's batch norm adds up tens of thousands one by one."""
    maps = torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    assert laid_out(maps).is_contiguous()
    with torch.autocast("cpu", torch.bfloat16):
        assert laid_out(maps).is_contiguous(memory_format=torch.channels_last)


def test_heads_know_every_part_by_its_own_weights() -> None:
    parts, linear = torch.randn(4, 3, 20), PartLinear(3, 20, 5)
    want = torch.stack([parts[:, p] @ linear.weight[p] for p in range(3)], dim=1)
    torch.testing.assert_close(linear(parts), want)


def test_heads_start_by_the_size_of_one_part() -> None:
    linear, neck = PartLinear(9, 30, 60), BNNeck(9, 30, 60)
    assert 0.98 < float(linear.weight.detach().abs().max()) / (6 / (30 + 60)) ** 0.5 <= 1
    assert neck.weight.std().item() == pytest.approx(30**-0.5, rel=0.05)


def test_the_published_start_is_xaviers_rule_for_the_tensor_of_all_parts() -> None:
    """Parts are taken for output channels, the last side for a kernel; the other recipes start by the size of one part."""
    network = tiny_model("dinogrl-released")
    assert network.gait_parts is not None and network.gait_neck is not None
    for head in (network.appearance_parts, network.appearance_neck, network.gait_parts, network.gait_neck):
        weight = head.weight.detach()
        parts, rows, columns = weight.shape
        largest = (6 / (rows * columns + parts * columns)) ** 0.5
        assert 0.95 < float(weight.abs().max()) / largest <= 1
    assert tiny_model("dinogrl").appearance_parts.weight.std() > 2 * network.appearance_parts.weight.std()
