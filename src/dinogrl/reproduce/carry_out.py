"""Carry out planned runs: what is done is reused, what was interrupted goes on, what is missing is trained and evaluated."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from dinogrl import config
from dinogrl.embedding.feature_cache import FeatureCache
from dinogrl.errors import DinogrlError, TrainingError
from dinogrl.evaluation.results import Metrics, read_metrics
from dinogrl.locks import held
from dinogrl.recipes import Recipe
from dinogrl.reproduce.plan import Run
from dinogrl.reproduce.watching import Watcher, training_steps
from dinogrl.training.evaluation_run import evaluate_checkpoint
from dinogrl.training.run import STATE, train

METRICS = "metrics.json"
SECONDS_BETWEEN_LOOKS = 10.0


def result_of(run: Run) -> Metrics | None:
    """Scores of a finished run. Raises :class:`DataError` where its metrics.json is broken."""
    path = run.folder / METRICS
    return read_metrics(path) if path.is_file() else None


def carry_out(
    runs: Sequence[Run],
    data: Path,
    tell: Watcher,
    after_each: Callable[[], object] = lambda: None,
    feature_cache: FeatureCache | None = None,
) -> dict[Run, str]:
    """Finish every run; gives those whose training broke down (a loss that is not finite), with the reason.

    Several processes may work on one folder: each run is one process's at a time, and a run that another is busy with is waited
    for at the end. ``after_each`` is called when a run has been finished. All runs share ``feature_cache``.
    """
    failed: dict[Run, str] = {}
    waiting = [run for run in runs if result_of(run) is None]
    while waiting:
        busy = []
        for number, run in enumerate(waiting, start=1):
            try:
                with _claimed(run):
                    name = f"{run.recipe.name}, seed {run.recipe.seed} [{number}/{len(waiting)}]"
                    _finish(run, data, partial(_named, tell, name), feature_cache)
            except _Busy:
                busy.append(run)
                continue
            except TrainingError as error:
                failed[run] = str(error)
            after_each()
        if len(busy) == len(waiting):
            time.sleep(SECONDS_BETWEEN_LOOKS)
        waiting = busy
    return failed


class _Busy(DinogrlError):
    """Another process is at a run."""


def _claimed(run: Run) -> AbstractContextManager[None]:
    """The run is this process's alone, until it ends, however it ends."""
    run.folder.mkdir(parents=True, exist_ok=True)
    return held(run.folder / ".lock", _Busy(f"another process is at work in {run.folder}"))


def _finish(run: Run, data: Path, tell: Watcher, feature_cache: FeatureCache | None) -> None:
    if result_of(run) is not None:  # another process was faster
        return
    watch = training_steps(tell, "train")
    model = train(_as_begun(run), data, run.folder, resume=True, on_progress=watch, feature_cache=feature_cache)
    evaluate_checkpoint(
        model,
        data,
        layout=run.recipe.data.layout,
        device=run.recipe.training.device,
        feature_cache=feature_cache,
        on_progress=lambda done, total: tell("evaluate", done, total, "tracklets"),
    )
    (run.folder / STATE).unlink(missing_ok=True)  # three times the size of the model, and of no more use


def _as_begun(run: Run) -> Recipe:
    """The recipe under the name that the folder knows it by: another table may have begun the run."""
    stored = run.folder / "recipe.yaml"
    if not stored.is_file():
        return run.recipe
    return run.recipe.model_copy(update={"name": config.read_yaml(stored).get("name", run.recipe.name)})


def _named(tell: Watcher, name: str, stage: str, done: int, total: int, word: str) -> None:
    tell(f"{stage} {name}", done, total, word)
