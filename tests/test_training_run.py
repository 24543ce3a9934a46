"""Whole runs on a very small simulated world: exact resume, kill -9, golden losses, held-out selection, refusals."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric

from dinogrl import checkpoints
from dinogrl.errors import CheckpointError, DataError, RecipeError, TrainingError
from dinogrl.models.archive import load_model, save_model
from dinogrl.models.build import build_model
from dinogrl.recipes import Recipe, load_recipe
from dinogrl.records import Dataset
from dinogrl.training import run
from dinogrl.training.run import MODEL, STATE, train
from tiny_recipe import TINY

GOLDEN = Path(__file__).parent / "golden" / "twenty_steps.json"


def tiny(*overrides: str) -> Recipe:
    return load_recipe("demo_dinogrl", (*TINY, *overrides))


def losses(folder: Path) -> list[float]:
    with (folder / "log.csv").open(newline="") as file:
        return [float(row["total"]) for row in csv.DictReader(file)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return checkpoints.load(folder / MODEL, "model")[0]


def assert_same_weights(a: Path, b: Path) -> None:
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert different == []


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_resumed_run_equals_one_that_was_never_stopped(tiny_world: Path, tmp_path: Path, accumulate: int) -> None:
    shape = ("training.steps_per_epoch=3", f"training.batch.accumulate={accumulate}", "model.gait.drop_prior=0.5")
    whole = tiny("training.epochs=3", *shape)
    train(whole, tiny_world, tmp_path / "whole")

    class Stop(Exception):
        pass

    def stop_in_the_second_epoch(progress: object) -> None:
        if (progress.epoch, progress.step) == (1, 1):  # type: ignore[attr-defined]
            raise Stop

    with pytest.raises(Stop):
        train(whole, tiny_world, tmp_path / "stopped", on_progress=stop_in_the_second_epoch)
    assert not (tmp_path / "stopped" / MODEL).exists()
    train(whole, tiny_world, tmp_path / "stopped", resume=True)
    assert losses(tmp_path / "whole") == losses(tmp_path / "stopped")
    assert_same_weights(tmp_path / "whole", tmp_path / "stopped")


def test_resume_inside_an_epoch(tiny_world: Path, tmp_path: Path) -> None:
    recipe = tiny("training.epochs=1", "training.steps_per_epoch=4", "training.checkpoint_minutes=0")
    train(recipe, tiny_world, tmp_path / "whole")

    class Stop(Exception):
        pass

    def stop(progress: object) -> None:
        if progress.step == 2:  # type: ignore[attr-defined]
            raise Stop

    with pytest.raises(Stop):
        train(recipe, tiny_world, tmp_path / "stopped", on_progress=stop)
    train(recipe, tiny_world, tmp_path / "stopped", resume=True)
    assert_same_weights(tmp_path / "whole", tmp_path / "stopped")


def test_moments_are_read_when_the_parameters_are_on_their_device(
    tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An optimiser that has moments on the CPU and parameters elsewhere cannot step."""
    recipe = tiny("training.epochs=1", "training.steps_per_epoch=2", "training.search_tracklets=0")
    train(recipe, tiny_world, tmp_path)
    (tmp_path / MODEL).unlink()
    order = []

    def told(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given, **named: (order.append(name), function(*given, **named))[1]

    monkeypatch.setattr(Fabric, "setup", told("moved", Fabric.setup))
    monkeypatch.setattr(run, "load_state", told("read", run.load_state))
    train(recipe, tiny_world, tmp_path, resume=True)
    assert order == ["moved", "read"]


def test_killed_at_any_moment_nothing_is_half_written(tiny_world: Path, tmp_path: Path) -> None:
    overrides = ["training.epochs=4", "training.steps_per_epoch=2"]
    command = [sys.executable, "-m", "dinogrl", "train", "demo_dinogrl", *TINY, *overrides, "--data", str(tiny_world)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}  # more threads add in another order
    process = subprocess.Popen([*command, "--out", str(tmp_path / "killed")], env=environment, stdout=subprocess.DEVNULL)
    state = tmp_path / "killed" / STATE
    deadline = time.monotonic() + 90
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert state.exists(), "no checkpoint was written in 90 seconds"
    checkpoints.load(state, "training")
    recipe = tiny(*overrides)
    train(recipe, tiny_world, tmp_path / "killed", resume=True)
    train(recipe, tiny_world, tmp_path / "whole")
    assert losses(tmp_path / "whole") == pytest.approx(losses(tmp_path / "killed"), rel=1e-4)
    assert len(losses(tmp_path / "killed")) == 8


def test_twenty_steps_follow_the_stored_losses(tiny_world: Path, tmp_path: Path) -> None:
    """Guards against changes that were to change nothing. DINOGRL_WRITE_GOLDEN=1 stores new numbers after one that was meant to.

    By plain SGD and slowly: Adam's first steps have the size of the learning rate however small the gradient, and at ten times this
    rate the tiny network multiplies a difference tenfold every other step, so that on another machine rounding alone would lead
    elsewhere.
    """
    gently = ("training.optimiser=sgd", "training.learning_rate=0.000003", "training.schedule=steps")
    train(tiny("training.epochs=2", "training.steps_per_epoch=10", *gently), tiny_world, tmp_path)
    measured = losses(tmp_path)
    if os.environ.get("DINOGRL_WRITE_GOLDEN") == "1":
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps([round(value, 5) for value in measured], indent=1) + "\n")
    assert measured == pytest.approx(json.loads(GOLDEN.read_text()), rel=0.02)


def test_model_is_chosen_on_held_out_training_identities(tiny_world: Path, tmp_path: Path) -> None:
    shape = ("training.epochs=2", "training.steps_per_epoch=1", "training.holdout=0.5", "training.holdout_every=1")
    path = train(tiny("training.selection=holdout", *shape), tiny_world, tmp_path)
    trained = load_model(path)
    assert trained.facts["selection"] == "holdout"
    assert 0 <= trained.facts["holdout"]["score"] <= 1
    assert trained.identities == 2


def test_a_run_is_never_overwritten_and_never_mixed(tiny_world: Path, tmp_path: Path) -> None:
    train(tiny("training.epochs=1", "training.steps_per_epoch=1"), tiny_world, tmp_path)
    with pytest.raises(TrainingError, match="holds a run already"):
        train(tiny(), tiny_world, tmp_path)
    (tmp_path / MODEL).unlink()
    with pytest.raises(TrainingError, match=r"objective.margin was 0.2, now 0.5"):
        train(tiny("training.epochs=1", "training.steps_per_epoch=1", "objective.margin=0.5"), tiny_world, tmp_path, resume=True)


def test_two_trainings_never_share_a_folder(tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither one that goes on with a run that is still at work, nor one that found the folder empty a moment before."""
    recipe = tiny("training.epochs=1", "training.steps_per_epoch=1")

    def second(_: object) -> None:
        with pytest.raises(TrainingError, match="another training is at work"):
            train(recipe, tiny_world, tmp_path, resume=True)

    def another_is_faster(*given: Any) -> Dataset:
        monkeypatch.undo()
        train(recipe, tiny_world, tmp_path, on_progress=second)
        return run.open_training_data(*given)

    monkeypatch.setattr(run, "open_training_data", another_is_faster)
    with pytest.raises(TrainingError, match="holds a run already"):
        train(recipe, tiny_world, tmp_path)
    assert len(losses(tmp_path)) == 1


def test_a_run_that_a_broken_frame_stopped_goes_on_without_it(tiny_world: Path, tmp_path: Path) -> None:
    """As the error advises; where every frame can be read, the change changes nothing."""
    words = ("training.epochs=1", "training.steps_per_epoch=1")
    before = load_model(train(tiny(*words), tiny_world, tmp_path)).fingerprint
    (tmp_path / MODEL).unlink()
    gone_on = train(tiny(*words, "data.broken_frames=neighbour"), tiny_world, tmp_path, resume=True)
    assert load_model(gone_on).fingerprint == before


def test_weights_that_the_last_step_broke_are_not_kept(tiny_world: Path, tmp_path: Path) -> None:
    """The loss of a step is made before its weights: after the last one nothing else would tell."""
    with pytest.raises(TrainingError, match=r"weights are not finite after epoch 1, .*lower training\.learning_rate"):
        train(tiny("training.epochs=1", "training.steps_per_epoch=1", "training.learning_rate=1e300"), tiny_world, tmp_path / "run")
    assert not (tmp_path / "run" / MODEL).exists() and not (tmp_path / "run" / STATE).exists()


@pytest.mark.parametrize("kind", [torch.int64, torch.complex64])
def test_weights_of_another_sort_are_refused(kind: torch.dtype, tmp_path: Path) -> None:
    recipe = tiny()
    save_model(tmp_path / "m.safetensors", build_model(recipe, 3), recipe, 3, {})
    tensors, facts = checkpoints.load(tmp_path / "m.safetensors", "model")
    name = next(name for name, value in tensors.items() if value.is_floating_point())
    checkpoints.save(tmp_path / "m.safetensors", {**tensors, name: tensors[name].to(kind)}, "model", facts)
    with pytest.raises(CheckpointError, match=rf"{name} is {kind}, expected torch\.float32"):
        load_model(tmp_path / "m.safetensors")


def test_a_recipe_with_typos_names_them_all() -> None:
    with pytest.raises(RecipeError, match=r"2 problem\(s\).*margn.*did you mean 'margin'.*epohs.*did you mean 'epochs'"):
        load_recipe("demo_dinogrl", ["objective.margn=1", "training.epohs=3"])


def test_model_file_gives_the_same_network_back(tiny_world: Path, tmp_path: Path) -> None:
    path = train(tiny("training.epochs=1", "training.steps_per_epoch=1"), tiny_world, tmp_path)
    trained = load_model(path)
    frames = torch.randn(2, 2, 3, 64, 32)
    again = load_model(path).network
    modality = torch.tensor([0, 1])
    assert torch.equal(trained.network(frames, modality).embedding, again(frames, modality).embedding)
    assert trained.fingerprint == load_model(path).fingerprint


@pytest.mark.parametrize(("rate", "said"), [("30", True), ("0.00035", False)])
def test_a_run_that_learned_nothing_says_so(
    rate: str, said: bool, tiny_world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pace = (f"training.learning_rate={rate}", "training.steps_per_epoch=20", "training.epochs=1", "training.warmup_epochs=0")
    train(tiny(*pace), tiny_world, tmp_path / "run")
    assert ("lower training.learning_rate" in caplog.text) == said


def test_a_loader_process_that_is_killed_during_a_step_is_one_line(tiny_world: Path, tmp_path: Path) -> None:
    def kill(progress: object) -> None:
        for worker in multiprocessing.active_children():
            worker.kill()
        for _ in range(6000):
            time.sleep(0.01)  # torch hears of it here, not where it waits for a batch

    with pytest.raises(DataError, match="a loader process died"):
        train(tiny("data.workers=1", "training.steps_per_epoch=8"), tiny_world, tmp_path / "run", on_progress=kill)
