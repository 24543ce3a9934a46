"""What the alternatives share: their call, and which parts belong to a granularity."""

from __future__ import annotations

from collections.abc import Sequence

import torch
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
