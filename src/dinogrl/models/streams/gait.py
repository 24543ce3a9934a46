"""The gait stream: SASGL (paper 3.2). Frames -> tokens -> silhouette and priors -> enriched silhouettes -> gait network."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinogrl.models.backbones.frozen import FrozenPrior
from dinogrl.models.backbones.recompute import Recomputing
from dinogrl.models.backbones.resnet import BasicBlock, Layers, conv3x3, initialise
from dinogrl.models.pooling import set_pooling
from dinogrl.models.precision import laid_out
from dinogrl.models.streams.fusion import AttentionFusion
from dinogrl.models.streams.silhouette import MaskEncoder, centred_channel, fine_statistics, person_pixels
from dinogrl.models.streams.start import start_mask
from dinogrl.records import SilhouetteMaps


class MapEncoder(Recomputing):
    """The first convolutions on a map: 3x3, batch norm, ReLU, one basic block. (N,C,h,w) -> (N,embed,h,w)"""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, channels)
        self.bn1 = nn.BatchNorm2d(channels)
        self.layer1 = nn.Sequential(BasicBlock(channels))
        initialise(self)

    def forward(self, maps: Tensor) -> Tensor:
        return self.kept_or_recomputed(self._through, maps)

    def _through(self, maps: Tensor) -> Tensor:
        encoded: Tensor = self.layer1(F.relu(self.bn1(self.conv1(laid_out(maps))), inplace=True))
        return encoded


def drop_at_random(clips: int, share: float) -> list[tuple[int, int]]:
    """Which clips lose which of the two priors (0 gait, 1 appearance): ``share`` of them, drawn from torch's CPU generator."""
    many = round(share * clips)
    drawn = torch.randperm(clips)[:many].tolist()
    return list(zip(drawn, torch.randint(2, (many,)).tolist(), strict=True))


class GaitStream(nn.Module):
    """Frames (B,T,3,H,W) -> set-pooled maps (B,C,h/4,w/4) of the gait network, and :class:`SilhouetteMaps`.

    ``priors``: E_g and E_a, either alone, both (gait first), or none, which is the *plain* silhouette. ``fusion`` joins two.
    ``multiply``: the fused priors times the soft silhouette (eq. 6). ``foreground_only``: the priors look at the person's pixels
    only and are 0 elsewhere. ``joint``, ``joint_priors``: re-identification losses reach the silhouette, the priors (eq. 9, 10).
    ``choose_drops(clips, share)`` says which clips lose a prior in training; replace it to decide that from outside.
    """

    reads_masks = False
    choose_drops: Callable[[int, float], list[tuple[int, int]]]

    def __init__(
        self,
        prior: FrozenPrior,
        mask: MaskEncoder,
        priors: Mapping[str, nn.Module],
        encoders: Mapping[str, MapEncoder],
        fusion: AttentionFusion | None,
        layers: Layers,
        size: tuple[int, int],
        multiply: bool = True,
        foreground_only: bool = False,
        joint: bool = True,
        joint_priors: bool = True,
        drop_prior: float = 0.0,
        start_from_data: bool = True,
    ) -> None:
        super().__init__()
        self.prior = prior
        self.mask = mask
        self.priors = nn.ModuleDict(priors)
        self.encoders = nn.ModuleDict(encoders)
        self.fusion = fusion
        self.layers = layers
        self.size = size
        self.multiply = multiply
        self.foreground_only = foreground_only
        self.joint = joint
        self.joint_priors = joint_priors
        self.drop_prior = drop_prior
        self.start_from_data = start_from_data
        self.choose_drops = drop_at_random

    @property
    def out_channels(self) -> int:
        """C of the maps."""
        return self.layers.out_channels

    def forward(self, frames: Tensor) -> tuple[Tensor, SilhouetteMaps]:
        clips, times = frames.shape[:2]
        tokens = self.prior(frames.flatten(0, 1))
        found = fine_statistics(tokens.last, self.size) if self.training else None
        probabilities = self.mask(tokens.last, self.size, found)
        silhouette = centred_channel(probabilities)
        person = person_pixels(silhouette)
        priors = self._priors(tokens.blocks, person)
        enriched = self._enriched(priors, silhouette if self.joint else silhouette.detach(), clips)
        maps = SilhouetteMaps(
            silhouette=silhouette.unflatten(0, (clips, times)),
            probabilities=_by_clip(probabilities, clips),
            gait_prior=_by_clip(priors["gait"], clips) if "gait" in priors else None,
            appearance_prior=_by_clip(priors["appearance"], clips) if "appearance" in priors else None,
            enriched=enriched.unflatten(0, (clips, times)),
            foreground=person.unflatten(0, (clips, times)),
        )
        if found is not None:
            maps.mask_error = self.mask.reconstruction_error(probabilities, tokens.last.detach(), found)
        return set_pooling(self.layers(enriched), times), maps

    @torch.no_grad()
    def start_silhouette(self, frames: Tensor) -> None:
        """Set E_m from frames (B,T,3,H,W), so that its silhouettes show the person before any training.

        Nothing happens where the recipe wants another start.
        """
        if self.start_from_data:
            start_mask(self.mask, self.prior(frames.flatten(0, 1)).last)

    def _priors(self, tokens: Tensor, person: Tensor) -> dict[str, Tensor]:
        """name -> (N,h,w,C)"""
        chosen = person if self.foreground_only else None
        found = fine_statistics(tokens, self.size, chosen) if self.training and self.priors else None
        maps = {name: encoder(tokens, self.size, chosen, found) for name, encoder in self.priors.items()}
        if chosen is None:
            return maps
        return {name: prior * chosen[..., None] for name, prior in maps.items()}

    def _enriched(self, priors: dict[str, Tensor], silhouette: Tensor, clips: int) -> Tensor:
        """What the gait network reads, (N,embed,h,w)."""
        if not priors:
            plain: Tensor = self.encoders["silhouette"](silhouette[:, None])
            return plain
        seen = priors if self.joint_priors else {name: prior.detach() for name, prior in priors.items()}
        seen = self._dropped(seen, clips)
        encoded = [self.encoders[name](prior.permute(0, 3, 1, 2)) for name, prior in seen.items()]
        fused: Tensor = encoded[0] if self.fusion is None else self.fusion(*encoded)
        return fused * silhouette[:, None].to(fused.dtype) if self.multiply else fused

    def _dropped(self, priors: dict[str, Tensor], clips: int) -> dict[str, Tensor]:
        """In training a share of the clips lose one of two priors, so that the network leans on neither."""
        if not (self.training and self.drop_prior and len(priors) == 2):
            return priors
        kept = torch.ones(2, clips)
        for clip, which in self.choose_drops(clips, self.drop_prior):
            kept[which, clip] = 0
        result = {}
        for (name, prior), keep in zip(priors.items(), kept.to(next(iter(priors.values())).device, non_blocking=True), strict=True):
            result[name] = prior * keep.repeat_interleave(len(prior) // clips)[:, None, None, None]
        return result


def _by_clip(maps: Tensor, clips: int) -> Tensor:
    """(B*T,h,w,C) -> (B,T,C,h,w), a view."""
    return maps.permute(0, 3, 1, 2).unflatten(0, (clips, -1))
