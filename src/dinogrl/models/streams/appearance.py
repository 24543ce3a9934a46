"""The appearance stream (paper 3.1): one stem for each modality, then a ResNet that all share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dinogrl.models.backbones.resnet import Layers, Stem
from dinogrl.models.pooling import set_pooling
from dinogrl.models.precision import laid_out
from dinogrl.records import Modality


@dataclass
class Route:
    """Which clips go through which stem: ``counts[m]`` clips of modality m.

    ``order`` (B,) brings the clips into groups of one modality and ``back`` undoes it; None where they already stand so.
    """

    counts: list[int]
    order: Tensor | None
    back: Tensor | None


def route(modality: Tensor) -> Route:
    """Plan the way of B clips by ``modality`` (B,), best on the CPU: an accelerator asked for it finishes all its work first."""
    known = modality.tolist()
    counts = [known.count(m) for m in Modality]
    assert sum(counts) == len(known), f"modality must hold 0 or 1, got {sorted(set(known))}"
    if known == sorted(known):
        return Route(counts, None, None)
    order = torch.argsort(modality, stable=True)
    return Route(counts, order, torch.argsort(order))


class AppearanceStream(nn.Module):
    """Frames (B,T,3,H,W) and their route -> set-pooled maps (B,C,h,w), h = H/16."""

    def __init__(self, visible: Stem, infrared: Stem, layers: Layers) -> None:
        super().__init__()
        self.stems = nn.ModuleList([visible, infrared])
        self.layers = layers

    @property
    def out_channels(self) -> int:
        """C of the maps."""
        return self.layers.out_channels

    def route(self, modality: Tensor) -> Route:
        """The clips' way through the stems, by ``modality`` (B,)."""
        return route(modality)

    def forward(self, frames: Tensor, way: Route) -> Tensor:
        if way.order is not None:
            frames = frames[way.order.to(frames.device, non_blocking=True)]
        groups = frames.split(way.counts)
        seen = [stem(laid_out(group.flatten(0, 1))) for stem, group in zip(self.stems, groups, strict=True) if len(group)]
        maps = set_pooling(self.layers(torch.cat(seen) if len(seen) > 1 else seen[0]), frames.shape[1])
        return maps if way.back is None else maps[way.back.to(maps.device, non_blocking=True)]
