"""From a distance to a probability: is it the same person? A logistic curve, learned on pairs of training tracklets.

The curve answers for a pair that was as likely the same person as not; of the hits of a search few are, so a ``prior`` may be
given. Tracklets of the same modality lie nearer to each other than tracklets of different ones: each kind has its own.

Many pairs of few people say little about the next person. So a curve needs :data:`LEAST_PEOPLE` people, and is never surer than
they allow: after K people without an exception the next is one with a chance of 1 in K + 2 (Laplace's rule of succession).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass

import numpy as np
import torch
from numpy.typing import NDArray

CROSS, WITHIN = "cross-modality", "same-modality"
LEAST_PAIRS = 20
"""Pairs of the same person, and of different people, below which no curve is learned."""
LEAST_PEOPLE = 10
"""People with a pair of their own below whom no curve is learned: a percentage would be about them, not about people."""


def in_per_cent(probability: float) -> str:
    """For people to read: never "0 %" and never "100 %", for nobody is that sure. The page says it alike (``perCent``)."""
    if probability < 0.01:
        return "under 1 %"
    return "over 99 %" if probability > 0.99 else f"{math.floor(100 * probability + 0.5)} %"


@dataclass(frozen=True)
class Curve:
    """P(same | distance) = sigmoid(``offset`` - ``slope`` * distance), falling: ``slope`` is at least 0.

    ``people``: from how many it was learned; at even odds it stays within 1 / (people + 2) of 0 and 1. 0: without such bounds.
    """

    offset: float
    slope: float
    people: int = 0

    def __call__(self, distance: float, prior: float = 0.5) -> float:
        """Probability in 0..1. ``prior``, in 0..1 exclusive: how likely the pair was the same person before it was compared."""
        assert 0 < prior < 1, prior
        value = self.offset - self.slope * distance
        if self.people:
            surest = math.log(self.people + 1)
            value = min(max(value, -surest), surest)
        value += math.log(prior / (1 - prior))
        return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))


@dataclass(frozen=True)
class Calibration:
    """The curves of one model: by kind of pair, those that could be learned. ``source`` says from whom."""

    curves: Mapping[str, Curve]
    source: str = ""

    def probability(self, distance: float, same_modality: bool, prior: float = 0.5) -> float | None:
        """Probability that a pair is the same person; None where no curve was learned for this kind of pair."""
        curve = self.curves.get(WITHIN if same_modality else CROSS)
        return None if curve is None else curve(distance, prior)

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {"source": self.source, "curves": {kind: list(astuple(curve)) for kind, curve in self.curves.items()}}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Calibration:
        """What :meth:`as_dict` gave. Files of earlier versions do not name the number of people: then the fewest are assumed."""
        curves = values["curves"]
        assert isinstance(curves, Mapping)
        read = {
            kind: Curve(float(offset), float(slope), int(people[0]) if people else LEAST_PEOPLE)
            for kind, (offset, slope, *people) in curves.items()
        }
        return cls(read, str(values["source"]))


def learn_curve(same: NDArray[np.floating], different: NDArray[np.floating], people: int = 0) -> Curve | None:
    """Fit the curve to distances (n,) of pairs of the same person and (m,) of different people, both kinds weighing the same.

    Platt's targets, (n+1)/(n+2) and 1/(m+2) in place of 1 and 0, keep the slope finite where the two do not overlap. None where
    there are fewer than :data:`LEAST_PAIRS` of either. ``people``: how many the pairs of the same person show.
    """
    if min(len(same), len(different)) < LEAST_PAIRS:
        return None
    distances = torch.from_numpy(np.concatenate([same, different]).astype(np.float64))
    centre, spread = distances.mean(), distances.std()
    if spread <= 1e-12:  # all the same, as of a network that sees no difference: nothing can be told from it
        return Curve(0.0, 0.0, people)
    positive = torch.arange(len(distances)) < len(same)
    targets = torch.where(positive, (len(same) + 1) / (len(same) + 2), 1 / (len(different) + 2)).double()
    weights = torch.where(positive, 0.5 / len(same), 0.5 / len(different)).double()
    standard = (distances - centre) / spread
    offset, root = torch.zeros((), dtype=torch.float64, requires_grad=True), torch.ones((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([offset, root], max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-9)

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        logits = offset - root.square() * standard  # the square keeps the curve from rising
        value = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, weights, reduction="sum")
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    slope = float(root.detach()) ** 2 / float(spread)
    return Curve(float(offset.detach()) + slope * float(centre), slope, people)
