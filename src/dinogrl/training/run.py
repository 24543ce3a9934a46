"""One run, from a dataset on disk to a model file."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision, Precision
from lightning_fabric.strategies import DDPStrategy

from dinogrl import checkpoints, distributed, runtime
from dinogrl.data.datasets import open_dataset
from dinogrl.data.loaders import TrainingLoader, dead_workers_named, evaluation_loader
from dinogrl.data.masks import expect_masks
from dinogrl.embedding.extract import extract
from dinogrl.embedding.feature_cache import FeatureCache
from dinogrl.embedding.prepare import search_aids
from dinogrl.embedding.search_aids import store_aids
from dinogrl.errors import DataError, TrainingError
from dinogrl.evaluation.protocols import PROTOCOLS
from dinogrl.locks import held
from dinogrl.losses import Objective
from dinogrl.models.archive import load_model, save_model
from dinogrl.models.build import build_model
from dinogrl.models.dinogrl import DinoGRL
from dinogrl.recipes import Recipe, dump_recipe
from dinogrl.records import Dataset, Modality, Tracklet
from dinogrl.training.holdout import Split, holdout_score, split_identities
from dinogrl.training.journal import Journal
from dinogrl.training.loop import Trainer, Watcher
from dinogrl.training.optimisers import make_optimiser
from dinogrl.training.processes import launched
from dinogrl.training.state import Position, load_state
from dinogrl.training.tuning import freeze_what_no_loss_reaches, tune

log = logging.getLogger(__name__)

STATE, BEST, MODEL = "checkpoint.safetensors", "best.safetensors", "model.safetensors"


def train(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    resume: bool = False,
    on_progress: Watcher | None = None,
    devices: int = 1,
    feature_cache: FeatureCache | None = None,
) -> Path:
    """Train ``recipe`` on the dataset at ``data`` and write the run into the folder ``out``; gives the path of the model file.

    ``out`` receives recipe.yaml, log.csv, tensorboard/, checkpoint.safetensors (where the run stands) and, at the end,
    model.safetensors. With ``resume`` a run that was stopped, at any moment and in any way, goes on from its last checkpoint
    exactly as if it had not been stopped; a finished one is left as it is. ``devices`` processes share each batch: triplets
    are those of the whole batch, each batch norm sees the share of its own process. ``feature_cache`` spares the
    frozen features of frames that are embedded as they are: held-out ones, at every look, and at the end those from which the
    model learns what searching needs.

    Raises :class:`TrainingError` where ``out`` holds a run already and ``resume`` is not given, where another training is at work
    there, where it holds another recipe's run, and where a loss is not finite; :class:`DataError` for broken data.
    """
    if _finished(out, resume):
        return out / MODEL
    dataset = open_training_data(recipe, data)
    checkpoints.expect_writable(out)
    fabric = make_fabric(recipe, devices)
    with launched(fabric), _claimed(out) if fabric.is_global_zero else nullcontext():
        if not _finished(out, resume):  # another process may have been here while the data were read
            _train(fabric, recipe, dataset, out, resume=resume, on_progress=on_progress, feature_cache=feature_cache)
    return out / MODEL


def _train(
    fabric: Fabric,
    recipe: Recipe,
    dataset: Dataset,
    out: Path,
    *,
    resume: bool,
    on_progress: Watcher | None,
    feature_cache: FeatureCache | None,
) -> None:
    """What each process does, in a folder that is theirs."""
    runtime.seed_everything(recipe.seed)
    share = recipe.training.holdout if recipe.training.selection == "holdout" else 0.0
    split = split_identities(dataset.train, dataset.train_pairs, share, recipe.seed)
    labels = replace(dataset, train=split.fit).train_labels()
    network = build_model(recipe, len(labels))
    tune(network, recipe.training)
    batches = _batches(recipe, split, labels)
    facts = {"dataset": dataset.title, "selection": recipe.training.selection, "versions": runtime.versions()}

    resuming = resume and (out / STATE).is_file()
    if not resuming and network.gait is not None:
        first = next(iter(batches.epoch(0)))
        network.start_silhouette(first.frames)
    optimiser = make_optimiser(network, recipe.training)
    freeze_what_no_loss_reaches(network, recipe.objective)
    model, wrapped = fabric.setup(network, optimiser)
    # only now: Fabric moves parameters to the device, and leaves moments that are there already where they are
    position = load_state(out / STATE, network, optimiser, recipe) if resuming else Position()
    if recipe.model.gait is not None and recipe.model.gait.prior.lora is not None:
        feature_cache = None  # after every step the features are other ones: kept, they would only fill the disk
    keep = _Keeper(network, recipe, len(labels), facts, out, fabric.device, feature_cache)
    lead = fabric.is_global_zero
    if lead:
        checkpoints.write_atomically(out / "recipe.yaml", dump_recipe(recipe).encode())
    journal = Journal(out) if lead else None
    if journal is not None:
        journal.rewind(position.total)
    trainer = Trainer(
        fabric=fabric,
        network=network,
        model=model,
        optimiser=wrapped,
        objective=Objective(recipe.objective),
        batches=batches,
        recipe=recipe,
        journal=journal,
        state_file=out / STATE,
        look=(lambda epoch, total: keep.look(split.held, journal, epoch, total, position)) if split.held else None,
        watch=on_progress if lead else None,
    )
    try:
        with runtime.denormals_flushed(), dead_workers_named():
            trainer.fit(position)
    finally:
        batches.close()
    if lead:
        keep.finish(position, split)
    if journal is not None:
        if (rise := journal.rise()) is not None:
            log.warning("the loss has risen, from %.4g to %.4g: nothing was learned; lower training.learning_rate", *rise)
        journal.close()
    distributed.barrier()


def make_fabric(recipe: Recipe, devices: int = 1) -> Fabric:
    """Devices, precision and processes as the recipe asks. Raises :class:`TrainingError` for more accelerators than are here."""
    device = runtime.device(recipe.training.device)
    here = torch.cuda.device_count() if device.type == "cuda" else 1
    if device.type != "cpu" and devices > here:
        raise TrainingError(f"{devices} devices were asked for, torch sees {here} of {device.type}; give --devices {here}")
    bfloat16 = runtime.wants_bfloat16(recipe.training.precision, device)
    # the others wait while the first prepares what searching needs; the end of one is noticed in another way
    strategy = DDPStrategy(timeout=timedelta(hours=12)) if devices > 1 else "auto"
    chosen = [device.index] if device.index is not None and devices == 1 else devices
    # given as a plugin and not by name, of which Fabric speaks at every start
    precision = MixedPrecision("bf16-mixed", device.type) if bfloat16 else Precision()
    return Fabric(accelerator=device.type, devices=chosen, strategy=strategy, plugins=[precision])


def open_training_data(recipe: Recipe, data: Path) -> Dataset:
    """The recipe's dataset. Raises :class:`DataError` where nothing in it can be trained on, and :class:`UnknownNameError` for a
    protocol that does not exist: better said now than after the training."""
    if recipe.evaluation.protocol != "auto":
        PROTOCOLS[recipe.evaluation.protocol]
    settings = recipe.data
    dataset = open_dataset(
        data,
        settings.layout,
        min_frames=settings.min_frames,
        discard_train=settings.discard_train,
        discard_test=settings.discard_test,
        trial=settings.trial,
    )
    seen = {tracklet.modality for tracklet in dataset.train}
    if len(seen) < len(Modality):
        lacking = ", ".join(modality.name.lower() for modality in Modality if modality not in seen)
        raise DataError(f"{data} has no {lacking} training tracklets; see `dinogrl check {data}`")
    if settings.frames > 1 and all(len(tracklet.frames) == 1 for tracklet in dataset.train):
        asked = f"the recipe's clips have {settings.frames} frames"
        raise DataError(f"{data} holds single images, {asked}; use the recipe dinogrl_image, or data.frames=1")
    if settings.masks is not None:
        expect_masks(dataset.train, settings.masks, settings.broken_frames)
    return dataset


def _finished(out: Path, resume: bool) -> bool:
    """Is the run in ``out`` done? Raises :class:`TrainingError` where there is one that is not to be gone on with."""
    checkpoints.expect_no_file(out, "the run")
    if not resume and any((out / name).exists() for name in (STATE, MODEL, "recipe.yaml")):
        raise TrainingError(f"{out} holds a run already; go on with it by --resume, or choose another --out")
    if (out / MODEL).is_file():
        log.info("%s is finished already", out)
        return True
    return False


def _claimed(out: Path) -> AbstractContextManager[None]:
    """The folder is this training's alone, until its process ends, however it ends."""
    refusal = TrainingError(f"another training is at work in {out}; wait until it has ended, or choose another --out")
    return held(out / ".training.lock", refusal)


def _batches(recipe: Recipe, split: Split, labels: dict[int, int]) -> TrainingLoader:
    steps = recipe.training.steps_per_epoch
    batches = TrainingLoader(
        split.fit,
        labels,
        recipe.data,
        recipe.training.batch,
        seed=recipe.seed,
        steps_per_epoch=None if steps is None else steps * recipe.training.batch.accumulate,
        pairs=split.pairs,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
    )
    if batches.steps_per_epoch < recipe.training.batch.accumulate:
        raise DataError(
            f"{len(labels)} training identities give {batches.steps_per_epoch} batch(es) an epoch of "
            f"{recipe.training.batch.identities} identities; lower training.batch.identities or training.batch.accumulate"
        )
    return batches


@dataclass
class _Keeper:
    """Writes the model file: the best on held-out identities, or the last."""

    network: DinoGRL
    recipe: Recipe
    identities: int
    facts: dict[str, Any]
    out: Path
    device: Any
    feature_cache: FeatureCache | None

    def look(
        self, held: Sequence[Tracklet], journal: Journal | None, epoch: int, total: int, position: Position
    ) -> dict[str, float]:
        """Score the held-out identities; write the model when it is the best so far."""
        loader = evaluation_loader(held, self.recipe.data, sampling="segments", batch=self.recipe.evaluation.batch)
        embeddings = extract(self.network, loader, self.device, tracklets=held, feature_cache=self.feature_cache)
        self.network.train()
        scores = holdout_score(embeddings, self.recipe.evaluation.distance)
        if not all(math.isfinite(value) for value in scores.values()):
            raise TrainingError(f"the held-out scores at epoch {epoch} are not finite")
        if journal is not None:
            for name, value in scores.items():
                journal.score(name, value, total)
            if scores["score"] > position.best.get("score", -1.0):
                self._write(BEST, {"epoch": epoch, "holdout": scores})
        return scores

    def finish(self, position: Position, split: Split) -> None:
        """Put the chosen model in its place, with what searching needs."""
        if not (self.out / BEST).is_file():
            self._write(BEST, {"epoch": position.epoch})
        if self.recipe.training.search_tracklets:
            self._prepare_search(split)
        (self.out / BEST).replace(self.out / MODEL)

    def _prepare_search(self, split: Split) -> None:
        """A frame that has become unreadable by now must not cost the model."""
        try:
            network, most = load_model(self.out / BEST).network, self.recipe.training.search_tracklets
            aids = search_aids(
                network, self.recipe, split.fit, self.device, held=split.held, most=most, feature_cache=self.feature_cache
            )
            store_aids(self.out / BEST, aids)
        except DataError as error:
            log.warning("the model carries nothing for searching (%s); `dinogrl gallery learn` does it later", error)

    def _write(self, name: str, facts: dict[str, Any]) -> None:
        save_model(self.out / name, self.network, self.recipe, self.identities, {**self.facts, **facts})
