"""The network of SCHP (Li et al., "Self-Correction for Human Parsing", TPAMI 2020): a ResNet-101 with context, edges and a decoder.

The parameters' names are those of the authors' files, so that these load as they are. Their in-place activated batch norm, a
compiled extension, is a batch norm and a leaky ReLU here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinogrl.models.backbones.resnet import Bottleneck, conv3x3

DEPTHS = (3, 4, 23, 3)


class ActivatedNorm(nn.BatchNorm2d):
    """Batch norm, then a leaky ReLU of slope 0.01."""

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(super().forward(x), 0.01, inplace=True)


def projection(channels: int, out_channels: int, kernel: int = 1) -> nn.Sequential:
    """Convolution that keeps the size, without bias, and :class:`ActivatedNorm`."""
    return nn.Sequential(nn.Conv2d(channels, out_channels, kernel, padding=kernel // 2, bias=False), ActivatedNorm(out_channels))


def enlarged(x: Tensor, like: Tensor) -> Tensor:
    """``x`` bilinearly at the height and width of ``like``, corners upon corners."""
    return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=True)


class PyramidContext(nn.Module):
    """Means over grids of 1, 2, 3 and 6 cells a side beside the map itself (Zhao et al., CVPR 2017). (N,C,h,w) -> (N,C/4,h,w)"""

    def __init__(self, channels: int, grids: Sequence[int] = (1, 2, 3, 6)) -> None:
        super().__init__()
        out = channels // 4
        self.stages = nn.ModuleList(nn.Sequential(nn.AdaptiveAvgPool2d(cells), *projection(channels, out)) for cells in grids)
        self.bottleneck = projection(channels + len(grids) * out, out, kernel=3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.bottleneck(torch.cat([*(enlarged(stage(x), x) for stage in self.stages), x], dim=1)))


class Edges(nn.Module):
    """Features of edges from three depths, at the size of the first.

    The edge maps themselves (``conv4``, ``conv5``) serve the authors' training alone; they are here for their files' sake.
    """

    def __init__(self, channels: Sequence[int], out_channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (projection(c, out_channels) for c in channels)
        self.conv4 = nn.Conv2d(out_channels, 2, kernel_size=3, padding=1)
        self.conv5 = nn.Conv2d(6, 2, kernel_size=1)

    def forward(self, shallow: Tensor, middle: Tensor, deep: Tensor) -> Tensor:
        parts = self.conv1(shallow), self.conv2(middle), self.conv3(deep)
        return torch.cat([parts[0], enlarged(parts[1], shallow), enlarged(parts[2], shallow)], dim=1)


class Decoder(nn.Module):
    """Context beside shallow features -> features of parsing at the shallow size.

    ``conv4``, a first parsing, serves the authors' training alone.
    """

    def __init__(self, context: int, shallow: int, classes: int) -> None:
        super().__init__()
        self.conv1 = projection(context, shallow)
        self.conv2 = projection(shallow, 48)
        self.conv3 = nn.Sequential(*projection(shallow + 48, shallow), *projection(shallow, shallow))
        self.conv4 = nn.Conv2d(shallow, classes, kernel_size=1)

    def forward(self, context: Tensor, shallow: Tensor) -> Tensor:
        return torch.as_tensor(self.conv3(torch.cat([enlarged(self.conv1(context), shallow), self.conv2(shallow)], dim=1)))


class SchpNetwork(nn.Module):
    """Normalised BGR pictures (N,3,H,W) -> scores of the classes (N,classes,H/4,W/4): the authors' fused parsing.

    ``width`` is 64 in the authors' files.
    """

    def __init__(self, classes: int, width: int = 64, depths: Sequence[int] = DEPTHS) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv3x3(3, width, stride=2), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv3x3(width, width), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = conv3x3(width, 2 * width), nn.BatchNorm2d(2 * width)
        channels = 2 * width
        for i, (depth, stride, dilation) in enumerate(zip(depths, (1, 2, 2, 1), (1, 1, 1, 2), strict=True)):
            inner = width * 2**i
            blocks = [Bottleneck(channels if j == 0 else 4 * inner, inner, stride if j == 0 else 1) for j in range(depth)]
            for block in blocks:
                block.conv2.dilation = block.conv2.padding = (dilation, dilation)
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
            channels = 4 * inner
        shallow = 4 * width
        self.context_encoding = PyramidContext(channels)
        self.edge = Edges((shallow, 2 * shallow, 4 * shallow), shallow)
        self.decoder = Decoder(channels // 4, shallow, classes)
        self.fushion = nn.Sequential(*projection(4 * shallow, shallow), nn.Dropout2d(0.1), nn.Conv2d(shallow, classes, 1))

    def forward(self, pictures: Tensor) -> Tensor:
        x = pictures
        for i in (1, 2, 3):
            x = F.relu(self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(x)), inplace=True)
        x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
        maps = []
        for i in (1, 2, 3, 4):
            x = self.get_submodule(f"layer{i}")(x)
            maps.append(x)
        parsing = self.decoder(self.context_encoding(maps[3]), maps[0])
        return torch.as_tensor(self.fushion(torch.cat([parsing, self.edge(*maps[:3])], dim=1)))
