"""From video files and streams to tracklets."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from dinogrl.cli.screen import Watcher, complain, note, progress, say
from dinogrl.errors import DinogrlError

if TYPE_CHECKING:
    from dinogrl.footage import FootageProgress


def add_to(app: typer.Typer) -> None:
    """Hang these commands into the program."""
    app.command()(footage)


def footage(
    videos: Annotated[
        list[str], typer.Argument(metavar="VIDEO...", help="Video files, folders of pictures, rtsp:// or http:// addresses.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the tracklets; more can be added to it later.")],
    camera: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the camera; each video's own where not given.")
    ] = None,
    modality: Annotated[str, typer.Option(help="auto (a grey picture is infrared), visible or infrared.")] = "auto",
    detector: Annotated[
        str, typer.Option(metavar="NAME", help="hog (offline), or folder or hub name of a transformers object detector.")
    ] = "hog",
    device: Annotated[str, typer.Option(help="Where a transformers detector runs: auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    fps: Annotated[float, typer.Option(min=0, help="Frames a second to look at, at most; 0 for all.")] = 10.0,
    every: Annotated[int, typer.Option(min=1, help="Look at each so many-th frame only.")] = 1,
    duration: Annotated[float | None, typer.Option(metavar="SECONDS", help="Leave each video after so long.")] = None,
    start: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Wall clock at the videos' start, as in 2026-11-21T18:30:00+01:00; UTC without a zone."),
    ] = None,
    min_height: Annotated[float, typer.Option(min=1, help="Leave out people who are smaller, in pixels.")] = 48.0,
    min_sharpness: Annotated[float, typer.Option(min=0, help="Leave out crops that are blurrier; 0 keeps all.")] = 0.07,
    min_frames: Annotated[int, typer.Option(min=1, help="Leave out tracklets with fewer frames.")] = 8,
    max_frames: Annotated[int, typer.Option(min=1, help="Cut longer tracks into tracklets of so many frames.")] = 64,
    again: Annotated[bool, typer.Option("--replace", help="Cut videos anew that were cut with other settings before.")] = False,
) -> None:
    """Find the people in videos, follow them, and cut them out as tracklets in the folder layout.

    Interrupted, it goes on when called again. A video that cannot be used is named and the others go on; exit code 2 then.

    Example: dinogrl footage monday.mp4 --out footage --camera gate
    """
    from dinogrl.footage import FootageSettings, cut_video
    from dinogrl.footage.detect import load_detector

    settings = FootageSettings(
        camera=camera,
        modality=modality,
        every=every,
        fps=fps or None,
        duration=duration,
        start=_moment(start),
        min_height=min_height,
        min_sharpness=min_sharpness,
        min_frames=min_frames,
        max_frames=max_frames,
    )
    finder = load_detector(detector, device)
    failed = found = 0
    for video in videos:
        try:
            with progress() as tell:
                result = cut_video(
                    video, out, detector=finder, settings=settings, replace_earlier=again, on_progress=_told_to(tell)
                )
        except DinogrlError as error:
            failed += 1
            complain(" ".join(str(error).split()))
            continue
        for warning in result.warnings:
            note(f"warning: {result.source}: {warning}")
        found += len(result.tracklets)
        if not result.tracklets:
            note(
                f"{result.source}: nobody was found; people must be upright, {settings.min_height:g} pixels tall (--min-height), "
                f"and seen in {settings.min_frames} frames (--min-frames); another --detector may see more"
            )
        done = " (cut before, nothing to do)" if result.skipped else ""
        people = len({tracklet.folder.parents[2] for tracklet in result.tracklets})
        frames = sum(tracklet.frames for tracklet in result.tracklets)
        say(
            f"[green]{escape(result.source)}[/green]: {len(result.tracklets)} tracklets of {people} tracks, {frames:,} frames{done}"
        )
    if failed:
        complain(f"{failed} of {len(videos)} videos could not be cut")
        raise typer.Exit(2)
    if found:
        say(escape(f"next: dinogrl check {out}"))


def _told_to(tell: Watcher) -> Callable[[FootageProgress], None]:
    """Progress of one video, as the bar takes it."""

    def on_progress(at: FootageProgress) -> None:
        word = f"{at.speed:.1f} frames/s, {at.tracklets} tracklets"
        tell(Path(at.source).name, at.frame, at.frames if at.frames is not None else at.frame + 1, word)

    return on_progress


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise DinogrlError(f"--start {text!r} cannot be read; give a time as in 2026-11-21T18:30:00+01:00") from error
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
