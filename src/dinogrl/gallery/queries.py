"""What is searched for. By name: a tracklet of the gallery itself, of a file of embeddings, or of a dataset."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, repeat
from operator import contains
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dinogrl.data.datasets import open_dataset
from dinogrl.embedding.archive import load_embeddings
from dinogrl.errors import GalleryError
from dinogrl.gallery.gallery import Gallery
from dinogrl.records import Modality

_NAMED = 3
"""Ids that are named where the one asked for is not there."""
_COMPARED = 1000
"""Ids whose spelling is compared in full: of a hundred thousand it would take seconds."""


@dataclass(frozen=True)
class Query:
    """Who is looked for: an embedding ``parts`` (P,D) by the model ``fingerprint``, and a ``strip`` or ``frames`` to show.

    ``own``: the tracklet ``name`` of the gallery itself, which is no answer.
    """

    name: str
    modality: Modality
    parts: NDArray[np.float32]
    fingerprint: str
    strip: bytes | None = None
    frames: Sequence[str | Path] = ()
    own: bool = False


def named_query(gallery: Gallery, id: str, source: Path | None = None, layout: str = "auto") -> Query:
    """The tracklet ``id`` of ``source``: a file of embeddings, the root folder of a dataset (in this ``layout``), or the gallery
    itself where None.

    Raises :class:`GalleryError`, with the nearest ids, where it is not there; :class:`CheckpointError` and :class:`DataError` for a
    file or a dataset that cannot be read.
    """
    if source is None:
        return _of_gallery(gallery, id)
    return _of_file(source, id) if source.is_file() else _of_dataset(gallery, source, id, layout)


def _of_gallery(gallery: Gallery, id: str) -> Query:
    if id not in gallery:
        raise _missing(id, f"gallery {gallery.address}", gallery.ids())
    entry = gallery.entries([id])[0]
    parts = gallery.parts([id])[0]
    return Query(id, entry.modality, parts, gallery.fingerprint or "", gallery.strip(id), entry.frames, own=True)


def _of_file(path: Path, id: str) -> Query:
    embeddings = load_embeddings(path, mapped=True)
    if id not in embeddings.tracklet_ids:
        raise _missing(id, str(path), embeddings.tracklet_ids)
    row = embeddings.tracklet_ids.index(id)
    frames = embeddings.frames[row] if embeddings.frames else []
    return Query(
        id, Modality(int(embeddings.modalities[row])), np.array(embeddings.parts[row]), embeddings.fingerprint, frames=frames
    )


def _of_dataset(gallery: Gallery, root: Path, id: str, layout: str) -> Query:
    if gallery.embedder is None:
        raise GalleryError("a dataset's tracklet is embedded by a gallery opened with an embedder: Gallery(address, embedder)")
    data = gallery.embedder.trained.recipe.data
    dataset = open_dataset(
        root, layout, min_frames=1, discard_train=data.discard_train, discard_test=data.discard_test, trial=data.trial
    )
    tracklets = dataset.by_id()
    if id not in tracklets:
        raise _missing(id, str(root), list(tracklets))
    tracklet = tracklets[id]
    frames = [tracklet.path(i) for i in range(len(tracklet.frames))]
    parts = gallery.embedder.embed(frames, tracklet.modality)
    return Query(id, tracklet.modality, parts, gallery.embedder.fingerprint, frames=frames)


def _missing(id: str, place: str, known: Sequence[str]) -> GalleryError:
    """Ids that hold what was given come before those that are spelled alike: of a long id people remember a part."""
    holding = sorted((one for one in known if id.lower() in one.lower()), key=len) if id else []
    near = holding or difflib.get_close_matches(id, _likeliest(id, known), n=_NAMED, cutoff=0.55)
    if near:
        return GalleryError(f"no tracklet {id!r} in {place}; did you mean {' or '.join(map(repr, near[:_NAMED]))}?")
    some = f"it has {', '.join(known[:_NAMED])}{' ...' if len(known) > _NAMED else ''}" if known else "it has none at all"
    return GalleryError(f"no tracklet {id!r} in {place}; {some}")


def _likeliest(id: str, known: Sequence[str]) -> Sequence[str]:
    """Those that share most pairs of neighbouring letters with the id, for their length, where there are more than are compared."""
    if len(known) <= _COMPARED:
        return known
    shared = np.zeros(len(known))
    for pair in {a + b for a, b in pairwise(id)}:
        shared += np.fromiter(map(contains, known, repeat(pair)), bool, len(known))
    shared /= len(id) + np.fromiter(map(len, known), int, len(known))
    return [known[row] for row in np.argsort(-shared, kind="stable")[:_COMPARED]]
