"""Attention fusion of two maps: at every pixel and channel, how much of each (paper, F_attn in equation 6)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dinogrl.models.backbones.recompute import Recomputing
from dinogrl.models.backbones.resnet import conv3x3


class AttentionFusion(Recomputing):
    """Two maps (N,C,h,w) -> their sum under weights (softmax over the two) that a small network reads from both."""

    def __init__(self, channels: int, squeeze: int = 16) -> None:
        super().__init__()
        inner = max(1, channels // squeeze)
        self.score = nn.Sequential(
            nn.Conv2d(2 * channels, inner, kernel_size=1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
            conv3x3(inner, inner),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, 2 * channels, kernel_size=1, bias=False),
        )

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.kept_or_recomputed(self._through, first, second)

    def _through(self, first: Tensor, second: Tensor) -> Tensor:
        scores = self.score(torch.cat([first, second], dim=1))
        # channels 2c and 2c+1 are the scores of the first and the second map's channel c; a softmax over two is a sigmoid
        share = torch.sigmoid(scores[:, 0::2] - scores[:, 1::2]).to(first.dtype)
        return torch.lerp(second, first, share)
