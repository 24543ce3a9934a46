"""``dinogrl search``: a person's frames, video or known tracklet in, the most alike tracklets of a gallery out."""

from __future__ import annotations

import json as jsonlib
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from dinogrl.cli.results import Compute, ComputedIn
from dinogrl.cli.screen import note, progress, say
from dinogrl.errors import DataError
from dinogrl.modality_names import ToldModality

if TYPE_CHECKING:
    from dinogrl.gallery import Gallery, Hit
    from dinogrl.records import Modality


Cameras = Annotated[list[str] | None, typer.Option("--camera", help="Only of this camera; may be given several times.")]
Collections = Annotated[list[str] | None, typer.Option("--collection", help="Only of this collection; several times.")]
After = Annotated[datetime | None, typer.Option(help="Only seen at this time or later; UTC without a zone.")]
Before = Annotated[datetime | None, typer.Option(help="Only seen at this time or earlier; UTC without a zone.")]


class Wanted(StrEnum):
    """What is searched."""

    any = "any"
    visible = "visible"
    infrared = "infrared"


def search(
    address: Annotated[str, typer.Argument(metavar="GALLERY", help="A folder, or a Milvus server: http://host:19530.")],
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="The gallery's model.")],
    image_folder: Annotated[
        Path | None, typer.Option("--image-folder", metavar="DIR", help="Frames of one person, named in order of time.")
    ] = None,
    video: Annotated[Path | None, typer.Option("--video", metavar="FILE", help="A video; people in it are found first.")] = None,
    track: Annotated[int | None, typer.Option(help="Which tracklet of the video; the longest where not given.")] = None,
    tracklet: Annotated[
        str | None, typer.Option("--tracklet", metavar="ID", help="A tracklet of the gallery, or of --from, by its id.")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="PATH", help="Where --tracklet lies: a file of dinogrl embed, or a dataset's root folder."),
    ] = None,
    layout: Annotated[str, typer.Option(help="Of the dataset given by --from: auto, folder, hitsz-vcm, buptcampus ...")] = "auto",
    modality: Annotated[
        ToldModality, typer.Option(help="How the query was seen; auto tells grey from colour.")
    ] = ToldModality.auto,
    top: Annotated[int, typer.Option(min=1, help="Answers.")] = 20,
    within: Annotated[Wanted, typer.Option("--in", help="Search only what was seen so.")] = Wanted.any,
    camera: Cameras = None,
    collection: Collections = None,
    after: After = None,
    before: Before = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Picture to write (.png).")] = Path("search.png"),
    json: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write the answers as JSON too; - prints them.")
    ] = None,
    name: Annotated[str, typer.Option(help="Which gallery of a server.")] = "gallery",
    token: Annotated[str, typer.Option(envvar="DINOGRL_MILVUS_TOKEN", help="Token of a server, or user:password.")] = "",
    compute: Compute = ComputedIn.float32,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
) -> None:
    """Search a gallery for the person in some frames, in a video or of a known tracklet, and draw the answers.

    Example: dinogrl search people.gallery runs/dinogrl/model.safetensors --image-folder query --modality infrared
    """
    from dinogrl.checkpoints import expect_writable_file, write_atomically
    from dinogrl.embedding.embedder import Embedder
    from dinogrl.gallery import Filters, Gallery, Query, named_query
    from dinogrl.gallery.strips import draw_sheet, strip_image
    from dinogrl.records import Modality

    if sum(given is not None for given in (image_folder, video, tracklet)) != 1:
        raise DataError("say what to search for: either --image-folder DIR or --video FILE or --tracklet ID")
    if source is not None and tracklet is None:
        raise DataError("--from says where a tracklet lies; name it by --tracklet ID")
    if layout != "auto" and (source is None or source.is_file()):
        raise DataError("--layout says how the dataset lies that a tracklet is taken from; give its root folder by --from DIR")
    if modality is not ToldModality.auto and tracklet is not None:
        raise DataError("how a known tracklet was seen is known too; leave --modality out")
    expect_writable_file(out)
    if out.suffix.lower() != ".png":
        raise DataError(f"the answers are drawn as a PNG, given --out {out}; give it a name that ends in .png")
    if json not in {None, "-"}:
        expect_writable_file(Path(json), "--json")
    with ExitStack() as open_until_done:
        embedder = Embedder.load(checkpoint, device, compute.value)
        gallery = open_until_done.enter_context(Gallery(address, embedder, name=name, token=token))
        if tracklet is not None:
            query = named_query(gallery, tracklet, source, layout)
        else:
            if video is not None:
                folder = open_until_done.enter_context(tempfile.TemporaryDirectory())
                frames, seen = _from_video(video, Path(folder), track, device)
            else:
                assert image_folder is not None
                frames, seen = _from_folder(image_folder)
            if modality is not ToldModality.auto:
                seen = Modality[modality.name.upper()]
            else:
                note(f"the query counts as {seen.name.lower()} (--modality says otherwise)")
            label = (image_folder or video or Path()).absolute().name  # of "." too
            query = Query(label, seen, embedder.embed(frames, seen), embedder.fingerprint, frames=frames)
        wanted = () if within is Wanted.any else (Modality[within.name.upper()],)
        itself = (query.name,) if query.own else ()
        filters = Filters(tuple(camera or ()), wanted, tuple(collection or ()), after, before, exclude=itself)
        hits = gallery.search(query.parts, top=top, filters=filters, modality=query.modality, fingerprint=query.fingerprint)
        title = f"{query.name}, {query.modality.name.lower()}"
        pictures = [strip_image(gallery.strip(hit.id), hit.frames) for hit in hits]
        write_atomically(out, draw_sheet(strip_image(query.strip, query.frames), title, hits, pictures))
        if not hits:
            _name_strangers(gallery, camera or (), collection or (), dated=after is not None or before is not None)
    content = jsonlib.dumps({"query": title, "model": embedder.fingerprint, "hits": [hit.as_dict() for hit in hits]}, indent=1)
    if json == "-":
        sys.stdout.write(content + "\n")
        return
    if json is not None:
        write_atomically(Path(json), content.encode())
    say(_table(hits) if hits else "nothing in the gallery meets the conditions")
    say(f"[green]{escape(str(out))}[/green]: the query{' above what was found' if hits else ' alone'}")


def _name_strangers(gallery: Gallery, cameras: Sequence[str], collections: Sequence[str], *, dated: bool) -> None:
    """Nothing was found: cameras, collections and times that no tracklet has are the likeliest reason."""
    known = gallery.info()
    for kind, asked, there in (("camera", cameras, known.by_camera), ("collection", collections, known.by_collection)):
        for name in asked:
            if name not in there:
                note(f"no tracklet is of {kind} {name!r}; there are {', '.join(sorted(there)[:12]) or 'none at all'}")
    if dated and known.tracklets and known.first is None:
        note("no tracklet says when it was seen: the footage had no clock (`dinogrl footage --start TIME` gives it one)")


def _from_folder(folder: Path) -> tuple[list[Path], Modality]:
    """Frames in order, and how they were seen."""
    from dinogrl.data.datasets.directories import IMAGE_SUFFIXES, images_in
    from dinogrl.data.natural_order import natural_sorted
    from dinogrl.data.sightings import read_sighting
    from dinogrl.footage.modality import seen_by

    if not folder.is_dir():
        raise DataError(f"no folder at {folder}; --image-folder takes a folder of frames of one person")
    names = natural_sorted(images_in(folder))
    if not names:
        raise DataError(f"no image in {folder}; frames are {', '.join(sorted(IMAGE_SUFFIXES))} files")
    frames = [folder / name for name in names]
    sighting = read_sighting(folder)
    return frames, seen_by(frames) if sighting is None else sighting.modality


def _from_video(video: Path, folder: Path, track: int | None, device: str) -> tuple[list[Path], Modality]:
    """Frames of one of the tracklets of a video, cut into ``folder``, and how they were seen."""
    from dinogrl.footage import cut_tracklets

    with progress() as tell:
        found = cut_tracklets(
            video,
            folder,
            device=device,
            on_progress=lambda at: tell("find people", at.frame, at.frames or at.frame, f"frames, {at.tracklets} tracklets"),
        )
    if not found:
        raise DataError(f"nobody was found in {video}; give the frames of the person by --image-folder")
    if track is not None and not 1 <= track <= len(found):
        raise DataError(f"{video} has tracklets 1 to {len(found)}, asked for {track}")
    chosen = found[track - 1] if track is not None else max(found, key=lambda tracklet: tracklet.frames)
    if track is None and len(found) > 1:
        note(f"{len(found)} tracklets in {video.name}; taking number {found.index(chosen) + 1}, the longest (--track chooses)")
    return _from_folder(chosen.folder)[0], chosen.modality


def _table(hits: Sequence[Hit]) -> Table:
    from dinogrl.embedding.calibration import in_per_cent

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("", justify="right")
    for heading in ("camera", "modality", "seen (UTC)"):
        table.add_column(heading)
    table.add_column("distance", justify="right")
    table.add_column("same person", justify="right")
    table.add_column("tracklet", overflow="fold")
    for rank, hit in enumerate(hits, 1):
        when = "" if hit.start is None else f"{hit.start:%Y-%m-%d %H:%M:%S}"
        chance = "" if hit.probability is None else in_per_cent(hit.probability)
        table.add_row(str(rank), escape(hit.camera), hit.modality.name.lower(), when, f"{hit.distance:.3f}", chance, escape(hit.id))
    return table
