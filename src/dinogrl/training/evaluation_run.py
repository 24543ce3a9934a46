"""Score a trained model on a dataset's test lists and write what reports need."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from dinogrl import runtime
from dinogrl.data.datasets import open_dataset
from dinogrl.data.loaders import evaluation_loader
from dinogrl.embedding.archive import save_embeddings
from dinogrl.embedding.extract import extract
from dinogrl.embedding.silhouettes import write_silhouettes
from dinogrl.errors import DataError
from dinogrl.evaluation.evaluate import Evaluation, evaluate
from dinogrl.evaluation.protocols import PROTOCOLS, Protocol, default_protocol
from dinogrl.evaluation.results import write_metrics
from dinogrl.models.archive import TrainedModel, load_model
from dinogrl.recipes import schema

Watcher = Callable[[int, int], None]


def evaluate_checkpoint(
    checkpoint: Path,
    data: Path,
    *,
    protocol: str = "auto",
    out: Path | None = None,
    layout: str | None = None,
    device: str = "auto",
    on_progress: Watcher | None = None,
) -> Evaluation:
    """Embed the test tracklets of ``data``, rank them under a named protocol, and write metrics.json into ``out``.

    ``out`` (the checkpoint's own folder, unless given) also receives query.safetensors and gallery.safetensors, and
    silhouettes.npz where the model has a gait stream. ``on_progress`` is told clips done and clips in all.
    """
    trained = load_model(checkpoint)
    out = out or checkpoint.parent
    settings = trained.recipe.data
    dataset = open_dataset(
        data,
        layout or "auto",
        min_frames=settings.min_frames,
        discard_test=Path(settings.discard_test) if settings.discard_test else None,
    )
    if not dataset.query or not dataset.gallery:
        raise DataError(f"{data} has no query or no gallery tracklets to evaluate on; see `dinogrl check {data}`")
    rules = _protocol(protocol, trained, dataset.name)
    where = runtime.device(device)
    bfloat16 = _bfloat16(trained.recipe.evaluation, where)
    everyone = len(dataset.query) + len(dataset.gallery)
    sides = []
    for tracklets, before in ((dataset.query, 0), (dataset.gallery, len(dataset.query))):
        batches = evaluation_loader(tracklets, settings, sampling=rules.sampling, batch=trained.recipe.evaluation.batch)
        watch = None if on_progress is None else (lambda done, before=before: on_progress(before + done, everyone))
        sides.append(
            extract(
                trained.network,
                batches,
                where,
                tracklets=tracklets,
                fingerprint=trained.fingerprint,
                bfloat16=bfloat16,
                on_progress=watch,
            )
        )
    query, gallery = sides
    result = evaluate(query, gallery, rules, distance=trained.recipe.evaluation.distance)
    out.mkdir(parents=True, exist_ok=True)
    save_embeddings(out / "query.safetensors", query)
    save_embeddings(out / "gallery.safetensors", gallery)
    if trained.recipe.model.gait is not None:
        tracklets_of_both = [*dataset.query, *dataset.gallery]
        write_silhouettes(out / "silhouettes.npz", trained.network, tracklets_of_both, settings, rules.sampling, where)
    write_metrics(
        out / "metrics.json",
        dataset=dataset.name,
        model=trained.recipe.name,
        evaluation=result,
        frames_per_clip=settings.frames,
        selection=trained.facts,
    )
    return result


def _protocol(name: str, trained: TrainedModel, dataset: str) -> Protocol:
    wanted = name if name != "auto" else trained.recipe.evaluation.protocol
    return PROTOCOLS[wanted] if wanted != "auto" else default_protocol(dataset)


def _bfloat16(recipe: schema.Evaluation, device: torch.device) -> bool:
    return recipe.precision == "bfloat16" or (recipe.precision == "auto" and runtime.fast_bfloat16(device))
