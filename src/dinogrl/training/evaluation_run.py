"""Score a trained model on a dataset's test lists and write what reports need."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from dinogrl import runtime
from dinogrl.data.datasets import open_dataset
from dinogrl.data.loaders import evaluation_loader
from dinogrl.embedding.archive import save_embeddings
from dinogrl.embedding.extract import extract
from dinogrl.embedding.silhouettes import write_silhouettes
from dinogrl.errors import DataError
from dinogrl.evaluation.evaluate import evaluate
from dinogrl.evaluation.protocols import choose_protocol
from dinogrl.evaluation.results import Metrics, write_metrics
from dinogrl.models.archive import load_model

Watcher = Callable[[int, int], None]


def evaluate_checkpoint(
    checkpoint: Path,
    data: Path,
    *,
    protocol: str = "auto",
    out: Path | None = None,
    layout: str = "auto",
    device: str = "auto",
    on_progress: Watcher | None = None,
) -> Metrics:
    """Embed the test tracklets of ``data``, rank them under a named protocol, and write metrics.json into ``out``.

    ``out`` (the checkpoint's own folder, unless given) also receives query.safetensors and gallery.safetensors, and
    silhouettes.npz where the model has a gait stream. ``on_progress`` is told clips done and clips in all.

    Raises :class:`CheckpointError` for a file that is no model, :class:`DataError` for a dataset without test lists.
    """
    trained = load_model(checkpoint)
    settings, recipe = trained.recipe.data, trained.recipe.evaluation
    folder = out or checkpoint.parent
    discard = Path(settings.discard_test) if settings.discard_test else None
    dataset = open_dataset(data, layout, min_frames=settings.min_frames, discard_test=discard)
    if not dataset.query or not dataset.gallery:
        raise DataError(f"{data} has no query or no gallery tracklets to evaluate on; see `dinogrl check {data}`")
    rules = choose_protocol(recipe.protocol if protocol == "auto" else protocol, dataset.name)
    where = runtime.device(device)
    bfloat16 = recipe.precision == "bfloat16" or (recipe.precision == "auto" and runtime.fast_bfloat16(where))
    total = len(dataset.query) + len(dataset.gallery)

    def tell(before: int, done: int) -> None:
        if on_progress is not None:
            on_progress(before + done, total)

    query, gallery = (
        extract(
            trained.network,
            evaluation_loader(tracklets, settings, sampling=rules.sampling, batch=recipe.batch),
            where,
            tracklets=tracklets,
            fingerprint=trained.fingerprint,
            bfloat16=bfloat16,
            on_progress=partial(tell, before),
        )
        for tracklets, before in ((dataset.query, 0), (dataset.gallery, len(dataset.query)))
    )
    result = evaluate(query, gallery, rules, distance=recipe.distance)
    folder.mkdir(parents=True, exist_ok=True)
    save_embeddings(folder / "query.safetensors", query)
    save_embeddings(folder / "gallery.safetensors", gallery)
    if trained.recipe.model.gait is not None:
        tracklets = [*dataset.query, *dataset.gallery]
        write_silhouettes(folder / "silhouettes.npz", trained.network, tracklets, settings, rules.sampling, where)
    return write_metrics(
        folder / "metrics.json",
        result,
        dataset=dataset.name,
        model=trained.recipe.name,
        frames_per_clip=settings.frames,
        selection=str(trained.facts.get("selection", "unknown")),
    )
