"""The paper's tables and figures from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from dinogrl.cli.feature_cache import CacheFolder, CacheSize, open_cache, tell_cache
from dinogrl.cli.screen import note, progress, say
from dinogrl.errors import DinogrlError, TrainingError

if TYPE_CHECKING:
    from dinogrl.reproduce.cost import Estimate
    from dinogrl.reproduce.outcome import Filled


def add_to(app: typer.Typer) -> None:
    """Hang this command into the program."""
    app.command()(reproduce)


def reproduce(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET... [KEY=VALUE...]",
            help="table1 ... table9, figure4, all of these, priors, or a YAML file of one's own; then changes to the base recipe.",
        ),
    ],
    *,
    data: Annotated[Path, typer.Option(metavar="DIR", envvar="DINOGRL_DATA", help="Root folder of the dataset.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of tables and runs; what is done there is reused.")] = Path(
        "runs/reproduce"
    ),
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each row, from the recipe's seed upwards.")] = 1,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of every run; the recipe's where not given.")] = None,
    base: Annotated[
        str | None, typer.Option("--recipe", metavar="RECIPE", help="Base recipe of all rows, as demo_dinogrl for a small network.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and what it will cost, and stop.")] = False,
    seconds_a_step: Annotated[float | None, typer.Option(min=0, help="For the plan: of a run that has timed none itself.")] = None,
    feature_cache: CacheFolder = None,
    feature_cache_size: CacheSize = None,
) -> None:
    """Fill in a table or figure of the paper: run what is missing, go on with what was stopped, reuse what is done.

    Writes TARGET.md, TARGET.csv and TARGET.tex (figure4: pictures too), the paper's numbers beside the measured ones.

    Example: dinogrl reproduce table3 table9 --data /data/HITSZ-VCM --seeds 3
    """
    from dinogrl.reproduce.plan import Settings
    from dinogrl.reproduce.reproduce import prepare
    from dinogrl.reproduce.tables import shipped_tables

    targets = [word for word in words if "=" not in word]
    overrides = tuple(word for word in words if "=" in word)
    if not targets:
        raise DinogrlError(f"name what to reproduce: {', '.join(shipped_tables())} or all")
    papers = [name for name, table in shipped_tables().items() if table.of_the_paper]
    names = papers if targets == ["all"] else list(dict.fromkeys(targets))
    plan = prepare(names, data, Settings(out, seeds, epochs, base, overrides))
    if dry_run:
        _show_plan(plan.estimates(seconds_a_step))
        return
    cache = open_cache(feature_cache, feature_cache_size)
    with progress() as tell:
        plan.carry_out(tell, cache)
    tell_cache(cache)
    written = plan.write()
    for name, table in plan.tables.items():
        say(_filled_table(f"{name}: {table.title}", plan.filled(name)))
    for path in written:
        say(f"[green]{escape(str(path))}[/green]")
    if plan.failed:
        reasons = "; ".join(f"{run.folder.name}: {reason}" for run, reason in plan.failed.items())
        raise TrainingError(f"{len(plan.failed)} run(s) broke down, the others are done: {reasons}")


def _show_plan(estimates: list[Estimate]) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("run", "what", "state", "steps left", "seconds a step", "time"):
        table.add_column(heading, no_wrap=True, justify="left" if heading in {"run", "what", "state"} else "right")
    for row in estimates:
        step = f"{row.seconds_a_step:.2f} ({row.source})"
        name = escape(row.run.recipe.name)
        table.add_row(row.run.folder.name, name, row.state, f"{row.left:,}", step, _duration(row.seconds))
    say(table)
    done = sum(row.state == "done" for row in estimates)
    say(f"{len(estimates)} runs, {done} done; {_duration(sum(row.seconds for row in estimates))} of training left")
    if any(row.source == "assumed" and row.left for row in estimates):
        note("assumed times are rough: ask again when a run has made some steps, or give --seconds-a-step")


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


def _filled_table(title: str, filled: list[Filled]) -> Table:
    from dinogrl.reproduce.outcome import HEADS, spread

    table = Table(title=escape(title), title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    for heading in (*(f"paper {head}" for head in HEADS), *HEADS):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in filled:
        paper = ["–"] * 4 if row.paper is None else [f"{value:.1f}" for value in row.paper]
        table.add_row(escape(row.label), *paper, *map(spread, row.rates))
    return table
