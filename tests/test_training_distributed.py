"""Two processes on one machine (gloo) take the gradient step that one process takes, and end together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace

import pytest
import torch
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel

from dinogrl import runtime
from dinogrl.errors import TrainingError
from dinogrl.losses import Objective
from dinogrl.models.build import build_model
from dinogrl.recipes import load_recipe
from dinogrl.runtime import seed_everything
from dinogrl.training import processes
from dinogrl.training.run import make_fabric
from dinogrl.training.tuning import freeze_what_no_loss_reaches
from tiny_recipe import TINY

IDENTITY = torch.tensor([0, 1, 0, 1, 2, 3, 2, 3])  # first the four clips of one process, then those of the other


CASES = {
    "whole": [],
    "baseline": ["model.gait=null", "model.enhancement=null"],
    "parts that no loss reaches": ["model.gait.joint_priors=false", "objective.mask=0"],
    "adapters": ["model.gait.prior.lora={blocks: 2}"],
}


def gradients(case: str, rows: slice, wrap: bool) -> dict[str, torch.Tensor]:
    recipe = load_recipe("demo_dinogrl", [*TINY, *CASES[case]])
    seed_everything(5)
    network = build_model(recipe, 4)
    freeze_what_no_loss_reaches(network, recipe.objective)
    model = DistributedDataParallel(network) if wrap else network
    model.eval()  # batch statistics differ by nature where each process sees its own half
    network.training = True  # logits and reconstructions are made in training only
    if network.gait is not None:
        network.gait.training = True
    generator = torch.Generator().manual_seed(1)
    frames = torch.randn(8, 2, 3, 64, 32, generator=generator)[rows]
    modality = (torch.arange(8) // 2 % 2)[rows]
    for _ in range(2):  # at the second step torch says if the first has left a gradient out
        model.zero_grad()
        Objective(recipe.objective)(model(frames, modality), IDENTITY[rows])["total"].backward()
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    for case in CASES:
        torch.save(gradients(case, slice(4 * rank, 4 * rank + 4), wrap=True), Path(folder, f"{case} {rank}.pt"))
    torch.distributed.destroy_process_group()


def test_two_processes_equal_one(tmp_path: Path) -> None:
    multiprocessing.spawn(one_of_two, (str(tmp_path),), nprocs=2)
    for case in CASES:
        first, second = (torch.load(tmp_path / f"{case} {rank}.pt", weights_only=True) for rank in range(2))
        alone = gradients(case, slice(None), wrap=False)
        assert alone.keys() == first.keys() == second.keys()
        for name, gradient in alone.items():
            torch.testing.assert_close(first[name], second[name], rtol=0, atol=0)
            scale = float(gradient.abs().max()) + 1e-6
            assert float((first[name] - gradient).abs().max()) < 2e-3 * scale + 1e-5, (case, name)


TWO = [*TINY, "training.warmup_epochs=0", "training.steps_per_epoch=12", "--devices", "2"]


def of_two(arguments: list[str], data: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """The command's end. It comes once no process holds the pipes any more: one that is left behind would be waited for."""
    command = [sys.executable, "-m", "dinogrl", "train", "demo_dinogrl", *arguments, "--data", str(data), "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)


def test_a_loss_that_is_not_finite_ends_all_processes_with_one_line(tiny_world: Path, tmp_path: Path) -> None:
    done = of_two([*TWO, "training.learning_rate=1e30"], tiny_world, tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("the loss is not finite at epoch 0, step 1") == 1
    assert done.stderr.count("error:") == 1 and "Traceback" not in done.stderr


class FirstOfTwo:
    """What Fabric is to the first process, where the other one is at ``other`` once it is launched."""

    local_rank = 0

    def __init__(self, other: str, meeting: Callable[[], object] = lambda: None) -> None:
        self.strategy = SimpleNamespace(launcher=SimpleNamespace(procs=[]))
        self._other, self._meeting = other, meeting

    def launch(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", self._other])
        self.strategy.launcher.procs.append(self.process)
        self._meeting()


def test_more_devices_than_there_are_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(TrainingError, match="3 devices were asked for, torch sees 2 of cuda; give --devices 2"):
        make_fabric(load_recipe("demo_dinogrl", TINY), 3)


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting ends with what is waited for, and a machine that stands still for seconds changes nothing."""
    monkeypatch.setattr(processes, "SECONDS_TO_END", 600.0)


SLEEPS, FAILS = "import time; time.sleep(600)", "raise SystemExit(3)"


def launched(fabric: object) -> AbstractContextManager[None]:
    return processes.launched(fabric)  # type: ignore[arg-type]


class AtOnce(Thread):
    """All have met before the first process can look."""

    def start(self) -> None:
        super().start()
        if self.name == "meeting":
            self.join()


@pytest.mark.parametrize("thread", [Thread, AtOnce])
def test_an_error_of_the_first_process_ends_the_other(thread: type[Thread], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "Thread", thread)
    fabric = FirstOfTwo(SLEEPS)
    with pytest.raises(TrainingError, match="its own words"), launched(fabric):
        assert fabric.strategy.launcher.procs == [], "Fabric would kill this process, where the other had ended badly"
        raise TrainingError("its own words")
    assert fabric.process.returncode is not None


def test_the_first_process_names_the_one_that_failed_before_it() -> None:
    with pytest.raises(TrainingError, match="process 2 of 2 ended with exit code 3"), launched(FirstOfTwo(FAILS)):
        raise RuntimeError("connection closed by peer")


def test_an_error_of_its_own_is_not_blamed_on_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "SECONDS_TO_END", 0.2)
    fabric = FirstOfTwo(SLEEPS)
    with pytest.raises(RuntimeError, match="out of memory"), launched(fabric):
        raise RuntimeError("out of memory")
    assert fabric.process.returncode is not None


def test_one_that_ends_before_all_have_met_is_not_waited_for() -> None:
    never = Event()
    with pytest.raises(TrainingError, match="process 2 of 2 ended with exit code 3"), launched(FirstOfTwo(FAILS, never.wait)):
        pass
    never.set()


def test_an_error_while_they_meet_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "SECONDS_TO_END", 0.2)

    def fails() -> None:
        raise RuntimeError("address already in use")

    fabric = FirstOfTwo(SLEEPS, fails)
    with pytest.raises(RuntimeError, match="address already in use"), launched(fabric):
        pass
    assert fabric.process.returncode is not None


def test_the_others_start_deaf_to_ctrl_c_and_the_first_is_not() -> None:
    masks: list[set[int]] = []
    with launched(FirstOfTwo("", lambda: masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ())))):
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    assert signal.SIGINT in masks[0] and signal.SIGINT not in masks[1]


def test_the_cores_are_shared_out() -> None:
    before = torch.get_num_threads()
    try:
        with launched(FirstOfTwo("", lambda: torch.set_num_threads(before + 1))):
            assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_another_process_says_that_the_first_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(processes._FIRST, "0")
    fabric = SimpleNamespace(local_rank=1, launch=lambda: None)
    with pytest.raises(TrainingError, match="the first process has ended"), launched(fabric):
        raise RuntimeError("connection closed by peer")


def test_another_process_does_not_blame_a_first_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(processes._FIRST, str(os.getppid()))
    monkeypatch.setattr(processes, "SECONDS_TO_END", 0.2)
    with pytest.raises(RuntimeError, match="out of memory"), launched(SimpleNamespace(local_rank=1, launch=lambda: None)):
        raise RuntimeError("out of memory")


def test_one_that_waits_inside_of_torch_for_another_that_is_gone_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    codes: list[int] = []
    over = Event()
    monkeypatch.setattr(processes, "SECONDS_TO_END", 0.0)
    monkeypatch.setattr(os, "_exit", lambda code: (codes.append(code), over.set()))
    ended: list[str] = []
    peers = SimpleNamespace(gone=lambda: "process 2 of 2 ended with exit code 3", end=lambda: ended.append("all"))
    processes._watch(peers, over)
    assert codes == [2] and ended == ["all"] and "process 2 of 2 ended with exit code 3" in caplog.text
