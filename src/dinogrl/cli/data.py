"""Commands about datasets: make a simulated one, check one that is there."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from dinogrl.cli.screen import note, progress, say
from dinogrl.errors import DataError, DinogrlError

if TYPE_CHECKING:
    from dinogrl.data.checks import CheckReport
    from dinogrl.data.problems import Problem

COLOURS = {"error": "red", "warning": "yellow", "note": "dim"}
SHOWN = 20  # findings of one sort that are printed, unless all are asked for
_DETAIL = re.compile(r"'[^']*'|\S*\d\S*")  # what is quoted, and words with a number: names, places, counts


def add_to(app: typer.Typer) -> None:
    """Hang these commands into the program."""
    app.command()(simulate)
    app.command()(check)


def simulate(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write; must be new or empty.")],
    layout: Annotated[
        str, typer.Option(help="On-disk layout: hitsz-vcm, buptcampus, sysu-mm01, regdb, llcm or folder.")
    ] = "hitsz-vcm",
    identities: Annotated[int, typer.Option(min=2, help="People, for training and test.")] = 40,
    test_identities: Annotated[int | None, typer.Option(min=1, help="Those of them for the test; half where not given.")] = None,
    cameras: Annotated[int, typer.Option(min=2, help="Cameras.")] = 4,
    tracklets: Annotated[int, typer.Option(min=1, help="Walks of a person past a camera, in each modality.")] = 2,
    frames: Annotated[int, typer.Option(min=1, help="Frames a tracklet.")] = 24,
    size: Annotated[str, typer.Option(metavar="HxW", help="Height and width of a frame in pixels.")] = "256x128",
    occlusion: Annotated[float, typer.Option(min=0, max=1, help="Share of tracklets in which something comes between.")] = 0.3,
    looseness: Annotated[float, typer.Option(min=0, max=3, help="How badly the boxes fit: 0 fits exactly.")] = 1.0,
    silhouettes: Annotated[bool, typer.Option(help="Write the true silhouettes beside the frames.")] = True,
    motion: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of ASF/AMC motion capture to walk by, in place of a model of gait.")
    ] = None,
    motion_rate: Annotated[
        float | None, typer.Option(min=10, max=1000, help="Frames a second of these recordings; 120 where not given.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same world.")] = 1,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; all cores where not given.")] = None,
) -> None:
    """Draw walking people by day and by night, as a dataset in a real layout.

    Example: dinogrl simulate worlds/one --layout hitsz-vcm --identities 40 --seed 1
    """
    from dinogrl.data.datasets.layout import Choices
    from dinogrl.simulation.settings import PUBLIC_RATE
    from dinogrl.simulation.simulate import Settings
    from dinogrl.simulation.simulate import simulate as draw

    if motion_rate is not None and motion is None:
        raise DinogrlError("--motion-rate is given without --motion; give the folder of the recordings too")
    height, width = parse_size(size)
    settings = Settings(
        layout=layout,
        identities=identities,
        test_identities=test_identities,
        cameras=cameras,
        tracklets=tracklets,
        frames=frames,
        height=height,
        width=width,
        seed=seed,
        occlusion=occlusion,
        looseness=looseness,
        silhouettes=silhouettes,
        motion=motion,
        motion_rate=PUBLIC_RATE if motion_rate is None else motion_rate,
    )
    with progress() as tell:
        world = draw(out, settings, workers=workers, on_progress=lambda done, total: tell("simulate", done, total, "tracklets"))
    say(f"[green]{escape(str(world))}[/green]")
    least = Choices().min_frames
    short = layout == "hitsz-vcm" and frames < least
    if short:
        note(f"readers of {layout} leave out tracklets of fewer than {least} frames: train with data.min_frames={frames}")
    say(escape(f"next: dinogrl check {out}{f' --min-frames {frames}' if short else ''}"))


def check(
    data: Annotated[Path, typer.Argument(metavar="DIR", envvar="DINOGRL_DATA", help="Root folder of the dataset.")],
    layout: Annotated[str, typer.Option(help="auto, hitsz-vcm, buptcampus, sysu-mm01, regdb, llcm or folder.")] = "auto",
    full: Annotated[bool, typer.Option("--full", help="Decode every frame (slow on real datasets), not only its ends.")] = False,
    min_frames: Annotated[int, typer.Option(min=1, help="Shorter HITSZ-VCM tracklets are left out.")] = 12,
    discard_train: Annotated[Path | None, typer.Option(metavar="FILE", help="Training frames to leave out.")] = None,
    discard_test: Annotated[Path | None, typer.Option(metavar="FILE", help="Test frames to leave out.")] = None,
    trial: Annotated[int, typer.Option(min=1, help="Which of RegDB's splits, 1 to 10.")] = 1,
    every: Annotated[bool, typer.Option("--all", help=f"Print all findings, not only the first {SHOWN} of each sort.")] = False,
) -> None:
    """Say what is there, what is missing and what is broken; exit code 1 if the dataset is unusable.

    Example: dinogrl check /data/HITSZ-VCM --full
    """
    if not data.is_dir():
        raise DataError(
            f"no dataset at {data}: {'it is a file' if data.exists() else 'there is no such folder'}; give its root folder"
        )
    from dinogrl.data.checks import check_dataset

    with progress() as tell:
        report = check_dataset(
            data,
            layout,
            full=full,
            min_frames=min_frames,
            discard_train=discard_train,
            discard_test=discard_test,
            trial=trial,
            progress=lambda done, total: tell("check", done, total, "frames"),
        )
    if report.splits:
        say(_table(report))
    for reason, count in report.left_out.items():
        say(f"left out: {count:,} {escape(reason)}")
    if report.published:
        say(escape(report.published))
    for line in _findings(report.problems, every):
        say(line)
    tally = report.tally()
    verdict = ("usable to embed and search" if report.search_only else "usable") if report.usable else _unusable(report)
    colour = "green" if report.usable else "red"
    say(f"[{colour}]{verdict}[/]: " + ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for name, count in tally.items()))
    if not report.usable:
        raise typer.Exit(1)


def _table(report: CheckReport) -> Table:
    title = f"{report.root}: layout {report.layout}{', simulated' if report.simulated else ''}"
    table = Table(title=escape(title), title_justify="left")
    table.add_column("split")
    for name in ("identities", "tracklets", "images"):
        table.add_column(name, justify="right")
    for split, counts in report.splits.items():
        table.add_row(split, f"{counts.identities or 0:,}", f"{counts.tracklets:,}", f"{counts.images:,}")
    return table


def _findings(problems: Iterable[Problem], every: bool) -> Iterator[str]:
    """A line for each; of those that differ by names and numbers only, the first few and how many more, unless ``every``."""
    alike: Counter[tuple[str, str]] = Counter()
    for problem in problems:
        sort = problem.severity, _DETAIL.sub("…", problem.message)
        alike[sort] += 1
        if every or alike[sort] <= SHOWN:
            yield f"[{COLOURS[problem.severity]}]{problem.severity}[/]: {escape(str(problem))}"
    if not every:
        for (severity, message), count in alike.items():
            if count > SHOWN:
                more = f"{count - SHOWN:,} more such: {message}; --all prints each"
                yield f"[{COLOURS[severity]}]{severity}[/]: {escape(more)}"


def _unusable(report: CheckReport) -> str:
    if report.training:
        return "unusable for evaluation"
    return "unusable for training" if report.evaluation else "unusable"


def parse_size(text: str) -> tuple[int, int]:
    """``256x128`` -> height and width. Raises :class:`DinogrlError` for any other form."""
    height, cross, width = text.partition("x")
    if not (cross and height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise DinogrlError(f"--size {text!r} cannot be read; give height x width, as in 256x128")
    return int(height), int(width)
