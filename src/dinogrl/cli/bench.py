"""``dinogrl bench``: speed and memory of the costly steps on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from dinogrl.cli.screen import progress, say

if TYPE_CHECKING:
    from dinogrl.reproduce.bench import Row


def add_to(app: typer.Typer) -> None:
    """Hang this command into the program."""
    app.command()(bench)


def bench(
    stages: Annotated[
        list[str] | None,
        typer.Argument(metavar="STAGE", help="What to measure; all but training-compiled (minutes) where none is named."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the processor; all cores where not given.")] = None,
    repetitions: Annotated[int, typer.Option(min=1, help="Of each measurement; the best counts.")] = 3,
    clips: Annotated[
        int | None,
        typer.Option(help="Clips of 6 frames embedded at once; a training step has twice as many. 4 on a CPU, else 32."),
    ] = None,
    literal: Annotated[
        bool, typer.Option("--literal/--no-literal", help="Measure the literal implementation of the same functions too.")
    ] = True,
    out: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write everything to this file.")] = None,
) -> None:
    """Measure the costly steps on this machine, beside a literal implementation of each and beside what the machine can do at most.

    The literal implementation is benchmarks/literal.py of the project's source. Everything takes about ten minutes on two cores.

    Example: dinogrl bench embedding training --json bench.json
    """
    from dinogrl import runtime
    from dinogrl.reproduce.bench import LITERAL, Bench, write_results
    from dinogrl.reproduce.bench_stages import STAGES

    chosen = tuple(stages or (name for name, stage in STAGES.items() if stage.usual))
    where = runtime.device(device)
    at_once = (4 if where.type == "cpu" else 32) if clips is None else clips
    job = Bench(chosen, where, threads or runtime.threads(), repetitions, LITERAL if literal else None, at_once)
    if literal and not LITERAL.is_file():
        say("the literal implementation comes with the project's source, not with the installed package: its columns stay empty")
    ceilings = job.ceilings()
    say(
        f"matrix products {ceilings.float32 / 1e9:,.0f} GFLOP/s in float32, {ceilings.bfloat16 / 1e9:,.0f} in bfloat16; "
        f"memory copied at {ceilings.copy / 2**30:,.1f} GiB/s"
    )
    table, rows = _empty_table(), []
    with progress() as tell:
        for row in job.rows(ceilings):
            rows.append(row)
            tell("bench", chosen.index(row.name) + 1, len(chosen), f"{row.name} in {row.precision}")
            table.add_row(*_cells(row))
    say(table)
    if out is not None:
        write_results(out, job, ceilings, rows)


def _empty_table() -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    headings = ("stage", "precision", "a second", "GFLOP/s", "of ceiling", "peak MiB", "literal", "peak MiB", "gain")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in headings[:2] else "right")
    return table


def _cells(row: Row) -> list[str]:
    share, gain, literal = row.share, row.gain, row.literal
    return [
        row.name,
        row.precision,
        f"{_number(row.ours.rate)} {row.unit}",
        f"{row.ours.flops / 1e9:,.0f}" if row.ours.flops else "",
        f"{share:.0%}" if share is not None else "",
        f"{row.ours.memory / 2**20:,.0f}",
        _number(literal.rate) if literal is not None else "",
        f"{literal.memory / 2**20:,.0f}" if literal is not None else "",
        f"{gain:.1f} x" if gain is not None else "",
    ]


def _number(rate: float) -> str:
    return f"{rate:,.2f}" if rate < 10 else f"{rate:,.1f}" if rate < 1000 else f"{rate:,.0f}"
