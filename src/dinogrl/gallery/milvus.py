"""The only door to Milvus: a table of tracklets and a few documents, in a file (milvus-lite) or on a server.

Only what both can do is used. An address that is a path is opened by milvus-lite inside this process.
"""

from __future__ import annotations

import base64
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dinogrl.errors import GalleryError, in_one_line
from dinogrl.gallery.entries import LONGEST, key_of

if TYPE_CHECKING:
    from pymilvus import MilvusClient

TEXT = 65535
"""Bytes that a text field of Milvus holds."""
PIECE = TEXT // 4 * 3
"""Bytes of anything that fit into one text field as base64."""
PAGE = 16_384
"""Rows that one answer of Milvus may have."""
AT_ONCE = 500
"""Rows sent in one message; a server takes 64 MB."""
FACTS = ("id", "camera", "modality", "start_ms", "end_ms", "collection", "frames", "source", "added_ms")
_SECONDS = 20.0
_NO_PINGS = {"grpc.keepalive_time_ms": 2**31 - 1}


class MilvusTable:
    """A collection of tracklets: their facts, a compact vector, a digest, a slot; and, with ``payload`` bytes, all of their parts.

    Raises :class:`GalleryError` where pymilvus is missing, nobody answers at the address, or Milvus refuses something.
    """

    def __init__(self, address: str, name: str, token: str = "") -> None:
        self.address, self.name = address, name
        self._documents = f"{name}_documents"
        # Read when gRPC is loaded. Decoding starts worker processes by fork; none of them speaks gRPC, whose care for them is a
        # line on the screen that it cannot take care of them.
        os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
        with self._said():
            self._client = _connect(address, token)

    # -- documents ----------------------------------------------------------------------------------------------------------------

    def read_document(self, key: str) -> bytes | None:
        """The document that :meth:`write_document` wrote, or None."""
        with self._said():
            if not self._client.has_collection(self._documents):
                return None
            self._client.load_collection(self._documents)
            rows = self._client.query(
                self._documents, filter=f'document == "{key}"', output_fields=["piece", "content"], limit=PAGE
            )
        if not rows:
            return None
        return b"".join(base64.b64decode(row["content"]) for row in sorted(rows, key=lambda row: int(row["piece"])))

    def write_document(self, key: str, content: bytes) -> None:
        """Store a document, in pieces that text fields hold, sent as one message."""
        pieces = [content[i : i + PIECE] for i in range(0, len(content), PIECE)]
        with self._said():
            if not self._client.has_collection(self._documents):
                schema = self._schema()
                _text(schema, "key", 128, is_primary=True)
                _text(schema, "document", 64)
                _integer(schema, "piece")
                _text(schema, "content", TEXT)
                self._create(self._documents, schema, 2, "FLAT")
            rows = [
                {
                    "key": f"{key}/{i}",
                    "document": key,
                    "piece": i,
                    "content": base64.b64encode(piece).decode(),
                    "vector": [0.0, 0.0],
                }
                for i, piece in enumerate(pieces)
            ]
            self._client.upsert(self._documents, rows)

    # -- tracklets ----------------------------------------------------------------------------------------------------------------

    def create(self, width: int, payload_bytes: int = 0) -> None:
        """Make the table, unless it is there. ``payload_bytes`` of parts a row lie in text fields of the table itself."""
        with self._said():
            if self._client.has_collection(self.name):
                return
            schema = self._schema()
            _text(schema, "key", 32, is_primary=True)
            _text(schema, "id", LONGEST["id"])
            _text(schema, "camera", LONGEST["camera"])
            _text(schema, "collection", LONGEST["collection"])
            for field in ("modality", "start_ms", "end_ms", "added_ms", "slot"):
                _integer(schema, field)
            for field, size in (("frames", TEXT), ("source", 64), ("digest", 32)):
                _text(schema, field, size)
            if payload_bytes:
                for field in (*payload_fields(payload_bytes), "strip"):
                    _text(schema, field, TEXT)
            # milvus-lite's vectors are searched by us (see resident.py): it need not build a graph of them
            self._create(self.name, schema, width, "HNSW" if payload_bytes else "FLAT")

    def load(self) -> None:
        """Make the table ready for reading."""
        with self._said():
            self._client.load_collection(self.name)

    def put(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows, or put them in the place of those of the same id. When this returns they are kept."""
        with self._said():
            for i in range(0, len(rows), AT_ONCE):
                self._client.upsert(self.name, [dict(row) for row in rows[i : i + AT_ONCE]])

    def get(self, ids: Sequence[str], fields: Sequence[str]) -> dict[str, dict[str, Any]]:
        """id -> the fields of each of these tracklets that is there."""
        found: dict[str, dict[str, Any]] = {}
        with self._said():
            for i in range(0, len(ids), AT_ONCE):
                keys = [key_of(id) for id in ids[i : i + AT_ONCE]]
                rows = self._client.get(self.name, ids=keys, output_fields=["id", *fields])
                found.update({row["id"]: row for row in rows})
        return found

    def each(self, fields: Sequence[str], expression: str = "") -> Iterator[dict[str, Any]]:
        """The fields of all tracklets that an expression of Milvus lets pass."""
        with self._said():
            pages = self._client.query_iterator(self.name, batch_size=PAGE, filter=expression, output_fields=list(fields))
            try:
                while page := pages.next():
                    yield from page
            finally:
                pages.close()

    def delete(self, ids: Sequence[str]) -> None:
        """Remove tracklets; ids that are not there do no harm."""
        with self._said():
            for i in range(0, len(ids), PAGE):
                self._client.delete(self.name, ids=[key_of(id) for id in ids[i : i + PAGE]])

    def nearest(self, vectors: NDArray[np.float32], count: int, expression: str = "") -> list[list[str]]:
        """For each of the vectors (Q,d) the ids of the ``count`` nearest tracklets, nearest first."""
        options = {"metric_type": "L2", "params": {"ef": min(max(2 * count, 64), 32_768)}}
        with self._said():
            answers = self._client.search(
                self.name, data=vectors.tolist(), limit=count, filter=expression, output_fields=["id"], search_params=options
            )
        return [[hit["id"] for hit in answer] for answer in answers]

    def count(self) -> int:
        """Tracklets in the table."""
        with self._said():
            return int(self._client.query(self.name, filter="", output_fields=["count(*)"])[0]["count(*)"])

    def close(self) -> None:
        """Let go of the connection, and of the files where milvus-lite holds them."""
        self._client.close()
        if is_file(self.address):
            from milvus_lite.server_manager import server_manager_instance

            server_manager_instance.release_server(self.address)

    # -- inside -------------------------------------------------------------------------------------------------------------------

    def _schema(self) -> Any:
        return self._client.create_schema(auto_id=False, enable_dynamic_field=False)

    def _create(self, name: str, schema: Any, width: int, index: str) -> None:
        from pymilvus import DataType

        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=max(width, 2))
        indexes = self._client.prepare_index_params()
        graph = {"M": 32, "efConstruction": 200} if index == "HNSW" else {}
        indexes.add_index("vector", index_type=index, metric_type="L2", params=graph)
        self._client.create_collection(name, schema=schema, index_params=indexes, consistency_level="Strong")

    @contextmanager
    def _said(self) -> Iterator[None]:
        """What Milvus refuses, in one line."""
        try:
            from pymilvus.exceptions import MilvusException
        except ImportError as error:
            raise GalleryError("a gallery needs pymilvus; install it by: pip install 'dinogrl[gallery]'") from error
        try:
            yield
        except MilvusException as error:
            raise GalleryError(f"Milvus at {self.address} refuses: {in_one_line(error.message, 300)}") from error


def is_file(address: str) -> bool:
    """Is this a path that milvus-lite opens, and no server?"""
    return "://" not in address


def payload_fields(payload_bytes: int) -> list[str]:
    """Names of the text fields that hold so many bytes."""
    return [f"parts_{i}" for i in range(-(-payload_bytes // PIECE))]


def _connect(address: str, token: str) -> MilvusClient:
    from pymilvus import MilvusClient

    # It logs a traceback for whatever it raises; what it raises is said by us.
    for name in ("pymilvus", "milvus_lite"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # pymilvus pings every 10 s, also while nothing is asked; after minutes milvus-lite, in this very process, takes that for an
    # attack and hangs up, with two lines of gRPC's on the screen. A server far away wants the pings, and allows them.
    options = _NO_PINGS if is_file(address) else {}
    return MilvusClient(address, token=token, timeout=_SECONDS, grpc_options=options)


def _text(schema: Any, name: str, size: int, *, is_primary: bool = False) -> None:
    from pymilvus import DataType

    schema.add_field(name, DataType.VARCHAR, max_length=size, is_primary=is_primary)


def _integer(schema: Any, name: str) -> None:
    from pymilvus import DataType

    schema.add_field(name, DataType.INT64)
