"""How results look on a terminal: tables of scores, a progress bar. Results go to standard output, all else to standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from dinogrl.evaluation.results import Metrics

COLUMNS = {"rank1": "R1", "rank5": "R5", "rank10": "R10", "rank20": "R20", "mAP": "mAP", "mINP": "mINP"}

Watcher = Callable[[str, int, int, str], None]
"""Told the stage, how much of it is done, of how much, and a word on how it goes."""

SECONDS_BETWEEN_LINES = 20.0
_COMMANDS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}


class Interrupted(Exception):
    """Ctrl-C in a command that has something to say of it: how to go on."""


def say(text: object = "") -> None:
    """A result or a next step, to standard output."""
    _console().print(_harmless(text) if isinstance(text, str) else text)


def note(text: str) -> None:
    """A remark on the way, to standard error."""
    _console(stderr=True).print(_harmless(text), style="dim", markup=False)


def complain(message: str) -> None:
    """One red line on standard error."""
    _console(stderr=True).print(f"error: {_harmless(message)}", style="red", markup=False)


def _harmless(text: str) -> str:
    """Names of files may hold what a terminal obeys: such letters are written out."""
    return text.translate(_COMMANDS)


def score_table(metrics: Metrics) -> Table:
    """The scores of one ``metrics.json``, a row a direction, rates in per cent. Fits into 80 columns.

    Its caption says how the weights were chosen, and where clips are not as long as the protocol's.
    """
    from dinogrl.evaluation.protocols import PROTOCOLS  # numpy is imported only where there are scores

    title = f"{metrics.title} on {metrics.dataset}, protocol {metrics.protocol}, %"
    caption, length = f"weights: {metrics.selection}", metrics.frames_per_clip
    if metrics.protocol in PROTOCOLS and (own := PROTOCOLS[metrics.protocol].frames) != length:
        caption += (
            f"; clips of {length} {'frame' if length == 1 else 'frames'}, as the model's recipe has them: the protocol's have {own}"
        )
    table = Table(
        title=escape(title),
        title_justify="left",
        caption=escape(caption),
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        min_width=len(title),
    )
    table.add_column("query -> gallery", no_wrap=True)
    for heading in (*COLUMNS.values(), "queries", "gallery"):
        table.add_column(heading, justify="right", no_wrap=True)
    for direction, scores in metrics.directions.items():
        rates = [f"{100 * getattr(scores, name):.1f}" for name in COLUMNS]
        table.add_row(direction.replace("_to_", " -> "), *rates, str(scores.queries), str(scores.gallery))
    return table


def _console(stderr: bool = False) -> Console:
    """Made anew each time: whoever redirects a stream finds what was said to it. A file is as wide as it needs to be."""
    console = Console(stderr=stderr, highlight=False, soft_wrap=True)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, soft_wrap=True, width=200)


@contextmanager
def progress() -> Iterator[Watcher]:
    """A bar for each stage on a terminal. Where standard error is a file, a line a stage begins and ends with, and some between."""
    console = _console(stderr=True)
    if not console.is_terminal:
        yield _lines(console)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, TextColumn("{task.fields[word]}", markup=False), console=console) as bars:

        def tell(stage: str, done: int, total: int, word: str = "") -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total, word=word)
            bars.update(tasks[stage], completed=done, total=total, word=word)

        yield tell


def _lines(console: Console) -> Watcher:
    """The same, told in lines."""
    current, spoken = "", 0.0

    def tell(stage: str, done: int, total: int, word: str = "") -> None:
        nonlocal current, spoken
        now = time.monotonic()
        if stage != current or done == total or now - spoken > SECONDS_BETWEEN_LINES:
            console.print(f"{stage}: {done}/{total} {word}".rstrip(), markup=False)
            current, spoken = stage, now

    return tell
