"""One process at a time has a gallery's folder open. The lock dies with the process, however it ends."""

from __future__ import annotations

import os
from pathlib import Path

from dinogrl.errors import GalleryError


class FolderLock:
    """Holds ``folder/lock`` until :meth:`release`. Raises :class:`GalleryError` that names the process that has it."""

    def __init__(self, folder: Path) -> None:
        try:
            import fcntl
        except ImportError as error:
            raise GalleryError("a gallery in a folder needs Linux or macOS; give the address of a Milvus server instead") from error
        path = folder / "lock"
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(self._file, 32, 0).decode(errors="replace").strip()
            os.close(self._file)
            raise GalleryError(
                f"gallery {folder} is in use by process {owner or '(unknown)'}; wait until it is done, or keep the gallery on a"
                " Milvus server, which many processes can use"
            ) from error
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Let the next process in."""
        os.close(self._file)
