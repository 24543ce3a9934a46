"""The frozen DINOv3: patches of 16 pixels, registers always, and rotary positions instead of a table.

The transformer itself comes from ``transformers``; here are the published sizes and the names of the authors' own files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from dinogrl.catalog import Catalog
from dinogrl.models.backbones.frozen import FrozenPrior, Prepared


def config_of_shape(
    width: int, depth: int, heads: int, positions: int = 14, registers: int = 4, mlp: float = 4, gated: bool = False
) -> DINOv3ViTConfig:
    """A DINOv3 of any size. ``mlp``: width of the MLP over that of a token; ``gated``: SwiGLU; ``positions``: side of the image, in
    patches, that the configuration states (rotary positions take any)."""
    return DINOv3ViTConfig(
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        image_size=16 * positions,
        patch_size=16,
        num_register_tokens=registers,
        intermediate_size=int(mlp * width),
        use_gated_mlp=gated,
        hidden_act="silu" if gated else "gelu",
    )


CONFIGS: Catalog[Callable[[], DINOv3ViTConfig]] = Catalog(
    "prior",
    {
        "dinov3_vits16": lambda: config_of_shape(384, 12, 6),
        "dinov3_vits16plus": lambda: config_of_shape(384, 12, 6, gated=True),
        "dinov3_vitb16": lambda: config_of_shape(768, 12, 12),
        "dinov3_vitl16": lambda: config_of_shape(1024, 24, 16),
        "dinov3_vith16plus": lambda: config_of_shape(1280, 32, 20, gated=True),
    },
)

HUB_NAMES: Catalog[str] = Catalog(
    "hub name of prior", {name: f"facebook/{name.replace('_', '-')}-pretrain-lvd1689m" for name in CONFIGS}
)


class FrozenDinov3(FrozenPrior):
    """DINOv3 of any size."""

    def __init__(
        self, config: DINOv3ViTConfig, size: tuple[int, int], blocks: Sequence[int], precision: str = "auto", awaiting: bool = False
    ) -> None:
        super().__init__(DINOv3ViTModel(config), size, blocks, precision, awaiting)

    def layers(self, vit: Any) -> Sequence[nn.Module]:
        return vit.model.layer

    def last_norm(self, vit: Any) -> nn.Module:
        return vit.norm

    def positions_on_grid(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines, (h*w, D/heads) each. Their angles are made in float32 whatever the precision of the blocks."""
        like = self.vit.embeddings.patch_embeddings.weight
        # what is made in inference mode could never take part in a training step, and this is kept for later calls
        with torch.inference_mode(False), torch.no_grad():
            cosine, sine = self.vit.rope_embeddings(torch.empty(1, 1, *self.size, device=like.device))
            return cosine.clone().to(dtype), sine.clone().to(dtype)

    def embed(self, ready: Prepared, frames: Tensor) -> Tensor:
        return torch.as_tensor(ready.vit.embeddings(frames))

    def step(self, block: nn.Module, x: Tensor, ready: Prepared) -> Tensor:
        return torch.as_tensor(block(x, position_embeddings=ready.positions))


# official name -> name in transformers; the joint qkv is split besides
_OFFICIAL = (
    (r"^(cls_token|mask_token)$", r"embeddings.\1"),
    (r"^storage_tokens$", "embeddings.register_tokens"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings."),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"model.layer.\1.attention.o_proj."),
    (r"^blocks\.(\d+)\.attn\.", r"model.layer.\1.attention."),
    (r"^blocks\.(\d+)\.ls([12])\.gamma$", r"model.layer.\1.layer_scale\2.lambda1"),
    (r"^blocks\.(\d+)\.mlp\.(fc1|w2)\.", r"model.layer.\1.mlp.up_proj."),
    (r"^blocks\.(\d+)\.mlp\.w1\.", r"model.layer.\1.mlp.gate_proj."),
    (r"^blocks\.(\d+)\.mlp\.(fc2|w3)\.", r"model.layer.\1.mlp.down_proj."),
    (r"^blocks\.(\d+)\.", r"model.layer.\1."),
    (r"^layer\.", "model.layer."),  # as files of the hub have it
)
_DERIVED = re.compile(r"^(rope_embed(dings)?\.|.*\.bias_mask$)")
"""Tensors of the authors' files that follow from the architecture: frequencies, and the mask that says keys have no bias."""


def dinov3_state(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """DINOv3 weights by the names that transformers uses, from the official names, or from those of a Hugging Face file."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if _DERIVED.match(name):
            continue
        for pattern, new in _OFFICIAL:
            name = re.sub(pattern, new, name)
        if ".qkv." not in name:
            renamed[name] = tensor
            continue
        for letter, piece in zip("qkv", tensor.chunk(3), strict=True):
            if not (letter == "k" and name.endswith("bias")):  # always masked to zero
                renamed[name.replace("qkv", f"{letter}_proj")] = piece.clone()
    return renamed
