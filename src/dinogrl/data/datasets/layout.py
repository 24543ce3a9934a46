"""What every reader is: a way to recognise a dataset on disk, and a way to read its index without touching the frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dinogrl.data.problems import Problems
from dinogrl.records import Dataset

SIMULATION_CARD = "simulation.json"
"""By this file at its root a simulated world says that it is one."""


@dataclass(frozen=True)
class Choices:
    """What a user may choose about reading.

    ``min_frames``: shorter tracklets are left out (HITSZ-VCM only). ``discard_train``, ``discard_test``: files that list frames to
    leave out, before the length filter (HITSZ-VCM only). ``trial``: which of a dataset's splits is read (RegDB only).
    """

    min_frames: int = 12
    discard_train: Path | None = None
    discard_test: Path | None = None
    trial: int = 1


@dataclass(frozen=True)
class Counts:
    """Size of one split in one modality, as found or as its authors publish it (``identities`` None where they do not)."""

    identities: int | None
    tracklets: int
    images: int


@dataclass(frozen=True)
class Layout:
    """One way in which datasets lie on disk.

    ``read`` never raises for what it finds in the files: it appends to the list of problems and returns what is left. ``expects``
    says in a few words what marks the layout. ``published`` holds the authors' counts by the split names of
    :mod:`dinogrl.data.checks`, of the tracklets as they are after the usual filter.
    """

    recognises: Callable[[Path], bool]
    read: Callable[[Path, Choices, Problems], Dataset]
    expects: str
    published: dict[str, Counts]
