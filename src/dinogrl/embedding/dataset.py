"""Embed a dataset on disk by a model on disk: one file of part vectors, to search in or to look at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dinogrl import checkpoints
from dinogrl.data.datasets import open_dataset
from dinogrl.data.loaders import evaluation_loader
from dinogrl.embedding.archive import save_embeddings
from dinogrl.embedding.embedder import Embedder
from dinogrl.embedding.extract import extract
from dinogrl.embedding.feature_cache import FeatureCache
from dinogrl.errors import DataError
from dinogrl.evaluation.protocols import default_protocol
from dinogrl.recipes.schema import BrokenFrames
from dinogrl.records import Dataset, Embeddings, Tracklet


def embed_dataset(
    checkpoint: Path,
    data: Path,
    out: Path,
    *,
    split: str = "test",
    layout: str = "auto",
    device: str = "auto",
    broken_frames: BrokenFrames | None = None,
    precision: str = "float32",
    feature_cache: FeatureCache | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Embeddings:
    """Embed every tracklet of one part of ``data`` ("test": query and gallery; "train") and write the file ``out``.

    Frames are sampled as the dataset's own protocol samples them. ``broken_frames``: None does as the model's recipe says.
    ``precision`` is the :class:`Embedder`'s. ``feature_cache`` spares the frozen features of frames that were embedded before.
    ``on_progress`` is told clips done and clips in all.
    Raises :class:`CheckpointError` for a model that cannot be read, :class:`DataError` where there is nothing to embed,
    :class:`DinogrlError` where ``out`` cannot be written.
    """
    embedder = Embedder.load(checkpoint, device, precision)
    trained = embedder.trained
    settings = trained.recipe.data.with_broken_frames(broken_frames)
    dataset = open_dataset(
        data,
        layout,
        min_frames=settings.min_frames,
        discard_train=settings.discard_train,
        discard_test=settings.discard_test,
        trial=settings.trial,
    )
    tracklets = tracklets_of(dataset, split)
    if not tracklets:
        raise DataError(f"{data} has no {split} tracklets to embed; see `dinogrl check {data}`")
    checkpoints.expect_writable_file(out)
    sampling = default_protocol(dataset.name).sampling
    embeddings = extract(
        embedder.network,
        evaluation_loader(tracklets, settings, sampling=sampling, batch=trained.recipe.evaluation.batch),
        embedder.device,
        tracklets=tracklets,
        fingerprint=embedder.fingerprint,
        bfloat16=embedder.bfloat16,
        feature_cache=feature_cache,
        on_progress=None if on_progress is None else lambda done: on_progress(done, len(tracklets)),
    )
    save_embeddings(out, embeddings)
    return embeddings


def tracklets_of(dataset: Dataset, split: str) -> list[Tracklet]:
    """The tracklets of "test" (query, then gallery, each tracklet once) or "train"."""
    assert split in {"test", "train"}, split
    chosen = [*dataset.query, *dataset.gallery] if split == "test" else dataset.train
    return list({tracklet.id: tracklet for tracklet in chosen}.values())
