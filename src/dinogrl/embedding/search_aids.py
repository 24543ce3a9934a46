"""What a model carries for searching beside its weights: a projection to compact vectors and a calibration, both learned on
training tracklets and stored in the model file. The fingerprint of a model does not depend on them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dinogrl import checkpoints, distances
from dinogrl.embedding.calibration import CROSS, LEAST_PEOPLE, WITHIN, Calibration, Curve, learn_curve
from dinogrl.embedding.compact import WIDTH, Projection, learn_projection
from dinogrl.models.archive import replace_extras
from dinogrl.records import Embeddings

_KIND = "search aids"
_MEAN, _MATRIX, _FACTS = "projection.mean", "projection.matrix", "facts"


@dataclass(frozen=True)
class SearchAids:
    """How a model's embeddings are indexed, and what their distances mean."""

    projection: Projection
    calibration: Calibration | None = None

    @property
    def calibrated_on(self) -> str:
        """From whom probabilities were learned; "none" where none are given."""
        return "none" if self.calibration is None else self.calibration.source

    def tensors(self) -> dict[str, Tensor]:
        """By name, to be stored. The matrix is stored in half precision: what the index finds is compared exactly afterwards."""
        facts = {
            "parts": self.projection.parts,
            "unit": self.projection.unit,
            "calibration": None if self.calibration is None else self.calibration.as_dict(),
        }
        return {
            _MEAN: torch.from_numpy(self.projection.mean),
            _MATRIX: torch.from_numpy(self.projection.matrix).half(),
            _FACTS: torch.frombuffer(bytearray(json.dumps(facts).encode()), dtype=torch.uint8),
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> SearchAids:
        """What :meth:`tensors` gave."""
        facts = json.loads(tensors[_FACTS].numpy().tobytes())
        projection = Projection(tensors[_MEAN].numpy(), tensors[_MATRIX].float().numpy(), facts["parts"], facts["unit"])
        known = facts["calibration"]
        return cls(projection, None if known is None else Calibration.from_dict(known))

    def to_bytes(self) -> bytes:
        """The same as one safetensors file, in memory."""
        return checkpoints.to_bytes(self.tensors(), _KIND)

    @classmethod
    def from_bytes(cls, content: bytes) -> SearchAids:
        """What :meth:`to_bytes` gave. Raises :class:`CheckpointError` for anything else."""
        return cls.from_tensors(checkpoints.from_bytes(content, _KIND))


class Carrier(Protocol):
    """A trained or an exported model."""

    @property
    def extras(self) -> dict[str, Tensor]:
        """The tensors that lie in its file beside the weights."""


def aids_of(trained: Carrier) -> SearchAids | None:
    """What is stored with a model, or None."""
    return SearchAids.from_tensors(trained.extras) if trained.extras else None


def store_aids(path: Path, aids: SearchAids) -> None:
    """Put the aids into a model file, in the place of those that it has."""
    replace_extras(path, aids.tensors())


def learn_aids(
    embeddings: Embeddings, distance: str = "mean_part", *, held: Embeddings | None = None, width: int = WIDTH, seed: int = 0
) -> SearchAids:
    """Learn both from training tracklets. ``distance`` is the recipe's measure.

    The calibration comes from ``held`` where given: people whom the network was not trained on tell more honestly how far apart
    the same person's tracklets are.
    """
    projection = learn_projection(embeddings.parts, width, seed=seed, unit=distance == "cosine")
    judged = embeddings if held is None or not len(held) else held
    who = "training" if judged is embeddings else "held-out training"
    source = f"{len(set(judged.identities.tolist()))} {who} identities, {len(judged)} tracklets"
    return SearchAids(projection, _learn_calibration(judged, distance, source))


def _learn_calibration(embeddings: Embeddings, distance: str, source: str) -> Calibration | None:
    """Curves from all pairs of different cameras; pairs of one camera would make the task look easier than it is.

    A kind of pair that too few people show has none.
    """
    between = np.asarray(distances.DISTANCES[distance](embeddings.parts, embeddings.parts))
    same_person = embeddings.identities[:, None] == embeddings.identities[None, :]
    same_modality = embeddings.modalities[:, None] == embeddings.modalities[None, :]
    other_camera = (embeddings.cameras[:, None] != embeddings.cameras[None, :]) | ~same_modality
    once = np.triu(np.ones_like(same_person), k=1)
    curves: dict[str, Curve] = {}
    for kind, pairs in ((CROSS, once & ~same_modality), (WITHIN, once & same_modality & other_camera)):
        people = len(np.unique(embeddings.identities[(pairs & same_person).any(axis=1)]))
        curve = learn_curve(_some(between[pairs & same_person]), _some(between[pairs & ~same_person]), people)
        if curve is not None and people >= LEAST_PEOPLE:
            curves[kind] = curve
    return Calibration(curves, source) if curves else None


def _some(values: NDArray[np.floating], most: int = 200_000) -> NDArray[np.floating]:
    """Values evenly taken: fewer than twice this many."""
    return values[:: max(1, len(values) // most)]
