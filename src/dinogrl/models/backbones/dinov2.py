"""The frozen DINOv2.

The transformer itself comes from ``transformers``; here are the table of published sizes and the position table for frames that are
not square. What all families share stands in :mod:`dinogrl.models.backbones.frozen`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from dinogrl.catalog import Catalog
from dinogrl.models.backbones.frozen import FrozenPrior, Prepared

SHIPPED = Path(__file__).parents[2] / "assets" / "prior"
Config: TypeAlias = Dinov2Config | Dinov2WithRegistersConfig


def config_of_shape(
    width: int, depth: int, heads: int, positions: int, registers: int = 0, mlp: float = 4, gated: bool = False
) -> Config:
    """A DINOv2 of one's own size, with a table of ``positions`` x ``positions`` patches of 14 pixels."""
    return _size(width, depth, heads, gated, registers, 14 * positions, mlp)


def _size(
    width: int, depth: int, heads: int, swiglu: bool = False, registers: int = 0, image_size: int = 518, mlp: float = 4
) -> Config:
    """Configuration of a model trained by DINOv2's authors: patches of 14 pixels, positions for 518x518."""
    values: dict[str, Any] = {
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "image_size": image_size,
        "patch_size": 14,
        "mlp_ratio": int(mlp),
        "use_swiglu_ffn": swiglu,
    }
    if registers:
        return Dinov2WithRegistersConfig(**values, num_register_tokens=registers)
    return Dinov2Config(**values)


def _shipped() -> Config:
    """The small prior inside this package, as its own config.json describes it (before that file is made: its intended size)."""
    if (SHIPPED / "config.json").is_file():
        return Dinov2Config.from_pretrained(SHIPPED, local_files_only=True)
    return Dinov2Config(hidden_size=128, num_hidden_layers=6, num_attention_heads=4, image_size=224, patch_size=14)


CONFIGS: Catalog[Callable[[], Config]] = Catalog(
    "prior",
    {
        "tiny": _shipped,
        "dinov2_vits14": lambda: _size(384, 12, 6),
        "dinov2_vitb14": lambda: _size(768, 12, 12),
        "dinov2_vitl14": lambda: _size(1024, 24, 16),
        "dinov2_vitg14": lambda: _size(1536, 40, 24, swiglu=True),
        "dinov2_vits14_reg": lambda: _size(384, 12, 6, registers=4),
        "dinov2_vitb14_reg": lambda: _size(768, 12, 12, registers=4),
        "dinov2_vitl14_reg": lambda: _size(1024, 24, 16, registers=4),
        "dinov2_vitg14_reg": lambda: _size(1536, 40, 24, swiglu=True, registers=4),
    },
)

HUB_NAMES: Catalog[str] = Catalog(
    "hub name of prior",
    {
        f"dinov2_vit{letter}14{registers}": f"facebook/dinov2-{hub_registers}{size}"
        for letter, size in (("s", "small"), ("b", "base"), ("l", "large"), ("g", "giant"))
        for registers, hub_registers in (("", ""), ("_reg", "with-registers-"))
    },
)


def position_table(table: Tensor, height: int, width: int, by: str = "size") -> Tensor:
    """Positions of a square grid, resampled (bicubic, no antialias) to ``height`` x ``width`` patches. (1,1+N,D) -> (1,1+h*w,D)

    ``by="size"`` resamples to the exact grid. ``by="scale"`` is DINOv2's own arithmetic, which the published re-identification code
    inherits: the ratio is (patches + 0.1) / grid, so that every sample lies a trifle elsewhere.
    """
    patches = table[:, 1:]
    side = round(patches.shape[1] ** 0.5)
    if (height, width) == (side, side):
        return table
    grid = patches.unflatten(1, (side, side)).permute(0, 3, 1, 2).float()
    target: dict[str, Any] = (
        {"size": (height, width)} if by == "size" else {"scale_factor": ((height + 0.1) / side, (width + 0.1) / side)}
    )
    grid = F.interpolate(grid, mode="bicubic", align_corners=False, **target)
    assert grid.shape[2:] == (height, width), f"position table became {tuple(grid.shape[2:])}, expected {(height, width)}"
    return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2).to(table.dtype)], dim=1)


class FrozenDinov2(FrozenPrior):
    """DINOv2, with or without registers. ``positions`` says how its table is resampled, see :func:`position_table`."""

    def __init__(
        self,
        config: Config,
        size: tuple[int, int],
        blocks: Sequence[int],
        positions: str = "size",
        precision: str = "auto",
        awaiting: bool = False,
    ) -> None:
        model = Dinov2WithRegistersModel if isinstance(config, Dinov2WithRegistersConfig) else Dinov2Model
        super().__init__(model(config), size, blocks, precision, awaiting)
        self.positions = positions

    def layers(self, vit: Any) -> Sequence[nn.Module]:
        return vit.encoder.layer

    def last_norm(self, vit: Any) -> nn.Module:
        return vit.layernorm

    def positions_on_grid(self, dtype: torch.dtype) -> Tensor:
        return position_table(self.vit.embeddings.position_embeddings, *self.grid, by=self.positions).to(dtype)

    def embed(self, ready: Prepared, frames: Tensor) -> Tensor:
        embeddings = ready.vit.embeddings
        x = embeddings.patch_embeddings(frames.to(ready.positions.dtype))
        x = torch.cat([embeddings.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + ready.positions
        if self.prefix == 1:
            return x
        registers = embeddings.register_tokens.expand(x.shape[0], -1, -1)
        return torch.cat([x[:, :1], registers, x[:, 1:]], dim=1)

    def step(self, block: nn.Module, x: Tensor, ready: Prepared) -> Tensor:
        return torch.as_tensor(block(x))
