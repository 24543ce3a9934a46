"""The index of a gallery that lies in a folder: facts and compact vectors as arrays, compared one after the other.

milvus-lite 3.2 walks all rows in Python for every search, whatever the index, which takes longer than comparing all vectors. Facts
are read from its table when a gallery is opened; the vectors lie in a mapped file. A row is a slot of that file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinogrl.gallery.entries import Entry
from dinogrl.gallery.filters import Filters

_NUMBERS = ("modality", "start_ms", "end_ms", "added_ms")
_FEW = 0.3
"""Share of the rows below which those that pass are picked out before they are compared."""


class Resident:
    """Columns of N slots (see :class:`dinogrl.gallery.filters.Columns`). One process, one writer; readers see a whole state."""

    def __init__(self) -> None:
        self.slot_of: dict[str, int] = {}
        self.ids: list[str | None] = []
        self._codes: dict[str, int] = {}
        self._columns = {name: np.empty(0, kind) for name, kind in _KINDS.items()}

    def __len__(self) -> int:
        return len(self.slot_of)

    # -- as Columns -------------------------------------------------------------------------------------------------------------

    @property
    def camera(self) -> NDArray[np.int32]:
        return self._columns["camera"]

    @property
    def collection(self) -> NDArray[np.int32]:
        return self._columns["collection"]

    @property
    def modality(self) -> NDArray[np.int8]:
        return self._columns["modality"]

    @property
    def start_ms(self) -> NDArray[np.int64]:
        return self._columns["start_ms"]

    @property
    def end_ms(self) -> NDArray[np.int64]:
        return self._columns["end_ms"]

    @property
    def added_ms(self) -> NDArray[np.int64]:
        return self._columns["added_ms"]

    def present(self) -> NDArray[np.bool_]:
        """(N,) which slots hold a tracklet."""
        return np.asarray(self._columns["camera"] >= 0)

    def codes(self, names: Iterable[str]) -> list[int]:
        """Numbers of those of the names that are known."""
        return [self._codes[name] for name in names if name in self._codes]

    def rows(self, ids: Iterable[str]) -> list[int]:
        """Slots of those of the ids that are there."""
        return [self.slot_of[id] for id in ids if id in self.slot_of]

    # -- changes ----------------------------------------------------------------------------------------------------------------

    def put(self, rows: Sequence[dict[str, Any]]) -> None:
        """Take in rows of the table, each with its slot."""
        if not rows:
            return
        slots = np.array([row["slot"] for row in rows])
        columns = {name: self._grown(name, int(slots.max()) + 1) for name in _KINDS}
        for name in _NUMBERS:
            columns[name][slots] = [row[name] for row in rows]
        for name in ("camera", "collection"):
            columns[name][slots] = [self._codes.setdefault(row[name], len(self._codes)) for row in rows]
        self.ids += [None] * (len(columns["camera"]) - len(self.ids))
        for row in rows:
            self.ids[row["slot"]] = row["id"]
        self.slot_of.update({row["id"]: row["slot"] for row in rows})
        self._columns = columns

    def drop(self, slots: Iterable[int]) -> None:
        """Forget these slots."""
        camera = self.camera.copy()
        for slot in slots:
            camera[slot] = -1
            id = self.ids[slot]
            self.ids[slot] = None
            if id is not None and self.slot_of.get(id) == slot:
                del self.slot_of[id]
        self._columns = {**self._columns, "camera": camera}

    def free_slots(self, count: int) -> NDArray[np.int64]:
        """(count,) ascending: slots that hold nothing, new ones at the end where these are too few."""
        free = np.flatnonzero(~self.present())[:count]
        end = len(self.camera)
        return np.concatenate([free, np.arange(end, end + count - len(free))])

    # -- search -----------------------------------------------------------------------------------------------------------------

    def nearest(
        self, queries: NDArray[np.float32], vectors: NDArray[np.floating], norms: NDArray[np.float32], count: int, filters: Filters
    ) -> list[list[str]]:
        """For each query (Q,d) the ids of the ``count`` nearest that pass, nearest first. ``norms``: squares of ``vectors``."""
        ids = self.ids
        passed = filters.mask(self)
        vectors, norms = vectors[: len(passed)], norms[: len(passed)]  # there may be more, of tracklets that are being added
        chosen = np.flatnonzero(passed)
        if not len(chosen):
            return [[] for _ in queries]
        few = len(chosen) < _FEW * len(vectors)
        rows, lengths = (vectors[chosen], norms[chosen]) if few else (vectors, norms)
        found = []
        for query in queries:
            squares = lengths - 2 * (rows @ query)  # and the query's own length, the same for all
            if not few:
                squares[~passed] = np.inf
            best = np.argpartition(squares, count - 1)[:count] if count < len(chosen) else np.flatnonzero(squares < np.inf)
            best = best[np.argsort(squares[best], kind="stable")]
            found.append([id for slot in (chosen[best] if few else best) if (id := ids[slot]) is not None])
        return found

    def _grown(self, name: str, size: int) -> NDArray[Any]:
        """A copy of a column, long enough; new rows hold no tracklet."""
        old = self._columns[name]
        column = np.full(max(size, len(old)), -1, old.dtype)
        column[: len(old)] = old
        return column


def passing(entries: Mapping[str, Entry], filters: Filters) -> dict[str, Entry]:
    """Those of the entries (id -> entry) that pass."""
    facts = Resident()
    facts.put([{**entry.as_row(), "slot": row} for row, entry in enumerate(entries.values())])
    return {id: entry for (id, entry), passed in zip(entries.items(), filters.mask(facts), strict=True) if passed}


_KINDS: dict[str, type[np.integer]] = {
    "camera": np.int32,
    "collection": np.int32,
    "modality": np.int8,
    "start_ms": np.int64,
    "end_ms": np.int64,
    "added_ms": np.int64,
}
