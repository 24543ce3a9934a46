"""From the feature maps of a clip to one vector for each horizontal stripe. Nothing here has parameters."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dinogrl.models.precision import full


def set_pooling(maps: Tensor, frames: int) -> Tensor:
    """Maximum over time, blind to the order and the number of frames. (B*T,C,h,w) -> (B,C,h,w)"""
    if maps.is_contiguous(memory_format=torch.channels_last):  # torch is thirty times as fast where dimensions stand as they lie
        return maps.permute(0, 2, 3, 1).unflatten(0, (-1, frames)).amax(dim=1).permute(0, 3, 1, 2).contiguous()
    return maps.unflatten(0, (-1, frames)).amax(dim=1)


def horizontal_stripes(maps: Tensor, stripes: Sequence[int]) -> Tensor:
    """Mean plus maximum of each stripe, for each number of stripes. (B,C,h,w) -> (B,P,C), P = sum(stripes)

    The parts of one granularity stand together, top first. A height that the number does not divide gives stripes that share rows.
    """
    rows = full(maps)
    mean, peak = rows.mean(dim=3), rows.amax(dim=3)  # (B,C,h)
    pooled = [F.adaptive_avg_pool1d(mean, n) + F.adaptive_max_pool1d(peak, n) for n in stripes]
    return torch.cat(pooled, dim=2).transpose(1, 2)
