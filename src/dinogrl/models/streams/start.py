"""A start for E_m that already shows the person, found in the frozen tokens without any label."""

from __future__ import annotations

import torch
from torch import Tensor

from dinogrl.errors import DataError
from dinogrl.models.streams.silhouette import MaskEncoder

ROUNDS = 4
RIDGE = 0.05
SHARPNESS = 6.0
"""Difference of the two logits between the middle of the person and the middle of the background."""


@torch.no_grad()
def start_mask(mask: MaskEncoder, tokens: Tensor) -> None:
    """Set E_m, its running statistics and its decoder from frozen ``tokens`` (N,h0,w0,D) of N frames that each show a person.

    People stand in the middle of their boxes, so what tells the middle of the frames from their two sides tells, roughly, the
    person from the background: one linear discriminant, fitted to tokens less their frame's mean. Its score cuts each frame in
    two, the discriminant is fitted again to these labels, and so on: what differs between whole frames (modality, camera, light)
    and what is in the middle by chance loses its say.
    The decoder is the least-squares map back to the tokens. Raises :class:`DataError`, and sets nothing, where the tokens of every
    frame are all alike, or not finite.
    """
    flat = tokens.flatten(1, 2).double()  # (N,n,D)
    mean, variance = flat.mean((0, 1)), flat.var((0, 1), correction=0)
    rows = (flat - mean) * torch.rsqrt(variance + mask.norm.eps)
    within = rows - rows.mean(1, keepdim=True)
    if not within.square().mean() > 1e-9:  # or not a number
        raise DataError(
            "no silhouette can start from the first clips: the frozen features of every frame are all alike; "
            "look at the frames and the prior's weights, or set model.gait.mask_start=random"
        )
    height, width = tokens.shape[1:3]
    covariance = rows.flatten(0, 1).T @ rows.flatten(0, 1) / rows[..., 0].numel()
    inverse = torch.linalg.inv(covariance + RIDGE * torch.eye(len(covariance)).to(covariance))
    labels = _middle_and_sides(height, width).to(rows).expand(len(rows), -1)
    axis = inverse @ (within * labels[..., None]).mean((0, 1))
    for _ in range(ROUNDS):
        person = _upper_cluster(rows @ axis)
        share = person.mean().clamp(0.01, 0.99)
        balanced = torch.where(person > 0, 0.5 / share, -0.5 / (1 - share))
        axis = inverse @ (rows * balanced[..., None]).mean((0, 1))
    score = rows @ axis
    person = _upper_cluster(score)
    high, low = score[person > 0].mean(), score[person == 0].mean()
    gain = SHARPNESS / 2 / (high - low).clamp_min(1e-9)
    middle = (high + low) / 2
    mask.encode.weight.copy_(torch.stack([axis, -axis]) * gain)
    mask.encode.bias.copy_(torch.stack([-middle, middle]) * gain)
    assert mask.norm.running_mean is not None and mask.norm.running_var is not None
    mask.norm.running_mean.copy_(mean)
    mask.norm.running_var.copy_(variance)
    first = torch.sigmoid(2 * gain * (score - middle)).flatten()
    shares = torch.stack([first, 1 - first], dim=1)  # they sum to 1, so the decoder needs no constant
    decoder = torch.linalg.lstsq(shares, flat.flatten(0, 1)).solution
    mask.decode.weight.copy_(decoder.T)
    mask.decode.bias.zero_()


def _middle_and_sides(height: int, width: int) -> Tensor:
    """(h*w,) weights: the middle third of the columns, without the outermost rows, sums to 1; the two outer sixths sum to -1."""
    columns = (torch.arange(width) + 0.5) / width
    rows = (torch.arange(height) + 0.5) / height
    middle = ((columns - 0.5).abs() <= 1 / 6)[None] & ((rows - 0.5).abs() <= 0.42)[:, None]
    sides = ((columns - 0.5).abs() >= 1 / 3)[None].expand(height, width)
    return (middle / middle.sum().clamp_min(1) - sides / sides.sum().clamp_min(1)).flatten()


def _upper_cluster(score: Tensor) -> Tensor:
    """1 where a frame's score (N,n) belongs to the higher of its own two clusters (2-means on the line), else 0."""
    threshold = score.mean(1, keepdim=True)
    for _ in range(10):
        upper = (score > threshold).to(score)
        high = (score * upper).sum(1, keepdim=True) / upper.sum(1, keepdim=True).clamp_min(1)
        low = (score * (1 - upper)).sum(1, keepdim=True) / (1 - upper).sum(1, keepdim=True).clamp_min(1)
        threshold = (high + low) / 2
    return (score > threshold).to(score)
