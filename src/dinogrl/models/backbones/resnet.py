"""ResNet with bottleneck blocks, in torchvision's parameter names, at any width and depth.

ResNet-50 is ``width=64, depths=(3, 4, 6, 3)``. The last layer keeps its stride at 1, as re-identification networks do.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinogrl.models.backbones.recompute import Recomputing, recomputed

EXPANSION = 4


def conv3x3(in_channels: int, channels: int, stride: int = 1) -> nn.Conv2d:
    """3x3 convolution without bias that keeps the size (at stride 1)."""
    return nn.Conv2d(in_channels, channels, kernel_size=3, stride=stride, padding=1, bias=False)


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1 to four times as many channels; added to its input. (N,C,H,W) -> (N,4*channels,H/s,W/s)"""

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        out_channels = channels * EXPANSION
        self.conv1 = nn.Conv2d(in_channels, channels, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != out_channels:
            shortcut = nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        return F.relu(self.bn3(self.conv3(y)).add_(shortcut), inplace=True)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, added to their input. (N,C,H,W) -> same"""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, channels)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(y)).add_(x), inplace=True)


class NonLocal(nn.Module):
    """AGW's non-local block: every position gathers from all, by dot product over N positions, no softmax. Starts as the identity.

    AGW's own code reduces to ONE inner channel (its ratio is divided by itself); ``inner`` says how many there are here.
    """

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.g = nn.Conv2d(channels, inner, kernel_size=1)
        self.theta = nn.Conv2d(channels, inner, kernel_size=1)
        self.phi = nn.Conv2d(channels, inner, kernel_size=1)
        self.W = nn.Sequential(nn.Conv2d(inner, channels, kernel_size=1), nn.BatchNorm2d(channels))
        norm = self.W[1]
        assert isinstance(norm, nn.BatchNorm2d)
        nn.init.zeros_(norm.weight)
        nn.init.zeros_(norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (projection(x).flatten(2) for projection in (self.theta, self.phi, self.g))  # (N,inner,H*W) each
        # (theta^T phi) g^T = theta^T (phi g^T): inner x inner instead of H*W x H*W, the same sum in another order
        gathered = (key @ value.transpose(1, 2)).transpose(1, 2) @ query / query.shape[2]
        return torch.as_tensor(self.W(gathered.unflatten(2, x.shape[2:])) + x)


class Stem(Recomputing):
    """7x7 convolution of stride 2, batch norm, (ReLU,) 3x3 max pooling of stride 2. (N,3,H,W) -> (N,width,H/4,W/4)"""

    def __init__(self, width: int, relu: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = relu
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.kept_or_recomputed(self._through, x)

    def _through(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x))
        if self.relu:
            x = F.relu(x, inplace=True)
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)


class Layers(nn.Module):
    """``layer1`` to ``layer4`` of a ResNet; strides 1, 2, 2, 1. (N,width,h,w) -> (N,32*width,h/4,w/4)
    ``in_channels``: of the input, when not ``width``.

    ``non_local[i]``: how many of layer i+1's last blocks are followed by a non-local block. Of the first ``recompute`` layers
    training keeps the results only (:mod:`dinogrl.models.backbones.recompute`).
    """

    recompute = 0

    def __init__(
        self, width: int, depths: Sequence[int], non_local: Sequence[int] = (0, 0, 0, 0), in_channels: int | None = None
    ) -> None:
        super().__init__()
        self.out_channels = 8 * width * EXPANSION
        channels = in_channels or width
        for i, (depth, stride, attended) in enumerate(zip(depths, (1, 2, 2, 1), non_local, strict=True)):
            inner = width * 2**i
            out = inner * EXPANSION
            blocks: list[nn.Module] = [Bottleneck(channels, inner, stride), *(Bottleneck(out, inner) for _ in range(depth - 1))]
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
            self.add_module(f"non_local{i + 1}", nn.ModuleList(NonLocal(out, inner=out // 2) for _ in range(min(attended, depth))))
            channels = out
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        for i in range(1, 5):
            blocks, attention = self.get_submodule(f"layer{i}"), self.get_submodule(f"non_local{i}")
            assert isinstance(blocks, nn.Sequential) and isinstance(attention, nn.ModuleList)
            layer = partial(_through_layer, blocks, attention)
            again = self.training and i <= self.recompute
            x = recomputed(nn.ModuleList([blocks, attention]), layer, x, tidy=True) if again else layer(x)
        return x


def _through_layer(blocks: nn.Sequential, attention: nn.ModuleList, x: Tensor) -> Tensor:
    """All ``blocks``, the last of them each with a non-local block behind it."""
    first = len(blocks) - len(attention)
    for j, block in enumerate(blocks):
        x = block(x)
        if j >= first:
            x = attention[j - first](x)
    return x


def initialise(module: nn.Module) -> None:
    """He initialisation of every convolution without bias; the others keep torch's own."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d) and part.bias is None:
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
