"""Who looked for whom, when: a line of JSON each, only ever appended. The subject of every search is a person."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

from dinogrl.errors import DinogrlError


class AuditLog:
    """Appends to ``path``, which only its owner may read. Raises :class:`DinogrlError` where that is not possible."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = Lock()
        try:
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise DinogrlError(f"the audit log {path} cannot be written ({error.strerror}); nobody is served without it") from error

    def write(self, what: str, who: str, **facts: Any) -> None:
        """On disk when this returns. An :class:`OSError` (a full disk) must keep the answer from being given."""
        line = json.dumps(
            {"time": datetime.now(UTC).isoformat(), "what": what, "who": who, **facts}, ensure_ascii=True, default=str
        )
        with self._lock:
            content = self._after_half_a_line() + line.encode() + b"\n"
            written = os.write(self._file, content)
            if written < len(content):
                raise OSError("the audit log could not be written whole")
            os.fsync(self._file)

    def _after_half_a_line(self) -> bytes:
        """A full disk, or a lost machine, may have left half a line: the next one must not become part of it."""
        size = os.fstat(self._file).st_size
        return b"\n" if size and os.pread(self._file, 1, size - 1) != b"\n" else b""

    def close(self) -> None:
        """No more lines."""
        os.close(self._file)
