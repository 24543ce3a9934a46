"""What a plan will cost: optimiser steps times seconds a step, measured where a run has left its log, else assumed.

The assumption is the network's arithmetic over the speed of a common machine: right to a factor of three or so, no better.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from dinogrl import runtime
from dinogrl.data.loaders import TrainingLoader
from dinogrl.models.backbones.priors import CONFIGS, config_of_shape
from dinogrl.recipes import Recipe, schema
from dinogrl.records import Dataset
from dinogrl.reproduce.carry_out import METRICS
from dinogrl.reproduce.plan import Run

ASSUMED_GFLOPS = {"cpu": 300.0, "cuda": 30_000.0, "mps": 2_000.0}
"""Thousand million operations a second of a whole training step."""
RESNET50_GFLOP = 8.1
"""Of one frame of 256x128, last stride 1, forward."""


@dataclass(frozen=True)
class Estimate:
    """Of one run: ``steps`` in all, ``done`` of them, and seconds for one of the others.

    ``source``: measured (by this run), measured on others (runs in the same folder), or assumed.
    """

    run: Run
    state: str
    steps: int
    done: int
    seconds_a_step: float
    source: str

    @property
    def left(self) -> int:
        """Steps still to do."""
        return 0 if self.state == "done" else self.steps - self.done

    @property
    def seconds(self) -> float:
        """What they will take."""
        return self.left * self.seconds_a_step


def estimate(runs: Sequence[Run], dataset: Dataset, assumed: float | None = None) -> list[Estimate]:
    """One estimate a run. ``assumed``: seconds a step where a run has timed none itself. Evaluation is not counted."""
    measured = {run: seconds for run in runs if (seconds := _seconds_a_step(run.folder / "log.csv")) is not None}
    siblings = {run.folder.parent for run in runs}
    others = [s for folder in siblings for log in folder.glob("*/log.csv") if (s := _seconds_a_step(log)) is not None]
    found = []
    for run in runs:
        steps = run.recipe.training.epochs * _steps_per_epoch(run.recipe, dataset)
        done, state = _progress(run)
        if run in measured:
            seconds, source = measured[run], "measured"
        elif assumed is not None:
            seconds, source = assumed, "assumed"
        elif others:
            seconds, source = median(others), "measured on others"
        else:
            seconds, source = assumed_seconds(run.recipe), "assumed"
        found.append(Estimate(run, state, steps, min(done, steps), seconds, source))
    return found


def _progress(run: Run) -> tuple[int, str]:
    """Steps written to the log, and how the run stands."""
    log = run.folder / "log.csv"
    steps = max(0, len(log.read_text(encoding="utf-8").splitlines()) - 1) if log.is_file() else 0
    if (run.folder / METRICS).is_file():
        return steps, "done"
    return steps, "interrupted" if run.folder.is_dir() and steps else "missing"


def _steps_per_epoch(recipe: Recipe, dataset: Dataset) -> int:
    if recipe.training.steps_per_epoch is not None:
        return recipe.training.steps_per_epoch
    batches = TrainingLoader(
        dataset.train, dataset.train_labels(), recipe.data, recipe.training.batch, seed=recipe.seed, pairs=dataset.train_pairs
    )
    return batches.steps_per_epoch // recipe.training.batch.accumulate


def _seconds_a_step(log: Path) -> float | None:
    """Median over the log; None for a missing or an empty one."""
    if not log.is_file():
        return None
    with log.open(newline="", encoding="utf-8") as file:
        values = [row["seconds"] for row in csv.DictReader(file) if row.get("seconds")]
    return median(map(float, values)) if values else None


def assumed_seconds(recipe: Recipe) -> float:
    """Of one optimiser step, from the network's arithmetic and :data:`ASSUMED_GFLOPS`."""
    data, batch, model = recipe.data, recipe.training.batch, recipe.model
    frames = 2 * batch.identities * batch.clips * batch.accumulate * data.frames
    pixels = data.height * data.width / (256 * 128)
    work = 3 * _resnet(model.appearance.width, model.appearance.depths) * pixels  # forward, and twice that backward
    if model.gait is not None:
        maps = model.gait.map_height * model.gait.map_width / (64 * 32)
        work += 3 * _resnet(model.gait.width, model.gait.depths) * maps + _frozen(model.gait.prior)
    return frames * work / ASSUMED_GFLOPS[runtime.device(recipe.training.device).type]


def _resnet(width: int, depths: Sequence[int]) -> float:
    return RESNET50_GFLOP * (width / 64) ** 2 * sum(depths) / 16


def _frozen(prior: schema.Prior) -> float:
    """Thousand million operations of a transformer's blocks for one frame, forward."""
    config = CONFIGS[prior.name]() if prior.shape is None else config_of_shape(prior.shape)
    tokens = prior.height * prior.width / config.patch_size**2
    width = config.hidden_size
    return 2e-9 * config.num_hidden_layers * (12 * width**2 * tokens + 2 * tokens**2 * width)
