"""The authors' three checkpoint files and a ``dinogrl-released`` network of ours, in both directions.

``best_model``: the appearance stream; ``best_model2``: the enhancement; ``best_shape``: DINOv2, silhouette, priors, gait network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from dinogrl.checkpoints import load_foreign
from dinogrl.errors import CheckpointError
from dinogrl.models.archive import save_model
from dinogrl.models.build import build_model
from dinogrl.models.dinogrl import DinoGRL
from dinogrl.models.pretrained import dinov2_state, expect_tensors, official_dinov2_state
from dinogrl.recipes.loading import load_recipe

FILES = ("best_model", "best_model2", "best_shape")

# our prefix, file, published prefix; the same tensors on both sides
_RENAMED = (
    ("appearance.stems.0.conv1.", "best_model", "image_encoder1.resnet_conv.0."),
    ("appearance.stems.0.bn1.", "best_model", "image_encoder1.resnet_conv.1."),
    ("appearance.stems.1.conv1.", "best_model", "image_encoder2.resnet_conv.0."),
    ("appearance.stems.1.bn1.", "best_model", "image_encoder2.resnet_conv.1."),
    *((f"appearance.layers.layer{i + 1}.", "best_model", f"share_encoder.resnet_conv.{i}.") for i in range(4)),
    ("appearance_parts.weight", "best_model", "FCs.fc_bin"),
    ("appearance_neck.weight", "best_model", "BNNecks.fc_bin"),
    ("appearance_neck.norm.", "best_model", "BNNecks.bn1d."),
    ("gait.mask.norm.", "best_shape", "dinov2.Mask_Branch.bn_s."),
    ("gait.mask.encode.", "best_shape", "dinov2.Mask_Branch.down_sampling."),
    ("gait.mask.decode.", "best_shape", "dinov2.Mask_Branch.up_sampling."),
    ("gait.priors.gait.norm.", "best_shape", "dinov2.Denoising_Branch.bn_s."),
    ("gait.priors.gait.reduce.", "best_shape", "dinov2.Denoising_Branch.down_sampling.0."),
    ("gait.priors.gait.inner_norm.", "best_shape", "dinov2.Denoising_Branch.down_sampling.1."),
    ("gait.priors.gait.assign.", "best_shape", "dinov2.Denoising_Branch.down_sampling.3."),
    ("gait.priors.appearance.norm.", "best_shape", "dinov2.Appearance_Branch.bn_s."),
    ("gait.priors.appearance.reduce.", "best_shape", "dinov2.Appearance_Branch.down_sampling."),
    ("gait.priors.appearance.out_norm.", "best_shape", "dinov2.Appearance_Branch.bn_t."),
    ("gait.encoders.gait.conv1.", "best_shape", "dinov2.gait_net.pre_part.forward_block.conv1.conv."),
    ("gait.encoders.gait.", "best_shape", "dinov2.gait_net.pre_part.forward_block."),
    ("gait.encoders.appearance.conv1.", "best_shape", "dinov2.gait_net.pre_rgb.forward_block.conv1.conv."),
    ("gait.encoders.appearance.", "best_shape", "dinov2.gait_net.pre_rgb.forward_block."),
    ("gait.fusion.score.", "best_shape", "dinov2.gait_net.fusion.conv.forward_block."),
    *((f"gait.layers.layer{i + 1}.", "best_shape", f"dinov2.gait_net.post_backbone.resnet_conv.{i}.") for i in range(4)),
    ("gait_parts.weight", "best_shape", "dinov2.gait_net.FCs.fc_bin"),
    ("gait_neck.weight", "best_shape", "dinov2.gait_net.BNNecks.fc_bin"),
    ("gait_neck.norm.", "best_shape", "dinov2.gait_net.BNNecks.bn1d."),
)
_PRIOR, _PUBLISHED_PRIOR = "gait.prior.vit.", "dinov2.dinov2."

# what the published networks save and never use
_UNUSED = {
    "best_model": re.compile(r"share_encoder\.GAP\.p"),
    "best_model2": re.compile(r"(?!)"),
    "best_shape": re.compile(r"dinov2\.(gait_net\.(gcn_[sa]\..*|post_backbone\.GAP\.p)|(Mask|Denoising)_Branch\.bn_t\..*)"),
}

# our stacked tensor of the enhancement -> the published tensors of its signs (None: one tensor for both), and their shape
_DIRECTIONS = ("enhance_shape_net_3", "enhance_app_net_3")
_ENHANCEMENT: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {
    "query_weight": (("theta.weight",), (-1, 1, 1)),
    "query_bias": (("theta.bias",), (-1,)),
    "key_weight": (("phi.weight",), (-1, 1, 1)),
    "key_bias": (("phi.bias",), (-1,)),
    "value_weight": (("g.0.weight",), (-1, 1, 1)),
    "value_bias": (("g.0.bias",), (-1,)),
    "out_weight": (("W1.0.weight", "W2.0.weight"), (1, -1, 1)),
    "out_bias": (("W1.0.bias", "W2.0.bias"), (1,)),
    "gain": (("W1.1.weight", "W2.1.weight"), (1,)),
    "shift": (("W1.1.bias", "W2.1.bias"), (1,)),
    "running_mean": (("W1.1.running_mean", "W2.1.running_mean"), (1,)),
    "running_var": (("W1.1.running_var", "W2.1.running_var"), (1,)),
}
_STEPS_SEEN = ("W1.1.num_batches_tracked", "W2.1.num_batches_tracked")


def load_released(
    model: DinoGRL, best_model: Mapping[str, Tensor], best_model2: Mapping[str, Tensor], best_shape: Mapping[str, Tensor]
) -> list[str]:
    """Fill a ``dinogrl-released`` network from the authors' three state dicts.

    Returns the names of the tensors left out because the published network never uses them. Raises :class:`CheckpointError` that
    lists, by their published names, the tensors that are missing, unexpected or of another shape; another number of identities
    than the model's is among these (:func:`released_identities`).
    """
    given = dict(zip(FILES, (best_model, best_model2, best_shape), strict=True))
    expected = to_released(model)
    dropped: list[str] = []
    used: dict[str, dict[str, Tensor]] = {}
    for file, tensors in given.items():
        unused = [name for name in tensors if _UNUSED[file].fullmatch(name)]
        dropped += [f"{file}: {name}" for name in unused]
        used[file] = {name: tensor for name, tensor in tensors.items() if name not in set(unused)}
        expect_tensors(used[file], expected[file], file)
    model.load_state_dict(_from_released(used, model))
    return dropped


def read_released(path: Path) -> dict[str, Tensor]:
    """One of the authors' files as a state dict; nothing in it is executed."""
    content = load_foreign(path)
    inner = content.get("state_dict", content)
    strange = (
        [name for name, value in inner.items() if not isinstance(value, Tensor)] if isinstance(inner, dict) else ["state_dict"]
    )
    if strange:
        raise CheckpointError(f"{path} holds more than tensors ({', '.join(map(str, strange[:4]))}); expected a state dict")
    return {str(name).removeprefix("module."): value for name, value in inner.items()}


def convert_released(best_model: Path, best_model2: Path, best_shape: Path, out: Path) -> list[str]:
    """Turn the authors' three files into one model file of ours; returns the names of the tensors left out.

    The number of identities is read from them. Raises :class:`CheckpointError` as :func:`load_released` does, before anything
    is written.
    """
    tensors = [read_released(path) for path in (best_model, best_model2, best_shape)]
    identities = released_identities(tensors[2])
    recipe = load_recipe("dinogrl-released")
    model = build_model(recipe, identities, start_weights=False)
    dropped = load_released(model, *tensors)
    sources = [path.name for path in (best_model, best_model2, best_shape)]
    save_model(out, model, recipe, identities, {"converted_from": sources, "selection": "published"})
    return dropped


def released_identities(best_shape: Mapping[str, Tensor]) -> int:
    """Number of training identities of a published checkpoint, as its gait classifier says."""
    name = "dinov2.gait_net.BNNecks.fc_bin"
    if name not in best_shape or best_shape[name].ndim != 3:
        raise CheckpointError(f"best_shape holds no classifier {name!r}; are the three files given in the right order?")
    return int(best_shape[name].shape[2])


def to_released(model: DinoGRL) -> dict[str, dict[str, Tensor]]:
    """The network's tensors as the published files name and shape them: file -> state dict.

    The tensors that the published network holds but never uses are left out: load these with ``strict=False`` there. Raises
    :class:`CheckpointError` for a network with parts that the published one lacks.
    """
    files: dict[str, dict[str, Tensor]] = {file: {} for file in FILES}
    state = model.state_dict()
    prior = {name.removeprefix(_PRIOR): tensor for name, tensor in state.items() if name.startswith(_PRIOR)}
    files["best_shape"] |= {_PUBLISHED_PRIOR + name: tensor for name, tensor in official_dinov2_state(prior).items()}
    strange = []
    for name, tensor in state.items():
        rule = next((rule for rule in _RENAMED if name.startswith(rule[0])), None)
        if rule is not None:
            ours, file, theirs = rule
            width = model.appearance_parts.weight.shape[2]
            files[file][theirs + name.removeprefix(ours)] = _parts_last(name, tensor, width)
        elif name.startswith("enhancement.query."):
            files["best_model2"] |= _enhancement_to_released(name.removeprefix("enhancement.query."), tensor)
        elif not name.startswith(_PRIOR):
            strange.append(name)
    if strange:
        raise CheckpointError(f"the published network has nothing like {', '.join(strange[:8])}; use the recipe dinogrl-released")
    return files


def _from_released(files: Mapping[str, Mapping[str, Tensor]], model: DinoGRL) -> dict[str, Tensor]:
    """Our state dict from tensors that have been checked."""
    state: dict[str, Tensor] = {}
    parts = model.appearance_neck.weight.shape[0]
    for file, tensors in files.items():
        for name, tensor in tensors.items():
            # the longest prefix: 'bn1d.' of the neck is no 'bn1.'
            rules = [rule for rule in _RENAMED if rule[1] == file and name.startswith(rule[2])]
            if rules:
                ours, _, theirs = max(rules, key=lambda rule: len(rule[2]))
                mine = ours + name.removeprefix(theirs)
                state[mine] = _parts_last(mine, tensor, parts)
    prior = {n.removeprefix(_PUBLISHED_PRIOR): t for n, t in files["best_shape"].items() if n.startswith(_PUBLISHED_PRIOR)}
    state |= {_PRIOR + name: tensor for name, tensor in dinov2_state(prior).items()}
    for mine, (theirs_by_sign, _) in _ENHANCEMENT.items():
        signs = [
            torch.stack([files["best_model2"][f"{direction}.{theirs}"].flatten() for direction in _DIRECTIONS])
            for theirs in theirs_by_sign
        ]  # each (2,n)
        shape = model.state_dict()[f"enhancement.query.{mine}"].shape
        state[f"enhancement.query.{mine}"] = torch.stack(signs, dim=1).reshape(shape)
    state["enhancement.query.steps_seen"] = files["best_model2"][f"{_DIRECTIONS[0]}.{_STEPS_SEEN[0]}"]
    return state


def _enhancement_to_released(mine: str, tensor: Tensor) -> dict[str, Tensor]:
    """Published tensors, of both directions and signs, that one stacked tensor of ours stands for."""
    if mine == "steps_seen":
        return {f"{direction}.{theirs}": tensor for direction in _DIRECTIONS for theirs in _STEPS_SEEN}
    if mine not in _ENHANCEMENT or tensor.shape[0] != 1:
        raise CheckpointError("the published enhancement is shared and re-projects its query; use the recipe dinogrl-released")
    theirs_by_sign, shape = _ENHANCEMENT[mine]
    pieces = tensor.reshape(2, len(theirs_by_sign), -1)
    return {
        f"{direction}.{theirs}": pieces[i, j].reshape(shape)
        for i, direction in enumerate(_DIRECTIONS)
        for j, theirs in enumerate(theirs_by_sign)
    }


def _parts_last(name: str, tensor: Tensor, rows: int) -> Tensor:
    """Turn a neck's batch norm from part by part, as here, into channel by channel, as there (``rows`` = D); or back (= P)."""
    if "_neck.norm." in name and tensor.ndim == 1:
        return tensor.reshape(-1, rows).T.reshape(-1)
    return tensor
