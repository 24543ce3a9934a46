"""Processes that train together end together: one that waits for another that is gone would wait for ever, or say so at length."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from lightning_fabric import Fabric

from dinogrl.errors import TrainingError

SECONDS_TO_END = 10.0
"""How long the first process waits for another's end, once it can no longer be reached."""


@contextmanager
def launched(fabric: Fabric) -> Iterator[None]:
    """Launch ``fabric``'s processes; from then on, an error of one ends every one of them, and is said once.

    The first process ends those that it has started before its own error goes on. Where it failed only because another one had
    ended, which has said why, it raises a :class:`TrainingError` that names that one. Ctrl-C, which a terminal sends to all of
    them, is left to the first.
    """
    if fabric.local_rank > 0:
        with _interrupts_ignored():
            fabric.launch()
            yield
        return
    others: list[subprocess.Popen[bytes]] = getattr(fabric.strategy.launcher, "procs", [])
    with ExitStack() as ending:
        ending.callback(_end, others)
        try:
            fabric.launch()
            yield
        except RuntimeError as error:  # torch's word for a peer that is gone, among others
            failed = _failed(others)
            if failed is None:
                raise
            raise TrainingError(f"{failed}; see what it said above, then go on with --resume") from error
        ending.pop_all()  # all went well: they end by themselves


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _failed(others: Sequence[subprocess.Popen[bytes]]) -> str | None:
    """Which process has ended badly, or does so within :data:`SECONDS_TO_END`."""
    deadline = time.monotonic() + SECONDS_TO_END
    while others and time.monotonic() < deadline:
        for number, process in enumerate(others, start=2):
            if process.poll():
                return f"process {number} of {len(others) + 1} ended with exit code {process.returncode}"
        time.sleep(0.05)
    return None


def _end(others: list[subprocess.Popen[bytes]]) -> None:
    """End those that still run. Fabric watches the list, and would end this process with the first one that ended badly."""
    ending = others.copy()
    others.clear()
    for process in ending:
        process.kill()
    for process in ending:
        process.wait()
