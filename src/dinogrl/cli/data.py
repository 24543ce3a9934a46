"""Commands about datasets: make a simulated one, check one that is there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from dinogrl.cli.screen import note, progress, say


def add_to(app: typer.Typer) -> None:
    """Hang these commands into the program."""
    app.command()(simulate)
    app.command()(check)


def simulate(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write; must be new or empty.")],
    layout: Annotated[str, typer.Option(help="On-disk layout: hitsz-vcm, buptcampus or folder.")] = "hitsz-vcm",
    identities: Annotated[int, typer.Option(min=2, help="People, half of them for training.")] = 40,
    cameras: Annotated[int, typer.Option(min=2, help="Cameras.")] = 4,
    tracklets: Annotated[int, typer.Option(min=1, help="Walks a person and camera, in each modality.")] = 2,
    frames: Annotated[int, typer.Option(min=2, help="Frames a tracklet.")] = 24,
    motion: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of ASF/AMC motion capture to walk by, instead of modelled gait.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same world.")] = 1,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; all cores where not given.")] = None,
) -> None:
    """Draw walking people by day and by night, as a dataset in a real layout.

    Example: dinogrl simulate worlds/one --layout hitsz-vcm --identities 40 --seed 1
    """
    from dinogrl.simulation.simulate import simulate as draw

    with progress_bar("simulating") as advance:
        world = draw(
            out,
            layout=layout,
            identities=identities,
            cameras=cameras,
            tracklets=tracklets,
            frames=frames,
            motion=motion,
            seed=seed,
            workers=workers,
            on_progress=lambda done, total: advance(done, total, "tracklets"),
        )
    say(f"[green]{escape(str(world))}[/green]")
    say(f"next: dinogrl check {out}")


def check(
    data: Annotated[Path, typer.Argument(metavar="DIR", help="Root folder of the dataset.")],
    layout: Annotated[str, typer.Option(help="auto, hitsz-vcm, buptcampus or folder.")] = "auto",
    min_frames: Annotated[int, typer.Option(min=1, help="Shorter HITSZ-VCM tracklets are left out.")] = 12,
    decode: Annotated[bool, typer.Option(help="Decode every frame, to find truncated ones (slow on real datasets).")] = True,
) -> None:
    """Say what is there, what is missing and what is broken; exit code 1 if the dataset is unusable.

    Example: dinogrl check /data/HITSZ-VCM
    """
    from dinogrl.data.checks import check_dataset

    report = check_dataset(data, layout, min_frames=min_frames)
    table = Table(title=f"{data}: {report.layout}", title_justify="left")
    table.add_column("what")
    table.add_column("found", justify="right")
    for name, count in report.counts.items():
        table.add_row(str(name), str(count))
    say(table)
    for problem in report.problems:
        note(f"problem: {problem}")
    say("[green]usable[/green]" if report.usable else "[red]unusable[/red]")
    if not report.usable:
        raise typer.Exit(1)
