"""Write a simulated dataset: draw every walk, in as many processes as asked, beside the place where it will stand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg

from dinogrl import runtime
from dinogrl.checkpoints import part_beside
from dinogrl.data.datasets.layout import SIMULATION_CARD
from dinogrl.errors import DataError, DinogrlError
from dinogrl.records import Modality
from dinogrl.simulation.gait import Motion
from dinogrl.simulation.layouts import plan
from dinogrl.simulation.motion_capture import load_motions
from dinogrl.simulation.plans import Take
from dinogrl.simulation.settings import Settings
from dinogrl.simulation.world import RenderedTracklet, World

__all__ = ["Settings", "Simulation", "read_settings", "silhouette_path", "simulate"]

SILHOUETTES = "silhouettes"
TAKES_A_CHUNK = 24
_SMALL = 100_000_000
"""Pixels that one process draws in about the time in which others have started."""


@dataclass(frozen=True)
class Simulation:
    """A dataset that was written: where, of which settings, and what is in it."""

    root: Path
    settings: Settings
    tracklets: int
    frames: int

    def __str__(self) -> str:
        people = f"{self.settings.train} training and {self.settings.test} test identities"
        return f"{self.root}: {people}, {self.tracklets} tracklets, {self.frames} frames, layout {self.settings.layout}"


def simulate(
    out: Path,
    settings: Settings | None = None,
    *,
    workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    **changes: Any,
) -> Simulation:
    """Write a dataset into ``out``, a folder that is new or empty. ``changes`` replace single settings: ``identities=40``.

    The bytes depend on the settings alone, not on ``workers`` (None: all cores; processes are started only for large sets).
    ``on_progress`` is told how many tracklets are done, of how many. Raises :class:`DinogrlError` for settings that cannot be met
    or a folder that holds something, :class:`DataError` for motion capture that cannot be read; nothing half-written is left.
    """
    settings = replace(settings or Settings(), **changes)
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DinogrlError(f"{out} is there already and not an empty folder; give a new folder, or remove it")
    if not out.name:  # the finished folder takes the place of this one, in which somebody stands
        raise DinogrlError(f"{out} has no name of its own; give a new folder, such as {out / 'world'}")
    layout = plan(settings)
    motions = load_motions(settings.motion, settings.motion_rate) if settings.motion is not None else ()
    beside = part_beside(out)
    total, done = sum(len(take.files) for take in layout.takes), 0
    try:
        beside.mkdir(parents=True)
        for finished in _draw_all(beside, settings, motions, layout.takes, workers or runtime.threads()):
            done += finished
            if on_progress is not None:
                on_progress(done, total)
        for name, text in layout.texts.items():
            path = beside / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        written = Simulation(out, settings, total, total * settings.frames)
        card = {"format": 1, "settings": settings.as_dict(), "counts": _counts(written)}
        (beside / SIMULATION_CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
        beside.replace(out)
    except OSError as error:
        raise DinogrlError(f"cannot write the simulated dataset to {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return written


def read_settings(root: Path) -> Settings:
    """The settings that a simulated dataset was made of. Raises :class:`DataError` where ``root`` holds none."""
    path = Path(root, SIMULATION_CARD)
    try:
        return Settings.from_dict(json.loads(path.read_text(encoding="utf-8"))["settings"])
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, DinogrlError) as error:
        raise DataError(f"no simulated dataset at {root}: cannot read {path}: {error}") from error


def silhouette_path(frame: str) -> str:
    """Where the true silhouette of a frame lies; both paths are relative to the dataset's root."""
    return f"{SILHOUETTES}/{Path(frame).with_suffix('.png').as_posix()}"


def _counts(written: Simulation) -> dict[str, int]:
    settings = written.settings
    return {
        "train_identities": settings.train,
        "test_identities": settings.test,
        "tracklets": written.tracklets,
        "frames": written.frames,
    }


Motions = Sequence[Sequence[Motion]]


def _draw_all(root: Path, settings: Settings, motions: Motions, takes: list[Take], workers: int) -> Iterator[int]:
    """Draw all takes; yields the number of tracklets of each chunk when it is done."""
    in_order = sorted(takes, key=lambda take: take.sighting.camera)  # a chunk then needs the scenery of one camera or two
    alone = workers == 1 or len(takes) * settings.frames * settings.height * settings.width < _SMALL
    size = 1 if alone else TAKES_A_CHUNK
    chunks = [in_order[i : i + size] for i in range(0, len(in_order), size)]
    if alone:
        world = _world(settings, motions)
        yield from (_draw(root, settings, world, chunk) for chunk in chunks)
        return
    # Fresh processes, not forks: a fork of a process that runs torch's threads can hang.
    with ProcessPoolExecutor(min(workers, len(chunks)), mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(_draw_chunk, root, settings, motions, chunk) for chunk in chunks]
        try:
            for job in as_completed(jobs):
                yield job.result()
        finally:
            for job in jobs:
                job.cancel()


def _draw_chunk(root: Path, settings: Settings, motions: Motions, takes: list[Take]) -> int:
    cv2.setNumThreads(1)  # the processes share the cores already
    return _draw(root, settings, _world(settings, motions), takes)


def _world(settings: Settings, motions: Motions) -> World:
    return World(settings.seed, motions=motions, occlusion=settings.occlusion, looseness=settings.looseness)


def _draw(root: Path, settings: Settings, world: World, takes: list[Take]) -> int:
    size = settings.frames, settings.height, settings.width
    drawn = 0
    for take in takes:
        who = take.sighting
        where = who.split, who.person, who.camera
        if len(who.modalities) == 2:
            pictures = dict(zip(Modality, world.pair(*where, who.walk, *size)))
        else:
            pictures = {m: world.tracklet(*where, m, who.walk, *size) for m in who.modalities}
        for modality, files in take.files.items():
            _write(root, files, pictures[modality], settings.silhouettes)
            drawn += 1
    return drawn


def _write(root: Path, files: tuple[str, ...], tracklet: RenderedTracklet, silhouettes: bool) -> None:
    folders = {Path(name).parent for name in files}
    for folder in folders | ({Path(silhouette_path(name)).parent for name in files} if silhouettes else set()):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, frame, silhouette in zip(files, tracklet.frames, tracklet.silhouettes):
        jpeg = simplejpeg.encode_jpeg(
            np.ascontiguousarray(frame), quality=tracklet.quality, colorspace="RGB", colorsubsampling="420"
        )
        (root / name).write_bytes(jpeg)
        if silhouettes:
            png = cv2.imencode(".png", silhouette.astype(np.uint8) * 255, [cv2.IMWRITE_PNG_BILEVEL, 1])[1]
            (root / silhouette_path(name)).write_bytes(png.tobytes())
