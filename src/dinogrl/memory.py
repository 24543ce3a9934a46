"""What becomes of freed memory on a CPU: the C library keeps it for later, or gives it back to the system.

glibc, as it comes, gives blocks of 32 MiB and more back as soon as they are freed. A network asks for dozens of these at every
step, and a page that is new to a process costs more time than the work on it (benchmarks/README.md). What is set here holds for the
whole process, so that a program decides about it, never an import. Other C libraries are left alone.
"""

from __future__ import annotations

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of ``mallopt``, from glibc's malloc.h."""
_NEVER = -1
_LARGEST = 2**31 - 1


def keep_freed_memory() -> None:
    """From now on, freed blocks of up to 2 GiB stay with this process. Faster; it goes on holding what it has held at most."""
    if _glibc():
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, _LARGEST)
        library.mallopt(_TRIM_THRESHOLD, _NEVER)


def return_freed_memory() -> None:
    """Give what is freed now, of any size, back to the system, once. What is asked for next costs more."""
    if _glibc():
        ctypes.CDLL(None).malloc_trim(0)


def _glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"
