"""Commands of the gallery: fill it, look at it, empty it, carry it elsewhere. ``search`` has a file of its own."""

from __future__ import annotations

import json as jsonlib
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from dinogrl.cli.results import Broken, Compute, ComputedIn
from dinogrl.cli.screen import progress, say
from dinogrl.cli.search import After, Before, Cameras, Collections, search
from dinogrl.modality_names import ModalityName

if TYPE_CHECKING:
    from dinogrl.embedding.calibration import Calibration
    from dinogrl.gallery import Filters, Info

Address = Annotated[
    str, typer.Argument(metavar="GALLERY", help="A folder, made when first added to, or a Milvus server: http://host:19530.")
]
Checkpoint = Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="The model.safetensors that embeds, or its run's folder.")]
Name = Annotated[str, typer.Option(help="Which gallery of a server.")]
Token = Annotated[str, typer.Option(envvar="DINOGRL_MILVUS_TOKEN", help="Token of a server, or user:password.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]


class Precision(StrEnum):
    """Numbers of the stored part vectors."""

    float16 = "float16"
    float32 = "float32"


def add_to(app: typer.Typer) -> None:
    """Hang these commands into the program."""
    gallery = typer.Typer(
        help="Keep tracklets to search in: add, search, remove, expire, info, backup, restore, learn.\n\n"
        "Example: dinogrl gallery add people.gallery model.safetensors --data footage",
        no_args_is_help=True,
    )
    for command in (add, search, remove, expire, info, backup, restore, learn):
        gallery.command()(command)
    app.add_typer(gallery, name="gallery")
    app.command()(search)


def add(
    address: Address,
    checkpoint: Checkpoint,
    data: Annotated[Path, typer.Option("--data", metavar="DIR", envvar="DINOGRL_DATA", help="Root folder of the tracklets.")],
    collection: Annotated[str, typer.Option(help="Word that these tracklets can be found and removed by.")] = "default",
    prefix: Annotated[str, typer.Option(help="Begins their ids, where two datasets have the same names.")] = "",
    layout: Annotated[str, typer.Option(help="auto, folder, hitsz-vcm, buptcampus ...")] = "auto",
    strips: Annotated[
        bool, typer.Option("--strips/--no-strips", help="Keep a small picture of each, to show when the files are gone.")
    ] = True,
    replace: Annotated[bool, typer.Option("--replace", help="Put tracklets in the place of others of the same id.")] = False,
    precision: Annotated[Precision, typer.Option(help="Of the vectors of a new gallery.")] = Precision.float16,
    broken_frames: Broken = None,
    compute: Compute = ComputedIn.float32,
    name: Name = "gallery",
    token: Token = "",
    device: Device = "auto",
) -> None:
    """Embed the tracklets of a dataset and add them. Adding again changes nothing; interrupted, it goes on where it was.

    Example: dinogrl gallery add people.gallery runs/dinogrl/model.safetensors --data footage
    """
    from dinogrl.embedding.embedder import Embedder
    from dinogrl.gallery import Gallery, enrol_folder

    embedder = Embedder.load(checkpoint, device, compute.value)
    with (
        Gallery(address, embedder, writable=True, name=name, token=token, precision=precision.value) as gallery,
        progress() as tell,
    ):
        done = enrol_folder(
            gallery,
            data,
            collection=collection,
            prefix=prefix,
            layout=layout,
            strips=strips,
            replace=replace,
            broken_frames=broken_frames,
            on_progress=lambda count, total: tell("add", count, total, "tracklets"),
        )
        total = len(gallery)
    changed = f", {done.replaced} replaced" if done.replaced else ""
    say(f"[green]{escape(address)}[/green]: {done.added} added{changed}, {done.unchanged} there already; {total} tracklets")
    say(f"next: dinogrl search {escape(address)} {escape(str(checkpoint))} --image-folder DIR")


def remove(
    address: Address,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Tracklets by id.")] = None,
    camera: Cameras = None,
    collection: Collections = None,
    modality: Annotated[ModalityName | None, typer.Option(help="Only of this modality.")] = None,
    after: After = None,
    before: Before = None,
    name: Name = "gallery",
    token: Token = "",
) -> None:
    """Remove tracklets by id, or all that meet every condition given.

    Example: dinogrl gallery remove people.gallery --collection march
    """
    from dinogrl.gallery import Gallery

    filters = filters_of(camera, collection, modality, after, before)
    with Gallery(address, writable=True, name=name, token=token) as gallery:
        removed = gallery.remove(ids or [], filters)
        say(f"[green]{escape(address)}[/green]: {removed} removed, {len(gallery)} left")


def expire(
    address: Address,
    older_than: Annotated[str, typer.Option(help="Age since they were added: 12h, 30d, 8w.")],
    name: Name = "gallery",
    token: Token = "",
) -> None:
    """Remove all tracklets that were added longer ago than an age; fit for a daily job.

    Example: dinogrl gallery expire people.gallery --older-than 30d
    """
    from dinogrl.gallery import Gallery, age_of

    age = age_of(older_than)
    with Gallery(address, writable=True, name=name, token=token) as gallery:
        say(f"[green]{escape(address)}[/green]: {gallery.expire(age)} removed, {len(gallery)} left")


def info(
    address: Address,
    json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
    name: Name = "gallery",
    token: Token = "",
) -> None:
    """Say what a gallery holds, of which model, and what it takes of disk and memory.

    Example: dinogrl gallery info people.gallery
    """
    from dinogrl.gallery import Gallery

    with Gallery(address, name=name, token=token) as gallery:
        known = gallery.info()
    if json:
        typer.echo(jsonlib.dumps(known.as_dict(), indent=1))
    else:
        say(_info_table(known))


def backup(
    address: Address,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to write (.zip); it must not exist.")],
    name: Name = "gallery",
    token: Token = "",
) -> None:
    """Write a whole gallery to one file with checksums, while nobody writes to it.

    Example: dinogrl gallery backup people.gallery people.zip
    """
    from dinogrl.gallery import Gallery, back_up

    with Gallery(address, name=name, token=token) as gallery:
        count = back_up(gallery, file)
    say(f"[green]{escape(str(file))}[/green]: {count} tracklets, {file.stat().st_size / 1e6:.1f} MB")


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A backup.")],
    address: Annotated[str, typer.Argument(metavar="GALLERY", help="A folder that does not exist, or a Milvus server.")],
    name: Name = "gallery",
    token: Token = "",
) -> None:
    """Make a gallery of a backup, here or elsewhere: a folder's backup may go to a server, and the reverse.

    Example: dinogrl gallery restore people.zip restored.gallery
    """
    from dinogrl.gallery import restore as make

    count = make(file, address, name=name, token=token)
    say(f"[green]{escape(address)}[/green]: {count} tracklets")


def learn(
    checkpoint: Checkpoint,
    data: Annotated[
        Path, typer.Option("--data", metavar="DIR", envvar="DINOGRL_DATA", help="Root folder of the training dataset.")
    ],
    layout: Annotated[str, typer.Option(help="auto, folder, hitsz-vcm, buptcampus ...")] = "auto",
    broken_frames: Broken = None,
    device: Device = "auto",
) -> None:
    """Learn, for a model that has none, the compact vector and the probability of a distance, and store both with it.

    Takes training tracklets, never those of the test. Models of dinogrl train have both already; converted ones do not.

    Example: dinogrl gallery learn released.safetensors --data /data/HITSZ-VCM
    """
    from dinogrl.embedding.prepare import prepare_search

    with progress() as tell:
        aids = prepare_search(
            checkpoint,
            data,
            layout=layout,
            device=device,
            broken_frames=broken_frames,
            on_progress=lambda n, of: tell("embed", n, of, "tracklets"),
        )
    say(f"[green]{escape(str(checkpoint))}[/green]: vectors of {aids.projection.width}; {_calibrated(aids.calibration)}")


def _calibrated(calibration: Calibration | None) -> str:
    from dinogrl.embedding.calibration import LEAST_PAIRS, LEAST_PEOPLE

    if calibration is None:
        return (
            f"no probability: it takes {LEAST_PEOPLE} people or more, each seen by two cameras or in both modalities,"
            f" and {LEAST_PAIRS} pairs of their tracklets"
        )
    return f"probability of {' and '.join(calibration.curves)} pairs learned from {calibration.source}"


def filters_of(
    camera: list[str] | None,
    collection: list[str] | None,
    modality: ModalityName | None,
    after: datetime | None,
    before: datetime | None,
) -> Filters:
    """The options as conditions."""
    from dinogrl.gallery import Filters
    from dinogrl.records import Modality

    modalities = () if modality is None else (Modality[modality.name.upper()],)
    return Filters(tuple(camera or ()), modalities, tuple(collection or ()), after, before)


def _info_table(known: Info) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    times = (
        "unknown"
        if known.first is None or known.last is None
        else f"{known.first:%Y-%m-%d %H:%M} to {known.last:%Y-%m-%d %H:%M} UTC"
    )
    lines = {
        "gallery": known.address,
        "tracklets": str(known.tracklets),
        "seen": times,
        **{f"by {kind}": _counts(getattr(known, f"by_{kind}")) for kind in ("camera", "modality", "collection")},
        "model": f"{known.fingerprint} {known.model}".strip(),
        "vectors": f"{known.parts} parts of {known.depth} in {known.precision}; index of {known.width}, {known.projection}",
        "distance": known.distance,
        "probability": f"learned from {known.calibration}" if known.calibration != "none" else "none",
        "disk": f"{known.disk_bytes / 1e6:.1f} MB{_for_each(known.disk_bytes, known.tracklets)}",
        "memory": f"{known.memory_bytes / 1e6:.1f} MB for the index{_for_each(known.memory_bytes, known.tracklets)}",
    }
    for title, line in lines.items():
        table.add_row(title, escape(line))
    return table


def _for_each(size: int, tracklets: int) -> str:
    return f", {size / tracklets / 1e3:.2f} kB a tracklet" if tracklets else ""


def _counts(counts: dict[str, int], most: int = 12) -> str:
    named = sorted(counts.items(), key=lambda item: -item[1])
    more = f", and {len(named) - most} more" if len(named) > most else ""
    return ", ".join(f"{name} {count}" for name, count in named[:most]) + more
