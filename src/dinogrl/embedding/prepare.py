"""Learn what searching needs of a model from its training tracklets, and store it in the model file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dinogrl import runtime
from dinogrl.data.datasets import open_dataset
from dinogrl.data.loaders import evaluation_loader
from dinogrl.embedding.extract import extract
from dinogrl.embedding.feature_cache import FeatureCache
from dinogrl.embedding.opening import model_file
from dinogrl.embedding.search_aids import SearchAids, learn_aids, store_aids
from dinogrl.errors import DataError
from dinogrl.models.archive import load_model
from dinogrl.recipes import Recipe
from dinogrl.recipes.schema import BrokenFrames
from dinogrl.records import Embeddings, Tracklet

MOST = 2000
"""Tracklets that are embedded for it."""


def prepare_search(
    checkpoint: Path,
    data: Path,
    *,
    layout: str = "auto",
    device: str = "auto",
    most: int = MOST,
    broken_frames: BrokenFrames | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> SearchAids:
    """Learn from the training part of ``data`` and store with the model at ``checkpoint``.

    ``broken_frames``: None does as the model's recipe says.
    Raises :class:`CheckpointError` for a file that is no model, :class:`DataError` where there is no training tracklet.
    """
    checkpoint = model_file(checkpoint)
    trained = load_model(checkpoint)
    settings = trained.recipe.data.with_broken_frames(broken_frames)
    dataset = open_dataset(data, layout, min_frames=settings.min_frames, discard_train=settings.discard_train, trial=settings.trial)
    if not dataset.train:
        raise DataError(f"{data} has no training tracklets to learn from; see `dinogrl check {data}`")
    recipe = trained.recipe.model_copy(update={"data": settings})
    aids = search_aids(trained.network, recipe, dataset.train, runtime.device(device), most=most, on_progress=on_progress)
    store_aids(checkpoint, aids)
    return aids


def search_aids(
    network: nn.Module,
    recipe: Recipe,
    tracklets: Sequence[Tracklet],
    device: torch.device,
    *,
    held: Sequence[Tracklet] = (),
    most: int = MOST,
    feature_cache: FeatureCache | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> SearchAids:
    """Embed at most ``most`` of the training tracklets, and of the held-out ones, and learn from them (see :func:`learn_aids`)."""
    chosen, judged = spread(tracklets, most), spread(held, most)
    total = len(chosen) + len(judged)

    def embed(some: Sequence[Tracklet], before: int) -> Embeddings:
        loader = evaluation_loader(some, recipe.data, sampling="segments", batch=recipe.evaluation.batch)
        told = None if on_progress is None else lambda done: on_progress(before + done, total)
        return extract(network, loader, device, feature_cache=feature_cache, on_progress=told)

    embeddings = embed(chosen, 0)
    held_out = embed(judged, len(chosen)) if judged else None
    return learn_aids(embeddings, recipe.evaluation.distance, held=held_out, seed=recipe.seed)


def spread(tracklets: Sequence[Tracklet], most: int) -> list[Tracklet]:
    """At most so many tracklets, of as many identities as have room for a few of each modality, drawn by a fixed seed."""
    if len(tracklets) <= most:
        return list(tracklets)
    order = np.random.default_rng(0).permutation(len(tracklets))
    seen: dict[tuple[int, int], int] = {}
    turn = {}
    for row in order:  # the n-th tracklet of its identity and modality
        key = tracklets[row].identity, int(tracklets[row].modality)
        turn[row] = seen[key] = seen.get(key, 0) + 1
    chosen = sorted(order, key=lambda row: turn[row])[:most]
    return [tracklets[row] for row in sorted(chosen)]
