"""Losses of the gait stream's maps: smoothness, diversity (paper, equations 7, 8). The mask loss, which needs the frozen tokens,
is :meth:`dinogrl.models.streams.silhouette.MaskEncoder.reconstruction_error`."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from dinogrl.catalog import Catalog


def _sobel(maps: Tensor) -> Tensor:
    """Sobel's two kernels, (2,1,3,3), for ``maps``: change along the width, change along the height.

    Made where the maps are: a constant sent to an accelerator in every step would wait for all its work.
    """
    change = torch.arange(1, -2, -1, dtype=maps.dtype, device=maps.device)  # 1, 0, -1
    across = torch.outer(2 - change.abs(), change)  # 1, 2, 1 along the other side
    return torch.stack([across, across.T])[:, None]


def smoothness(prior: Tensor) -> Tensor:
    """Equation 7: mean absolute Sobel response of every channel of ``prior`` (B,T,C,h,w).

    The map's edge is repeated outwards, so that the border of the frame is no edge of the prior.
    """
    maps = prior.flatten(0, 2)[:, None]
    return _edges(F.pad(maps, (1, 1, 1, 1), mode="replicate")).sum(dim=1).mean()


def smoothness_released(prior: Tensor) -> Tensor:
    """The published code's smoothness of the gait prior (B,T,C,h,w): the last channel is left out, the rest are summed *before* the
    absolute value (which makes it the gradient of the channel left out), zeros stand outside the map."""
    return _summed_sobel(prior[:, :, :-1].flatten(0, 1))


def mask_smoothness_released(probabilities: Tensor) -> Tensor:
    """The published code's smoothness of the silhouette, from its two probabilities (B,T,2,h,w).

    There the (pixels, 2) matrix is read as if it were (2, h, w), so each "channel" is half of the frame with person and background
    interleaved. Kept for equal losses; with the right layout the two channels sum to 1 and the term would be constant.
    """
    frames = probabilities.flatten(0, 1)
    rows = frames.permute(0, 2, 3, 1).contiguous()  # (BT,h,w,2): a pixel a row, as the published code holds it
    return _summed_sobel(rows.view(frames.shape))


def _summed_sobel(maps: Tensor) -> Tensor:
    """(F,C,h,w) -> mean over all entries of |Sobel_x| + |Sobel_y| of the channels' sum."""
    return _edges(maps.sum(dim=1, keepdim=True), padding=1).sum() / maps.numel()


def _edges(maps: Tensor, padding: int = 0) -> Tensor:
    """(N,1,h,w) -> absolute Sobel responses (N,2,h',w') in the maps' own type, under autocast too."""
    with torch.autocast(maps.device.type, enabled=False):  # small differences of large numbers
        return F.conv2d(maps, _sobel(maps), padding=padding).abs()


def _channel_shares(prior: Tensor) -> Tensor:
    """(B,T,C,h,w) -> (BT,C): share of each channel in a frame's total."""
    total = prior.flatten(0, 1).sum(dim=(2, 3))
    return total / (total.sum(dim=1, keepdim=True) + 1e-6)


def diversity(prior: Tensor) -> Tensor:
    """Equation 8: log C minus the entropy of the channels' shares, mean over frames; 0 when all channels are used alike."""
    shares = _channel_shares(prior)
    entropy = -torch.special.xlogy(shares, shares.clamp_min(1e-12)).sum(dim=1)
    return (math.log(prior.shape[2]) - entropy).mean()


def diversity_released(prior: Tensor) -> Tensor:
    """The published code's diversity: base 2, and 1e-6 inside the logarithm."""
    shares = _channel_shares(prior)
    return (math.log2(prior.shape[2]) + (shares * torch.log2(shares + 1e-6)).sum(dim=1)).mean()


MapLoss = Callable[[Tensor], Tensor]
SMOOTHNESS: Catalog[MapLoss] = Catalog("smoothness form", {"paper": smoothness, "released": smoothness_released})
DIVERSITY: Catalog[MapLoss] = Catalog("diversity form", {"paper": diversity, "released": diversity_released})
