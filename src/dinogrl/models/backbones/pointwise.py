"""Linear maps as 1x1 convolutions: the same sums, done by another library or another of its kernels.

On a CPU torch hands float32 products to MKL and float32 convolutions to oneDNN. On processors that MKL was not written for, the
second is more than twice as fast (benchmarks/README.md); on the others both run at the speed of the machine. In bfloat16 both go
to oneDNN, whose convolutions are a tenth faster.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinogrl import runtime

AT_ONCE = 512
"""Products of a float32 sum."""


def pays(device: torch.device, dtype: torch.dtype) -> bool:
    """Are linear maps better done as convolutions here? On an x86 processor, where nothing is traced."""
    wanted = dtype in (torch.float32, torch.bfloat16) and not torch.compiler.is_compiling()
    return wanted and runtime.convolves_by_onednn(device)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.linear`` by the faster way. (...,N,D) by (C,D) -> (...,N,C)"""
    if x.ndim < 2 or x.dtype != weight.dtype or torch.is_autocast_enabled(x.device.type) or not pays(x.device, x.dtype):
        return F.linear(x, weight, bias)
    if x.dtype != torch.float32:
        return convolved(x, weight, bias)
    # oneDNN adds up all D products one after the other; sums of fewer, added up, lose fewer digits
    shares = zip(x.split(AT_ONCE, dim=-1), weight.split(AT_ONCE, dim=1), strict=True)
    result = convolved(*next(shares), bias)
    for columns, weights in shares:
        result = result + convolved(columns, weights)
    return result


def convolved(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.linear`` as one convolution, wherever it is. (...,N,D) by (C,D) -> (...,N,C)"""
    # a pixel of the picture is a token: channels last is how the tokens lie already, so that nothing is moved
    picture = x.reshape(-1, 1, *x.shape[-2:]).permute(0, 3, 1, 2)
    return F.conv2d(picture, weight[..., None, None], bias).permute(0, 2, 3, 1).reshape(*x.shape[:-1], len(weight))


class PointwiseLinear(nn.Module):
    """:func:`linear` by the weights of ``like``, which it shares."""

    def __init__(self, like: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = like.weight, like.bias

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def with_pointwise_linears(network: nn.Module) -> nn.Module:
    """A copy of ``network`` that shares its parameters and has :class:`PointwiseLinear` for its plain linear layers."""
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    result = copy.deepcopy(network, shared)
    for part in list(result.modules()):
        for name, child in list(part.named_children()):
            if type(child) is nn.Linear:
                setattr(part, name, PointwiseLinear(child))
    return result
