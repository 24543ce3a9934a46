"""A file that ends with the SHA-256 of all before it: one that was damaged, cut short or changed is told before it is used.

An ONNX file is one protobuf message, and two messages laid end to end are one. The seal is a message of one entry of the model's
metadata: every ONNX reader sees it as such and needs to know nothing more. It guards against accidents, and is no signature.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from dinogrl.errors import CheckpointError

KEY = "dinogrl_sha256"
"""The entry's name."""
_PIECE = 2**20


def _entry(digest: str) -> bytes:
    """``metadata_props``, field 14 of an ONNX model: a key, field 1, and a value, field 2; all shorter than 128 bytes."""
    pair = b"".join(bytes([tag, len(text)]) + text.encode() for tag, text in ((0x0A, KEY), (0x12, digest)))
    return bytes([0x72, len(pair)]) + pair


_BLANK = _entry("0" * 64)
LENGTH = len(_BLANK)
"""Bytes of a seal."""


def seal(path: Path) -> None:
    """Append the seal to an ONNX file."""
    with path.open("r+b") as file:
        file.write(_entry(hashlib.file_digest(file, "sha256").hexdigest()))


def expect_sealed(path: Path) -> None:
    """Raise :class:`CheckpointError` for a file without a seal, or with that of other bytes."""
    digest, left = hashlib.sha256(), path.stat().st_size - LENGTH
    with path.open("rb") as file:
        while left > 0 and (piece := file.read(min(left, _PIECE))):
            digest.update(piece)
            left -= len(piece)
        found = file.read()
    if found == _entry(digest.hexdigest()):
        return
    if found[:-64] != _BLANK[:-64]:
        raise CheckpointError(
            f"{path} is cut short, or was not written by dinogrl export, or by another version of it; copy or export it again"
        )
    raise CheckpointError(f"{path} has changed since it was written (its SHA-256 says so); copy or export it again")
