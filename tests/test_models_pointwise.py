"""Linear maps done as convolutions: the same numbers, the same gradients, and left out where they would not pay."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dinogrl import runtime
from dinogrl.models.backbones import pointwise

CPU = torch.device("cpu")


@pytest.mark.parametrize("shape", [(7, 40), (3, 7, 40), (2, 3, 7, 1300), (1, 1, 600), (0, 4, 40)])
@pytest.mark.parametrize("biased", [True, False])
def test_it_is_the_linear_map(shape: tuple[int, ...], biased: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and backward; inner widths beyond one sum; the form that is tested is the convolution, whatever this machine is."""
    monkeypatch.setattr(runtime, "convolves_by_onednn", lambda where: True)
    torch.manual_seed(1)
    x = torch.randn(shape).requires_grad_()
    weight = (torch.randn(24, shape[-1]) / shape[-1] ** 0.5).requires_grad_()
    bias = torch.randn(24).requires_grad_() if biased else None
    learned = [tensor for tensor in (x, weight, bias) if tensor is not None]
    found = pointwise.linear(x, weight, bias)
    want = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
    assert found.shape == want.shape and found.dtype == torch.float32
    torch.testing.assert_close(found.double(), want, rtol=0, atol=1e-5)
    pull = torch.randn_like(found)
    gradients = torch.autograd.grad(found, learned, pull)
    truths = torch.autograd.grad(want, learned, pull.double())
    for gradient, truth in zip(gradients, truths, strict=True):
        torch.testing.assert_close(gradient, truth, rtol=0, atol=1e-4)


def test_long_sums_keep_their_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """1536 products added up one after the other lose four times as much as torch's own product."""
    monkeypatch.setattr(runtime, "convolves_by_onednn", lambda where: True)
    torch.manual_seed(1)
    x, weight = torch.rand(2, 50, 1536), torch.rand(64, 1536)
    want = x.double() @ weight.double().T

    def error(found: torch.Tensor) -> float:
        return (found - want).square().mean().sqrt().item()

    assert error(pointwise.linear(x, weight)) < 3 * error(F.linear(x, weight))


def test_a_copy_shares_the_weights_and_leaves_the_original() -> None:
    network = nn.Sequential(nn.Linear(8, 8), nn.Sequential(nn.GELU(), nn.Linear(8, 4, bias=False)), nn.BatchNorm1d(4)).eval()
    copied = pointwise.with_pointwise_linears(network)
    assert [type(part) for part in network.modules() if isinstance(part, nn.Linear)] == [nn.Linear, nn.Linear]
    assert sum(isinstance(part, pointwise.PointwiseLinear) for part in copied.modules()) == 2
    assert all(a is b for a, b in zip(network.parameters(), copied.parameters(), strict=True))
    with torch.no_grad():
        network[0].weight.zero_()
        torch.testing.assert_close(copied(torch.ones(3, 8)), network(torch.ones(3, 8)))


def test_bfloat16_is_rounded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "convolves_by_onednn", lambda where: True)
    torch.manual_seed(1)
    x, weight, bias = torch.randn(2, 9, 1536).bfloat16(), torch.randn(24, 1536).bfloat16(), torch.randn(24).bfloat16()
    found = pointwise.linear(x, weight, bias)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, F.linear(x.double(), weight.double(), bias.double()).bfloat16(), rtol=2**-7, atol=1e-3)


def test_only_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in other precisions, not on other devices, not under autocast, and not in a graph that is written to a file."""
    here = runtime.convolves_by_onednn(CPU)
    assert pointwise.pays(CPU, torch.float32) == pointwise.pays(CPU, torch.bfloat16) == here
    assert not pointwise.pays(CPU, torch.float64) and not pointwise.pays(torch.device("cuda"), torch.float32)
    monkeypatch.setattr(runtime, "convolves_by_onednn", lambda where: True)
    with torch.autocast("cpu", torch.bfloat16):
        assert pointwise.linear(torch.ones(2, 3, 8), torch.ones(4, 8)).dtype == torch.bfloat16

    class Linear(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return pointwise.linear(x, torch.ones(4, 8))

    written = str(torch.export.export(Linear(), (torch.ones(2, 3, 8),)).graph)
    assert "linear" in written and "conv" not in written
