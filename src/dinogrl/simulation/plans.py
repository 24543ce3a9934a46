"""What will be on disk: the frames of every walk, and the lists that name them."""

from __future__ import annotations

from dataclasses import dataclass, field

from dinogrl.records import Modality
from dinogrl.simulation.casting import Sighting


@dataclass(frozen=True)
class Take:
    """A sighting and the files of its frames, relative to the dataset's root."""

    sighting: Sighting
    files: dict[Modality, tuple[str, ...]]


@dataclass
class Plan:
    """Everything that will be on disk: ``takes`` to draw and ``texts`` (path -> content) to write."""

    takes: list[Take] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)


def lines(rows: list[str]) -> str:
    """The content of a text file."""
    return "".join(f"{row}\n" for row in rows)
