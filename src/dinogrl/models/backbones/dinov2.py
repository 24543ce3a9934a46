"""The frozen DINOv2 and what the gait stream reads from it.

The transformer itself comes from ``transformers``; here are the table of published sizes, the position table for frames that are
not square, and a forward pass that keeps the outputs of chosen blocks, runs without gradient, in chunks, and in bfloat16 under
bfloat16 autocast.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from dinogrl.catalog import Catalog
from dinogrl.errors import CheckpointError, RecipeError
from dinogrl.models.backbones import attention

SHIPPED = Path(__file__).parents[2] / "assets" / "prior"
Config: TypeAlias = Dinov2Config | Dinov2WithRegistersConfig


def config_of_shape(width: int, depth: int, heads: int, positions: int, registers: int) -> Config:
    """A DINOv2 of one's own size, with a table of ``positions`` x ``positions`` patches of 14 pixels."""
    return _size(width, depth, heads, registers=registers, image_size=14 * positions)


def _size(width: int, depth: int, heads: int, swiglu: bool = False, registers: int = 0, image_size: int = 518) -> Config:
    """Configuration of a model trained by DINOv2's authors: patches of 14 pixels, positions for 518x518."""
    values: dict[str, Any] = {
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "image_size": image_size,
        "patch_size": 14,
        "use_swiglu_ffn": swiglu,
    }
    if registers:
        return Dinov2WithRegistersConfig(**values, num_register_tokens=registers)
    return Dinov2Config(**values)


def _shipped() -> Config:
    """The small prior inside this package, as its own config.json describes it (before that file is made: its intended size)."""
    if (SHIPPED / "config.json").is_file():
        return read_config(SHIPPED)
    return Dinov2Config(hidden_size=128, num_hidden_layers=6, num_attention_heads=4, image_size=224, patch_size=14)


def read_config(folder: Path) -> Config:
    """Architecture stated by the config.json of a Hugging Face directory. Raises :class:`CheckpointError` for other models."""
    try:
        values, _ = Dinov2Config.get_config_dict(str(folder), local_files_only=True)
    except OSError as error:
        raise CheckpointError(f"cannot read {folder}/config.json: {' '.join(str(error).split())}") from error
    kinds = {"dinov2": Dinov2Config, "dinov2_with_registers": Dinov2WithRegistersConfig}
    if values.get("model_type") not in kinds:
        raise CheckpointError(f"{folder} holds a {values.get('model_type')!r} model, expected one of {', '.join(kinds)}")
    config: Config = kinds[values["model_type"]].from_dict(values)
    return config


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


@dataclass
class Tokens:
    """Frozen features of N frames on the grid of h x w patches.

    ``last`` (N,h,w,D): the last block's output after the final layer norm. ``blocks`` (N,h,w,D*number): outputs of the chosen
    blocks side by side, under one layer norm without parameters.
    """

    last: Tensor
    blocks: Tensor


class FrozenDinov2(nn.Module):
    """DINOv2, always in evaluation mode and without gradient. Frames (N,3,H,W) -> :class:`Tokens`.

    ``size`` (height, width): frames are resized to it, bilinear without antialias, as the published code does. ``blocks``, counted
    from 0, are the ones kept.
    ``awaiting``: no weights yet; a forward pass is refused until a checkpoint or :func:`dinogrl.models.weights.load_prior`
    brings them.
    """

    def __init__(
        self,
        config: Config,
        size: tuple[int, int],
        blocks: Sequence[int],
        positions: str = "size",
        precision: str = "auto",
        awaiting: bool = False,
    ) -> None:
        super().__init__()
        depth = config.num_hidden_layers
        if not blocks or max(blocks) >= depth or min(blocks) < 0:
            raise RecipeError(f"model.gait.prior.blocks {list(blocks)}: this prior has blocks 0 to {depth - 1}")
        model = Dinov2WithRegistersModel if isinstance(config, Dinov2WithRegistersConfig) else Dinov2Model
        self.vit = model(config).requires_grad_(False).eval()
        self.vit.set_attn_implementation(attention.NAME)
        self.patch = int(config.patch_size)
        self.size = size
        self.grid = (size[0] // self.patch, size[1] // self.patch)
        self.width = int(config.hidden_size)
        self.blocks = tuple(blocks)
        self.positions = positions
        self.precision = precision
        self.awaiting = awaiting
        self._prepared: dict[torch.dtype, Prepared] = {}
        self.register_load_state_dict_post_hook(_arrived)

    def train(self, mode: bool = True) -> FrozenDinov2:
        """Stays in evaluation mode whatever is asked."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, frames: Tensor) -> Tokens:
        if self.awaiting:
            raise CheckpointError(
                "the DINOv2 prior has no weights yet: load a checkpoint, or set model.gait.prior.weights or the environment's "
                "DINOGRL_DINOV2 to dinov2_vits14_pretrain.pth or a Hugging Face directory"
            )
        outside = torch.get_autocast_dtype(frames.device.type) if torch.is_autocast_enabled(frames.device.type) else frames.dtype
        inside = {"auto": outside, "float32": torch.float32, "bfloat16": torch.bfloat16}[self.precision]
        ready = self.prepared(inside)
        at_once = max(1, (65536 if frames.is_cuda else 6200) // ready.positions.shape[1])  # 12 frames of 32x16 patches
        with torch.autocast(frames.device.type, enabled=False):
            chunks = [self.features(ready, chunk) for chunk in frames.split(at_once)]
        last, blocks = (parts[0] if len(parts) == 1 else torch.cat(parts) for parts in zip(*chunks, strict=True))
        return Tokens(last.to(outside), blocks.to(outside))

    def features(self, ready: Prepared, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Last and chosen outputs for frames (n,3,H,W), all at once: (n,h,w,D) and (n,h,w,D*number)."""
        if frames.shape[2:] != self.size:
            frames = F.interpolate(frames, self.size, mode="bilinear", align_corners=False)
        embeddings, encoder = ready.vit.embeddings, ready.vit.encoder
        x = embeddings.patch_embeddings(frames)
        x = torch.cat([embeddings.cls_token.expand(len(x), -1, -1), x], dim=1) + ready.positions
        skipped = 1
        if isinstance(ready.vit, Dinov2WithRegistersModel):
            registers = embeddings.register_tokens.expand(len(x), -1, -1)
            x = torch.cat([x[:, :1], registers, x[:, 1:]], dim=1)
            skipped += registers.shape[1]
        kept = {}
        for i, block in enumerate(encoder.layer):
            x = block(x)
            if i in self.blocks:
                kept[i] = x[:, skipped:]
        last = ready.vit.layernorm(x[:, skipped:])
        chosen = torch.cat([kept[i] for i in self.blocks], dim=2)
        chosen = F.layer_norm(chosen, chosen.shape[2:], eps=1e-6)
        return last.unflatten(1, self.grid), chosen.unflatten(1, self.grid)

    def prepared(self, dtype: torch.dtype) -> Prepared:
        """Weights and position table in ``dtype``, kept until the weights change or move."""
        if torch.compiler.is_compiling():
            return self._prepare(dtype, stamp=())
        stamp = tuple((weight.data_ptr(), weight._version) for weight in self.vit.parameters())
        ready = self._prepared.get(dtype)
        if ready is None or ready.stamp != stamp:
            self._prepared = {dtype: self._prepare(dtype, stamp)}
        return self._prepared[dtype]

    def _prepare(self, dtype: torch.dtype, stamp: tuple[tuple[int, int], ...]) -> Prepared:
        table = self.vit.embeddings.position_embeddings
        positions = position_table(table, *self.grid, by=self.positions).to(dtype)
        vit = self.vit if table.dtype == dtype else copy.deepcopy(self.vit).to(dtype)
        return Prepared(vit, positions, stamp)


@dataclass
class Prepared:
    """The transformer in one precision, its position table, and the state of the weights it was made from."""

    vit: Any
    positions: Tensor
    stamp: tuple[tuple[int, int], ...]


def _arrived(module: nn.Module, _: object) -> None:
    """The prior's weights have been loaded."""
    assert isinstance(module, FrozenDinov2)
    module.awaiting = False
