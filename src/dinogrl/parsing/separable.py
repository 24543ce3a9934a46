"""Depthwise-separable convolutions and the modified aligned Xception of DeepLabv3+ (Chen et al., ECCV 2018), as Grapy-ML has it.

The parameters' names are those of the authors' files.
"""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn


class Separable(nn.Module):
    """Depthwise 3x3, batch norm, pointwise, batch norm; with ``activated`` a ReLU after each norm. Keeps the size at stride 1."""

    def __init__(self, channels: int, out_channels: int, stride: int = 1, dilation: int = 1, activated: bool = False) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, stride, dilation, dilation, groups=channels, bias=False)
        self.depthwise_bn = nn.BatchNorm2d(channels)
        self.pointwise = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.pointwise_bn = nn.BatchNorm2d(out_channels)
        self.activated = activated

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise_bn(self.depthwise(x))
        x = self.pointwise_bn(self.pointwise(F.relu(x) if self.activated else x))
        return F.relu(x) if self.activated else x


class Block(nn.Module):
    """Separable convolutions of a residual block: ``rep`` holds a ReLU before each one.

    The authors' first ReLU works in place, so that the shortcut too starts from what it leaves: ``first_relu`` blocks see the
    rectified input on both ways.
    """

    def __init__(self, channels: list[int], stride: int = 1, first_relu: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(pairwise(channels)):
            last = i == len(channels) - 2
            layers += [nn.ReLU(), Separable(before, after, stride if last else 1)]
        self.rep = nn.Sequential(*layers[0 if first_relu else 1 :])
        self.skip: nn.Conv2d | None = None
        if channels[0] != channels[-1] or stride != 1:
            self.skip = nn.Conv2d(channels[0], channels[-1], 1, stride, bias=False)
            self.skipbn = nn.BatchNorm2d(channels[-1])
        self.first_relu = first_relu

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x) if self.first_relu else x
        return self.rep(x) + (x if self.skip is None else self.skipbn(self.skip(x)))


class ForkedBlock(Block):
    """The block whose map before its stride is what the decoder reads beside the deep one: gives both."""

    def __init__(self, channels: list[int], stride: int) -> None:
        super().__init__(channels, stride)
        layers = list(self.rep)
        self.rep, self.block2_lastconv = nn.Sequential(*layers[:-2]), nn.Sequential(*layers[-2:])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        assert self.skip is not None
        x = F.relu(x)
        shallow = self.rep(x)
        return self.block2_lastconv(shallow) + self.skipbn(self.skip(x)), shallow


class Xception(nn.Module):
    """Pictures (N,3,H,W) -> deep map (N,2048,H/16,W/16) and shallow map (N,256,H/4,W/4)."""

    def __init__(self, middle: int = 16) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32)
        self.conv2, self.bn2 = nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64)
        self.block1 = Block([64, 128, 128, 128], stride=2, first_relu=False)
        self.block2 = ForkedBlock([128, 256, 256, 256], stride=2)
        self.block3 = Block([256, 728, 728, 728], stride=2)
        self.middle = range(4, 4 + middle)
        for number in self.middle:
            self.add_module(f"block{number}", Block([728, 728, 728, 728]))
        self.block20 = Block([728, 728, 1024, 1024])
        self.conv3 = Separable(1024, 1536, dilation=2, activated=True)
        self.conv4 = Separable(1536, 1536, dilation=2, activated=True)
        self.conv5 = Separable(1536, 2048, dilation=2, activated=True)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu(self.bn1(self.conv1(pictures)))
        x = F.relu(self.bn2(self.conv2(x)))
        x, shallow = self.block2(self.block1(x))
        x = self.block3(x)
        for number in self.middle:
            x = self.get_submodule(f"block{number}")(x)
        return self.conv5(self.conv4(self.conv3(self.block20(x)))), shallow
