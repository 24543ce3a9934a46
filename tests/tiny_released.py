"""The published network's files, made up: the real geometry with a few channels, and weights by a rule from names alone."""

from __future__ import annotations

import zlib

import numpy as np
import torch
from torch import Tensor

from dinogrl.models.build import build_model
from dinogrl.models.dinogrl import DinoGRL
from dinogrl.models.weights import load_released, to_released
from dinogrl.recipes import Recipe
from tiny_models import tiny_recipe

HEADS, BLOCKS, PRIOR_SIZE, MAP_SIZE = 2, (1, 3), (448, 224), (64, 32)
_REAL_GEOMETRY = (
    f"model.gait.prior.height={PRIOR_SIZE[0]}",
    f"model.gait.prior.width={PRIOR_SIZE[1]}",
    f"model.gait.map_height={MAP_SIZE[0]}",
    f"model.gait.map_width={MAP_SIZE[1]}",
    "model.gait.mask_dropout=0",
)
Files = dict[str, dict[str, Tensor]]


def small_released_recipe(*more: str) -> Recipe:
    """``dinogrl-released`` at the published image, token and map sizes, a few channels wide."""
    return tiny_recipe("dinogrl-released", *_REAL_GEOMETRY, *more)


def made_up(shapes: dict[str, dict[str, tuple[int, ...]]], seed: int = 0) -> Files:
    """Tensors for names and shapes, each drawn from its name and ``seed``, sized so that the network neither dies nor explodes."""
    return {file: {name: _tensor(file, name, shape, seed) for name, shape in named.items()} for file, named in shapes.items()}


def small_files(identities: int = 5, seed: int = 0) -> Files:
    """The three state dicts of :func:`small_released_recipe`, complete."""
    with torch.device("meta"):
        model = build_model(small_released_recipe(), identities)
    shapes = {file: {name: tuple(t.shape) for name, t in tensors.items()} for file, tensors in to_released(model).items()}
    return made_up(shapes, seed)


def small_model(files: Files, *more: str) -> DinoGRL:
    """A network of ours with these weights."""
    identities = files["best_shape"]["dinov2.gait_net.BNNecks.fc_bin"].shape[2]
    model = build_model(small_released_recipe(*more), identities)
    load_released(model, *files.values())
    return model


def _tensor(file: str, name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return torch.tensor(7)
    z = np.random.default_rng([zlib.crc32(f"{file}.{name}".encode()), seed]).standard_normal(shape)
    scaled = {
        "running_mean": 0.1 * z,
        "running_var": np.abs(1 + 0.1 * z),
        "bias": 0.1 * z,
        "p": 3 + 0.1 * z,
        "gamma": 0.3 + 0.03 * z,
    }
    if leaf in scaled:
        value = scaled[leaf]
    elif leaf in {"cls_token", "pos_embed", "mask_token"}:
        value = 0.3 * z
    elif len(shape) == 1:
        value = 1 + 0.1 * z
    elif file == "best_model2" and shape[1:] == (1, 1):
        value = 0.1 * z
    else:
        value = z / np.sqrt(shape[1] if leaf == "fc_bin" else np.prod(shape[1:]))
    return torch.from_numpy(value.astype(np.float32))
