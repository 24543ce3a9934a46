"""Work that takes time, off the event loop: a few threads, a bounded queue, and a refusal where it is full."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any, TypeVar

from fastapi import HTTPException

T = TypeVar("T")


class Pool:
    """``workers`` threads, for which ``waiting`` pieces of work may wait."""

    def __init__(self, name: str, workers: int, waiting: int) -> None:
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix=name)
        self._room = workers + waiting
        self._taken = 0
        self._lock = Lock()

    async def run(self, work: Callable[[], T]) -> T:
        """The work's result. Raises :class:`HTTPException` 503 where too much is waiting already."""
        with self._lock:
            if self._taken >= self._room:
                raise HTTPException(503, "the server is busy; try again in a moment", {"Retry-After": "2"})
            self._taken += 1
        future = self._executor.submit(work)
        future.add_done_callback(self._leave)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Let what runs come to its end, and begin nothing else."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _leave(self, _: Future[Any]) -> None:
        with self._lock:
            self._taken -= 1
