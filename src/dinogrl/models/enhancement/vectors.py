"""What the alternatives share: their call, which parts belong to a granularity, and a batch norm for part vectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinogrl.models.precision import full


class VectorEnhancement(nn.Module):
    """Parts of both streams, (B,P,D) each, -> enhanced global features, (B,G,D) each.

    In float32 under autocast too: the features are not normalised, half precision would move the softmaxes over them, and a few
    vectors a clip cost next to nothing.
    """

    def forward(self, gait: Tensor, appearance: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(gait.device.type, enabled=False):
            return self.enhance(full(gait), full(appearance))

    def enhance(self, gait: Tensor, appearance: Tensor) -> tuple[Tensor, Tensor]:
        """What an alternative is."""
        raise NotImplementedError


def stripe_slices(stripes: Sequence[int], granularities: Sequence[int]) -> list[slice]:
    """Of the P = sum(stripes) parts, those of each granularity, in the order asked."""
    return [slice(sum(stripes[: stripes.index(n)]), sum(stripes[: stripes.index(n) + 1])) for n in granularities]


class VectorNorm(nn.BatchNorm1d):
    """Batch norm of vectors (..., D) over all that stand before D; ``start`` is the first value of its scale.

    A single vector has no statistics: in training too it is normalised by the running ones, which it leaves as they are.
    """

    def __init__(self, width: int, start: float = 1.0) -> None:
        super().__init__(width)
        nn.init.constant_(self.weight, start)

    def forward(self, vectors: Tensor) -> Tensor:
        rows = vectors.reshape(-1, vectors.shape[-1])
        if len(rows) > 1 or not self.training:
            return super().forward(rows).view(vectors.shape)
        alone = F.batch_norm(rows, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return alone.view(vectors.shape)
