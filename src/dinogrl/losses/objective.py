"""The whole objective (paper, equations 17 and 18)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from dinogrl import distributed
from dinogrl.losses.identity import identity_accuracy, identity_loss
from dinogrl.losses.silhouette import DIVERSITY, SMOOTHNESS, mask_smoothness_released
from dinogrl.losses.triplet import PAIR_DISTANCES, triplet_loss
from dinogrl.recipes import schema
from dinogrl.records import ModelOutput, SilhouetteMaps

Losses = dict[str, Tensor]


class Objective:
    """Identity loss of both streams + lambda1 mask + lambda2 smoothness + lambda3 diversity.

    ``Objective(recipe.objective)(output, identity)`` gives every part by name, unweighted, the accuracy for watching,
    and ``total``, the weighted sum to be minimised. Streams that a model lacks are left out, and of the terms of the maps those
    whose weight is 0.
    """

    def __init__(self, recipe: schema.Objective) -> None:
        self.recipe = recipe
        self._identity: Callable[..., Tensor] = partial(
            identity_loss, scale=recipe.logit_scale, label_smoothing=recipe.label_smoothing
        )
        self._triplet: Callable[..., Tensor] = partial(
            triplet_loss, margin=recipe.margin, distance=PAIR_DISTANCES[recipe.triplet_distance]
        )

    def __call__(self, output: ModelOutput, identity: Tensor) -> Losses:
        """``output`` of a model in training mode, ``identity`` (B,) class indices."""
        assert output.logits is not None, "the objective needs logits: put the model in training mode"
        losses: Losses = {}
        total = output.parts.new_zeros((), dtype=torch.float32)
        for stream, chosen in _streams(output).items():
            named = self._stream(output.parts[:, chosen], output.logits[:, chosen], identity)
            total = total + self.recipe.identity * named["identity"] + self.recipe.triplet * named["triplet"]
            losses |= {f"{name}_{stream}": value for name, value in named.items()}
        if output.maps is not None:
            regularisers = self._maps(output.maps)
            total = total + sum(weight * value for weight, value in regularisers.values())
            losses |= {name: value for name, (_, value) in regularisers.items()}
        return {**losses, "total": total}

    def _stream(self, parts: Tensor, logits: Tensor, identity: Tensor) -> Losses:
        """Equation 17 for one stream: the mean over its supervised parts of cross-entropy, and of the triplet loss."""
        everyone = distributed.gather(parts), distributed.gather(identity)
        return {
            "identity": self._identity(logits, identity),
            "triplet": self._triplet(*everyone),
            "accuracy": identity_accuracy(logits.detach(), identity),
        }

    def _maps(self, maps: SilhouetteMaps) -> dict[str, tuple[float, Tensor]]:
        """name -> (weight, value) of the regularisers whose maps are there."""
        recipe, terms = self.recipe, {}
        if recipe.mask and maps.mask_error is not None:
            terms["mask"] = (recipe.mask, maps.mask_error)
        if recipe.mask_smoothness and maps.probabilities is not None:
            terms["mask_smoothness"] = (recipe.mask_smoothness, mask_smoothness_released(maps.probabilities))
        if recipe.smoothness and maps.gait_prior is not None:
            terms["smoothness"] = (recipe.smoothness, SMOOTHNESS[recipe.smoothness_form](maps.gait_prior))
        if recipe.diversity and maps.gait_prior is not None:
            terms["diversity"] = (recipe.diversity, DIVERSITY[recipe.diversity_form](maps.gait_prior))
        return terms


def _streams(output: ModelOutput) -> dict[str, Tensor]:
    """stream name -> positions of its supervised parts. Told by their number: to look at them is to wait for an accelerator."""
    chosen = output.supervised
    if chosen is None:
        chosen = torch.arange(output.parts.shape[1], device=output.parts.device)
    if not output.gait_parts:
        return {"appearance": chosen}
    gait, appearance = chosen.chunk(2)
    return {"gait": gait, "appearance": appearance}
