"""A gallery on a Milvus server: everything lies there, part vectors and pictures as text in fields of the same row.

Many processes may read. Writers are not kept apart: adding is idempotent, so two that add the same tracklets do no harm.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from dinogrl.errors import GalleryError
from dinogrl.gallery.backend import Batch, Form, Vectors
from dinogrl.gallery.entries import Entry
from dinogrl.gallery.filters import Filters
from dinogrl.gallery.milvus import FACTS, PAGE, PIECE, TEXT, MilvusTable, payload_fields


class ServerBackend:
    """See :class:`dinogrl.gallery.backend.Backend`. Raises :class:`GalleryError` where the server does not answer."""

    def __init__(self, address: str, name: str, token: str = "") -> None:
        self._table = MilvusTable(address, name, token)
        self._form: Form | None = None

    def read_document(self, key: str) -> bytes | None:
        return self._table.read_document(key)

    def write_document(self, key: str, content: bytes) -> None:
        self._table.write_document(key, content)

    def open(self, form: Form) -> None:
        self._form = form
        self._table.create(form.width, form.payload_bytes)
        self._table.load()

    def put(self, batch: Batch) -> None:
        names = payload_fields(self._opened.payload_bytes)
        rows = []
        for i, entry in enumerate(batch.entries):
            strip = base64.b64encode(batch.strips[i] or b"").decode()
            if len(strip) > TEXT:
                raise GalleryError(f"the picture of tracklet {entry.id!r} is too large for a server; make strips of fewer frames")
            content = batch.parts[i].tobytes()
            pieces = [base64.b64encode(content[k : k + PIECE]).decode() for k in range(0, len(content), PIECE)]
            facts = {**entry.as_row(), "slot": 0, "digest": batch.digests[i], "vector": batch.compact[i], "strip": strip}
            rows.append({**facts, **dict(zip(names, pieces, strict=True))})
        self._table.put(rows)

    def delete(self, ids: Sequence[str]) -> None:
        self._table.delete(ids)

    def digests(self, ids: Sequence[str]) -> dict[str, str]:
        return {id: row["digest"] for id, row in self._table.get(ids, ["digest"]).items()}

    def entries(self, ids: Sequence[str]) -> dict[str, Entry]:
        return {id: Entry.from_row(row) for id, row in self._table.get(ids, FACTS).items()}

    def every(self, filters: Filters) -> Iterator[Entry]:
        for row in self._table.each(FACTS, filters.expression()):
            yield Entry.from_row(row)

    def vectors(self, ids: Sequence[str]) -> Vectors:
        form = self._opened
        names = payload_fields(form.payload_bytes)
        found = self._table.get(ids, [*names, "vector"])
        known = [id for id in ids if id in found]
        contents = [b"".join(base64.b64decode(found[id][name]) for name in names) for id in known]
        parts = np.frombuffer(b"".join(contents), form.dtype).reshape(len(known), form.parts * form.depth)
        compact = np.array([found[id]["vector"] for id in known], np.float32).reshape(len(known), -1)[:, : form.width]
        return Vectors(known, parts, compact)

    def strip(self, id: str) -> bytes | None:
        row = self._table.get([id], ["strip"]).get(id)
        return (base64.b64decode(row["strip"]) or None) if row is not None else None

    def nearest(self, vectors: NDArray[np.float32], count: int, filters: Filters) -> list[list[str]]:
        return self._table.nearest(vectors, min(count, PAGE), filters.expression())

    def count(self) -> int:
        return self._table.count()

    def sizes(self) -> tuple[int, int]:
        return 0, 0

    def close(self) -> None:
        self._table.close()

    @property
    def _opened(self) -> Form:
        assert self._form is not None, "open() comes first"
        return self._form
