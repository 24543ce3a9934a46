"""Attention fusion of a stream's global feature with the other stream's stripes.

Source: ``AttentionFusion`` of OpenGait (SkeletonGait++ and BigGait, 2024): two maps side by side go through 1x1, 3x3 and 1x1
convolutions with a sixteenth of the channels; softmax over the two sources, per channel and pixel; weighted sum.

Adapted, by us: the two maps are two vectors, the stream's global part and the mean of the other stream's n stripes, taken as
maps of one pixel, where a 3x3 convolution is a 1x1. One fusion for each granularity and direction. Nothing is added to the
result, as in the source: it is a mixture of the two and does not start as the identity.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dinogrl.models.enhancement.vectors import VectorEnhancement, stripe_slices
from dinogrl.models.vector_norm import VectorNorm


class VectorFusion(nn.Module):
    """Two vectors (B,D) -> their sum under weights (softmax over the two) that a small network reads from both."""

    def __init__(self, width: int, squeeze: int = 16) -> None:
        super().__init__()
        inner = max(1, width // squeeze)
        self.score = nn.Sequential(
            nn.Linear(2 * width, inner, bias=False),
            VectorNorm(inner),
            nn.ReLU(),
            nn.Linear(inner, inner, bias=False),
            VectorNorm(inner),
            nn.ReLU(),
            nn.Linear(inner, 2 * width, bias=False),
        )

    def forward(self, own: Tensor, other: Tensor) -> Tensor:
        scores = self.score(torch.cat([own, other], dim=1)).unflatten(1, (2, -1))
        share = scores.softmax(dim=1)
        return share[:, 0] * own + share[:, 1] * other


class AttentionFusionEnhancement(VectorEnhancement):
    """One enhanced global feature a granularity; call and shapes of :class:`VectorEnhancement`."""

    def __init__(self, stripes: Sequence[int], granularities: Sequence[int], width: int) -> None:
        super().__init__()
        self.stripes = stripe_slices(stripes, granularities)
        self.gait, self.appearance = (nn.ModuleList(VectorFusion(width) for _ in granularities) for _ in range(2))

    def enhance(self, gait: Tensor, appearance: Tensor) -> tuple[Tensor, Tensor]:
        return _fused(self.gait, self.stripes, gait, appearance), _fused(self.appearance, self.stripes, appearance, gait)


def _fused(fusions: nn.ModuleList, stripes: list[slice], own: Tensor, other: Tensor) -> Tensor:
    """(B,G,D)"""
    return torch.stack([fuse(own[:, 0], other[:, rows].mean(1)) for rows, fuse in zip(stripes, fusions, strict=True)], dim=1)
