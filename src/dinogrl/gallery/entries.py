"""What a gallery keeps of a tracklet, what it answers, and what it says about itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from dinogrl.errors import GalleryError
from dinogrl.records import Modality

LONGEST = {"id": 512, "camera": 256, "collection": 256}
"""Bytes of UTF-8 that a name may have."""
KEPT_FRAMES = 24
"""Paths kept of a tracklet, evenly over it."""
UNKNOWN_TIME = -(2**62)
"""Stands for "no time known" in a column of milliseconds."""


@dataclass(frozen=True)
class Entry:
    """The facts of a tracklet.

    ``id`` is the gallery's key. ``start`` and ``end`` say when its first and last frame were taken (a time without a zone counts as
    UTC). ``frames`` are paths of its frames, of which :data:`KEPT_FRAMES` are kept. ``source`` is a word on the frames' files (a
    digest of their sizes), so that changed files are noticed. ``added`` is set by the gallery.

    Raises :class:`GalleryError` for an empty or too long name, and for names with control characters.
    """

    id: str
    camera: str
    modality: Modality
    start: datetime | None = None
    end: datetime | None = None
    collection: str = "default"
    frames: tuple[str, ...] = ()
    source: str = ""
    added: datetime | None = None

    def __post_init__(self) -> None:
        for name, longest in LONGEST.items():
            check_name(name, getattr(self, name), longest)
        if self.start is not None and self.end is not None and _utc(self.end) < _utc(self.start):
            raise GalleryError(f"tracklet {self.id!r} ends before it starts; swap its times")
        if len(self.frames) > KEPT_FRAMES:
            step = len(self.frames) / KEPT_FRAMES
            object.__setattr__(self, "frames", tuple(self.frames[int(i * step)] for i in range(KEPT_FRAMES)))

    def digest(self) -> str:
        """32 hex digits of all the facts but ``added``."""
        facts = {name: value for name, value in self.as_row().items() if name != "added_ms"}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]

    def differences(self, other: Entry) -> list[str]:
        """Names of the facts, all but ``added``, that are not the same."""
        theirs = other.as_row()
        return [name.removesuffix("_ms") for name, own in self.as_row().items() if own != theirs[name] and name != "added_ms"]

    def as_row(self) -> dict[str, Any]:
        """Plain values as the database holds them; times in milliseconds since 1970."""
        return {
            "key": key_of(self.id),
            "id": self.id,
            "camera": self.camera,
            "modality": int(self.modality),
            "start_ms": milliseconds(self.start),
            "end_ms": milliseconds(self.end),
            "collection": self.collection,
            "frames": json.dumps(self.frames),
            "source": self.source,
            "added_ms": milliseconds(self.added),
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Entry:
        """What :meth:`as_row` gave."""
        return cls(
            id=row["id"],
            camera=row["camera"],
            modality=Modality(row["modality"]),
            start=moment(row["start_ms"]),
            end=moment(row["end_ms"]),
            collection=row["collection"],
            frames=tuple(json.loads(row["frames"])),
            source=row["source"],
            added=moment(row["added_ms"]),
        )

    def stamped(self, now: datetime) -> Entry:
        """The same, added ``now``."""
        return replace(self, added=now)


@dataclass(frozen=True)
class Hit:
    """One answer.

    ``distance`` is exact, by the model's measure; ``probability``, in 0..1, that it is the same person, is None where the model has
    no calibration.
    """

    id: str
    distance: float
    probability: float | None
    camera: str
    modality: Modality
    start: datetime | None
    end: datetime | None
    collection: str
    frames: tuple[str, ...] = ()

    @classmethod
    def of(cls, entry: Entry, distance: float, probability: float | None) -> Hit:
        """A hit on this entry."""
        facts = {name: getattr(entry, name) for name in ("id", "camera", "modality", "start", "end", "collection", "frames")}
        return cls(distance=distance, probability=probability, **facts)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the modality by name, times in ISO form."""
        times = {name: None if (value := getattr(self, name)) is None else value.isoformat() for name in ("start", "end")}
        return {**asdict(self), "modality": self.modality.name.lower(), "frames": list(self.frames), **times}


@dataclass(frozen=True)
class Added:
    """What adding did: tracklets new, there already with the same content, and put in the place of others."""

    added: int = 0
    unchanged: int = 0
    replaced: int = 0

    def __add__(self, other: Added) -> Added:
        return Added(self.added + other.added, self.unchanged + other.unchanged, self.replaced + other.replaced)


@dataclass(frozen=True)
class Info:
    """What a gallery is. ``parts`` x ``depth`` numbers a tracklet in ``precision``, ``width`` in the index.

    ``disk_bytes`` and ``memory_bytes`` are what it takes on this machine (0 for what lies on a server); ``by_*`` count tracklets.
    """

    address: str
    tracklets: int
    fingerprint: str
    model: str
    parts: int
    depth: int
    width: int
    precision: str
    distance: str
    projection: str
    calibration: str
    disk_bytes: int
    memory_bytes: int
    by_camera: dict[str, int] = field(default_factory=dict)
    by_modality: dict[str, int] = field(default_factory=dict)
    by_collection: dict[str, int] = field(default_factory=dict)
    first: datetime | None = None
    last: datetime | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        times = {name: None if (value := getattr(self, name)) is None else value.isoformat() for name in ("first", "last")}
        return {**asdict(self), **times}


def key_of(id: str) -> str:
    """32 hex digits that stand for an id: pymilvus writes keys into expressions of its own without escaping them.

    Of any text, also of what a command line makes of bytes that are none: no tracklet is called so, and none is found.
    """
    return hashlib.sha256(id.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def check_name(kind: str, name: str, longest: int) -> None:
    """Raise :class:`GalleryError` for a name that no gallery takes."""
    if not name:
        raise GalleryError(f"the {kind} of a tracklet is empty; give it a name")
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        raise GalleryError(f"the {kind} {name!r} has control characters in it (line breaks, tabs ...); give it a printable name")
    try:
        size = len(name.encode())
    except UnicodeEncodeError as error:
        raise GalleryError(f"the {kind} {name!r} is no valid text; rename it") from error
    if size > longest:
        raise GalleryError(f"the {kind} {name[:40]!r}... has {size} bytes; at most {longest} are taken")


def _utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time


def milliseconds(time: datetime | None) -> int:
    """Since 1970; :data:`UNKNOWN_TIME` for None."""
    return UNKNOWN_TIME if time is None else round(_utc(time).timestamp() * 1000)


def moment(value: int) -> datetime | None:
    """The time of :func:`milliseconds`, in UTC."""
    return None if value == UNKNOWN_TIME else datetime.fromtimestamp(value / 1000, UTC)
