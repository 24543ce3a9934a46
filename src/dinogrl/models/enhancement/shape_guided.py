"""Shape-guided enhancement of appearance, after SCRL.

Source: ScRL (*Shape-centered Representation Learning for Visible-Infrared Person Re-identification*, Pattern Recognition 2025,
arXiv 2310.17952), as its authors describe it in words: appearance first asks the shape for what concerns it, and what it finds
then guides where appearance is gathered. No code is published, so the layers are OURS: two scaled dot-product attentions in a row,
each with a last linear map that starts at 0.

Adapted, by us: shape is the gait stream, positions are stripes. Stage 1: the appearance's global part queries the gait stripes,
and the answer is added to the gait's global part: the enhanced gait feature. Stage 2: that feature queries the appearance
stripes, and the answer is added to the appearance's global part. One pair of stages for each granularity.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dinogrl.models.enhancement.vectors import VectorEnhancement, stripe_slices


class GuidedGather(nn.Module):
    """``own`` + W(A V(stripes)), A = softmax(Q(guide) K(stripes)^T / sqrt(D)). (B,D), (B,n,D), (B,D) -> (B,D)"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, own: Tensor, stripes: Tensor, guide: Tensor) -> Tensor:
        scores = self.query(guide)[:, None] @ self.key(stripes).transpose(1, 2) / stripes.shape[2] ** 0.5
        return torch.as_tensor(own + self.out((scores.softmax(dim=2) @ self.value(stripes))[:, 0]))


class ShapeGuided(VectorEnhancement):
    """One enhanced global feature a granularity; call and shapes of :class:`VectorEnhancement`."""

    def __init__(self, stripes: Sequence[int], granularities: Sequence[int], width: int) -> None:
        super().__init__()
        self.stripes = stripe_slices(stripes, granularities)
        self.shape, self.appearance = (nn.ModuleList(GuidedGather(width) for _ in granularities) for _ in range(2))

    def enhance(self, gait: Tensor, appearance: Tensor) -> tuple[Tensor, Tensor]:
        shapes, appearances = [], []
        for rows, ask, gather in zip(self.stripes, self.shape, self.appearance, strict=True):
            shapes.append(ask(gait[:, 0], gait[:, rows], appearance[:, 0]))
            appearances.append(gather(appearance[:, 0], appearance[:, rows], shapes[-1]))
        return torch.stack(shapes, dim=1), torch.stack(appearances, dim=1)
