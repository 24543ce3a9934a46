"""A lock is one process's, and nobody's when that process has been killed; a disk without locks lets everybody work."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dinogrl.errors import DinogrlError
from dinogrl.locks import held

REFUSAL = DinogrlError("somebody is at it")


def test_a_lock_is_held_by_one_until_its_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a lock"
    with pytest.raises(KeyError), held(path, REFUSAL):
        with pytest.raises(DinogrlError, match="somebody is at it"), held(path, REFUSAL):
            pytest.fail("two hold it")
        raise KeyError
    with held(path, REFUSAL):
        pass


def test_a_process_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    holds = """
import os, signal, sys
from pathlib import Path
from dinogrl.errors import DinogrlError
from dinogrl.locks import held
with held(Path(sys.argv[1]), DinogrlError("busy")):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", holds, str(tmp_path / "lock")], check=False)
    assert killed.returncode == -signal.SIGKILL
    with held(tmp_path / "lock", REFUSAL):
        pass


@pytest.mark.parametrize("answer", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_everybody_works_and_is_warned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, answer: int
) -> None:
    monkeypatch.setattr(fcntl, "flock", refusing(answer))
    (tmp_path / "lock").write_text("999999\nanother machine\n", encoding="utf-8")  # whose process was killed there
    with caplog.at_level(logging.WARNING), held(tmp_path / "lock", REFUSAL), held(tmp_path / "lock", REFUSAL):
        pass
    assert [f"no locks on the disk of {tmp_path} ({os.strerror(answer)})" in text for text in caplog.messages] == [True, True]


def test_a_disk_that_fails_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", refusing(errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)), held(tmp_path / "lock", REFUSAL):
        pytest.fail("held")


def refusing(answer: int) -> object:
    def flock(*_: object) -> None:
        raise OSError(answer, os.strerror(answer))

    return flock
