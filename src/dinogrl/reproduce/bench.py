"""How fast the costly steps are on this machine, and how much memory they take, beside a literal implementation of each.

Every figure is measured in a process of its own, so that its memory is its own. Rates are the best of a few repetitions: what the
machine can do, not what else it was doing.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from dinogrl import checkpoints, memory, runtime
from dinogrl.errors import DinogrlError
from dinogrl.reproduce.bench_stages import STAGES, Setting
from dinogrl.reproduce.ceilings import Ceilings, best_seconds, measure_ceilings

LITERAL = Path(__file__).parents[3] / "benchmarks" / "literal.py"
"""The literal implementation, in a checkout of the project; an installed package has none."""

ALLOCATION = ("LD_PRELOAD", "GLIBC_TUNABLES", "MALLOC_CONF")
"""Variables by which a process gets another memory allocator, or another manner of its own. Both forms are measured under them."""


@dataclass(frozen=True)
class Reading:
    """Things done a second, floating-point operations a second (0: not counted), and bytes held at most."""

    rate: float
    flops: float
    memory: int


@dataclass(frozen=True)
class Row:
    """A stage in one precision, and its literal implementation in float32 (None where there is none)."""

    name: str
    unit: str
    precision: str
    ours: Reading
    literal: Reading | None
    ceiling: float

    @property
    def share(self) -> float | None:
        """Operations a second as a share of what matrix products in this precision reach."""
        return self.ours.flops / self.ceiling if self.ours.flops else None

    @property
    def gain(self) -> float | None:
        """How many times faster than the literal implementation."""
        return None if self.literal is None else self.ours.rate / self.literal.rate

    @property
    def memory_share(self) -> float | None:
        """Peak memory over that of the literal implementation."""
        return None if self.literal is None else self.ours.memory / self.literal.memory


@dataclass(frozen=True)
class Bench:
    """What to measure. ``literal``: the file of the literal implementation, or None to leave it out. ``clips``: as in
    :class:`~dinogrl.reproduce.bench_stages.Setting`."""

    stages: tuple[str, ...]
    device: torch.device
    threads: int
    repetitions: int = 3
    literal: Path | None = LITERAL
    clips: int = 4

    def __post_init__(self) -> None:
        if self.clips < 2 or self.clips % 2:
            raise DinogrlError(f"{self.clips} clips are not half visible and half infrared; give an even number")
        unknown = [name for name in self.stages if name not in STAGES]
        if unknown:
            raise DinogrlError(f"no stage {unknown[0]!r} to measure; there are {', '.join(STAGES)}")

    def ceilings(self) -> Ceilings:
        """Of this machine, with the same threads."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            return measure_ceilings(self.device, self.repetitions)
        finally:
            torch.set_num_threads(before)

    def rows(self, ceilings: Ceilings) -> Iterator[Row]:
        """Measure one stage after the other, the literal implementation in the same run."""
        known = self.literal is not None and self.literal.is_file()
        read: dict[Any, Reading] = {}  # two stages may have one literal implementation
        for name in self.stages:
            stage = STAGES[name]
            if known and stage.literal is not None and stage.literal not in read:
                read[stage.literal] = self._read(name, "literal", False)
            literal = read.get(stage.literal)
            for bfloat16 in (False, True) if stage.reduced else (False,):
                ceiling = ceilings.bfloat16 if bfloat16 else ceilings.float32
                precision = "bfloat16" if bfloat16 else "float32"
                yield Row(name, stage.unit, precision, self._read(name, "ours", bfloat16), literal, ceiling)

    def _read(self, name: str, form: str, bfloat16: bool) -> Reading:
        here, there = multiprocessing.Pipe(duplex=False)
        threads = 1 if STAGES[name].single else self.threads
        setting = Setting(self.device, bfloat16, self.literal, self.clips)
        process = multiprocessing.get_context("spawn").Process(
            target=_measure, args=(there, name, form, setting, threads, self.repetitions), daemon=True
        )
        process.start()
        there.close()
        try:
            reading: Reading = here.recv()
        except EOFError:
            process.join()
            what = f"exit code {process.exitcode}" + (", often for lack of memory" if process.exitcode == -9 else "")
            raise DinogrlError(f"measuring {name} ({form}) ended early with {what}; leave it out by naming other stages") from None
        process.join()
        return reading


def _measure(answer: Connection, name: str, form: str, setting: Setting, threads: int, repetitions: int) -> None:
    """In a process of its own."""
    torch.set_num_threads(threads)
    runtime.seed_everything(1)
    if form == "ours":
        memory.keep_freed_memory()  # as every command does
    with runtime.denormals_flushed():
        work = getattr(STAGES[name], form)(setting)
        seconds = best_seconds(work.run, setting.device, repetitions)
    answer.send(Reading(work.units / seconds, work.flop / seconds, runtime.peak_memory(setting.device)))


def write_results(path: Path, bench: Bench, ceilings: Ceilings, rows: Iterable[Row]) -> None:
    """Everything that was measured, as JSON, with the machine and the date."""
    content: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {"device": runtime.device_name(bench.device), "threads": bench.threads, "system": platform.platform()},
        "clips": bench.clips,
        "allocation": {name: os.environ[name] for name in ALLOCATION if name in os.environ},
        "versions": runtime.versions(),
        "ceilings": asdict(ceilings),
        "rows": [{**asdict(row), "share": row.share, "gain": row.gain, "memory_share": row.memory_share} for row in rows],
    }
    checkpoints.write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())
