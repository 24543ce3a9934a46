"""What a run writes down while it trains: log.csv and TensorBoard. Also where a loss that is not finite stops the run."""

from __future__ import annotations

import csv
import io
import math
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from dinogrl import checkpoints
from dinogrl.errors import TrainingError

RISEN = 1.5
"""Times the first loss: more than batches differ."""


@dataclass
class Step:
    """One optimiser step, its losses still on the device."""

    epoch: int
    step: int
    learning_rate: float
    losses: dict[str, Tensor]
    tracklet_ids: list[str]


class Journal:
    """Collects steps, and every ``every`` of them fetches the losses from the device in one go, checks and writes them.

    ``log.csv`` has one row a step: epoch, step (counted from the start of the run), learning_rate, every named loss, seconds.
    """

    def __init__(self, folder: Path, every: int = 10) -> None:
        self.path = folder / "log.csv"
        self.every = every
        self.latest: dict[str, float] = {}
        self._waiting: list[Step] = []
        self._tensorboard = SummaryWriter(str(folder / "tensorboard"))
        self._last = time.monotonic()

    def rewind(self, step: int) -> None:
        """Forget rows at or after ``step``: a resumed run writes them again."""
        if not self.path.is_file():
            return
        with self.path.open(newline="", encoding="utf-8") as file:
            whole = [row for row in csv.DictReader(file) if None not in row.values()]  # a killed run may leave half a row
        rows = [row for row in whole if row["step"].isdigit() and int(row["step"]) < step]
        checkpoints.write_atomically(self.path, _as_csv(rows, header=True).encode())

    def add(self, step: Step) -> None:
        """Take one step; writes when enough have come together."""
        self._waiting.append(step)
        if len(self._waiting) >= self.every:
            self.flush()

    def flush(self) -> None:
        """Write what waits. Raises :class:`TrainingError` naming the step and its tracklets where the total is not finite."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        seconds = (time.monotonic() - self._last) / len(waiting)
        self._last = time.monotonic()
        rows = [_row(step, seconds) for step in waiting]
        new = not self.path.exists() or not self.path.stat().st_size  # a run that began anew has kept no row
        with self.path.open("a", newline="", encoding="utf-8") as file:
            file.write(_as_csv(rows, header=new))
        for step, row in zip(waiting, rows, strict=True):
            if not math.isfinite(row["total"]):
                bad = [name for name in step.losses if not math.isfinite(row[name])]
                raise TrainingError(
                    f"the loss is not finite at epoch {step.epoch}, step {step.step} ({', '.join(bad)}); tracklets of that batch: "
                    f"{', '.join(step.tracklet_ids)}; look at their frames, or lower training.learning_rate"
                )
            for name in (*step.losses, "learning_rate"):
                self._tensorboard.add_scalar(f"train/{name}", row[name], step.step)
        self.latest = {name: rows[-1][name] for name in (*waiting[-1].losses, "learning_rate", "seconds")}

    def score(self, name: str, value: float, step: int) -> None:
        """A score on held-out identities, to TensorBoard."""
        self._tensorboard.add_scalar(f"holdout/{name}", value, step)

    def rise(self) -> tuple[float, float] | None:
        """Total loss of the first step and its mean over the last tenth, where that is much larger and the run not too short."""
        if not self.path.is_file():
            return None
        with self.path.open(newline="", encoding="utf-8") as file:
            totals = [float(row["total"]) for row in csv.DictReader(file)]
        tenth = len(totals) // 10
        if tenth < 2:
            return None
        first, last = totals[0], fmean(totals[-tenth:])  # the second step may be where it leapt
        return (first, last) if last > RISEN * first else None

    def close(self) -> None:
        self._tensorboard.close()


def _row(step: Step, seconds: float) -> dict[str, Any]:
    losses = {name: float(value.detach()) for name, value in step.losses.items()}
    return {"epoch": step.epoch, "step": step.step, "learning_rate": step.learning_rate, **losses, "seconds": seconds}


def _as_csv(rows: list[dict[str, Any]], header: bool) -> str:
    if not rows:
        return ""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
