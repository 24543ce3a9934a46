"""The training loop: it reads like the algorithm."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from dinogrl import distributed, runtime
from dinogrl.errors import TrainingError
from dinogrl.losses import Objective
from dinogrl.recipes import Recipe
from dinogrl.records import ClipBatch
from dinogrl.training.journal import Journal, Step
from dinogrl.training.schedules import learning_rate
from dinogrl.training.state import Position, save_state


class Batches(Protocol):
    """What the loop needs of a loader: batches that are a pure function of (epoch, step)."""

    steps_per_epoch: int

    def epoch(self, epoch: int, start_step: int = 0) -> Iterable[ClipBatch]: ...


@dataclass(frozen=True)
class Progress:
    """Told to whoever watches, after each step."""

    epoch: int
    epochs: int
    step: int
    steps: int
    losses: dict[str, float]

    @property
    def done(self) -> int:
        """Steps done in all epochs so far."""
        return self.epoch * self.steps + self.step + 1

    @property
    def total(self) -> int:
        """Steps of all epochs."""
        return self.epochs * self.steps


Watcher = Callable[[Progress], None]


@dataclass
class Trainer:
    """Everything a run needs, made outside and handed in; ``model`` and ``optimiser`` wear Fabric's wrappers."""

    fabric: Any
    network: nn.Module
    model: Any
    optimiser: Any
    objective: Objective
    batches: Batches
    recipe: Recipe
    journal: Journal | None
    state_file: Path
    look: Callable[[int, int], dict[str, float]] | None = None
    """Scores held-out identities after (epoch, total steps), and keeps the model when it is the best so far."""
    watch: Watcher | None = None

    def fit(self, position: Position) -> None:
        """Train from ``position`` to the last epoch."""
        recipe = self.recipe.training
        steps = self.batches.steps_per_epoch // recipe.batch.accumulate
        saved = time.monotonic()
        while position.epoch < recipe.epochs:
            self.model.train()
            batches = iter(self.batches.epoch(position.epoch, position.step * recipe.batch.accumulate))
            while position.step < steps:
                self._step(list(islice(batches, recipe.batch.accumulate)), position, steps)
                position.step, position.total = position.step + 1, position.total + 1
                if position.step < steps and time.monotonic() - saved > 60 * recipe.checkpoint_minutes:
                    self._save(position)
                    saved = time.monotonic()
            _exhaust(batches)
            position.epoch, position.step = position.epoch + 1, 0
            self._look(position)
            self._save(position)
            saved = time.monotonic()

    def _step(self, batches: list[ClipBatch], position: Position, steps: int) -> None:
        """One optimiser step over ``accumulate`` batches."""
        recipe = self.recipe.training
        rate = learning_rate(recipe, position.epoch + position.step / steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        # Dropout and the like draw from a generator that depends on the step alone: a resumed run draws the same.
        runtime.seed_everything(runtime.derived_seed(self.recipe.seed, "step", position.total, distributed.rank()))
        mean: dict[str, torch.Tensor] = {}
        for turn, batch in enumerate(batches):
            batch = batch.to(self.fabric.device)
            with self.fabric.no_backward_sync(self.model, enabled=turn + 1 < len(batches)):
                output = self.model(*batch.inputs)
                losses = self.objective(output, batch.identity)
                self.fabric.backward(losses["total"] / len(batches))
            for name, value in losses.items():
                mean[name] = mean.get(name, 0) + value.detach() / len(batches)
        if recipe.clip_gradient is not None:
            self.fabric.clip_gradients(self.model, self.optimiser, max_norm=recipe.clip_gradient, error_if_nonfinite=False)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self._write(
            Step(position.epoch, position.total, rate, mean, [i for batch in batches for i in batch.tracklet_ids]), position, steps
        )

    def _write(self, step: Step, position: Position, steps: int) -> None:
        if self.journal is None:
            return
        self.journal.add(step)
        if self.watch is not None:
            self.watch(Progress(position.epoch, self.recipe.training.epochs, position.step, steps, self.journal.latest))

    def _look(self, position: Position) -> None:
        recipe = self.recipe.training
        due = position.epoch % recipe.holdout_every == 0 or position.epoch == recipe.epochs
        if self.look is None or not due:
            return
        scores = self.look(position.epoch, position.total)
        if scores["score"] > position.best.get("score", -1.0):
            position.best = {**scores, "epoch": float(position.epoch)}

    def _save(self, position: Position) -> None:
        """Checkpoint, after every loss so far and every weight was found finite: a broken state is never kept.

        The first of several processes does it alone, and none waits here for another: each asks its own clock whether it is time.
        """
        if self.journal is not None:
            self.journal.flush()
            broken = _not_finite(self.network.state_dict())
            if broken:
                raise TrainingError(
                    f"{len(broken)} weights are not finite after epoch {position.epoch}, step {position.step} ({broken[0]}); "
                    "lower training.learning_rate"
                )
            save_state(self.state_file, position, self.network, self.optimiser, self.recipe)


def _not_finite(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of those with a value that is not finite, for which the device is asked once."""
    finite = torch.stack([value.isfinite().all() for value in tensors.values()]).tolist()
    return [name for name, good in zip(tensors, finite, strict=True) if not good]


def _exhaust(batches: Iterator[ClipBatch]) -> None:
    """Let the loader finish its epoch, so that its workers are free for the next one."""
    for _ in batches:
        pass
