"""The only door to seeds, devices and versions."""

from __future__ import annotations

import os
import platform
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from dinogrl.errors import DinogrlError

Item = TypeVar("Item")


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (CPU and every accelerator)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (for libraries that draw from the global state)
    torch.manual_seed(seed)


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Within the block, numbers too small for normal floats count as 0.

    CPUs take a hundred times as long over them, and late in training gradients are full of them. Only for the block: the setting
    holds for this thread, those that compute for it and those that it starts, and other code may live by such numbers.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def derived_seed(*parts: int | str) -> int:
    """A 63-bit seed that depends on all the parts, the same on every machine: what is drawn does not depend on who draws first."""
    words = [part if isinstance(part, int) else int.from_bytes(part.encode(), "little") for part in parts]
    state = np.random.SeedSequence([abs(word) for word in words]).generate_state(2, np.uint32)
    return int(state[0]) << 31 | int(state[1]) >> 1


def device(name: str = "auto") -> torch.device:
    """``auto`` takes CUDA, then MPS, then the CPU. Raises :class:`DinogrlError` for a device that is not here."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(name)
    except RuntimeError as error:
        raise DinogrlError(f"unknown device {name!r}; use auto, cpu, cuda, cuda:1 or mps") from error
    if chosen.type not in {"cpu", "cuda", "mps"}:
        raise DinogrlError(f"device {name!r} is none that this program works on; use auto, cpu, cuda, cuda:1 or mps")
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise DinogrlError(f"device {name!r} was asked for, but torch sees no CUDA device; use --device cpu")
    if chosen.type == "cuda" and (chosen.index or 0) >= (count := torch.cuda.device_count()):
        raise DinogrlError(f"device {name!r} was asked for, but torch sees {count}, cuda:0 to cuda:{count - 1}")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise DinogrlError(f"device {name!r} was asked for, but torch sees no Apple GPU; use --device cpu")
    return chosen


def fast_bfloat16(where: torch.device) -> bool:
    """Does this device multiply bfloat16 matrices faster than float32 ones?"""
    if where.type == "cuda":
        with torch.cuda.device(where):
            return torch.cuda.is_bf16_supported(including_emulation=False)  # GPUs before 2020 do it, slowly
    if where.type != "cpu":
        return False
    flags = torch.backends.cpu.get_cpu_capability()
    return flags in {"AVX512", "AMX"} and bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())


def convolves_by_onednn(where: torch.device) -> bool:
    """Is this an x86 processor on which torch convolves by oneDNN, while its float32 products go to MKL?"""
    x86 = torch.backends.cpu.get_cpu_capability().startswith("AVX")
    return where.type == "cpu" and x86 and torch.backends.mkldnn.is_available()


def wants_bfloat16(precision: str, where: torch.device) -> bool:
    """What a recipe's ``precision`` comes to on this device: ``auto`` takes bfloat16 where it is the faster one."""
    return precision == "bfloat16" or (precision == "auto" and fast_bfloat16(where))


def synchronise(where: torch.device) -> None:
    """Wait until the device has done all that was queued."""
    if where.type == "cuda":
        torch.cuda.synchronize(where)


def peak_memory(where: torch.device) -> int:
    """Bytes that this process has held at most: on an accelerator its tensors, on a CPU all of the process."""
    if where.type == "cuda":
        return int(torch.cuda.max_memory_allocated(where))
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would give a new process the peak of the one that started it
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    import resource  # not on every system, and wanted here alone

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def device_name(where: torch.device) -> str:
    """What the device calls itself; of a CPU also the instructions that torch uses on it."""
    if where.type == "cuda":
        return torch.cuda.get_device_name(where)
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()} ({torch.backends.cpu.get_cpu_capability()})"


def threads() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def side_by_side(task: Callable[[Item], object], items: Iterable[Item]) -> None:
    """Do ``task`` on every item, on as many threads as torch may use here, one core each.

    Many small steps are quicker so than with all cores on each step: nobody waits at the end of every step for a core that another
    process holds. The first error that a task raises is raised here.
    """
    workers = torch.get_num_threads()
    if workers == 1:
        for item in items:
            task(item)
        return
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        for _ in pool.map(task, items):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(workers)  # a worker's 1 would else be what threads to come begin with


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    names = ("dinogrl", "torch", "transformers", "numpy", "opencv-python-headless", "lightning-fabric")
    return {"python": platform.python_version(), **{name: _version(name) for name in names}}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown"
