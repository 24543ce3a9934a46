"""A file of equally long rows, read through memory mapping: the operating system keeps in memory what is used."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class SlotFile:
    """Rows of ``width`` numbers of one type, found by their number (slot). Writing is one process's business."""

    def __init__(self, path: Path, width: int, dtype: type[np.floating]) -> None:
        self.width, self.dtype = width, np.dtype(dtype)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self._rows = self._map()

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def row_bytes(self) -> int:
        """Bytes a row."""
        return self.width * self.dtype.itemsize

    @property
    def rows(self) -> NDArray[np.floating]:
        """(N,width), lying on disk, read-only. Stays valid, with what was there, when the file grows."""
        return self._rows

    def write(self, slots: NDArray[np.int64], rows: NDArray[np.floating]) -> None:
        """Write rows (n,width) to ascending slots, on disk when this returns."""
        content = np.ascontiguousarray(rows, self.dtype)
        for run in _runs(slots):
            _write_all(self._file, content[run].tobytes(), int(slots[run.start]) * self.row_bytes)
        os.fsync(self._file)
        if len(slots) and slots[-1] >= len(self._rows):
            self._rows = self._map()

    def erase(self, slots: NDArray[np.int64]) -> None:
        """Fill ascending slots with zeros."""
        self.write(slots, np.zeros((len(slots), self.width), self.dtype))

    def cut(self, count: int) -> None:
        """Forget all rows from ``count`` on."""
        self._rows = self._rows[:0]  # nobody may read beyond the end of the file
        os.ftruncate(self._file, count * self.row_bytes)
        self._rows = self._map()

    def close(self) -> None:
        """No more reading or writing."""
        self._rows = np.empty((0, self.width), self.dtype)
        os.close(self._file)

    def _map(self) -> NDArray[np.floating]:
        count = os.fstat(self._file).st_size // self.row_bytes
        if not count:
            return np.empty((0, self.width), self.dtype)
        with os.fdopen(os.dup(self._file), "rb") as file:
            return np.memmap(file, self.dtype, "r", shape=(count, self.width))


def _runs(slots: NDArray[np.int64]) -> Iterator[slice]:
    """Stretches in which each slot follows the one before."""
    breaks = np.flatnonzero(np.diff(slots) != 1) + 1
    edges = [0, *breaks.tolist(), len(slots)]
    return (slice(a, b) for a, b in pairwise(edges) if b > a)


def _write_all(file: int, content: bytes, offset: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written
