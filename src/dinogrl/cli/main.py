"""``dinogrl``: the commands, put together, and the one place where an error becomes a line and an exit code.

Exit codes: 0 done; 1 ``check`` found the dataset unusable; 2 something given by the user cannot be used; 130 interrupted.
"""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from dinogrl import __version__
from dinogrl.cli import bench, data, export, footage, gallery, parse, pictures, reproduce, results, serve, story, training, weights
from dinogrl.cli.screen import Interrupted, complain, note, say
from dinogrl.errors import DinogrlError, in_one_line
from dinogrl.memory import keep_freed_memory

_NO_TIME = re.compile(r"Input should be a valid datetime.*")

app = typer.Typer(
    name="dinogrl",
    help="Find the same person across visible and infrared cameras, from short video tracklets.",
    epilog="Start with: dinogrl demo",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (story, data, footage, parse, training, results, gallery, serve, reproduce, pictures, weights, export, bench):
    group.add_to(app)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dinogrl {__version__}")
        raise typer.Exit


@app.callback()
def options(
    show: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    """Options that stand before the command."""


@app.command()
def version() -> None:
    """Print the versions that a result depends on.

    Example: dinogrl version
    """
    from dinogrl.runtime import versions

    for name, number in versions().items():
        say(f"{name} {number}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (default: this process's own) and give its exit code. Nothing but its code escapes a user's mistake."""
    try:
        code = app(args=list(arguments) if arguments is not None else None, prog_name="dinogrl", standalone_mode=False)
    except DinogrlError as error:
        return _mistake(error, str(error))
    except typer.TyperException as error:
        return _mistake(error, _usage(error))
    except OSError as error:
        return _mistake(error, _refusal(error))
    except Interrupted as stopped:
        note(f"interrupted; {stopped}")
        return 130
    except (MemoryError, RuntimeError) as error:
        if "determine home directory" in str(error):  # of pathlib, wherever a path is given
            return _mistake(error, "a path begins with ~ and the name of nobody here; write it out from /")
        if not _lack_of_memory(error):
            raise
        advice = "give smaller batches (training.batch, evaluation.batch), fewer or smaller frames, or training.recompute=true"
        return _mistake(error, f"out of memory: {in_one_line(error, 160)}; {advice}")
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    if code == 130:
        note("interrupted")
    return int(code or 0)


def run() -> None:
    """Entry of the installed program, which has its process for itself."""
    keep_freed_memory()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that the terminal's encoding lacks must not cost the result
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(main())


def _mistake(error: Exception, message: str) -> int:
    """One line for the user; the traceback too where DINOGRL_DEBUG is set."""
    if os.environ.get("DINOGRL_DEBUG"):
        raise error
    if message:  # a bare "dinogrl" has printed its help already
        complain(" ".join(message.split()))
    return 2


def _refusal(error: OSError) -> str:
    """What the system refuses, of which file where that is known."""
    said = (error.strerror or str(error)) + (f": {error.filename}" if error.filename else "")
    return f"{said}; make room, or write to another disk" if error.errno == errno.ENOSPC else said


def _lack_of_memory(error: Exception) -> bool:
    """Torch's errors are told by name and word: it is not imported before a command needs it."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


def _usage(error: typer.TyperException) -> str:
    """What is wrong with the line that was typed, and where to read on."""
    message = error.format_message().replace("Value error, ", "")
    message = _NO_TIME.sub("no date or time; write it as 2026-03-01 or 2026-03-01T08:15:00+01:00", message)
    context = getattr(error, "ctx", None)
    return f"{message} (see: {context.command_path if context is not None else 'dinogrl'} --help)" if message else ""


if __name__ == "__main__":
    run()
