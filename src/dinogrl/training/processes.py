"""Processes that train together end together: one that waits for another that is gone would wait for ever, or say so at length."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import Event, Thread
from typing import Protocol

import torch
from lightning_fabric import Fabric

from dinogrl.errors import TrainingError

log = logging.getLogger(__name__)

SECONDS_TO_END = 10.0
"""How long a process that cannot reach another waits for that one's end, and one whose other has ended for its own."""

_FIRST = "DINOGRL_FIRST_PROCESS"
"""Tells the others which one has started them: it may be gone before they ask."""


@contextmanager
def launched(fabric: Fabric) -> Iterator[None]:
    """Launch ``fabric``'s processes; from then on, the end of one before its work is done ends every one of them, and is said once.

    The first process ends those that it has started before its own error goes on. A process that failed only because another one
    had ended raises a :class:`TrainingError` that names that one; where it waits inside of torch and can raise nothing, the line is
    logged and it ends with exit code 2. Ctrl-C, which a terminal sends to all of them, is left to the first.
    """
    if fabric.local_rank > 0:
        with _interrupts_ignored(), _together(_First()):
            fabric.launch()
            yield
        return
    others = _Others(getattr(fabric.strategy.launcher, "procs", []))
    with ExitStack() as ending:
        ending.callback(others.end)
        with _together(others):
            _launch(fabric, others)
            yield
        ending.pop_all()  # all went well: they end by themselves


class _Peers(Protocol):
    def gone(self) -> str | None:
        """Which of them has ended without having done its work."""
        ...

    def end(self) -> None:
        """End those that still run, as far as that is this process's to do."""
        ...


class _Others:
    """The processes that the first has started."""

    def __init__(self, started: list[subprocess.Popen[bytes]]) -> None:
        self._started = started  # Fabric's own list, into which it puts them
        self._taken: list[subprocess.Popen[bytes]] = []

    def take(self) -> None:
        """Empty Fabric's list: it watches that too, and ends this process without a word where one of them has ended badly."""
        while self._started:
            self._taken.append(self._started.pop(0))

    def gone(self) -> str | None:
        processes = [*self._taken, *self._started]
        for number, process in enumerate(processes, start=2):
            if process.poll():
                return f"process {number} of {len(processes) + 1} ended with exit code {process.returncode}"
        return None

    def end(self) -> None:
        self.take()
        for process in self._taken:
            process.kill()
        for process in self._taken:
            process.wait()


class _First:
    """The process that has started this one."""

    def __init__(self) -> None:
        self.number = int(os.environ.get(_FIRST, os.getppid()))

    def gone(self) -> str | None:
        return None if os.getppid() == self.number else "the first process has ended"

    def end(self) -> None:
        """The first one ends all others: there is nothing to do."""


@contextmanager
def _together(peers: _Peers) -> Iterator[None]:
    over = Event()
    Thread(target=_watch, args=(peers, over), daemon=True, name="peers").start()
    try:
        yield
    except RuntimeError as error:  # torch's word for a peer that is gone, among others
        failed = _soon_gone(peers)
        if failed is None:
            raise
        raise TrainingError(_advice(failed)) from error
    finally:
        over.set()


def _watch(peers: _Peers, over: Event) -> None:
    """End this process where a peer is gone and the main thread does not come to say so: it waits for it, inside of torch."""
    while not over.wait(1.0):
        failed = peers.gone()
        if failed is not None and not over.wait(SECONDS_TO_END):
            log.error(_advice(failed))
            peers.end()
            os._exit(2)


def _soon_gone(peers: _Peers) -> str | None:
    deadline = time.monotonic() + SECONDS_TO_END
    while (failed := peers.gone()) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return failed


def _advice(failed: str) -> str:
    return f"{failed}; see what it said above, then go on with --resume"


def _launch(fabric: Fabric, others: _Others) -> None:
    """Start the other processes and wait until all have met, beside the main thread: Ctrl-C and the end of one end the waiting."""
    if fabric.strategy.launcher is None:
        fabric.launch()
        return
    os.environ[_FIRST] = str(os.getpid())
    errors: list[Exception] = []
    threads: list[int] = []

    def launch() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # of this thread, and of the processes that it starts
        try:
            fabric.launch()
        except (RuntimeError, OSError, ValueError) as error:
            errors.append(error)
        threads.append(torch.get_num_threads())

    meeting = Thread(target=launch, daemon=True, name="meeting")
    meeting.start()
    met = False
    while not met:
        meeting.join(0.05)
        met = not meeting.is_alive()  # asked before the list is emptied, also where they have met at once
        others.take()
        if (failed := others.gone()) is not None:
            raise TrainingError(_advice(failed))
    if errors:
        raise errors[0]
    torch.set_num_threads(threads[0])  # Fabric shares the cores out; torch keeps the number for each thread


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
