"""The whole network: both streams, their parts, the enhancement between them, and the necks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dinogrl.errors import DataError
from dinogrl.models.heads import BNNeck, PartLinear
from dinogrl.models.pooling import horizontal_stripes
from dinogrl.models.precision import full
from dinogrl.models.streams.appearance import AppearanceStream
from dinogrl.models.streams.gait import GaitStream
from dinogrl.models.streams.parsed import ParsedGaitStream
from dinogrl.records import ModelOutput


@dataclass
class Head:
    """What a stream has behind its maps: a linear map a part, and the neck over all of its parts, the enhanced ones too."""

    parts: PartLinear
    neck: BNNeck


class DinoGRL(nn.Module):
    """Clips -> :class:`ModelOutput`.

    Parts of a stream: the stripes in the order of ``stripes`` (the first is the global part), then, with an enhancement, one
    enhanced global part for each granularity. Gait parts stand before appearance parts; ``gait`` None is the baseline.
    ``supervised`` (the same of each stream) and ``embedded`` are positions among all parts. ``pool`` makes stripes of maps;
    replace it by another form of :func:`horizontal_stripes`.
    """

    pool: Callable[[Tensor, Sequence[int]], Tensor]

    def __init__(
        self,
        appearance: AppearanceStream,
        appearance_head: Head,
        gait: GaitStream | ParsedGaitStream | None,
        gait_head: Head | None,
        enhancement: nn.Module | None,
        stripes: Sequence[int],
        supervised: Sequence[int],
        embedded: Sequence[int],
    ) -> None:
        super().__init__()
        assert (gait is None) == (gait_head is None) and (enhancement is None or gait is not None)
        self.appearance = appearance
        self.appearance_parts = appearance_head.parts
        self.appearance_neck = appearance_head.neck
        self.gait = gait
        self.gait_parts = gait_head.parts if gait_head else None
        self.gait_neck = gait_head.neck if gait_head else None
        self.enhancement = enhancement
        self.stripes = tuple(stripes)
        self.pool = horizontal_stripes
        self.supervised: Tensor
        self.embedded: Tensor
        self.register_buffer("supervised", torch.tensor(supervised), persistent=False)
        self.register_buffer("embedded", torch.tensor(embedded), persistent=False)

    def start_silhouette(self, frames: Tensor) -> None:
        """Set the silhouette's encoder E_m from some frames (B,T,3,H,W) of the data. Without a gait stream nothing happens."""
        if self.gait is not None:
            self.gait.start_silhouette(frames)

    def forward(self, frames: Tensor, modality: Tensor, masks: Tensor | None = None) -> ModelOutput:
        """``frames`` (B,T,3,H,W) ImageNet-normalised; ``modality`` (B,) of 0 visible, 1 infrared, in any order, best on the CPU.

        ``masks`` (B,T,H,W) in 0..1, for a gait stream that reads a parser's; raises :class:`DataError` where these are lacking.
        """
        assert frames.ndim == 5 and frames.shape[2] == 3, f"frames must be (B,T,3,H,W), got {tuple(frames.shape)}"
        assert modality.shape == frames.shape[:1], f"modality must be ({len(frames)},), got {tuple(modality.shape)}"
        seen = self.appearance(frames, self.appearance.route(modality))
        appearance: Tensor = full(self.appearance_parts(self.pool(seen, self.stripes)))
        if self.gait is None:
            logits = self.appearance_neck(appearance) if self.training else None
            return ModelOutput(appearance, 0, logits, None, self.supervised, self.embedded)
        assert self.gait_parts is not None and self.gait_neck is not None
        seen_by_gait = masks if self.gait.reads_masks else frames
        if seen_by_gait is None:
            raise DataError("this model reads a human parser's masks beside the frames: give data.masks, and embed whole datasets")
        walked, maps = self.gait(seen_by_gait)
        gait: Tensor = full(self.gait_parts(self.pool(walked, self.stripes)))
        if self.enhancement is not None:
            gait_enhanced, appearance_enhanced = self.enhancement(gait, appearance)
            gait = torch.cat([gait, gait_enhanced], dim=1)
            appearance = torch.cat([appearance, appearance_enhanced], dim=1)
        logits = torch.cat([self.gait_neck(gait), self.appearance_neck(appearance)], dim=1) if self.training else None
        parts = torch.cat([gait, appearance], dim=1)
        return ModelOutput(parts, gait.shape[1], logits, maps, self.supervised, self.embedded)
