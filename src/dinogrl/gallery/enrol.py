"""Put a dataset on disk into a gallery: read, embed and keep, a few tracklets at a time, so that an interrupted run goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from dinogrl.data.datasets import open_dataset
from dinogrl.data.loaders import evaluation_loader
from dinogrl.data.sightings import read_sighting
from dinogrl.embedding.embedder import Embedder
from dinogrl.embedding.extract import extract
from dinogrl.errors import DataError, GalleryError
from dinogrl.gallery.entries import Added, Entry
from dinogrl.gallery.gallery import Gallery
from dinogrl.gallery.strips import make_strip
from dinogrl.recipes.schema import BrokenFrames, Data
from dinogrl.records import Dataset, Tracklet

AT_ONCE = 64
"""Tracklets embedded between two additions: what an interruption costs at most."""


def enrol_folder(
    gallery: Gallery,
    root: str | Path,
    *,
    collection: str = "default",
    prefix: str = "",
    layout: str = "auto",
    strips: bool = True,
    replace: bool = False,
    broken_frames: BrokenFrames | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Added:
    """Embed all tracklets of a dataset (any layout that is read for training) and add them; gives what was done.

    A tracklet that is there already, with the same facts and files of the same sizes, is not embedded again. ``prefix`` begins the
    ids, for datasets whose tracklets have the same names. ``strips`` keeps a small picture of each. ``broken_frames``: None does as
    the model's recipe says. Times come from ``tracklet.json`` beside the frames (written by ``dinogrl footage``). ``on_progress``
    is told tracklets done and in all.

    Raises :class:`DataError` for a dataset or frame that cannot be read, :class:`GalleryError` as :meth:`Gallery.add` does and for
    a gallery without an embedder.
    """
    if gallery.embedder is None:
        raise GalleryError("tracklets are embedded by a gallery opened with an embedder: Gallery(address, embedder, writable=True)")
    data = gallery.embedder.trained.recipe.data.with_broken_frames(broken_frames)
    dataset = open_dataset(
        root, layout, min_frames=1, discard_train=data.discard_train, discard_test=data.discard_test, trial=data.trial
    )
    tracklets = list(dataset.by_id().values())
    done, total = Added(), len(tracklets)
    for i in range(0, total, AT_ONCE):
        chosen = [(entry_of(t, dataset, collection, prefix, data.broken_frames), t) for t in tracklets[i : i + AT_ONCE]]
        known = gallery.digests([entry.id for entry, _ in chosen])
        new = [(entry, tracklet) for entry, tracklet in chosen if known.get(entry.id) != entry.digest()]
        done += Added(unchanged=len(chosen) - len(new))
        if new:
            done += _embed_and_add(gallery, gallery.embedder, data, new, strips=strips, replace=replace)
        if on_progress is not None:
            on_progress(min(i + AT_ONCE, total), total)
    return done


def _embed_and_add(
    gallery: Gallery, embedder: Embedder, data: Data, new: Sequence[tuple[Entry, Tracklet]], *, strips: bool, replace: bool
) -> Added:
    tracklets = [tracklet for _, tracklet in new]
    batch = embedder.trained.recipe.evaluation.batch
    loader = evaluation_loader(tracklets, data, sampling="segments", batch=batch)
    embeddings = extract(embedder.network, loader, embedder.device, fingerprint=embedder.fingerprint, bfloat16=embedder.bfloat16)
    pictures = [make_strip([t.path(i) for i in range(len(t.frames))]) if strips else None for t in tracklets]
    return gallery.add([entry for entry, _ in new], embeddings.parts, strips=pictures, replace=replace)


def entry_of(
    tracklet: Tracklet, dataset: Dataset, collection: str = "default", prefix: str = "", broken: BrokenFrames = "stop"
) -> Entry:
    """The facts of a dataset's tracklet. Raises :class:`DataError` for a frame that is gone, where ``broken`` says stop."""
    frames = [tracklet.path(i).absolute() for i in range(len(tracklet.frames))]
    sighting = read_sighting(frames[0].parent)
    return Entry(
        id=prefix + tracklet.id,
        camera=dataset.camera_names.get(tracklet.camera, str(tracklet.camera)),
        modality=tracklet.modality,
        start=None if sighting is None else sighting.started_at,
        end=None if sighting is None else sighting.ended_at,
        collection=collection,
        frames=tuple(str(frame) for frame in frames),
        source=_source(frames, broken),
    )


def _source(frames: Sequence[Path], broken: BrokenFrames) -> str:
    """16 hex digits of the frames' names and sizes."""
    digest = hashlib.sha256()
    for line in _lines(frames, broken):
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def _lines(frames: Sequence[Path], broken: BrokenFrames) -> Iterator[str]:
    for frame in frames:
        try:
            yield f"{frame.name} {frame.stat().st_size}\n"
        except OSError as error:
            if broken == "neighbour":
                yield f"{frame.name} lacking\n"  # once it is there, the tracklet is another one
                continue
            raise DataError(
                f"frame {frame} cannot be read ({error.strerror}); restore it or give --broken-frames neighbour"
            ) from error
