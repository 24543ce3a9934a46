"""Start weights from elsewhere: DINOv2 and ResNet as their authors publish them, and a published mask branch."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from torch import Tensor, nn

from dinogrl.checkpoints import expect_keys, load_tensors
from dinogrl.errors import CheckpointError, in_one_line
from dinogrl.models.backbones.dinov2 import SHIPPED
from dinogrl.models.backbones.dinov3 import FrozenDinov3, dinov3_state
from dinogrl.models.backbones.frozen import FrozenPrior
from dinogrl.models.backbones.priors import HUB_NAMES
from dinogrl.models.backbones.resnet import Layers, Stem
from dinogrl.models.streams.silhouette import MaskEncoder
from dinogrl.recipes import schema

VARIABLES = {"dinov2": "DINOGRL_DINOV2", "dinov3": "DINOGRL_DINOV3"}
"""Environment variables that name the weights, by the family of the prior."""
_TITLES = {"dinov2": "DINOv2", "dinov3": "DINOv3"}


def expect_tensors(given: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str) -> None:
    """Raise :class:`CheckpointError` listing the names of ``given`` that are missing or unexpected, or those of another shape."""
    expect_keys(given, expected, source)
    wrong = [
        f"{name} is {tuple(given[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if given[name].shape != tensor.shape
    ]
    if wrong:
        more = f" and {len(wrong) - 8} more" if len(wrong) > 8 else ""
        raise CheckpointError(f"{source} does not fit this model: {'; '.join(wrong[:8])}{more}")


def fit(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Load ``tensors``, which must be exactly those of ``module``. Raises :class:`CheckpointError` as :func:`expect_tensors`."""
    expect_tensors(tensors, module.state_dict(), source)
    module.load_state_dict(dict(tensors))


# official name -> name in transformers; the joint qkv and the gated MLP's joint w12 are split besides
_OFFICIAL = (
    (r"^cls_token$", "embeddings.cls_token"),
    (r"^mask_token$", "embeddings.mask_token"),
    (r"^register_tokens$", "embeddings.register_tokens"),
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^norm\.", "layernorm."),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"encoder.layer.\1.attention.o_proj."),
    (r"^blocks\.(\d+)\.ls([12])\.gamma$", r"encoder.layer.\1.layer_scale\2.lambda1"),
    (r"^blocks\.(\d+)\.mlp\.w3\.", r"encoder.layer.\1.mlp.down_proj."),
    (r"^blocks\.(\d+)\.", r"encoder.layer.\1."),
    # files of the hub, written by older versions of transformers
    (r"\.attention\.attention\.(query|key|value)\.", lambda found: f".attention.{found[1][0]}_proj."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.mlp\.weights_in\.", ".mlp.w12."),
    (r"\.mlp\.weights_out\.", ".mlp.down_proj."),
    (r"^dinov2(_with_registers)?\.", ""),
)
_JOINT = {"attn.qkv": ("attention.q_proj", "attention.k_proj", "attention.v_proj"), "mlp.w12": ("mlp.gate_proj", "mlp.up_proj")}


def dinov2_state(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """DINOv2 weights by the names that transformers uses, from the official names, or from those of any Hugging Face file."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        for pattern, new in _OFFICIAL:
            name = re.sub(pattern, new, name)
        joint = next((key for key in _JOINT if f".{key}." in name), None)
        if joint is None:
            renamed[name] = tensor
            continue
        for part, piece in zip(_JOINT[joint], tensor.chunk(len(_JOINT[joint])), strict=True):
            renamed[name.replace(joint, part)] = piece.clone()
    return renamed


_TO_OFFICIAL = (
    (r"^embeddings\.(cls_token|mask_token|register_tokens)$", r"\1"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^layernorm\.", "norm."),
    (r"^encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"\.attention\.o_proj\.", ".attn.proj."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.mlp\.down_proj\.", ".mlp.w3."),
)


def official_dinov2_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The reverse of :func:`dinov2_state`: from the names of transformers to those of DINOv2's authors."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        for pattern, new in _TO_OFFICIAL:
            name = re.sub(pattern, new, name)
        for joint, parts in _JOINT.items():
            if f".{parts[0]}." in name:
                tensor = torch.cat([state[_in_transformers(name).replace(parts[0], part)] for part in parts])
                name = name.replace(parts[0], joint)
        if not any(f".{part}." in name for parts in _JOINT.values() for part in parts):
            renamed[name] = tensor
    return renamed


def _in_transformers(name: str) -> str:
    return re.sub(r"^blocks\.", "encoder.layer.", name)


def prior_source(recipe: schema.Prior) -> Path | None:
    """File or directory with the prior's weights; None where the recipe wants none. May download from the hub.

    Raises :class:`CheckpointError` that says how to give them when there are none.
    """
    if recipe.random_init:
        return None
    variable = VARIABLES[recipe.family]
    given = recipe.weights or (None if recipe.name == "tiny" else os.environ.get(variable))
    if given == "checkpoint":
        given = os.environ.get(variable)
        if not given:
            return None
    if given and Path(given).expanduser().exists():
        return Path(given).expanduser()
    if given and (given.startswith((".", "/", "~")) or given.count("/") != 1):
        raise CheckpointError(f"no {_TITLES[recipe.family]} weights at {given} (from model.gait.prior.weights or {variable})")
    if not given and recipe.name == "tiny":
        if not (SHIPPED / "model.safetensors").is_file():
            raise CheckpointError(f"this installation lacks the tiny prior ({SHIPPED}); reinstall it, or name another prior")
        return SHIPPED
    return _from_hub(given or HUB_NAMES[recipe.name], recipe.family)


def _from_hub(name: str, family: str) -> Path:
    """The local copy of a hub model, downloaded if need be."""
    try:
        return Path(snapshot_download(name, allow_patterns=["config.json", "model*.safetensors*"]))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        raise CheckpointError(
            f"cannot get the {_TITLES[family]} weights {name!r} from the hub: {in_one_line(error, 160)}; give "
            f"model.gait.prior.weights or {VARIABLES[family]} the path of "
            "the authors' .pth, a .safetensors file or a Hugging Face directory"
        ) from error


def load_prior(prior: FrozenPrior, source: Path) -> None:
    """Fill the frozen prior from an official .pth, a .safetensors file or a Hugging Face directory."""
    files = sorted(source.glob("model*.safetensors")) if source.is_dir() else [source]
    if not files:
        raise CheckpointError(f"{source} holds no model.safetensors; give a Hugging Face directory with one, or a single file")
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors |= load_tensors(file)
    state = (dinov3_state if isinstance(prior, FrozenDinov3) else dinov2_state)(tensors)
    own = prior.vit.state_dict()
    # the mask token serves the prior's own training only, and files that went through a backbone class lack it
    if "embeddings.mask_token" in own:
        state.setdefault("embeddings.mask_token", torch.zeros_like(own["embeddings.mask_token"]))
    fit(prior.vit, state, str(source))
    prior.awaiting = False


def load_resnet(source: str, stems: Sequence[Stem], layers: Layers) -> None:
    """Fill stems (all alike) and layers from an ImageNet ResNet in torchvision's names; its classifier is left out.

    Non-local blocks, which ImageNet weights lack, keep their start; so do the step counters of the batch norms, which the older
    of torchvision's files lack.
    """
    tensors = load_tensors(Path(source).expanduser())
    for stem in stems:
        first = {name: tensor for name, tensor in tensors.items() if name.startswith(("conv1.", "bn1."))}
        fit(stem, _counters(stem) | first, source)
    own = {name: tensor for name, tensor in layers.state_dict().items() if name.startswith("non_local")}
    deep = {name: tensor for name, tensor in tensors.items() if name.startswith("layer")}
    fit(layers, own | _counters(layers) | deep, source)


def _counters(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in module.state_dict().items() if name.endswith("num_batches_tracked")}


def load_mask_branch(source: str, mask: MaskEncoder) -> None:
    """Fill E_m and its decoder from a published mask branch: ``{"model": {...}}``, as in MaskBranch_vits14.pt."""
    names = {"bn_s": "norm", "down_sampling": "encode", "up_sampling": "decode"}
    renamed = {}
    for name, tensor in load_tensors(Path(source).expanduser()).items():
        first, _, rest = name.partition(".")
        if first != "bn_t":  # there and unused
            renamed[f"{names.get(first, first)}.{rest}"] = tensor
    fit(mask, renamed, source)
