"""The network of Grapy-ML: DeepLabv3+ on an Xception, then the graph pyramid. Parameters' names are those of the authors' files."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinogrl.parsing.graph_pyramid import WIDTH, GraphPyramid
from dinogrl.parsing.labels import ATR, CIHP, PASCAL, LabelSet
from dinogrl.parsing.schp_network import enlarged
from dinogrl.parsing.separable import Separable, Xception

SHARED_HEADS = {"_cihp": CIHP, "_pascal": PASCAL, "_atr": ATR}
"""Heads of the network that was trained on three datasets at once, by the ending of their parameters' names."""


class PointwiseBranch(nn.Module):
    """1x1 convolution, batch norm, ReLU."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.atrous_convolution = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.atrous_convolution(x)))


class SeparableBranch(nn.Module):
    """A separable convolution with ReLUs."""

    def __init__(self, channels: int, out_channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.atrous_convolution = Separable(channels, out_channels, dilation=dilation, activated=True)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.atrous_convolution(x))


class GrapyNetwork(nn.Module):
    """BGR pictures (N,3,H,W) in -1..1 -> scores of the classes (N,classes,H,W).

    ``labels``: the classes to read. ``heads``: all label sets that the file holds, by the ending of their parameters' names; where
    not given there is one, without an ending.
    """

    def __init__(self, labels: LabelSet, heads: Mapping[str, LabelSet] | None = None) -> None:
        super().__init__()
        heads = {"": labels} if heads is None else dict(heads)
        self.labels = labels
        self.ending = next(ending for ending, known in heads.items() if known == labels)
        self.xception_features = Xception()
        self.aspp1 = PointwiseBranch(2048, WIDTH)
        self.aspp2, self.aspp3, self.aspp4 = (SeparableBranch(2048, WIDTH, dilation) for dilation in (6, 12, 18))
        self.global_avg_pool = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(2048, WIDTH, 1, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU()
        )
        self.concat_projection_conv1, self.concat_projection_bn1 = nn.Conv2d(5 * WIDTH, WIDTH, 1, bias=False), nn.BatchNorm2d(WIDTH)
        self.feature_projection_conv1, self.feature_projection_bn1 = nn.Conv2d(WIDTH, 48, 1, bias=False), nn.BatchNorm2d(48)
        self.decoder = nn.Sequential(SeparableBranch(WIDTH + 48, WIDTH), SeparableBranch(WIDTH, WIDTH))
        self.gcn_network = GraphPyramid(heads)
        for ending, known in heads.items():
            self.add_module(f"sem2{ending}", nn.Conv2d(WIDTH, len(known.classes), 1))

    def forward(self, pictures: Tensor) -> Tensor:
        deep, shallow = self.xception_features(pictures)
        branches = [branch(deep) for branch in (self.aspp1, self.aspp2, self.aspp3, self.aspp4)]
        context = torch.cat([*branches, self.global_avg_pool(deep).expand_as(branches[0])], dim=1)
        context = F.relu(self.concat_projection_bn1(self.concat_projection_conv1(context)))
        shallow = F.relu(self.feature_projection_bn1(self.feature_projection_conv1(shallow)))
        features = self.decoder(torch.cat([enlarged(context, shallow), shallow], dim=1))
        features = self.gcn_network(features, self.ending, self.labels)
        return enlarged(self.get_submodule(f"sem2{self.ending}")(features), pictures)
