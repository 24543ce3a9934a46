"""The authors' three state dicts and a ``dinogrl-released`` network of ours, in both directions.

``best_model``: the appearance stream; ``best_model2``: the enhancement; ``best_shape``: DINOv2, silhouette, priors, gait network.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dinogrl.errors import CheckpointError
from dinogrl.models.dinogrl import DinoGRL
from dinogrl.models.pretrained import dinov2_state, expect_tensors, official_dinov2_state

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

# of what the published network saves and never reads: hops of the graph convolutions, start of generalised-mean pooling
GRAPH_SCALES, POOLING_EXPONENT = 5, 3.0
APPEARANCE_CLASSIFIER = "BNNecks.fc_bin"
HARD_CODED_CLASSES = 500
"""Identities of the appearance classifier in the published source, whatever the dataset (those of HITSZ-VCM)."""

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
    """Fill a ``dinogrl-released`` network from the authors' three state dicts, of any floating-point type.

    Returns the names of the tensors left out because the published network never uses them. Raises :class:`CheckpointError` that
    lists, by their published names, the tensors that are missing, unexpected or of another shape; another number of identities
    than the model's is among these (:func:`released_identities`). One exception: the published source gives its appearance
    classifier 500 identities whatever the dataset. Of such a classifier the first columns are taken, as many as the model has
    identities, beginning again where that is more than 500. Embeddings do not depend on classifiers.
    """
    given = dict(zip(FILES, (best_model, best_model2, best_shape), strict=True))
    given["best_model"] = _with_own_classes(best_model, model)
    expected, unused = _used(model), _unused(model)
    dropped: list[str] = []
    used: dict[str, dict[str, Tensor]] = {}
    for file, tensors in given.items():
        dropped += [f"{file}: {name}" for name in tensors if name in unused[file]]
        used[file] = {name: tensor for name, tensor in tensors.items() if name not in unused[file]}
        expect_tensors(used[file], expected[file], file)
    model.load_state_dict(_from_released(used, model))
    return dropped


def released_identities(best_shape: Mapping[str, Tensor]) -> int:
    """Number of training identities of a published checkpoint, as its gait classifier says."""
    name = "dinov2.gait_net.BNNecks.fc_bin"
    if name not in best_shape or best_shape[name].ndim != 3:
        raise CheckpointError(f"best_shape holds no classifier {name!r}; are the three files given in the right order?")
    return int(best_shape[name].shape[2])


def to_released(model: DinoGRL) -> dict[str, dict[str, Tensor]]:
    """The network's tensors as the published files name and shape them: file -> state dict, for ``strict=True`` there.

    The tensors that the published network holds but never reads are among them: graph convolutions of zeros, pooling exponents
    of 3, batch norms as they are made. Raises :class:`CheckpointError` for a network with parts that the published one lacks.
    """
    used, unused = _used(model), _unused(model)
    return {file: used[file] | unused[file] for file in FILES}


def _used(model: DinoGRL) -> dict[str, dict[str, Tensor]]:
    """All of the network's tensors by their published names."""
    files: dict[str, dict[str, Tensor]] = {file: {} for file in FILES}
    state = model.state_dict()
    prior = {name.removeprefix(_PRIOR): tensor for name, tensor in state.items() if name.startswith(_PRIOR)}
    files["best_shape"] |= {_PUBLISHED_PRIOR + name: tensor for name, tensor in official_dinov2_state(prior).items()}
    strange, wanted = [], {ours for ours, _, _ in _RENAMED}
    for name, tensor in state.items():
        rule = next((rule for rule in _RENAMED if name.startswith(rule[0])), None)
        if rule is not None:
            ours, file, theirs = rule
            wanted.discard(ours)
            width = model.appearance_parts.weight.shape[2]
            files[file][theirs + name.removeprefix(ours)] = _parts_last(name, tensor, width)
        elif name.startswith("enhancement.query."):
            files["best_model2"] |= _enhancement_to_released(name.removeprefix("enhancement.query."), tensor)
        elif not name.startswith(_PRIOR):
            strange.append(name)
    if not files["best_model2"]:
        wanted.add("enhancement.")
    if strange or wanted:
        what = f"nothing like {', '.join(strange[:8])}" if strange else f"{', '.join(sorted(wanted)[:8])} besides"
        raise CheckpointError(f"the published network has {what}; use the recipe dinogrl-released")
    return files


def _unused(model: DinoGRL) -> dict[str, dict[str, Tensor]]:
    """What the published networks save and never read, as they make it, but for the graph convolutions' random start."""
    parts, channels = sum(model.stripes), model.appearance.out_channels
    prior_channels = len(model.state_dict()["gait.priors.gait.assign.bias"])
    graph = {
        "A_res": torch.zeros(GRAPH_SCALES * parts, parts),
        "mlp.layers.0.weight": torch.zeros(channels, GRAPH_SCALES * channels, 1),
        "mlp.layers.0.bias": torch.zeros(channels),
        **_prefixed("mlp.layers.1.", nn.BatchNorm1d(channels)),
    }
    best_shape = {
        **_prefixed("dinov2.Mask_Branch.bn_t.", nn.BatchNorm1d(2, affine=False)),
        **_prefixed("dinov2.Denoising_Branch.bn_t.", nn.BatchNorm1d(prior_channels, affine=False)),
        "dinov2.gait_net.post_backbone.GAP.p": torch.full((1,), POOLING_EXPONENT),
        **{f"dinov2.gait_net.gcn_{side}.stgc_p2p.{name}": tensor for side in "sa" for name, tensor in graph.items()},
    }
    return {"best_model": {"share_encoder.GAP.p": torch.full((1,), POOLING_EXPONENT)}, "best_model2": {}, "best_shape": best_shape}


def _prefixed(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in module.state_dict().items()}


def _with_own_classes(best_model: Mapping[str, Tensor], model: DinoGRL) -> Mapping[str, Tensor]:
    """The same tensors, a hard-coded classifier among them brought to the model's number of identities."""
    theirs, own = best_model.get(APPEARANCE_CLASSIFIER), model.appearance_neck.weight.shape
    if theirs is None or theirs.shape != (*own[:2], HARD_CODED_CLASSES) or theirs.shape == own:
        return best_model
    return {**best_model, APPEARANCE_CLASSIFIER: theirs[:, :, torch.arange(own[2]) % HARD_CODED_CLASSES]}


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
