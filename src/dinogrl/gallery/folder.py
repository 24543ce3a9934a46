"""A gallery in a folder: facts in milvus-lite, vectors in mapped files beside it.

    people.gallery/
        lock         held while a process has the gallery open
        facts.db     milvus-lite: one row a tracklet, with its slot
        parts.bin    part vectors, a slot each
        compact.bin  compact vectors, a slot each
        strips/      small pictures

The row in milvus-lite is what makes a tracklet part of the gallery, and it is written last: a process that dies before leaves slots
that nothing points to, and the next one uses them again. Slots of removed tracklets are filled with zeros.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from copy import copy
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from dinogrl.checkpoints import write_atomically
from dinogrl.errors import GalleryError
from dinogrl.gallery.backend import Batch, Form, Vectors
from dinogrl.gallery.entries import Entry, key_of
from dinogrl.gallery.filters import Filters
from dinogrl.gallery.lock import FolderLock
from dinogrl.gallery.milvus import AT_ONCE, FACTS, MilvusTable
from dinogrl.gallery.resident import Resident
from dinogrl.gallery.slots import SlotFile

TABLE = "facts.db"
_INDEXED = ("id", "slot", "camera", "modality", "collection", "start_ms", "end_ms", "added_ms")


class FolderBackend:
    """See :class:`dinogrl.gallery.backend.Backend`. Raises :class:`GalleryError` for a folder in use or one of something else."""

    def __init__(self, folder: Path, name: str, *, create: bool) -> None:
        self.folder = folder
        self._new, self._made = not (folder / TABLE).exists(), not folder.exists()
        if self._new:
            if not create:
                raise GalleryError(f"no gallery at {folder}; make one by: dinogrl gallery add {folder} CHECKPOINT --data DIR")
            if folder.exists() and (not folder.is_dir() or any(child.name != "lock" for child in folder.iterdir())):
                raise GalleryError(f"{folder} is no gallery, and not empty; choose another path")
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FolderLock(folder)
        self._guard = Lock()  # nobody reads while what is known changes hands
        self._resident = Resident()
        self._files: tuple[SlotFile, SlotFile] | None = None
        try:
            self._table = MilvusTable(str(folder / TABLE), name)
        except GalleryError:
            self._lock.release()
            raise

    def read_document(self, key: str) -> bytes | None:
        return self._table.read_document(key)

    def write_document(self, key: str, content: bytes) -> None:
        self._table.write_document(key, content)

    def open(self, form: Form) -> None:
        self._table.create(form.width)
        self._table.load()
        parts = SlotFile(self.folder / "parts.bin", form.parts * form.depth, form.dtype)
        compact = SlotFile(self.folder / "compact.bin", form.width, np.float32)
        self._files = parts, compact
        self._resident.put(list(self._table.each(_INDEXED)))
        used = len(self._resident.camera)
        if min(len(parts), len(compact)) < used:
            raise GalleryError(f"{self.folder}: the vectors of some tracklets are missing; restore the gallery from a backup")
        parts.cut(used)  # what a process that died had written, but not yet promised
        compact.cut(used)
        self._norms = np.einsum("nd,nd->n", compact.rows, compact.rows)

    def put(self, batch: Batch) -> None:
        for i in range(0, len(batch.entries), AT_ONCE):  # each in one message, which is kept whole or not at all
            self._put(batch, slice(i, i + AT_ONCE))

    def _put(self, batch: Batch, chunk: slice) -> None:
        parts, compact = self._opened
        entries = batch.entries[chunk]
        slots = self._resident.free_slots(len(entries))
        vectors = np.ascontiguousarray(batch.compact[chunk])
        parts.write(slots, batch.parts[chunk])
        compact.write(slots, vectors)
        for entry, strip in zip(entries, batch.strips[chunk], strict=True):
            if strip is None:
                self._strip(entry.id).unlink(missing_ok=True)  # that of a tracklet which this one replaces
            else:
                write_atomically(self._strip(entry.id), strip)
        rows = [
            {**entry.as_row(), "slot": int(slot), "digest": digest, "vector": vector}
            for entry, slot, digest, vector in zip(entries, slots, batch.digests[chunk], vectors, strict=True)
        ]
        self._table.put(rows)
        norms = np.zeros(max(len(self._norms), int(slots[-1]) + 1), np.float32)
        norms[: len(self._norms)] = self._norms
        norms[slots] = np.einsum("nd,nd->n", vectors, vectors)
        with self._guard:
            old = self._resident.rows(entry.id for entry in entries)
            self._norms = norms
            self._resident.drop(old)
            self._resident.put(rows)
            self._erase(old)

    def delete(self, ids: Sequence[str]) -> None:
        self._table.delete(ids)
        with self._guard:
            slots = self._resident.rows(ids)
            self._resident.drop(slots)
            self._erase(slots)
        for id in ids:
            self._strip(id).unlink(missing_ok=True)

    def digests(self, ids: Sequence[str]) -> dict[str, str]:
        known = [id for id in ids if id in self._resident.slot_of]
        return {id: row["digest"] for id, row in self._table.get(known, ["digest"]).items()}

    def entries(self, ids: Sequence[str]) -> dict[str, Entry]:
        known = [id for id in ids if id in self._resident.slot_of]
        return {id: Entry.from_row(row) for id, row in self._table.get(known, FACTS).items()}

    def every(self, filters: Filters) -> Iterator[Entry]:
        for row in self._table.each(FACTS, filters.expression()):
            yield Entry.from_row(row)

    def vectors(self, ids: Sequence[str]) -> Vectors:
        with self._guard:
            known = [id for id in ids if id in self._resident.slot_of]
            slots = self._resident.rows(known)
            return Vectors(known, *(np.array(file.rows[slots]) for file in self._opened))

    def strip(self, id: str) -> bytes | None:
        try:
            return self._strip(id).read_bytes()
        except FileNotFoundError:  # there was none, or it has just been removed
            return None

    def nearest(self, vectors: NDArray[np.float32], count: int, filters: Filters) -> list[list[str]]:
        with self._guard:  # a moment's state, searched while others may write
            resident, rows, norms = copy(self._resident), self._opened[1].rows, self._norms
        return resident.nearest(vectors, rows, norms, count, filters)

    def count(self) -> int:
        return len(self._resident)

    def sizes(self) -> tuple[int, int]:
        disk = 0
        for folder, _, names in os.walk(self.folder):
            for name in names:
                with suppress(FileNotFoundError):  # removed meanwhile; milvus-lite does so with its own
                    disk += Path(folder, name).stat().st_size
        compact = self._opened[1]
        return disk, len(compact) * compact.row_bytes + self._norms.nbytes + len(self._resident.camera) * 33

    def close(self) -> None:
        self._table.close()
        for file in self._files or ():
            file.close()
        if self._new and self._files is None:  # nothing was ever added: leave nothing behind
            remove_folder(self.folder if self._made else self.folder / TABLE)
        self._files = None
        self._lock.release()

    @property
    def _opened(self) -> tuple[SlotFile, SlotFile]:
        assert self._files is not None, "open() comes first"
        return self._files

    def _erase(self, slots: Sequence[int]) -> None:
        for file in self._opened:
            file.erase(np.array(sorted(slots), np.int64))

    def _strip(self, id: str) -> Path:
        name = key_of(id)
        return self.folder / "strips" / name[:2] / f"{name}.jpg"


def remove_folder(folder: Path) -> None:
    """Take a gallery's folder away, whole."""
    shutil.rmtree(folder)
