"""The network in a form that can be traced: uint8 frames and modalities in, embedding out, one graph for every B, T, H and W.

A traced graph cannot ask what is in its inputs. So here both stems see all frames and each clip takes the one of its modality, the
prior takes all frames at once, relations look at every pair instead of searching, and frames are resized by two
matrices that depend on nothing but their size. The function is that of :class:`dinogrl.embedding.embedder.Embedder`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinogrl.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from dinogrl.errors import ExportError
from dinogrl.models.backbones.frozen import FrozenPrior, Tokens
from dinogrl.models.dinogrl import DinoGRL
from dinogrl.models.enhancement.local_to_global import LocalToGlobal
from dinogrl.models.enhancement.relation import PairedKeys
from dinogrl.models.pooling import set_pooling
from dinogrl.models.streams.appearance import AppearanceStream
from dinogrl.models.streams.gait import GaitStream
from dinogrl.records import Modality

# The weights of the 8-bit resize are whole numbers below this, over a power of two up to 2^22.
_LARGEST_WEIGHT = 2**15
_POWERS = 2.0 ** torch.arange(1, 23)


class ExportGraph(nn.Module):
    """Frames (B,T,H,W,3) uint8 of any size, modality (B,) int64 -> embedding (B,P,D) float32.

    ``size``: the recipe's (H,W). ``in_bfloat16``: the network, not the resize, computes in bfloat16 where it may.
    """

    def __init__(self, network: DinoGRL, size: tuple[int, int], in_bfloat16: bool = False) -> None:
        super().__init__()
        self.network = traceable(network)
        self.size = size
        self.in_bfloat16 = in_bfloat16
        self.register_buffer("mean", torch.from_numpy(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.from_numpy(IMAGENET_STD).view(3, 1, 1), persistent=False)
        self.mean: Tensor
        self.deviation: Tensor

    def forward(self, frames: Tensor, modality: Tensor) -> Tensor:
        pixels = resize_like_uint8(frames.permute(0, 1, 4, 2, 3).float(), self.size)
        normalised = (pixels / 255 - self.mean) / self.deviation
        if not self.in_bfloat16:
            return self.network(normalised, modality).embedding
        with torch.autocast("cpu", torch.bfloat16):
            return self.network(normalised, modality).embedding.float()

    def example(self) -> tuple[Tensor, Tensor]:
        """Inputs to trace with. No size of theirs is fixed, and no two are equal, lest they be taken for one."""
        return torch.zeros(2, 3, self.size[0] + 5, self.size[1] + 7, 3, dtype=torch.uint8), torch.tensor([0, 1])


def dynamic_shapes() -> dict[str, dict[int, Any]]:
    """Which sizes of the inputs are free: B, T, H and W."""
    size = torch.export.Dim
    clips = size("B", min=1)
    return {"frames": {0: clips, 1: size("T", min=1), 2: size("H", min=1), 3: size("W", min=1)}, "modality": {0: clips}}


def traceable(network: DinoGRL) -> DinoGRL:
    """A copy of ``network``, the same function in evaluation mode, without questions about values."""
    twin = copy.deepcopy(network).cpu().eval().requires_grad_(False)
    twin.pool = stripes_by_rows
    twin.appearance = BothStems(twin.appearance)  # type: ignore[assignment]
    if twin.gait is not None:
        if not isinstance(twin.gait, GaitStream):
            raise ExportError("this model reads more than frames (a parser's masks), and an exported file takes frames alone")
        twin.gait.prior = WholePrior(twin.gait.prior)  # type: ignore[assignment]
    if isinstance(twin.enhancement, LocalToGlobal):
        twin.enhancement.read_keys = PairedKeys
    return twin


class BothStems(nn.Module):
    """An :class:`AppearanceStream` whose stems both see all frames; each clip keeps what its own stem saw."""

    def __init__(self, stream: AppearanceStream) -> None:
        super().__init__()
        self.stems = stream.stems
        self.layers = stream.layers

    def route(self, modality: Tensor) -> Tensor:
        """(B,1,1,1,1) bool: which clips are infrared."""
        return (modality == int(Modality.INFRARED))[:, None, None, None, None]

    def forward(self, frames: Tensor, infrared: Tensor) -> Tensor:
        clips, times = frames.shape[:2]
        day, night = (stem(frames.flatten(0, 1)).unflatten(0, (clips, times)) for stem in self.stems)
        return set_pooling(self.layers(torch.where(infrared, night, day).flatten(0, 1)), times)


class WholePrior(nn.Module):
    """A :class:`FrozenPrior` in float32 that takes all frames in one piece."""

    def __init__(self, prior: FrozenPrior) -> None:
        super().__init__()
        self.prior = prior
        self.ready = prior.prepared(torch.float32)

    def forward(self, frames: Tensor) -> Tokens:
        return Tokens(*self.prior.features(self.ready, frames))


def stripes_by_rows(maps: Tensor, stripes: Sequence[int]) -> Tensor:
    """:func:`dinogrl.models.pooling.horizontal_stripes` by plain means and maxima, for one height. (B,C,h,w) -> (B,P,C)"""
    height = maps.shape[2]
    mean, peak = maps.mean(3, keepdim=True), maps.amax(3, keepdim=True)
    spans = [(i * height // n, -(-(i + 1) * height // n)) for n in stripes for i in range(n)]
    pooled = [mean[:, :, a:b].mean(2, keepdim=True) + peak[:, :, a:b].amax(2, keepdim=True) for a, b in spans]
    return torch.cat(pooled, dim=2)[..., 0].transpose(1, 2)


def resize_like_uint8(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """What :func:`dinogrl.data.frames.resize` makes of uint8 frames: (...,H,W) float of whole numbers -> (...,h,w), whole too.

    Bilinear, antialiased where it shrinks: along the width first, rounded to whole grey levels, then along the height.
    """
    pixels = weighted(pixels, *resize_matrix(pixels.shape[-1], size[1]))
    return weighted(pixels.mT, *resize_matrix(pixels.shape[-2], size[0])).mT


def weighted(pixels: Tensor, weights: Tensor, unit: Tensor) -> Tensor:
    """Grey levels (...,old) by whole ``weights`` (new,old) over ``unit``, rounded to grey levels: (...,new).

    High and low bits of the weights apart: then no sum leaves the whole numbers up to 2^24 that float32 holds without loss.
    """
    high = torch.floor(weights / 256)
    above, below = 256 * F.linear(pixels, high), F.linear(pixels, weights - 256 * high)
    whole = torch.floor(above / unit)
    return (whole + torch.floor((above - whole * unit + below) / unit + 0.5)).clamp(0, 255)


def resize_matrix(old: int, new: int) -> tuple[Tensor, Tensor]:
    """Weights (new,old) of ``old`` pixels in each of ``new``, as whole numbers, and the power of two that they are parts of.

    Torch rounds the weights of its 8-bit resize so: as fine as the largest weight of a side lets 15 bits be.
    """
    to, of = torch.arange(new)[:, None], torch.arange(old)[None]
    # tent around the new pixel's centre, in units of 1 / (2 * new): whole numbers, so nothing is lost in float32
    tent = (2 * max_size(old, new) - (new * (2 * of + 1) - old * (2 * to + 1)).abs()).clamp_min(0).float()
    share = tent / tent.sum(1, keepdim=True)
    fits = torch.floor(share.max() * _POWERS + 0.5) < _LARGEST_WEIGHT
    unit = torch.where(fits, _POWERS, 1.0).max()
    return torch.floor(share * unit + 0.5), unit


def max_size(a: int, b: int) -> int:
    """The larger of two sizes, one of which may be known only when the graph runs."""
    return torch.sym_max(a, b)  # type: ignore[no-any-return]
