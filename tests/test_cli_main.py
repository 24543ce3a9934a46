"""The command line as people meet it: one line for a mistake, the right exit code, nothing half-written, quick to answer."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import typer

from dinogrl import __version__
from dinogrl.cli import main as cli
from dinogrl.errors import DataError

COMMANDS = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]


def line_of(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    """Run, expect ``code`` and exactly one line on standard error; give it."""
    assert cli.main(arguments) == code
    streams = capsys.readouterr()
    assert "Traceback" not in streams.err
    lines = streams.err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["trian"], "Did you mean 'train'?"),
        (["train", "dinogrl", "--dta", "x"], "--data"),
        (["train", "dinogrl"], "Missing option '--data'"),
        (["train", "dinogrll", "--data", "x"], "did you mean 'dinogrl'?"),
        (["train", "absent.yaml", "--data", "x"], "give the path of a YAML file"),
        (["train", "dinogrl", "training.epoch=3", "--data", "x"], "unknown key 'training.epoch'; did you mean 'epochs'?"),
        (["train", "dinogrl", "training.epochs", "--data", "x"], "KEY=VALUE"),
        (["train", "dinogrl", "model.gait=null", "--data", "x"], "enhancement needs the gait stream"),
        (["simulate", "x", "--identities", "one"], "--identities"),
        (["evaluate", "absent.safetensors", "--data", "x"], "no model at absent.safetensors"),
        (["demo", "--seed", "-1"], "--seed"),
        (["search", "g", "m", "--after", "yesterday"], "Invalid value for '--after': no date or time; write it as 2026-03-01 or "),
        (["search", "g", "m", "--in", "red"], "Invalid value for '--in': 'red' is not one of 'any', 'visible', 'infrared'"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DINOGRL_DATA", raising=False)
    assert hint in line_of(arguments, capsys)
    assert not list(tmp_path.iterdir()), "nothing was to be written"


def test_every_problem_of_a_recipe_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    line = line_of(["train", "dinogrl", "training.epoch=3", "objective.margn=1", "data.frames=0", "--data", "x"], capsys)
    assert "3 problem(s)" in line and all(word in line for word in ("training.epoch", "objective.margn", "data.frames"))


def test_bare_program_shows_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    shown = "".join(capsys.readouterr())
    assert all(name in shown for name in COMMANDS) and "error" not in shown


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"dinogrl {__version__}"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_explains_itself_by_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, "--help"]) == 0
    assert f"Example: dinogrl {name}" in " ".join(capsys.readouterr().out.split())


@pytest.fixture
def boom(monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    """The program with one more command, which raises what it is told to."""
    app = typer.Typer()
    app.callback()(lambda: None)
    monkeypatch.setattr(cli, "app", app)
    return app


def test_an_error_is_one_line_whatever_is_in_it(boom: typer.Typer, capsys: pytest.CaptureFixture[str]) -> None:
    @boom.command("boom")
    def _() -> None:
        raise DataError("frame [red]x[/red]\nis broken " + "y" * 300)

    assert line_of(["boom"], capsys) == "error: frame [red]x[/red] is broken " + "y" * 300


def test_debug_shows_the_traceback(boom: typer.Typer, monkeypatch: pytest.MonkeyPatch) -> None:
    @boom.command("boom")
    def _() -> None:
        raise DataError("broken")

    monkeypatch.setenv("DINOGRL_DEBUG", "1")
    with pytest.raises(DataError):
        cli.main(["boom"])


def test_interrupt_is_one_line_and_130(boom: typer.Typer, capsys: pytest.CaptureFixture[str]) -> None:
    @boom.command("boom")
    def _() -> None:
        raise KeyboardInterrupt

    assert line_of(["boom"], capsys, code=130) == "interrupted"


def test_a_file_that_cannot_be_opened_is_named(boom: typer.Typer, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    @boom.command("boom")
    def _() -> None:
        (tmp_path / "absent" / "x").write_text("x")

    assert "No such file or directory" in (line := line_of(["boom"], capsys)) and "absent" in line


def test_a_full_disk_is_one_line_with_advice(boom: typer.Typer, capsys: pytest.CaptureFixture[str]) -> None:
    @boom.command("boom")
    def _() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    assert line_of(["boom"], capsys) == "error: No space left on device; make room, or write to another disk"


def too_large() -> None:
    torch.empty(2**56)


def too_large_for_numpy() -> None:
    np.ones((2**28, 2**24))


def too_large_for_a_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 20 GiB")


@pytest.mark.parametrize("ask", [too_large, too_large_for_numpy, too_large_for_a_gpu])
def test_lack_of_memory_is_one_line_with_advice(
    ask: Callable[[], None], boom: typer.Typer, capsys: pytest.CaptureFixture[str]
) -> None:
    boom.command("boom")(ask)
    assert (line := line_of(["boom"], capsys)).startswith("error: out of memory: ") and "smaller batches" in line


def test_another_error_of_torch_is_not_hidden(boom: typer.Typer) -> None:
    @boom.command("boom")
    def _() -> None:
        torch.ones(2) @ torch.ones(3)

    with pytest.raises(RuntimeError, match="size"):
        cli.main(["boom"])


def test_a_fault_of_ours_is_not_hidden(boom: typer.Typer) -> None:
    @boom.command("boom")
    def _() -> None:
        raise AssertionError("a bug")

    with pytest.raises(AssertionError):
        cli.main(["boom"])


def test_a_name_that_the_terminal_cannot_show_costs_no_result() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    code = "from dinogrl.cli import main; main.app = lambda **_: main.say('李 done'); main.run()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\\u674e done\n", "")


@pytest.mark.parametrize(
    ("line", "environment", "said"),
    [
        (["--help"], {}, "dinogrl demo"),
        ([], {"_DINOGRL_COMPLETE": "complete_bash", "COMP_WORDS": "dinogrl eva", "COMP_CWORD": "1"}, "evaluate"),
        ([], {"_DINOGRL_COMPLETE": "complete_bash", "COMP_WORDS": "dinogrl search --trac", "COMP_CWORD": "2"}, "--tracklet"),
    ],
)
def test_help_and_completion_do_not_load_torch(line: list[str], environment: dict[str, str], said: str) -> None:
    """They answer at once: the heavy libraries are imported by the commands that use them."""
    code = (
        "import atexit, sys; from dinogrl.cli.main import main; "
        "heavy = {'torch', 'transformers', 'cv2', 'matplotlib', 'kornia', 'lightning_fabric'}; "
        "atexit.register(lambda: sys.stderr.write(' '.join(heavy & set(sys.modules)))); "
        f"main({line})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    assert said in done.stdout and not done.stderr.strip(), "loaded, though nobody asked for them"
