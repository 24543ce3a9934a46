"""A start for E_m that already shows the person: from principal components of the frozen tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from dinogrl.models.streams.silhouette import MaskEncoder

SHARPNESS = 4.0


@torch.no_grad()
def start_mask(mask: MaskEncoder, tokens: Tensor) -> None:
    """Set E_m, its running statistics and its decoder from frozen ``tokens`` (N,h0,w0,D) of some frames."""
    rows = tokens.flatten(0, 2).double()
    mean, variance = rows.mean(0), rows.var(0, correction=0)
    rows = (rows - mean) * torch.rsqrt(variance + mask.norm.eps)
    axes = torch.linalg.eigh(rows.T @ rows / len(rows)).eigenvectors
    axis = axes[:, -1]
    score = rows @ axis
    gain = SHARPNESS / score.std().clamp_min(1e-6) / 2
    mask.encode.weight.copy_(torch.stack([axis, -axis]) * gain)
    mask.encode.bias.copy_(torch.stack([-score.median(), score.median()]) * gain)
    assert mask.norm.running_mean is not None and mask.norm.running_var is not None
    mask.norm.running_mean.copy_(mean)
    mask.norm.running_var.copy_(variance)
    first = torch.sigmoid(2 * gain * (score - score.median()))
    design = torch.stack([first, 1 - first], dim=1)
    decoder = torch.linalg.lstsq(design, tokens.flatten(0, 2).double()).solution  # (2,D); no constant: the two sum to 1
    mask.decode.weight.copy_(decoder.T)
    mask.decode.bias.zero_()
