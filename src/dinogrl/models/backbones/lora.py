"""Low-rank adapters (LoRA) on the last blocks of a frozen prior.

Source: E. Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, ICLR 2022: a frozen linear map W gets a learned
update of rank r, W x + (alpha / r) B A x, with A random and B zero at the start, so that training begins at the frozen network.

The adapters are two more tensors beside each weight, ``lora_down`` (A) and ``lora_up`` (B): they lie in the model file under
these names. :func:`merge` folds them into the weights.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinogrl.errors import RecipeError
from dinogrl.models.backbones.frozen import FrozenPrior
from dinogrl.recipes.schema import Lora

# where the linear maps lie in a block of transformers, and how a recipe calls them
_ROLES = {"attention.q_proj": "query", "attention.k_proj": "key", "attention.v_proj": "value", "attention.o_proj": "output"}


class LoraLinear(nn.Linear):
    """A frozen linear map and its adapter of ``rank``; the adapter's part is computed by itself.

    Added to the weight it would be lost under bfloat16, which keeps three digits of the sum.
    """

    def __init__(self, frozen: nn.Linear, rank: int, scale: float) -> None:
        super().__init__(frozen.in_features, frozen.out_features, frozen.bias is not None, device="meta")
        self.weight, self.bias = frozen.weight, frozen.bias
        self.scale = scale
        self.lora_down = nn.Parameter(frozen.weight.new_empty(rank, frozen.in_features, requires_grad=True))
        self.lora_up = nn.Parameter(frozen.weight.new_zeros(frozen.out_features, rank, requires_grad=True))
        nn.init.kaiming_uniform_(self.lora_down, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.scale * F.linear(F.linear(x, self.lora_down), self.lora_up)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """One frozen linear map that does the same."""
        plain = nn.Linear(self.in_features, self.out_features, self.bias is not None, device="meta")
        update = self.scale * (self.lora_up.double() @ self.lora_down.double())
        plain.weight = nn.Parameter((self.weight.double() + update).to(self.weight.dtype), requires_grad=False)
        plain.bias = self.bias
        return plain


def adapt(prior: FrozenPrior, recipe: Lora) -> None:
    """Put adapters on the recipe's linear maps in the last blocks of ``prior``. Raises :class:`RecipeError` for too many blocks."""
    blocks = list(prior.layers(prior.vit))
    if recipe.blocks > len(blocks):
        raise RecipeError(f"model.gait.prior.lora.blocks is {recipe.blocks}, but this prior has {len(blocks)} blocks")
    first = prior.first_adapted = len(blocks) - recipe.blocks
    for block in blocks[first:]:
        for name, linear in list(block.named_modules()):
            role = "mlp" if name.startswith("mlp.") else _ROLES.get(name)
            if isinstance(linear, nn.Linear) and role in recipe.layers:
                _replace(block, name, LoraLinear(linear, recipe.rank, recipe.alpha / recipe.rank))


def merge(prior: FrozenPrior) -> None:
    """Fold every adapter of ``prior`` into its weight: the same function, and a plain frozen prior again."""
    for name, module in list(prior.vit.named_modules()):
        if isinstance(module, LoraLinear):
            _replace(prior.vit, name, module.merged())
    prior.first_adapted = None


def _replace(root: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(root.get_submodule(parent), last, module)
