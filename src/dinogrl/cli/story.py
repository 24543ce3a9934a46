"""The whole story on one command, and its report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.text import Text

from dinogrl.cli.screen import progress, say, score_table


def add_to(app: typer.Typer) -> None:
    """Hang these commands into the program."""
    app.command()(demo)
    app.command()(report)


def demo(
    overrides: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Changes to both recipes.")] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for everything the demo makes.")] = Path("runs/demo"),
    dinov2: Annotated[
        Path | None,
        typer.Option(metavar="FILE", envvar="DINOGRL_DINOV2", help="Real DINOv2 ViT-S/14 weights, in place of the tiny prior."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the world and of the runs.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Processes that draw the world.")] = 2,
) -> None:
    """Simulate a world, check it, train the baseline and DinoGRL, score both and write one report: offline, on a CPU, in minutes.

    Run it again and it goes on where it was stopped.

    Example: dinogrl demo --out runs/demo
    """
    from dinogrl.reproduce.demo import DEMO_WORLD, DemoSettings, run_demo

    changes = (f"seed={seed}", *(overrides or []))
    settings = DemoSettings(world=replace(DEMO_WORLD, seed=seed), overrides=changes, workers=workers, dinov2=dinov2)
    with progress() as tell:
        result = run_demo(out, settings, on_progress=tell)
    for metrics in result.scores.values():
        say(score_table(metrics))
    say(f"[green]{escape(str(result.page))}[/green]: open it in a browser ({sum(result.seconds.values()):.0f} s)")


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders, each with its metrics.json.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="HTML file to write.")] = Path("report.html"),
    title: Annotated[str, typer.Option(help="Heading of the page.")] = "DinoGRL",
    table: Annotated[
        str | None, typer.Option(help="Print a table beside published numbers instead: markdown, latex or csv.")
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write every picture as a file into this folder instead.")
    ] = None,
    format: Annotated[str, typer.Option(help="Of those files: png, svg or pdf.")] = "png",
    projection: Annotated[
        str, typer.Option(help="Of the map of embeddings: tsne, umap, pca, or auto for t-SNE where it is installed.")
    ] = "auto",
) -> None:
    """Write one self-contained HTML page about one or more evaluated runs; or print a table, or write figures, for a paper.

    Runs stand side by side in the order given: the baseline first. What a folder does not hold is said on the page.

    Example: dinogrl report runs/demo/baseline runs/demo/dinogrl --out report.html
    """
    if figures is not None:
        from dinogrl.reports.paper import write_figures

        written = write_figures(figures, runs, format, projection)
        say(f"[green]{escape(str(figures))}[/green]: {len(written)} pictures")
        return
    if table is not None:
        from dinogrl.reports.run_folder import read_runs
        from dinogrl.reports.tables import TABLE_FORMATS, comparison

        write = TABLE_FORMATS[table]
        say(Text(write(comparison({run.name: run.metrics for run in read_runs(runs)})).rstrip()))
        return
    from dinogrl.reports.page import write_page

    write_page(out, runs, title=title, projection=projection)
    say(f"[green]{escape(str(out))}[/green]: open it in a browser")
