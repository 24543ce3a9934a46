"""How fast the costly steps are on this machine, beside a literal implementation of the same function.

Sizes are those of the paper unless a row says otherwise. Each row is the best of a few repetitions: what the machine can do, not
what else it was doing.
"""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from dinogrl import runtime
from dinogrl.data.frames import decode, encode_jpeg
from dinogrl.distances import mean_part_distance
from dinogrl.losses import Objective
from dinogrl.models.build import build_model
from dinogrl.models.enhancement.local_to_global import LocalToGlobal
from dinogrl.recipes import Recipe, load_recipe

STRIPES = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Measured:
    """One row: things done a second, here and by the literal implementation (None where there is none)."""

    name: str
    unit: str
    rate: float
    literal: float | None = None

    @property
    def gain(self) -> float | None:
        """How many times faster than the literal implementation."""
        return None if self.literal is None else self.rate / self.literal


def bench(repetitions: int = 3) -> Iterator[Measured]:
    """Measure one row after the other. Takes a minute or two on two cores."""
    runtime.seed_everything(1)
    for measure in (decoding, enhancing, comparing, embedding, training):
        yield measure(repetitions)


def peak_memory() -> int:
    """Bytes of memory that this process has held at most."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def decoding(repetitions: int) -> Measured:
    """JPEG bytes to an RGB array."""
    smooth = cv2.resize(np.random.default_rng(1).integers(0, 256, (16, 8, 3), dtype=np.uint8), (128, 256))
    content = encode_jpeg(np.ascontiguousarray(smooth))
    frames = 200
    ours = _seconds(lambda: [decode(content) for _ in range(frames)], repetitions)
    return Measured("decode a frame of 256 x 128", "frames", frames / ours)


def enhancing(repetitions: int) -> Measured:
    """Forward and backward through the local-to-global enhancement, as published (the query projected anew in every step)."""
    clips, width, granularities = 4, 256, STRIPES[1:]
    module = LocalToGlobal(STRIPES, granularities, channels=256, shared=True, latent=False)
    literal = LiteralEnhancement(width)
    gait, appearance = torch.randn(2, clips, sum(STRIPES), width).unbind(0)

    def ours() -> None:
        sum(part.square().mean() for part in module(gait.requires_grad_(), appearance)).backward()

    def literally() -> None:
        literal(gait.requires_grad_(), appearance).square().mean().backward()

    name = "enhance a clip, forward and backward"
    return Measured(name, "clips", clips / _seconds(ours, repetitions), clips / _seconds(literally, 1))


def comparing(repetitions: int) -> Measured:
    """Mean over 70 parts of the Euclidean distance."""
    random = np.random.default_rng(1)
    query, gallery = (random.standard_normal((rows, 70, 256), dtype=np.float32) for rows in (200, 1000))
    pairs = len(query) * len(gallery)
    ours = _seconds(lambda: mean_part_distance(query, gallery), repetitions)
    literal = _seconds(lambda: _distance_literally(query, gallery), repetitions)
    return Measured("compare two tracklets of 70 parts", "pairs", pairs / ours, pairs / literal)


def embedding(repetitions: int) -> Measured:
    """The demo's network in evaluation mode."""
    recipe = _offline("demo_dinogrl")
    model = build_model(recipe, identities=20).eval()
    frames, modality = _clips(recipe, 16)
    with torch.no_grad():
        return Measured("embed a clip, demo preset", "clips", 16 / _seconds(lambda: model(frames, modality), repetitions))


def training(repetitions: int) -> Measured:
    """The demo's network, its losses and their gradient."""
    recipe = _offline("demo_dinogrl")
    model, objective = build_model(recipe, identities=20).train(), Objective(recipe.objective)
    frames, modality = _clips(recipe, 16)
    identity = torch.arange(16) % 4

    def step() -> None:
        objective(model(frames, modality), identity)["total"].backward()

    return Measured("train on a clip, demo preset", "clips", 16 / _seconds(step, repetitions))


class LiteralEnhancement(torch.nn.Module):
    """The same enhancement as it would be written down: every relation of 256 x 256 is made and kept, one step after the other."""

    def __init__(self, width: int, channels: int = 256) -> None:
        super().__init__()
        self.width = width
        self.query, self.key, self.value = (torch.nn.Conv1d(1, channels, 1) for _ in range(3))
        self.plus, self.minus = (torch.nn.Sequential(torch.nn.Conv1d(channels, 1, 1), torch.nn.BatchNorm1d(1)) for _ in range(2))

    def forward(self, gait: Tensor, appearance: Tensor) -> Tensor:
        """(B,P,D) twice -> all enhanced features, (2G,B,D)."""
        found, start = [], 1
        for stripes in STRIPES[1:]:
            one, other = gait[:, 0], appearance[:, 0]
            for part in range(start, start + stripes):
                one, other = self._step(one, appearance[:, part]), self._step(other, gait[:, part])
            found += [one, other]
            start += stripes
        return torch.stack(found)

    def _step(self, feature: Tensor, stripe: Tensor) -> Tensor:
        query, key, value = self.query(feature[:, None]), self.key(stripe[:, None]), self.value(stripe[:, None])
        relation = query.transpose(1, 2) @ key / self.width
        sides = [
            side(value @ part.transpose(1, 2)) for side, part in ((self.plus, relation.relu()), (self.minus, (-relation).relu()))
        ]
        return feature + (sides[0] - sides[1])[:, 0]


def _distance_literally(query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    total = np.zeros((len(query), len(gallery)), dtype=np.float32)
    for part in range(query.shape[1]):
        a, b = query[:, part], gallery[:, part]
        squared = (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * a @ b.T
        total += np.sqrt(np.maximum(squared, 0))
    return total / query.shape[1]


def _offline(name: str) -> Recipe:
    return load_recipe(name, ["model.gait.prior.random_init=true"])


def _clips(recipe: Recipe, count: int) -> tuple[Tensor, Tensor]:
    data = recipe.data
    return torch.randn(count, data.frames, 3, data.height, data.width), torch.arange(count) % 2


def _seconds(work: Callable[[], object], repetitions: int) -> float:
    work()
    best = math.inf
    for _ in range(repetitions):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best
