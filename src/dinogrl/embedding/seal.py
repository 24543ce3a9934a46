"""A file that ends with the SHA-256 of all before it: one that was damaged, cut short or changed is told before it is used.

An ONNX file is one protobuf message, and two messages laid end to end are one. The seal is a message of one entry of the model's
metadata: every ONNX reader sees it as such and needs to know nothing more. After an XML document a comment may stand, and that is
the seal of OpenVINO's .xml. It guards against accidents, and is no signature.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from dinogrl.errors import CheckpointError

KEY = "dinogrl_sha256"
"""The entry's name."""
_PIECE = 2**20


Entry = Callable[[str], bytes]
"""64 hex digits as the end of a file of some format; always of the same length."""


def onnx_entry(digest: str) -> bytes:
    """``metadata_props``, field 14 of an ONNX model: a key, field 1, and a value, field 2; all shorter than 128 bytes."""
    pair = b"".join(bytes([tag, len(text)]) + text.encode() for tag, text in ((0x0A, KEY), (0x12, digest)))
    return bytes([0x72, len(pair)]) + pair


def xml_entry(digest: str) -> bytes:
    """A comment on a line of its own."""
    return f"<!-- {KEY} {digest} -->\n".encode()


def seal(path: Path, entry: Entry) -> None:
    """Append the seal to a file of the format of ``entry``."""
    with path.open("r+b") as file:
        file.write(entry(hashlib.file_digest(file, "sha256").hexdigest()))


def expect_sealed(path: Path, entry: Entry) -> None:
    """Raise :class:`CheckpointError` for a file without a seal, or with that of other bytes."""
    start, blank, end = entry("0" * 64).partition(b"0" * 64)
    digest, left = hashlib.sha256(), path.stat().st_size - len(start + blank + end)
    with path.open("rb") as file:
        while left > 0 and (piece := file.read(min(left, _PIECE))):
            digest.update(piece)
            left -= len(piece)
        found = file.read()
    if found == entry(digest.hexdigest()):
        return
    if not found.startswith(start) or not found.endswith(end):
        raise CheckpointError(
            f"{path} is cut short, or was not written by dinogrl export, or by another version of it; copy or export it again"
        )
    raise CheckpointError(f"{path} has changed since it was written (its SHA-256 says so); copy or export it again")
