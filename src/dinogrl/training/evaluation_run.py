"""Score a trained model on a dataset's test lists and write what reports need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from dinogrl import checkpoints, runtime
from dinogrl.catalog import Catalog
from dinogrl.data.datasets import open_dataset
from dinogrl.data.masks import expect_masks
from dinogrl.embedding.archive import save_embeddings
from dinogrl.embedding.embedder import computes_in_bfloat16
from dinogrl.embedding.exported import ExportedModel
from dinogrl.embedding.feature_cache import FeatureCache
from dinogrl.embedding.opening import model_file, open_model
from dinogrl.embedding.silhouettes import write_silhouettes
from dinogrl.embedding.test_time import Looks, extract_looks, halves
from dinogrl.errors import DataError
from dinogrl.evaluation.evaluate import evaluate
from dinogrl.evaluation.protocols import Protocol, choose_protocol
from dinogrl.evaluation.rerank import KReciprocal, Reranker, TemporalKReciprocal
from dinogrl.evaluation.results import Metrics, write_metrics
from dinogrl.recipes.schema import BrokenFrames
from dinogrl.records import Dataset, Embeddings, Tracklet

Watcher = Callable[[int, int], None]
Embed = Callable[[Sequence[Tracklet]], Embeddings]
ONE_LOOK = Looks()


def _temporal(embed: Embed, tracklets: Sequence[Tracklet]) -> Reranker:
    first, second = halves(tracklets)
    return TemporalKReciprocal(embed(first), embed(second))


RERANKING: Catalog[Callable[[Embed, Sequence[Tracklet]], Reranker | None]] = Catalog(
    "re-ranking",
    {"none": lambda embed, tracklets: None, "k_reciprocal": lambda embed, tracklets: KReciprocal(), "temporal": _temporal},
)


def evaluate_checkpoint(
    checkpoint: Path,
    data: Path,
    *,
    protocol: str = "auto",
    out: Path | None = None,
    layout: str = "auto",
    device: str = "auto",
    looks: Looks = ONE_LOOK,
    rerank: str = "none",
    broken_frames: BrokenFrames | None = None,
    precision: str | None = None,
    feature_cache: FeatureCache | None = None,
    on_progress: Watcher | None = None,
) -> Metrics:
    """Embed the test tracklets of ``data``, rank them under a named protocol, and write metrics.json into ``out``.

    ``out`` (the checkpoint's own folder, unless given) also receives query.safetensors and gallery.safetensors, and
    silhouettes.npz where the model has a gait stream. ``looks`` (flips, several clips), ``rerank`` (:data:`RERANKING`),
    ``broken_frames``, where it says otherwise than the model's recipe, and ``precision``, the :class:`Embedder`'s, where given, are
    named in the result. ``feature_cache`` spares the frozen features of frames that were embedded before. ``on_progress`` is told
    tracklets done and tracklets in all.

    Before anything is embedded raises :class:`CheckpointError` for a file that is no model, :class:`DataError` for a dataset
    without test lists or in whose lists the protocol finds nobody, :class:`DinogrlError` where ``out`` cannot be written into.
    """
    make_reranker = RERANKING[rerank]  # an unknown name is said before anything is embedded
    checkpoint = model_file(checkpoint)
    trained = open_model(checkpoint)
    settings, recipe = trained.recipe.data.with_broken_frames(broken_frames), trained.recipe.evaluation
    otherwise: dict[str, str] = {"broken_frames": settings.broken_frames} if settings != trained.recipe.data else {}
    where = runtime.device(device)
    own = "auto" if isinstance(trained, ExportedModel) else recipe.precision  # a file computes in what it was exported in
    bfloat16 = computes_in_bfloat16(trained, precision or own, where)
    if precision is not None:
        otherwise |= {"precision": "bfloat16" if bfloat16 else "float32"}
    folder = out or checkpoint.parent
    dataset = open_dataset(data, layout, min_frames=settings.min_frames, discard_test=settings.discard_test, trial=settings.trial)
    if not dataset.query or not dataset.gallery:
        raise DataError(f"{data} has no query or no gallery tracklets to evaluate on; see `dinogrl check {data}`")
    rules = choose_protocol(recipe.protocol if protocol == "auto" else protocol, dataset.name)
    if rules.frames == 1:  # one image a tracklet: a video model's longer clip would only repeat it
        settings = settings.model_copy(update={"frames": 1})
    expect_sides(rules, dataset)
    if settings.masks is not None:
        expect_masks([*dataset.query, *dataset.gallery], settings.masks, settings.broken_frames)
    checkpoints.expect_writable(folder)
    total = len(dataset.query) + len(dataset.gallery)

    def embed(tracklets: Sequence[Tracklet], before: int | None = None) -> Embeddings:
        told = None if on_progress is None or before is None else on_progress
        return extract_looks(
            trained.network,
            tracklets,
            settings,
            where,
            looks,
            sampling=rules.sampling,
            batch=recipe.batch,
            fingerprint=trained.fingerprint,
            bfloat16=bfloat16,
            feature_cache=feature_cache,
            on_progress=None if told is None else lambda done: told((before or 0) + done, total),
        )

    query, gallery = embed(dataset.query, 0), embed(dataset.gallery, len(dataset.query))
    reranker = make_reranker(embed, [*dataset.query, *dataset.gallery])
    result = evaluate(query, gallery, rules, distance=recipe.distance, rerank=reranker)
    save_embeddings(folder / "query.safetensors", query)
    save_embeddings(folder / "gallery.safetensors", gallery)
    if isinstance(reranker, TemporalKReciprocal):  # so that a report can rank again
        save_embeddings(folder / "first_half.safetensors", reranker.first)
        save_embeddings(folder / "second_half.safetensors", reranker.second)
    if trained.recipe.model.gait is not None and not isinstance(trained, ExportedModel):
        tracklets = [*dataset.query, *dataset.gallery]
        write_silhouettes(folder / "silhouettes.npz", trained.network, tracklets, settings, rules.sampling, where)
    return write_metrics(
        folder / "metrics.json",
        result,
        dataset=dataset.title,
        model=trained.recipe.name,
        frames_per_clip=settings.frames,
        selection=str(trained.facts.get("selection", "unknown")),
        options={**looks.options, **otherwise, **({} if dataset.trial is None else {"trial": dataset.trial})},
    )


def expect_sides(rules: Protocol, dataset: Dataset) -> None:
    """Raise :class:`DataError` where the protocol has no query or no gallery in a direction, and where no query of any direction
    has a match, so that every score would be an invention: labels tell it without vectors."""
    query, gallery = _labels(dataset.query), _labels(dataset.gallery)
    meetings = [rules.meeting(*rules.sides(query, gallery, direction)) for direction in rules.directions]
    if not any(meeting.any_match() for meeting in meetings):
        struck = "; it strikes out those in the query's own camera" if rules.drop_same_camera else ""
        raise DataError(
            f"protocol {rules.name}: no query has a match in the gallery{struck}; check the test lists and the cameras' names"
        )


def _labels(tracklets: Sequence[Tracklet]) -> Embeddings:
    """Rows of tracklets that nothing has embedded yet."""
    return Embeddings(
        parts=np.empty((len(tracklets), 0, 0), np.float32),
        tracklet_ids=[tracklet.id for tracklet in tracklets],
        identities=np.array([tracklet.identity for tracklet in tracklets], dtype=np.int64),
        cameras=np.array([tracklet.camera for tracklet in tracklets], dtype=np.int64),
        modalities=np.array([int(tracklet.modality) for tracklet in tracklets], dtype=np.int64),
        fingerprint="",
    )
