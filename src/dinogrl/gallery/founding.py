"""What a gallery remembers of its model, written when the first tracklets are added.

Only the calibration may change afterwards: a model may be calibrated later, or anew. Nothing that is stored depends on it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dinogrl.embedding.compact import learn_projection
from dinogrl.embedding.search_aids import SearchAids, aids_of
from dinogrl.errors import GalleryError
from dinogrl.gallery.backend import Backend, Form

if TYPE_CHECKING:
    from dinogrl.embedding.embedder import Embedder

FORMAT = 1
_SETTINGS, _AIDS = "settings", "search_aids"


@dataclass(frozen=True)
class Settings:
    """The model's fingerprint and its recipe's name, the form of its vectors, its distance, and where the projection is from."""

    fingerprint: str
    model: str
    form: Form
    distance: str
    projection: str


def remembered(backend: Backend) -> tuple[Settings, SearchAids] | None:
    """What was written, or None where there is no gallery yet. Raises :class:`GalleryError` for another version's gallery."""
    content, aids = backend.read_document(_SETTINGS), backend.read_document(_AIDS)
    if content is None or aids is None:
        return None
    values = json.loads(content)
    if values.pop("format") != FORMAT:
        raise GalleryError(
            "this gallery was made by another version of dinogrl; open it with that one, and enrol its tracklets anew here"
        )
    return Settings(**{**values, "form": Form(**values["form"])}), SearchAids.from_bytes(aids)


def found(
    backend: Backend,
    vectors: NDArray[np.float32],
    fingerprint: str,
    embedder: Embedder | None,
    *,
    precision: str,
    width: int,
) -> None:
    """Write it for the first tracklets' embeddings (n,P,D).

    A model that carries no projection gets one learned from these tracklets. Raises :class:`GalleryError` without a fingerprint.
    """
    if not fingerprint:
        raise GalleryError("a new gallery must know the model of its vectors; give an embedder or fingerprint=")
    trained = None if embedder is None else embedder.trained
    distance = "mean_part" if trained is None else trained.recipe.evaluation.distance
    aids, origin = None if trained is None else aids_of(trained), "stored with the model"
    if aids is None:
        aids = SearchAids(learn_projection(vectors, width, unit=distance == "cosine"))
        origin = f"learned from the first {len(vectors)} tracklets"
    form = Form(vectors.shape[1], vectors.shape[2], aids.projection.width, precision)
    settings = Settings(fingerprint, "" if trained is None else trained.recipe.name, form, distance, origin)
    write(backend, settings, aids)


def calibrated(backend: Backend, aids: SearchAids, embedder: Embedder, *, write_down: bool) -> SearchAids:
    """The gallery's projection with the calibration that the model carries now, written down where the gallery may be written."""
    carried = aids_of(embedder.trained)
    if carried is None or carried.calibration == aids.calibration:
        return aids
    fresh = replace(aids, calibration=carried.calibration)
    if write_down:
        backend.write_document(_AIDS, fresh.to_bytes())
    return fresh


def write(backend: Backend, settings: Settings, aids: SearchAids) -> None:
    """Store both; the settings last, for with them the gallery exists."""
    backend.write_document(_AIDS, aids.to_bytes())
    backend.write_document(_SETTINGS, json.dumps({"format": FORMAT, **vars(settings), "form": vars(settings.form)}).encode())
