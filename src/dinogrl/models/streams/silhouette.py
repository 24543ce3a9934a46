"""The silhouette and the two priors, read from frozen tokens (paper 3.2, equations 4-8).

Tokens come as (N,h0,w0,D), one row a patch, and maps leave as (N,h,w,C), finer by bilinear interpolation. A linear map and a
batch norm commute with the interpolation (its weights sum to 1), so both are applied to the coarse tokens, and only their few
outputs are made finer: the same function as interpolating hundreds of channels first, at a quarter of the work. The statistics of
the batch norm are those of the fine map, found without keeping it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinogrl.models.backbones import pointwise
from dinogrl.models.backbones.recompute import Recomputing
from dinogrl.models.precision import full
from dinogrl.models.streams.marked_norm import MarkedNorm


def finer(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear interpolation. (N,h0,w0,C) -> (N,h,w,C)"""
    if maps.shape[1:3] == size:
        return maps
    return F.interpolate(maps.permute(0, 3, 1, 2), size, mode="bilinear", align_corners=False).permute(0, 2, 3, 1)


@dataclass
class Statistics:
    """Mean and variance (D,) of ``count`` rows made from tokens; ``centred``: the tokens (N,h0,w0,D) less that mean.

    Every layer that reads the tokens in training keeps these for its backward pass: made here, they are kept once.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor
    centred: Tensor


class RowNorm(nn.BatchNorm1d):
    """Batch norm without parameters over all rows of (..., C), or over those that ``chosen`` (...) marks.

    Marking gives the numbers of gathering the marked rows, without asking the device how many there are. Rows that are not marked
    are normalised too; what becomes of them is the caller's business.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=False)

    def forward(self, rows: Tensor, chosen: Tensor | None = None) -> Tensor:
        flat = rows.reshape(-1, rows.shape[-1])
        if not self.training or chosen is None:
            return super().forward(flat).view(rows.shape)
        weight = chosen.reshape(-1, 1).to(full(flat[:0]).dtype)
        normed, mean, variance, count = MarkedNorm.apply(flat, weight, self.eps)
        self.remember(mean, variance, count)
        return normed.view(rows.shape)

    def then(self, linear: nn.Linear, tokens: Tensor, found: Statistics | None) -> Tensor:
        """``linear`` of the normalised frozen ``tokens`` (N,h0,w0,C). ``found``: :func:`fine_statistics`, in training."""
        if self.training:
            assert found is not None, "training needs the batch's statistics"
            self.remember(found.mean, found.variance, found.count)
            centred, variance = found.centred, found.variance
        else:
            assert self.running_mean is not None and self.running_var is not None
            centred, variance = tokens - self.running_mean.to(tokens.dtype), self.running_var
        return pointwise.linear(centred, linear.weight * torch.rsqrt(variance + self.eps), linear.bias)

    @torch.no_grad()
    def remember(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Move the running statistics towards those of a batch of ``count`` rows; none leaves them as they are."""
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        assert self.momentum is not None
        some = count > 0  # stays on the device: to ask would be to wait for it
        share = self.momentum * some.to(self.running_mean)
        self.num_batches_tracked += some
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * count / (count - 1).clamp_min(1), share)


def fine_statistics(tokens: Tensor, size: tuple[int, int], chosen: Tensor | None = None) -> Statistics:
    """Statistics of ``tokens`` (N,h0,w0,D) interpolated to ``size``, over all rows or those that ``chosen`` (N,h,w) marks.

    No gradient flows through mean and variance. Through ``centred`` it does, to what may adapt the prior.
    """
    with torch.no_grad(), torch.autocast(tokens.device.type, enabled=False):
        mean, variance, count = _fine_moments(tokens, size, chosen)
    return Statistics(mean, variance, count, tokens - mean.to(tokens.dtype))


def _fine_moments(tokens: Tensor, size: tuple[int, int], chosen: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance (D,), count."""
    centre = full(tokens.flatten(0, 2)).mean(0)  # close to the mean: squares around it keep their digits
    if chosen is None:
        # sum over p of (sum_i W_pi x_i)^2 = sum_ij x_i (W^T W)_ij x_j, and W is a product of a map of rows and one of columns
        x = tokens - centre
        height, width = (_interpolation(old, new, x) for old, new in zip(tokens.shape[1:3], size, strict=True))
        total = torch.outer(height.sum(0), width.sum(0)).flatten() @ x.flatten(1, 2).sum(0)
        rows = (height.T @ height) @ x.flatten(2)
        squares = ((width.T @ width) @ rows.view(-1, *x.shape[2:])).view_as(x).mul_(x).sum((0, 1, 2))
        count = torch.full_like(centre[0], len(tokens) * size[0] * size[1])
    else:
        total, squares, count = torch.zeros_like(centre), torch.zeros_like(centre), torch.zeros_like(centre[0])
        at_once = max(1, 2**20 // (size[0] * size[1] * tokens.shape[3]))  # fine tokens that stay in the cache
        for some, mark in zip(tokens.split(at_once), chosen.split(at_once), strict=True):
            fine = finer(some - centre, size).flatten(0, 2)
            weight = mark.flatten().to(fine.dtype)
            total += weight @ fine
            squares += weight @ fine.square_()
            count += weight.sum()
    shift = total / count.clamp_min(1)
    return centre + shift, (squares / count.clamp_min(1) - shift.square()).clamp_min(0), count


def _interpolation(old: int, new: int, like: Tensor) -> Tensor:
    """(new,old) matrix of the linear interpolation along one side."""
    return F.interpolate(torch.eye(old, dtype=like.dtype, device=like.device)[None], new, mode="linear", align_corners=False)[0].T


class MaskEncoder(nn.Module):
    """E_m: (dropout,) batch norm, a linear map to two channels, softmax (eq. 4); and the linear decoder of eq. 5."""

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        self.norm = RowNorm(width)
        self.encode = nn.Linear(width, 2)
        self.decode = nn.Linear(2, width)

    def forward(self, tokens: Tensor, size: tuple[int, int], found: Statistics | None = None) -> Tensor:
        """Tokens (N,h0,w0,D) -> probabilities (N,h,w,2). ``found``: the tokens' :func:`fine_statistics`, in training."""
        if self.training and self.dropout:
            # every fine pixel drops its own channels, so this cannot be done on the coarse tokens
            logits = self.encode(self.norm(F.dropout(finer(tokens, size), self.dropout)))
        else:
            logits = finer(self.norm.then(self.encode, tokens, found), size)
        return full(logits).softmax(dim=3)

    def reconstruct(self, probabilities: Tensor) -> Tensor:
        """(N,h,w,2) -> (N,h,w,D)"""
        decoded: Tensor = self.decode(probabilities)
        return decoded

    def reconstruction_error(self, probabilities: Tensor, tokens: Tensor, found: Statistics) -> Tensor:
        """Mean square of the decoded ``probabilities`` (N,h,w,2) less the interpolated frozen ``tokens`` (N,h0,w0,D): equation 5.

        The paper writes a norm; lambda 1 = 1 refers to the mean over all entries, as in the published code. With x the tokens and
        r = W p + b their decoding, less the tokens' mean: mean of r^2 - 2 r x + x^2, of which x^2 is known (``found``) and r x
        needs W^T x alone, two numbers a pixel that may be interpolated afterwards. No map of D channels is made.
        """
        with torch.autocast(tokens.device.type, enabled=False):
            weight, bias = full(self.decode.weight), full(self.decode.bias) - found.mean
            shares = full(probabilities)
            projected = finer((full(tokens) - found.mean) @ weight, (shares.shape[1], shares.shape[2]))
            rows = shares.flatten(0, 2)
            second_moment = rows.T @ rows / len(rows)
            square = ((weight.T @ weight) * second_moment).sum() + 2 * rows.mean(0) @ (weight.T @ bias) + bias.square().sum()
            product = (shares * projected).sum(3).mean()
            return (square - 2 * product + found.variance.sum()) / len(bias)


class GaitPrior(Recomputing):
    """E_g: batch norm, linear, batch norm, GELU, linear, softmax over the channels. Tokens (N,h0,w0,D) -> (N,h,w,C)

    ``chosen`` (N,h,w) marks the pixels that count; ``found`` are the tokens' :func:`fine_statistics` over them, in training.
    """

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.norm = RowNorm(width)
        self.reduce = nn.Linear(width, width // 2)
        self.inner_norm = RowNorm(width // 2)
        self.assign = nn.Linear(width // 2, channels)

    def forward(
        self, tokens: Tensor, size: tuple[int, int], chosen: Tensor | None = None, found: Statistics | None = None
    ) -> Tensor:
        hidden = self.norm.then(self.reduce, tokens, found)
        return self.kept_or_recomputed(partial(self._assigned, size), hidden, chosen, tidy=True)

    def _assigned(self, size: tuple[int, int], hidden: Tensor, chosen: Tensor | None) -> Tensor:
        """From the coarse hidden layer (N,h0,w0,D) on. Its fine maps are the largest of the gait stream."""
        return full(self.assign(F.gelu(self.inner_norm(finer(hidden, size), chosen)))).softmax(dim=3)


class AppearancePrior(nn.Module):
    """E_a: batch norm, linear, batch norm, sigmoid. Tokens (N,h0,w0,D) -> (N,h,w,C); arguments as of :class:`GaitPrior`."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.norm = RowNorm(width)
        self.reduce = nn.Linear(width, channels)
        self.out_norm = RowNorm(channels)

    def forward(
        self, tokens: Tensor, size: tuple[int, int], chosen: Tensor | None = None, found: Statistics | None = None
    ) -> Tensor:
        rows = finer(self.norm.then(self.reduce, tokens, found), size)
        return full(self.out_norm(rows, chosen)).sigmoid()


def centred_channel(probabilities: Tensor) -> Tensor:
    """The channel of the two that is the person, i.e. not at the frame's upper and lower edge (eq. 4). (N,h,w,2) -> (N,h,w)

    Channel 0, unless more than half of the pixels in the top and bottom rows (5 of 64 each) are counted as it; then channel 1.
    """
    first = probabilities[..., 0]
    rows = max(1, round(5 * first.shape[1] / 64))
    at_edge = torch.cat([first[:, :rows], first[:, -rows:]], dim=1).round()
    other = at_edge.mean(dim=(1, 2)) > 0.5
    return torch.where(other[:, None, None], probabilities[..., 1], first)


def person_pixels(silhouette: Tensor) -> Tensor:
    """Pixels within one step of a probability above one half: 3x3 dilation of the rounded silhouette. (N,h,w) -> bool (N,h,w)"""
    near = F.max_pool2d(silhouette.detach()[:, None], kernel_size=3, stride=1, padding=1)[:, 0]
    return near.round() > 0
