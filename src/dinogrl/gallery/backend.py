"""What a gallery needs of the place where it lies; :mod:`folder` and :mod:`server` are the two places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dinogrl.gallery.entries import Entry
from dinogrl.gallery.filters import Filters


@dataclass(frozen=True)
class Form:
    """Shape of what is kept of a tracklet: P parts of D numbers in ``precision``, d = ``width`` numbers in the index."""

    parts: int
    depth: int
    width: int
    precision: str

    @property
    def dtype(self) -> type[np.floating]:
        """Type of the stored part vectors."""
        return PRECISIONS[self.precision]

    @property
    def payload_bytes(self) -> int:
        """Bytes of the part vectors of a tracklet."""
        return self.parts * self.depth * np.dtype(self.dtype).itemsize


PRECISIONS: dict[str, type[np.floating]] = {"float16": np.float16, "float32": np.float32}


@dataclass
class Batch:
    """n tracklets to be kept: facts, digests, part vectors (n,P*D) as stored, compact vectors (n,d), small pictures (or None)."""

    entries: Sequence[Entry]
    digests: Sequence[str]
    parts: NDArray[np.floating]
    compact: NDArray[np.float32]
    strips: Sequence[bytes | None]


@dataclass(frozen=True)
class Vectors:
    """Of n tracklets: ids, part vectors (n,P*D) as stored, compact vectors (n,d)."""

    ids: Sequence[str]
    parts: NDArray[np.floating]
    compact: NDArray[np.float32]


class Backend(Protocol):
    """A place where a gallery lies. Many threads may read; one at a time writes."""

    def read_document(self, key: str) -> bytes | None:
        """A document of the gallery itself, or None."""

    def write_document(self, key: str, content: bytes) -> None:
        """Store a document."""

    def open(self, form: Form) -> None:
        """Make ready for tracklets of this form; the first time this creates their table."""

    def put(self, batch: Batch) -> None:
        """Keep tracklets, in the place of those of the same id. When this returns, they survive the end of the process."""

    def delete(self, ids: Sequence[str]) -> None:
        """Forget tracklets."""

    def digests(self, ids: Sequence[str]) -> dict[str, str]:
        """id -> digest of those that are there."""

    def entries(self, ids: Sequence[str]) -> dict[str, Entry]:
        """id -> facts of those that are there."""

    def every(self, filters: Filters) -> Iterator[Entry]:
        """Facts of all tracklets that pass."""

    def vectors(self, ids: Sequence[str]) -> Vectors:
        """Vectors of those of the ids that are there, in their order."""

    def strip(self, id: str) -> bytes | None:
        """The small picture of a tracklet, or None."""

    def nearest(self, vectors: NDArray[np.float32], count: int, filters: Filters) -> list[list[str]]:
        """For each compact vector (Q,d) the ids of the ``count`` nearest that pass, nearest first; fewer where there are fewer."""

    def count(self) -> int:
        """Tracklets."""

    def sizes(self) -> tuple[int, int]:
        """Bytes on this machine's disk, and bytes of arrays that searching keeps in memory."""

    def close(self) -> None:
        """Let go of everything."""
