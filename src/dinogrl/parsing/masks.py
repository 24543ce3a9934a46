"""A dataset's masks: one grey PNG a frame, where :mod:`dinogrl.data.masks` looks for it. Written once; a stopped run goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from dinogrl.checkpoints import expect_no_file, write_atomically
from dinogrl.data.frames import ADVICE_IN_DATASETS, encode_png, read_frame
from dinogrl.data.masks import CARD
from dinogrl.errors import DataError
from dinogrl.parsing.parser import HumanParser
from dinogrl.records import Dataset

Watcher = Callable[[int, int], None]
"""Told how many masks there are, and of how many."""


@dataclass(frozen=True)
class MaskReport:
    """``written`` masks now, ``found`` before; ``broken``: frames without one, and why."""

    written: int
    found: int
    broken: dict[Path, str] = field(default_factory=dict)


def write_masks(
    dataset: Dataset,
    out: Path,
    parser: HumanParser,
    *,
    hard: bool = False,
    batch: int = 8,
    on_progress: Watcher | None = None,
) -> MaskReport:
    """Write the mask of every frame of ``dataset`` into ``out``: that of ``a/b.jpg`` below its root is ``out/a/b.png``.

    Masks that are there are kept. ``hard``: black and white in place of the probability of a person. Unreadable frames are
    left out and reported. Raises :class:`DataError` where ``out`` holds masks of another parser.
    """
    _claim(out, {"parser": parser.identity, "hard": hard})
    frames = frames_of(dataset)
    targets = {frame: out / frame.relative_to(dataset.root).with_suffix(".png") for frame in frames}
    missing = [frame for frame in frames if not targets[frame].is_file()]
    found, written, broken = len(frames) - len(missing), 0, {}
    for group in _groups(missing, batch):
        pictures = {}
        for frame in group:
            try:
                pictures[frame] = read_frame(frame, advice=ADVICE_IN_DATASETS)
            except DataError as error:
                broken[frame] = str(error)
        for frame, parsing in zip(pictures, parser(list(pictures.values())) if pictures else [], strict=True):
            write_atomically(targets[frame], encode_png(parsing.mask(hard)))
            written += 1
        if on_progress is not None:
            on_progress(found + written, len(frames))
    return MaskReport(written, found, broken)


def frames_of(dataset: Dataset) -> list[Path]:
    """Every frame that training or evaluation may ask for, each once, tracklet by tracklet."""
    tracklets = (*dataset.train, *dataset.auxiliary, *dataset.query, *dataset.gallery)
    return list(dict.fromkeys(tracklet.path(index) for tracklet in tracklets for index in range(len(tracklet.frames))))


def _claim(out: Path, card: dict[str, object]) -> None:
    """Write the card, or see that the one that is there says the same."""
    path = out / CARD
    expect_no_file(out, "the masks")
    # a hidden file may be what a killed run left of its card, or what another one, begun at the same moment, is just writing
    occupied = out.is_dir() and any(not entry.name.startswith(".") for entry in out.iterdir())
    if not path.is_file():
        if occupied:
            raise DataError(f"{out} holds something, but no masks that this command wrote; give an empty or a new folder")
        write_atomically(path, json.dumps(card, indent=1).encode())
        return
    try:
        there = json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path} cannot be read ({error}); remove the folder, or give another one") from error
    if there != card:
        raise DataError(f"{out} holds masks of another parser or form ({there}, not {card}); give another folder")


def _groups(frames: list[Path], size: int) -> Iterator[list[Path]]:
    rest = iter(frames)
    while group := list(islice(rest, size)):
        yield group
