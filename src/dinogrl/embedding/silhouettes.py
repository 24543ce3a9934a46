"""What the gait stream makes of a few people, kept for figures (paper, figure 3)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dinogrl import checkpoints
from dinogrl.data.loaders import evaluation_loader
from dinogrl.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from dinogrl.recipes import schema
from dinogrl.records import Modality, ModelOutput, Tracklet


def write_silhouettes(
    path: Path,
    network: nn.Module,
    tracklets: Sequence[Tracklet],
    data: schema.Data,
    sampling: str,
    device: torch.device,
    count: int = 3,
) -> None:
    """Write one visible and one infrared clip of each of the first ``count`` identities that have both, with the maps made of them.

    The file (NumPy's .npz) holds frames (n,T,H,W,3) uint8, modality (n,), names (n,), and silhouette (n,T,h,w), gait_prior,
    appearance_prior (n,T,C,h,w), enriched (n,T,C',h,w) in float16, those that the network makes. Nothing is written where nobody
    was seen in both modalities.
    """
    shown = _both_modalities(tracklets, count)
    if not shown:
        return
    batch = next(iter(evaluation_loader(shown, data, sampling=sampling, batch=len(shown)))).to(device)
    with torch.inference_mode():
        output: ModelOutput = network.eval().to(device)(*batch.inputs)
    assert output.maps is not None, "this network makes no maps"
    named = {name: getattr(output.maps, name) for name in ("silhouette", "gait_prior", "appearance_prior", "enriched")}
    maps = {name: value.float().cpu().numpy().astype(np.float16) for name, value in named.items() if value is not None}
    mean, deviation = (torch.tensor(values, device=device).view(1, 1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = ((batch.frames * deviation + mean).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2)
    with checkpoints.replacing(path) as beside, beside.open("wb") as file:
        np.savez_compressed(
            file, frames=pixels.cpu().numpy(), modality=batch.modality.numpy(), names=np.array(batch.tracklet_ids), **maps
        )


def _both_modalities(tracklets: Sequence[Tracklet], count: int) -> list[Tracklet]:
    """A visible and an infrared tracklet of each of the first ``count`` identities that have both."""
    first: dict[tuple[int, Modality], Tracklet] = {}
    for tracklet in tracklets:
        first.setdefault((tracklet.identity, tracklet.modality), tracklet)
    both = sorted({identity for identity, _ in first if all((identity, modality) in first for modality in Modality)})
    return [first[identity, modality] for identity in both[:count] for modality in Modality]
