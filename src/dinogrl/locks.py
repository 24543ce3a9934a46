"""One process at a time: locks that end with the process that holds them, however it ends."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from dinogrl.errors import DinogrlError

log = logging.getLogger(__name__)

_WITHOUT_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}
"""Answers of disks that have no locks, as some that are reached over a network."""


@contextmanager
def held(path: Path, refusal: DinogrlError) -> Iterator[None]:
    """Hold the lock ``path``, a file in a folder that is there, until the block ends. Raises ``refusal`` where another holds it.

    A disk without locks must not keep anybody from working: there a warning is logged, and nothing is held.
    """
    with ExitStack() as holding:
        try:
            # no soft lock instead: it stays behind when a process is killed, and no other machine can tell
            holding.enter_context(FileLock(path, timeout=0, fallback_to_soft=False))
        except Timeout as error:
            raise refusal from error
        except OSError as error:
            if error.errno not in _WITHOUT_LOCKS:
                raise
            log.warning("no locks on the disk of %s (%s): let only one process at a time work there", path.parent, error.strerror)
        yield
