"""The costly steps, each ready to be run again and again: what ``dinogrl bench`` measures.

A stage is made inside the process that measures it. ``ours`` is what the program does; ``literal`` the same function written down
step by step in float32 (``benchmarks/literal.py``), where there is one.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dinogrl import runtime
from dinogrl.data.frames import decode, encode_jpeg, write_image
from dinogrl.data.loaders import TrainingLoader, evaluation_loader
from dinogrl.distances import mean_part_distance
from dinogrl.embedding.feature_cache import FeatureCache
from dinogrl.losses import Objective
from dinogrl.models.backbones.resnet import Layers
from dinogrl.models.build import build_model
from dinogrl.models.dinogrl import DinoGRL
from dinogrl.models.enhancement.local_to_global import LocalToGlobal
from dinogrl.models.weights import to_released
from dinogrl.recipes import Recipe, load_recipe
from dinogrl.records import Modality, Tracklet
from dinogrl.training.optimisers import make_optimiser
from dinogrl.training.tuning import tune

STRIPES = (1, 2, 4, 8, 16)
PRIOR_SIZE, MAP_SIZE, BLOCKS, HEADS = (448, 224), (64, 32), (2, 5, 8, 11), 6
IDENTITIES = 500


@dataclass(frozen=True)
class Setting:
    """Where and how a stage runs; ``literal`` is the file that holds the literal implementation.

    ``clips``, an even number: so many go through the network at once to be embedded, twice as many in a training step.
    """

    device: torch.device
    bfloat16: bool
    literal: Path | None = None
    clips: int = 4

    def autocast(self) -> torch.autocast:
        """The precision that is asked for."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16)


@dataclass(frozen=True)
class Work:
    """One call does ``units`` things and ``flop`` floating-point operations (0: not counted); ``kept`` lives as long."""

    run: Callable[[], object]
    units: int
    flop: float = 0.0
    kept: object = None


@dataclass(frozen=True)
class Stage:
    """``reduced``: also measured in bfloat16. ``single``: on one thread, so that the rate is one core's. ``usual``: measured
    where no stage is named."""

    name: str
    unit: str
    ours: Callable[[Setting], Work]
    literal: Callable[[Setting], Work] | None = None
    reduced: bool = False
    single: bool = False
    usual: bool = True


# ---- data


def _decoding(_: Setting) -> Work:
    content, many = encode_jpeg(_pattern(0)), 200
    return Work(lambda: [decode(content) for _ in range(many)], many)


def _loading(augmented: bool, _: Setting) -> Work:
    """256x128 JPEG files to normalised batches, in one process."""
    kept, frames, tracklets = tempfile.TemporaryDirectory(prefix="dinogrl_bench_"), 6, []
    folder = Path(kept.name)
    recipe = load_recipe("dinogrl", ["data.workers=0", "training.batch.identities=4", "training.batch.clips=2"])
    for number in range(16):
        names = tuple(f"{number}_{i}.jpg" for i in range(12))
        for i, name in enumerate(names):
            write_image(folder / name, _pattern(100 * number + i))
        tracklets.append(Tracklet(str(number), number // 2, number % 2 + 1, Modality(number % 2), str(folder), names))
    if not augmented:
        loader = evaluation_loader(tracklets, recipe.data, sampling="segments", batch=16)
        return Work(lambda: list(loader), len(tracklets) * frames, kept=kept)
    training = TrainingLoader(tracklets, {i: i for i in range(8)}, recipe.data, recipe.training.batch, seed=1, steps_per_epoch=4)
    return Work(lambda: list(training.epoch(0)), 4 * 16 * frames, kept=kept)


def _pattern(seed: int) -> np.ndarray:
    """A smooth picture: JPEG files of the size that photographs have."""
    coarse = np.random.default_rng(seed).integers(0, 256, (32, 16, 3), dtype=np.uint8)
    return np.ascontiguousarray(cv2.resize(coarse, (128, 256)))


# ---- parts of the network, at the paper's sizes


def _prior(setting: Setting) -> Work:
    prior = _network(setting).get_submodule("gait.prior")
    frames = _clips(setting.clips, 6, setting)[0].flatten(0, 1)
    return _without_gradient(lambda some: prior(some), frames, len(frames), setting)


def _prior_literal(setting: Setting) -> Work:
    published = _published(setting)
    frames = _clips(setting.clips, 6, setting)[0].flatten(0, 1)
    return _without_gradient(lambda some: published.tokens(some, PRIOR_SIZE), frames, len(frames), setting)


def _resnet(setting: Setting) -> Work:
    runtime.seed_everything(1)
    layers = Layers(64, (3, 4, 6, 3)).eval().to(setting.device)
    maps = torch.randn(6 * setting.clips, 64, 64, 32, device=setting.device).contiguous(memory_format=torch.channels_last)
    return _without_gradient(lambda some: layers(some), maps, len(maps), setting)


def _enhancing(setting: Setting) -> Work:
    """As published: the query projected anew in every step, forward and backward."""
    runtime.seed_everything(1)
    module = LocalToGlobal(STRIPES, STRIPES[1:], channels=256, shared=True, latent=False).to(setting.device)
    gait, appearance = torch.randn(2, 8, sum(STRIPES), 256, device=setting.device).requires_grad_().unbind(0)
    return Work(lambda: _backward(torch.cat(module(gait, appearance), 1)), 8)


def _enhancing_literal(setting: Setting) -> Work:
    runtime.seed_everything(1)
    published = _literal(setting).Published({"best_model2": _enhancement_tensors(setting)}, True, HEADS, BLOCKS)
    gait, appearance = torch.randn(2, 8, sum(STRIPES), 256, device=setting.device).requires_grad_().unbind(0)
    return Work(lambda: _backward(torch.cat(published.enhanced(gait, appearance), 1)), 8)


def _enhancement_tensors(setting: Setting) -> dict[str, Tensor]:
    """Made up, in the published names: nothing else of the network shall count as this stage's memory."""
    shapes = {f"{name}.weight": (256, 1, 1) for name in ("theta", "phi", "g.0")} | {
        f"{name}.bias": (256,) for name in ("theta", "phi", "g.0")
    }
    for side in ("W1", "W2"):
        shapes |= {f"{side}.0.weight": (1, 256, 1), f"{side}.0.bias": (1,)}
        shapes |= {f"{side}.1.{name}": (1,) for name in ("weight", "bias", "running_mean", "running_var")}
    nets = ("enhance_shape_net_3", "enhance_app_net_3")
    return {f"{net}.{name}": 0.1 * torch.rand(shape, device=setting.device) for net in nets for name, shape in shapes.items()}


def _comparing(setting: Setting) -> Work:
    query, gallery = _parts(setting)
    return Work(
        lambda: mean_part_distance(query, gallery), len(query) * len(gallery), 2.0 * query[0].numel() * len(query) * len(gallery)
    )


def _comparing_literal(setting: Setting) -> Work:
    query, gallery = _parts(setting)
    return Work(lambda: _literal(setting).mean_part_distance(query, gallery), len(query) * len(gallery))


def _parts(setting: Setting) -> tuple[Tensor, Tensor]:
    runtime.seed_everything(1)
    return torch.randn(200, 70, 256, device=setting.device), torch.randn(1000, 70, 256, device=setting.device)


# ---- the whole network


def _embedding(setting: Setting) -> Work:
    network = _network(setting)
    frames, modality = _clips(setting.clips, 6, setting)
    return _without_gradient(lambda some: network(some, modality[: len(some)]), frames, 6 * setting.clips, setting, each=6)


def _embedding_again(setting: Setting) -> Work:
    """The same clips another time: their frozen features are read from a cache, which the first run fills."""
    network, kept, serving = _network(setting), tempfile.TemporaryDirectory(prefix="dinogrl_bench_"), ExitStack()
    serving.enter_context(FeatureCache(Path(kept.name)).serving(network))
    frames, modality = _clips(setting.clips, 6, setting)
    work = _without_gradient(lambda some: network(some, modality), frames, 6 * setting.clips, setting, count=False)
    return replace(work, kept=(kept, serving))


def _embedding_literal(setting: Setting) -> Work:
    published = _published(setting)
    frames, modality = _clips(setting.clips, 6, setting)
    return _without_gradient(
        lambda some: published.embedded(some, modality, PRIOR_SIZE, MAP_SIZE), frames, 6 * setting.clips, setting, count=False
    )


def _training(changes: dict[str, bool], setting: Setting) -> Work:
    """Forward, losses, backward and Adam: clips of 6 frames. ``changes`` to the recipe's ``training``."""
    recipe = _recipe()
    network, objective = _network(setting, recipe).train(), Objective(recipe.objective)
    optimiser = make_optimiser(network, recipe.training)

    def step(frames: Tensor, modality: Tensor, identity: Tensor) -> None:
        with setting.autocast():
            output = network(frames, modality)
            loss = objective(output, identity)["total"]
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    clips = 2 * setting.clips
    whole = (*_clips(clips, 6, setting), _identities(clips, setting))
    small = (*_clips(4, 1, setting), _identities(4, setting))
    flop = 6 * clips / 4 * _flop(lambda: step(*small))  # without what is computed again
    tune(network, recipe.training.model_copy(update=changes))
    if changes.get("compile"):
        step(*whole)  # minutes, in which nothing is trained: not what is measured
    return Work(lambda: step(*whole), 6 * clips, flop)


def _training_literal(setting: Setting) -> Work:
    published = _published(setting, train=True)
    optimiser = torch.optim.Adam(published.learn(), lr=3.5e-4, weight_decay=5e-4)
    clips = 2 * setting.clips
    (frames, modality), identity = _clips(clips, 6, setting), _identities(clips, setting)

    def step() -> None:
        published(frames, modality, identity, PRIOR_SIZE, MAP_SIZE, []).losses["total"].backward()
        optimiser.step()
        optimiser.zero_grad()

    return Work(step, 6 * clips)


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("decode", "frames", _decoding, single=True),
        Stage("load", "frames", partial(_loading, False), single=True),
        Stage("load-augmented", "frames", partial(_loading, True), single=True),
        Stage("prior", "frames", _prior, _prior_literal, reduced=True),
        Stage("resnet", "frames", _resnet, reduced=True),
        Stage("enhancement", "clips", _enhancing, _enhancing_literal),
        Stage("distance", "pairs", _comparing, _comparing_literal),
        Stage("embedding", "frames", _embedding, _embedding_literal, reduced=True),
        Stage("embedding-again", "frames", _embedding_again, _embedding_literal, reduced=True),
        Stage("training", "frames", partial(_training, {}), _training_literal, reduced=True),
        Stage("training-recompute", "frames", partial(_training, {"recompute": True}), _training_literal, reduced=True),
        Stage("training-compiled", "frames", partial(_training, {"compile": True}), _training_literal, reduced=True, usual=False),
    )
}
"""All stages by name, in the order of the table."""


def _recipe() -> Recipe:
    return load_recipe("dinogrl-released", ["model.gait.prior.random_init=true", "model.gait.mask_dropout=0"])


def _network(setting: Setting, recipe: Recipe | None = None) -> DinoGRL:
    runtime.seed_everything(1)
    return build_model(recipe or _recipe(), IDENTITIES).eval().to(setting.device)


def _clips(clips: int, frames: int, setting: Setting) -> tuple[Tensor, Tensor]:
    runtime.seed_everything(2)
    return torch.randn(clips, frames, 3, 256, 128, device=setting.device), torch.arange(clips) * 2 // clips


def _identities(clips: int, setting: Setting) -> Tensor:
    """Two clips of each in either modality."""
    return torch.arange(clips, device=setting.device) % (clips // 2) // 2


def _published(setting: Setting, train: bool = False) -> Any:
    """The literal network with the same weights."""
    files = {
        name: {key: value.to(setting.device) for key, value in tensors.items()}
        for name, tensors in to_released(_network(setting)).items()
    }
    return _literal(setting).Published(files, train, HEADS, BLOCKS)


def _literal(setting: Setting) -> ModuleType:
    """The file's module; it lies outside the package."""
    assert setting.literal is not None
    sys.path.insert(0, str(setting.literal.parent))
    return importlib.import_module(setting.literal.stem)


def _backward(value: Tensor) -> None:
    value.square().mean().backward()


def _without_gradient(
    function: Callable[[Tensor], object], rows: Tensor, units: int, setting: Setting, each: int = 1, count: bool = True
) -> Work:
    """``function`` of all ``rows``; the operations are counted on one row, which is ``each`` units."""

    def run(some: Tensor) -> None:
        with torch.no_grad(), setting.autocast():
            function(some)

    return Work(lambda: run(rows), units, units / each * _flop(lambda: run(rows[:1])) if count else 0.0)


def _flop(work: Callable[[], object]) -> float:
    """Counted with attention as plain products: the fused one hides its own."""
    with sdpa_kernel([SDPBackend.MATH]), FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())
