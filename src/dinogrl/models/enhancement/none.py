"""No enhancement (first row of the paper's table 9): the streams' features stand side by side and nothing passes between them."""

from __future__ import annotations

from torch import Tensor, nn


class NoEnhancement(nn.Module):
    """Parts of both streams, (B,P,D) each, -> no feature, (B,0,D) each: the same network as ``model.enhancement: null``."""

    def forward(self, gait: Tensor, appearance: Tensor) -> tuple[Tensor, Tensor]:
        return gait[:, :0], appearance[:, :0]
