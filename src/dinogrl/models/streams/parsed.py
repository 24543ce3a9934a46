"""A gait stream on somebody else's silhouettes (the paper's table 7): masks of a human parser in place of what DINOv2 gives."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from dinogrl.models.backbones.resnet import Layers
from dinogrl.models.pooling import set_pooling
from dinogrl.models.streams.gait import MapEncoder
from dinogrl.records import SilhouetteMaps


class ParsedGaitStream(nn.Module):
    """Masks (B,T,H,W) in 0..1 -> set-pooled maps (B,C,h/4,w/4) of the gait network, and :class:`SilhouetteMaps`.

    The masks are made ``size`` = (h,w) and read as they are: no prior, no encoder of silhouettes, so nothing for joint learning to
    reach.
    """

    reads_masks = True

    def __init__(self, encoder: MapEncoder, layers: Layers, size: tuple[int, int]) -> None:
        super().__init__()
        self.encoder = encoder
        self.layers = layers
        self.size = size

    @property
    def out_channels(self) -> int:
        """C of the maps."""
        return self.layers.out_channels

    def forward(self, masks: Tensor) -> tuple[Tensor, SilhouetteMaps]:
        clips, times = masks.shape[:2]
        small = F.interpolate(masks.flatten(0, 1)[:, None], self.size, mode="bilinear", antialias=True, align_corners=False)
        enriched: Tensor = self.encoder(small)
        maps = SilhouetteMaps(
            silhouette=small[:, 0].unflatten(0, (clips, times)), enriched=enriched.unflatten(0, (clips, times)), foreground=None
        )
        return set_pooling(self.layers(enriched), times), maps

    def start_silhouette(self, frames: Tensor) -> None:
        """Nothing: the silhouettes are there."""
