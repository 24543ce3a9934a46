"""A start for E_m that already shows the person, found in the frozen tokens without any label."""

from __future__ import annotations

import torch
from torch import Tensor

from dinogrl.models.streams.silhouette import MaskEncoder

ROUNDS = 4
RIDGE = 0.05
SHARPNESS = 6.0
"""Difference of the two logits between the middle of the person and the middle of the background."""


@torch.no_grad()
def start_mask(mask: MaskEncoder, tokens: Tensor) -> None:
    """Set E_m, its running statistics and its decoder from frozen ``tokens`` (N,h0,w0,D) of N frames that each show a person.

    The first principal component of what varies *within* frames parts the person from the background, and each frame is cut in
    two along it. One linear map must then tell the two apart in all frames alike: it is fitted to these labels, which
    are cut anew along its own score, and again, so that what differs between whole frames (modality, camera, light) loses its say.
    The decoder is the least-squares map back to the tokens.
    """
    flat = tokens.flatten(1, 2).double()  # (N,n,D)
    mean, variance = flat.mean((0, 1)), flat.var((0, 1), correction=0)
    rows = (flat - mean) * torch.rsqrt(variance + mask.norm.eps)
    within = (rows - rows.mean(1, keepdim=True)).flatten(0, 1)
    axis = torch.linalg.eigh(within.T @ within).eigenvectors[:, -1]
    score = rows @ axis
    score = score * _polarity(score, tokens.shape[1:3])
    inverse = torch.linalg.inv(
        rows.flatten(0, 1).T @ rows.flatten(0, 1) / rows[..., 0].numel() + RIDGE * torch.eye(len(axis)).to(rows)
    )
    for _ in range(ROUNDS):
        person = _upper_cluster(score)
        share = person.mean().clamp(0.01, 0.99)
        balanced = torch.where(person > 0, 0.5 / share, -0.5 / (1 - share))
        axis = inverse @ (rows * balanced[..., None]).mean((0, 1))
        score = rows @ axis
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


def _polarity(score: Tensor, grid: torch.Size) -> Tensor:
    """+1 or -1, so that the score (N,n) is higher in the middle of the frames than at their border."""
    maps = score.unflatten(1, grid).mean(0)
    height, width = (max(1, size // 4) for size in grid)
    middle = maps[height:-height, width:-width]
    return torch.where(middle.mean() * maps.numel() >= maps.sum(), 1.0, -1.0).to(score)


def _upper_cluster(score: Tensor) -> Tensor:
    """1 where a frame's score (N,n) belongs to the higher of its own two clusters (2-means on the line), else 0."""
    threshold = score.mean(1, keepdim=True)
    for _ in range(10):
        upper = (score > threshold).to(score)
        high = (score * upper).sum(1, keepdim=True) / upper.sum(1, keepdim=True).clamp_min(1)
        low = (score * (1 - upper)).sum(1, keepdim=True) / (1 - upper).sum(1, keepdim=True).clamp_min(1)
        threshold = (high + low) / 2
    return (score > threshold).to(score)
