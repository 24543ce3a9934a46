"""Every frozen prior there is: its name, its size, the family that runs it and the hub's name of its weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import Dinov2Config, Dinov2WithRegistersConfig, DINOv3ViTConfig, PretrainedConfig

from dinogrl.catalog import Catalog
from dinogrl.errors import CheckpointError
from dinogrl.models.backbones import dinov2, dinov3
from dinogrl.models.backbones.frozen import FrozenPrior
from dinogrl.recipes import schema

CONFIGS: Catalog[Callable[[], Any]] = Catalog("prior", {**dinov2.CONFIGS, **dinov3.CONFIGS})
HUB_NAMES: Catalog[str] = Catalog("hub name of prior", {**dinov2.HUB_NAMES, **dinov3.HUB_NAMES})

SHAPES: Catalog[Callable[..., Any]] = Catalog(
    "family of prior", {"dinov2": dinov2.config_of_shape, "dinov3": dinov3.config_of_shape}
)
_KINDS: dict[str, type[PretrainedConfig]] = {
    "dinov2": Dinov2Config,
    "dinov2_with_registers": Dinov2WithRegistersConfig,
    "dinov3_vit": DINOv3ViTConfig,
}


def config_of_shape(shape: schema.PriorShape) -> Any:
    """Configuration of a prior of one's own size."""
    return SHAPES[shape.family](**shape.model_dump(exclude={"family"}))


def shape_of_config(config: Any) -> dict[str, Any]:
    """The reverse of :func:`config_of_shape`, as plain values."""
    third = isinstance(config, DINOv3ViTConfig)
    return {
        "family": "dinov3" if third else "dinov2",
        "width": config.hidden_size,
        "depth": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "positions": config.image_size // config.patch_size,
        "registers": getattr(config, "num_register_tokens", 0),
        "mlp": config.intermediate_size / config.hidden_size if third else config.mlp_ratio,
        "gated": config.use_gated_mlp if third else config.use_swiglu_ffn,
    }


def read_config(folder: Path) -> Any:
    """Architecture stated by the config.json of a Hugging Face directory. Raises :class:`CheckpointError` for other models."""
    try:
        values, _ = PretrainedConfig.get_config_dict(str(folder), local_files_only=True)
    except OSError as error:
        raise CheckpointError(f"cannot read {folder}/config.json: {' '.join(str(error).split())}") from error
    if values.get("model_type") not in _KINDS:
        raise CheckpointError(f"{folder} holds a {values.get('model_type')!r} model, expected one of {', '.join(_KINDS)}")
    return _KINDS[values["model_type"]].from_dict(values)


def make_prior(config: Any, recipe: schema.Prior) -> FrozenPrior:
    """The network of a configuration, without weights, as a recipe wants it run."""
    size, awaiting = (recipe.height, recipe.width), not recipe.random_init
    if isinstance(config, DINOv3ViTConfig):
        return dinov3.FrozenDinov3(config, size, recipe.blocks, recipe.precision, awaiting)
    return dinov2.FrozenDinov2(config, size, recipe.blocks, recipe.positions, recipe.precision, awaiting)
