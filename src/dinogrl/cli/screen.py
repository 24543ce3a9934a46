"""How results look on a terminal: tables of scores, a progress bar. Results go to standard output, all else to standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

COLUMNS = ("rank1", "rank5", "rank10", "rank20", "mAP", "mINP")

Advance = Callable[[int, int, str], None]
"""Told (done, total, what is going on)."""


def say(text: object = "") -> None:
    """A result or a next step, to standard output."""
    Console(highlight=False, soft_wrap=True).print(text)


def note(text: str) -> None:
    """A remark on the way, to standard error."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(text, style="dim", markup=False)


def complain(message: str) -> None:
    """One red line on standard error."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"error: {message}", style="red", markup=False)


def score_table(metrics: Mapping[str, Any], title: str | None = None) -> Table:
    """The scores of one ``metrics.json``, a row a direction, rates in per cent."""
    table = Table(
        title=title or f"{metrics['model']} on {metrics['dataset']}, protocol {metrics['protocol']} (%)", title_justify="left"
    )
    table.add_column("query -> gallery", no_wrap=True)
    for name in (*COLUMNS, "queries", "gallery"):
        table.add_column(name, justify="right", no_wrap=True)
    for direction, scores in metrics["directions"].items():
        rates = [f"{100 * scores[name]:.1f}" for name in COLUMNS]
        table.add_row(direction.replace("_to_", " -> "), *rates, str(scores["queries"]), str(scores["gallery"]))
    return table


@contextmanager
def progress_bar(title: str) -> Iterator[Advance]:
    """A bar on a terminal; where standard error is a file, a line whenever the text changes."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        last = ""

        def line(done: int, total: int, text: str) -> None:
            nonlocal last
            if text != last:
                console.print(f"{title}: {text}", markup=False)
            last = text

        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total, text: bar.update(task, completed=done, total=total, description=f"{title}  {text}")
