"""What names of files, people and runs can do to a terminal: nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.markup import escape

from dinogrl.cli.main import main
from dinogrl.cli.screen import complain, note, say

CLEAR = "a\x1b[2Jb\x07\x9b31mc"
"""Would clear the screen, ring its bell, and go on in red."""
SHOWN = "a\\x1b[2Jb\\x07\\x9b31mc"


def test_names_command_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say(escape(f"[{CLEAR}]"))
    note(CLEAR)
    complain(CLEAR)
    told = capsys.readouterr()
    assert told.out == f"[{SHOWN}]\n" and told.err == f"{SHOWN}\nerror: {SHOWN}\n"


def test_a_folder_named_like_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "[bold]a[" / "]"
    line = ["simulate", str(folder), "--layout", "folder", "--identities", "2", "--cameras", "2", "--tracklets", "1"]
    assert main([*line, "--frames", "1", "--size", "32x16", "--workers", "1"]) == 0
    assert f"next: dinogrl check {folder}" in capsys.readouterr().out
    assert main(["check", str(folder)]) in {0, 1}
    assert f"{folder}: layout folder" in capsys.readouterr().out


def test_a_home_of_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["footage", "~nobody-of-this-name/gate.mp4", "--out", "unused"]) == 2
    assert "error: a path begins with ~ and the name of nobody here" in capsys.readouterr().err
