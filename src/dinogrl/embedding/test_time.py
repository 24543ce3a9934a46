"""More than one look at a tracklet: mirrored frames, several clips, all frames. Each is an option that the result names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from dinogrl import checkpoints
from dinogrl.data.loaders import evaluation_loader
from dinogrl.embedding.extract import extract, shown_frames
from dinogrl.errors import DataError
from dinogrl.recipes.schema import Data
from dinogrl.records import Embeddings, ModelOutput, Tracklet


@dataclass(frozen=True)
class Looks:
    """How often a tracklet is looked at. The part vectors of all looks are averaged.

    ``flip``: also at the mirrored clip. ``clips``: at so many clips of interleaved frames, or at ``"all"`` frames. Together with
    the protocol's own single clip, the default, nothing is averaged.
    """

    flip: bool = False
    clips: int | Literal["all"] = 1

    def __post_init__(self) -> None:
        assert self.clips == "all" or self.clips >= 1, f"clips must be 'all' or at least 1, given {self.clips}"

    @classmethod
    def of(cls, flip: bool, clips: str) -> Looks:
        """From what a command line gives. Raises :class:`DataError` for clips that are neither ``all`` nor a number from 1 on."""
        if clips == "all":
            return cls(flip, "all")
        if not clips.isdecimal() or int(clips) < 1:
            raise DataError(f"cannot look at {clips!r} clips of a tracklet; give a number from 1 on, or all")
        return cls(flip, int(clips))

    @property
    def options(self) -> dict[str, str | int | float | bool]:
        """What goes into the result's options: nothing where nothing is done."""
        flip: dict[str, str | int | float | bool] = {"flip": True} if self.flip else {}
        return {**flip, **({"clips": self.clips} if self.clips != 1 else {})}


class FlipAveraged(nn.Module):
    """A network whose part vectors are the means of those of a clip and of its mirror image."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor, modality: Tensor, *masks: Tensor) -> ModelOutput:
        """As the network: frames (B,T,3,H,W), modality (B,), and masks (B,T,H,W) where it reads them."""
        plain: ModelOutput = self.network(frames, modality, *masks)
        mirrored: ModelOutput = self.network(frames.flip(-1), modality, *(mask.flip(-1) for mask in masks))
        return replace(plain, parts=(plain.parts + mirrored.parts) / 2)


def extract_looks(
    network: nn.Module,
    tracklets: Sequence[Tracklet],
    data: Data,
    device: torch.device | str,
    looks: Looks,
    *,
    sampling: str,
    batch: int,
    **options: Any,
) -> Embeddings:
    """Embed every tracklet, averaged over its looks; ``options`` go to :func:`dinogrl.embedding.extract.extract`.

    ``on_progress`` among them is told the number of tracklets done, however many clips each has.
    """
    clips = [split_clips(tracklet, data.frames, looks.clips) for tracklet in tracklets]
    loader = evaluation_loader([clip for of_one in clips for clip in of_one], data, sampling=sampling, batch=batch)
    told = options.pop("on_progress", None)
    if told is not None:
        ends = np.cumsum([len(of_one) for of_one in clips])
        options["on_progress"] = lambda done: told(int(np.searchsorted(ends, done, "right")))
    options["fingerprint"] = options.get("fingerprint") or checkpoints.fingerprint(network.state_dict())
    every = extract(FlipAveraged(network) if looks.flip else network, loader, device, **options)
    return average_clips(every, tracklets, [len(of_one) for of_one in clips])


def split_clips(tracklet: Tracklet, frames: int, clips: int | Literal["all"]) -> list[Tracklet]:
    """Clips of T = ``frames`` frames as tracklets of their own, which any sampling of T frames leaves as they are.

    Of m frames, T chunks of ceil(m / T) are made (the last frame fills up); clip j has the j-th frame of every chunk, so all clips
    together have all frames, and the first is that of HITSZ-VCM's own protocol. One clip: the tracklet itself.
    """
    if clips == 1:
        return [tracklet]
    length = -(-len(tracklet.frames) // frames)
    count = length if clips == "all" else min(clips, length)
    offsets = np.linspace(0, length, count, endpoint=False).astype(int)
    starts = np.arange(frames) * length
    picks = [np.minimum(starts + offset, len(tracklet.frames) - 1) for offset in offsets]
    return [
        replace(tracklet, id=f"{tracklet.id}#{j}", frames=tuple(tracklet.frames[i] for i in pick)) for j, pick in enumerate(picks)
    ]


def halves(tracklets: Sequence[Tracklet]) -> tuple[list[Tracklet], list[Tracklet]]:
    """First and second half of every tracklet under its own id, for temporal re-ranking; a single frame is in both."""
    middles = [max(1, len(tracklet.frames) // 2) for tracklet in tracklets]
    first = [replace(t, frames=t.frames[:middle]) for t, middle in zip(tracklets, middles, strict=True)]
    second = [replace(t, frames=t.frames[middle:] or t.frames) for t, middle in zip(tracklets, middles, strict=True)]
    return first, second


def average_clips(every: Embeddings, tracklets: Sequence[Tracklet], counts: Sequence[int]) -> Embeddings:
    """One row a tracklet from one row a clip, ``counts[i]`` of them in a row for ``tracklets[i]``."""
    assert sum(counts) == len(every), f"{sum(counts)} clips were made, {len(every)} embedded"
    first = np.cumsum([0, *counts[:-1]])
    one = every.take(first)
    for row, (start, count) in enumerate(zip(first, counts, strict=True)):  # all clips in float64 at once could fill the memory
        one.parts[row] = every.parts[start : start + count].mean(axis=0, dtype=np.float64)
    one.tracklet_ids = [tracklet.id for tracklet in tracklets]
    one.frames = [shown_frames(tracklet) for tracklet in tracklets]
    return one
