"""A frozen image transformer and what the gait stream reads from it, whatever its family.

The forward pass keeps the outputs of chosen blocks and runs without gradient, in chunks, and in bfloat16 under bfloat16 autocast.
Where the last blocks carry adapters (:mod:`dinogrl.models.backbones.lora`), those alone run with gradient, from float32 weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinogrl.errors import CheckpointError, RecipeError
from dinogrl.models.backbones import attention
from dinogrl.models.backbones.pointwise import pays, with_pointwise_linears


@dataclass
class Tokens:
    """Frozen features of N frames on the grid of h x w patches.

    ``last`` (N,h,w,D): the last block's output after the final layer norm. ``blocks`` (N,h,w,D*number): outputs of the chosen
    blocks side by side, under one layer norm without parameters.
    """

    last: Tensor
    blocks: Tensor


class TokenKeeper(Protocol):
    """Has the features of frames from an earlier time, and keeps those it has not."""

    def tokens(self, frames: Tensor, dtype: torch.dtype, compute: Callable[[Tensor], Tokens]) -> Tokens:
        """Features of N frames (N,3,H,W) in ``dtype``; ``compute`` gives those of frames that are not kept yet."""
        ...


@dataclass
class Prepared:
    """The transformer in one precision, its positions on the grid, and the state of the weights it was made from."""

    vit: Any
    positions: Any
    stamp: tuple[tuple[int, int], ...]


@dataclass
class Passing:
    """Tokens (n,prefix+N,D) on their way through the blocks, and the chosen outputs so far, (n,N,D) each by block."""

    x: Tensor
    kept: dict[int, Tensor] = field(default_factory=dict)


class FrozenPrior(nn.Module):
    """A transformer, always in evaluation mode and without gradient. Frames (N,3,H,W) -> :class:`Tokens`.

    ``size`` (height, width): frames are resized to it, bilinear without antialias, as the published code does. ``blocks``, counted
    from 0, are the ones kept. ``awaiting``: no weights yet; a forward pass is refused until a checkpoint or
    :func:`dinogrl.models.pretrained.load_prior` brings them. ``first_adapted``: the block from which on adapters learn, None where
    there are none. ``keeper``, set from outside for as long as no weight changes, spares frames that were seen before. A family
    says how its frames become tokens.
    """

    def __init__(
        self, vit: Any, size: tuple[int, int], blocks: Sequence[int], precision: str = "auto", awaiting: bool = False
    ) -> None:
        super().__init__()
        config = vit.config
        depth, self.patch = int(config.num_hidden_layers), int(config.patch_size)
        if not blocks or max(blocks) >= depth or min(blocks) < 0:
            raise RecipeError(f"model.gait.prior.blocks {list(blocks)}: this prior has blocks 0 to {depth - 1}")
        if size[0] % self.patch or size[1] % self.patch:
            raise RecipeError(f"model.gait.prior: {size[0]}x{size[1]} must be multiples of this prior's patch size {self.patch}")
        self.vit = vit.requires_grad_(False).eval()
        self.vit.set_attn_implementation(attention.NAME)
        self.size = size
        self.grid = (size[0] // self.patch, size[1] // self.patch)
        self.width = int(config.hidden_size)
        self.prefix = 1 + int(getattr(config, "num_register_tokens", 0))
        self.blocks = tuple(blocks)
        self.precision = precision
        self.awaiting = awaiting
        self.first_adapted: int | None = None
        self.keeper: TokenKeeper | None = None
        self._prepared: dict[torch.dtype, Prepared] = {}
        self.register_load_state_dict_post_hook(_arrived)

    def layers(self, vit: Any) -> Sequence[nn.Module]:
        """The blocks."""
        raise NotImplementedError

    def last_norm(self, vit: Any) -> nn.Module:
        """The final layer norm."""
        raise NotImplementedError

    def positions_on_grid(self, dtype: torch.dtype) -> Any:
        """What the family knows of the patches' places."""
        raise NotImplementedError

    def embed(self, ready: Prepared, frames: Tensor) -> Tensor:
        """Frames of the right size -> tokens before the first block."""
        raise NotImplementedError

    def step(self, block: nn.Module, x: Tensor, ready: Prepared) -> Tensor:
        """One block."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> FrozenPrior:
        """Stays in evaluation mode whatever is asked."""
        return super().train(False)

    def forward(self, frames: Tensor) -> Tokens:
        if self.awaiting:
            raise CheckpointError(
                "the frozen prior has no weights yet: load a checkpoint, or set model.gait.prior.weights (or the environment's "
                "DINOGRL_DINOV2, DINOGRL_DINOV3) to the authors' .pth or a Hugging Face directory"
            )
        keeper = self.keeper  # looked at once: another thread may end what it asked for meanwhile
        if keeper is not None:
            return keeper.tokens(frames, _outside(frames), self._compute)
        return self._compute(frames)

    def _compute(self, frames: Tensor) -> Tokens:
        outside = _outside(frames)
        inside = {"auto": outside, "float32": torch.float32, "bfloat16": torch.bfloat16}[self.precision]
        ready = self.prepared(inside)
        at_once = max(1, (65536 if frames.is_cuda else 6200) // (1 + self.grid[0] * self.grid[1]))  # 12 frames of 32x16 patches
        chunks = []
        for chunk in frames.split(at_once):
            with torch.no_grad(), torch.autocast(frames.device.type, enabled=False):
                passing = self._through_frozen(ready, chunk)
            with self._adapting(frames.device.type, inside):
                chunks.append(self._through_the_rest(ready, passing))
        last, blocks = (parts[0] if len(parts) == 1 else torch.cat(parts) for parts in zip(*chunks, strict=True))
        return Tokens(last.to(outside), blocks.to(outside))

    def features(self, ready: Prepared, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Last and chosen outputs for frames (n,3,H,W), all at once: (n,h,w,D) and (n,h,w,D*number)."""
        return self._through_the_rest(ready, self._through_frozen(ready, frames))

    def _through_frozen(self, ready: Prepared, frames: Tensor) -> Passing:
        if frames.shape[2:] != self.size:
            frames = F.interpolate(frames, self.size, mode="bilinear", align_corners=False)
        passing = Passing(self.embed(ready, frames))
        self._through(list(self.layers(ready.vit))[: self.first_adapted], 0, passing, ready)
        return passing

    def _through_the_rest(self, ready: Prepared, passing: Passing) -> tuple[Tensor, Tensor]:
        vit = ready.vit if self.first_adapted is None else self.vit  # adapters learn in float32
        if self.first_adapted is not None:
            self._through(list(self.layers(vit))[self.first_adapted :], self.first_adapted, passing, ready)
        last = self.last_norm(vit)(passing.x[:, self.prefix :])
        chosen = torch.cat([passing.kept[i] for i in self.blocks], dim=2)
        chosen = F.layer_norm(chosen, chosen.shape[2:], eps=1e-6)
        return last.unflatten(1, self.grid), chosen.unflatten(1, self.grid)

    def _through(self, blocks: Sequence[nn.Module], first: int, passing: Passing, ready: Prepared) -> None:
        for i, block in enumerate(blocks, start=first):
            passing.x = self.step(block, passing.x, ready)
            if i in self.blocks:
                passing.kept[i] = passing.x[:, self.prefix :]

    @contextmanager
    def _adapting(self, device: str, inside: torch.dtype) -> Iterator[None]:
        """Gradient and autocast of the adapted blocks, and of the last norm."""
        learns = self.first_adapted is not None and torch.is_grad_enabled()
        rounded = inside if self.first_adapted is not None and inside in (torch.bfloat16, torch.float16) else None
        with torch.set_grad_enabled(learns), torch.autocast(device, dtype=rounded, enabled=rounded is not None):
            yield

    def prepared(self, dtype: torch.dtype) -> Prepared:
        """Weights and positions in ``dtype``, kept until the frozen weights change or move."""
        if torch.compiler.is_compiling():
            return self._prepare(dtype, stamp=())
        # by name, since anybody may set requires_grad of a whole network; adapters move with every step, and are in no copy
        frozen = (weight for name, weight in self.vit.named_parameters() if ".lora_" not in name)
        stamp = tuple((weight.data_ptr(), _version(weight)) for weight in frozen)
        ready = self._prepared.get(dtype)
        if ready is None or ready.stamp != stamp:
            ready = self._prepare(dtype, stamp)
            self._prepared = {dtype: ready}
        return ready

    def _prepare(self, dtype: torch.dtype, stamp: tuple[tuple[int, int], ...]) -> Prepared:
        first = next(self.vit.parameters())
        vit = self.vit if first.dtype == dtype else copy.deepcopy(self.vit).to(dtype)
        if pays(first.device, dtype):
            vit = with_pointwise_linears(vit)
        return Prepared(vit, self.positions_on_grid(dtype), stamp)


def _outside(frames: Tensor) -> torch.dtype:
    """What the caller computes in."""
    kind = frames.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else frames.dtype


def _version(weight: Tensor) -> int:
    """How often it was written; nobody counts that of a tensor made within ``torch.inference_mode``."""
    return 0 if weight.is_inference() else weight._version


def _arrived(module: nn.Module, _: object) -> None:
    """The prior's weights have been loaded."""
    assert isinstance(module, FrozenPrior)
    module.awaiting = False
