"""The whole story on one command, and its report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dinogrl.cli.screen import progress_bar, say, score_table


def add_to(app: typer.Typer) -> None:
    """Hang these commands into the program."""
    app.command()(demo)
    app.command()(report)


def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for everything the demo makes.")] = Path("runs/demo"),
    dinov2: Annotated[
        Path | None, typer.Option(envvar="DINOGRL_DINOV2", help="Real DINOv2 weights, in place of the tiny prior.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the world and of the runs.")] = 1,
) -> None:
    """Simulate a world, check it, train the baseline and DinoGRL, score both and write one report: offline, on a CPU, in minutes.

    Example: dinogrl demo --out runs/demo
    """
    from dinogrl.reproduce.demo import run_demo

    with progress_bar("demo") as advance:
        result = run_demo(out, dinov2=dinov2, seed=seed, on_progress=advance)
    for metrics in result.metrics:
        say(score_table(metrics))
    say(f"[green]{result.report}[/green]: open it in a browser")


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, each with its metrics.json.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="HTML file to write.")] = Path("report.html"),
) -> None:
    """Write one self-contained HTML page about one or more evaluated runs.

    Example: dinogrl report runs/demo/baseline runs/demo/dinogrl --out report.html
    """
    from dinogrl.reports.page import write_report

    write_report(runs, out)
    say(f"[green]{out}[/green]: open it in a browser")
