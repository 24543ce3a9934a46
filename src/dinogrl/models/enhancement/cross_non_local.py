"""Cross non-local attention: a stream gathers from its own stripes, and the other stream says from which.

Source: IBAN (H. Li et al., *Intermediary-guided Bidirectional Spatial-Temporal Aggregation Network for Video-based
Visible-Infrared Person Re-identification*, TCSVT 2023): an embedded-Gaussian non-local block with half the channels inside, whose
theta looks at the other modality's map while phi and g look at the map itself, made smaller by 2x2 maximum pooling; the batch norm
behind it starts at 0.

Adapted, by us: the two modalities become the two streams; positions are the global part and the stripes, of which pooling takes
the maximum of neighbouring pairs; the query is the other stream's global part and the answer is added to the stream's own. One
block for each granularity and direction (the source updates one side only). Its recurrent aggregation over time has no
counterpart: time is pooled already.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinogrl.models.enhancement.non_local import embedded_gaussian
from dinogrl.models.enhancement.vectors import VectorEnhancement, stripe_slices
from dinogrl.models.vector_norm import VectorNorm


class CrossNonLocal(nn.Module):
    """own (B,D), its stripes (B,n,D) and the other stream's global part (B,D) -> (B,D); starts as the identity of ``own``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = max(1, width // 2)
        self.theta, self.phi, self.g = (nn.Linear(width, inner) for _ in range(3))
        self.out = nn.Sequential(nn.Linear(inner, width), VectorNorm(width, start=0.0))

    def forward(self, own: Tensor, stripes: Tensor, other: Tensor) -> Tensor:
        pairs = F.max_pool1d(stripes.transpose(1, 2), kernel_size=2, ceil_mode=True).transpose(1, 2)
        places = torch.cat([own[:, None], pairs], dim=1)
        relation = embedded_gaussian(self.theta(other)[:, None], self.phi(places))
        return torch.as_tensor(own + self.out((relation @ self.g(places))[:, 0]))


class CrossNonLocalEnhancement(VectorEnhancement):
    """One enhanced global feature a granularity; call and shapes of :class:`VectorEnhancement`."""

    def __init__(self, stripes: Sequence[int], granularities: Sequence[int], width: int) -> None:
        super().__init__()
        self.stripes = stripe_slices(stripes, granularities)
        self.gait, self.appearance = (nn.ModuleList(CrossNonLocal(width) for _ in granularities) for _ in range(2))

    def enhance(self, gait: Tensor, appearance: Tensor) -> tuple[Tensor, Tensor]:
        return _gathered(self.gait, self.stripes, gait, appearance), _gathered(self.appearance, self.stripes, appearance, gait)


def _gathered(blocks: nn.ModuleList, stripes: list[slice], own: Tensor, other: Tensor) -> Tensor:
    """(B,G,D)"""
    found = [block(own[:, 0], own[:, rows], other[:, 0]) for rows, block in zip(stripes, blocks, strict=True)]
    return torch.stack(found, dim=1)
