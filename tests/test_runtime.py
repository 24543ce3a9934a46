"""Seeds, devices, and one process speaking the language of many."""

from __future__ import annotations

import random
import subprocess
import sys
from contextlib import nullcontext

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from dinogrl import distributed, runtime
from dinogrl.errors import DinogrlError


def test_one_seed_gives_one_sequence() -> None:
    def draw() -> tuple[float, float, float]:
        runtime.seed_everything(7)
        return random.random(), float(np.random.random()), float(torch.rand(()))  # noqa: NPY002

    assert draw() == draw()


PARTS = st.lists(st.integers(0, 2**40) | st.text("abc", max_size=4), min_size=1, max_size=4)


@hypothesis.given(PARTS)
def test_a_derived_seed_is_a_63_bit_number_and_the_same_everywhere(parts: list[int | str]) -> None:
    seed = runtime.derived_seed(*parts)
    assert 0 <= seed < 2**63 and seed == runtime.derived_seed(*parts)


def test_derived_seeds_are_stable_and_far_apart() -> None:
    """The number itself is a promise: a resumed run, or another machine, draws the same."""
    assert runtime.derived_seed(1, "step", 3) == runtime.derived_seed(1, "step", 3) != runtime.derived_seed(1, "step", 4)
    assert len({runtime.derived_seed(1, word, i) for word in ("step", "batch") for i in range(1000)}) == 2000


def test_devices() -> None:
    assert runtime.device("cpu") == torch.device("cpu")
    assert runtime.device("auto").type in {"cpu", "cuda", "mps"}
    with pytest.raises(DinogrlError, match="unknown device 'tpu7'"):
        runtime.device("tpu7")
    if not torch.cuda.is_available():
        with pytest.raises(DinogrlError, match="no CUDA device"):
            runtime.device("cuda:0")


@pytest.mark.parametrize("name", ["meta", "xpu", "vulkan"])
def test_devices_that_nothing_here_works_on(name: str) -> None:
    with pytest.raises(DinogrlError, match=f"device '{name}' is none that this program works on"):
        runtime.device(name)


def test_devices_that_are_not_in_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert runtime.device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(DinogrlError, match="torch sees 2, cuda:0 to cuda:1"):
        runtime.device("cuda:2")
    with pytest.raises(DinogrlError, match="no Apple GPU"):
        runtime.device("mps")


def test_versions_name_what_results_depend_on() -> None:
    assert {"python", "dinogrl", "torch", "numpy"} <= runtime.versions().keys()
    assert "unknown" not in runtime.versions().values()
    assert runtime.threads() >= 1


def test_one_process_alone() -> None:
    rows = torch.ones(3, 2, requires_grad=True)
    assert distributed.rank() == 0 and distributed.world_size() == 1 and not distributed.active()
    assert distributed.gather(rows) is rows
    distributed.barrier()


@pytest.mark.parametrize("workers", [1, 3])
def test_tasks_run_side_by_side_on_one_core_each(workers: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(workers)
    done: list[tuple[int, int]] = []
    try:
        runtime.side_by_side(lambda item: done.append((item, torch.get_num_threads())), range(20))
        assert sorted(done) == [(item, 1) for item in range(20)]
        with pytest.raises(ZeroDivisionError):
            runtime.side_by_side(lambda item: 1 // (item - 5), range(20))
        assert torch.get_num_threads() == workers
    finally:
        torch.set_num_threads(before)


def test_a_process_answers_for_its_own_memory_only() -> None:
    """Not for the process that started it, however much that one holds."""
    held = np.ones(2**27, dtype=np.float64)  # 1 GiB
    code = "import torch; from dinogrl import runtime; print(runtime.peak_memory(torch.device('cpu')))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 2**25 < int(answer.stdout) < held.nbytes <= runtime.peak_memory(torch.device("cpu"))


@pytest.mark.parametrize("fast", [True, False])
def test_bfloat16_that_a_gpu_only_emulates_is_not_fast(monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
    asked: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "device", lambda where: asked.append(where) or nullcontext())
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or fast)
    assert runtime.fast_bfloat16(torch.device("cuda:1")) is fast and asked == [torch.device("cuda:1")]
    assert runtime.wants_bfloat16("auto", torch.device("cuda:1")) is fast and runtime.wants_bfloat16(
        "bfloat16", torch.device("cuda:1")
    )
