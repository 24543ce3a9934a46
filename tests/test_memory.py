"""What becomes of freed memory."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

RESIDENT = """
import torch
from dinogrl import memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
"""  # of a process of its own: what other tests have freed would count


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library has no such call")
def test_what_was_kept_for_later_goes_back_when_asked() -> None:
    script = """
memory.keep_freed_memory()
before = resident()
blocks = [torch.ones(2**20 // 4) for _ in range(200)]
kept = torch.ones(2**18)  # behind them, so that the heap cannot shrink at its end
del blocks
assert resident() - before > 150 * 2**20, resident() - before
memory.return_freed_memory()
assert resident() - before < 40 * 2**20, resident() - before
"""
    subprocess.run([sys.executable, "-c", RESIDENT + script], check=True)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library has no such setting")
def test_freed_memory_is_kept_for_what_comes_next() -> None:
    """What is asked for where a larger block was has pages already, where they would have been the system's again."""
    script = """
import resource

def new_pages(mebibytes):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(mebibytes * 2**20 // 4)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

new_pages(256)
assert new_pages(64) > 10_000, "this system gives pages without a fault: nothing to see here"
memory.keep_freed_memory()
new_pages(256)  # larger: glibc takes a hole for an aligned block only where the block fits with room to spare
assert new_pages(64) < 1_000
"""
    subprocess.run([sys.executable, "-c", RESIDENT + script], check=True)
