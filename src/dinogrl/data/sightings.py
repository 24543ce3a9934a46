"""Where and when a tracklet was seen: ``tracklet.json`` beside its frames, in the folder layout.

``dinogrl footage`` writes it; whoever wants times, such as a gallery, reads it. A tracklet without one is as good as any other, its
times are just not known. Nobody knows yet who the person is: the folder of the identity begins with :data:`UNKNOWN` then, and each
track of the tracker is an identity of its own. Renaming that folder, or moving tracklets into another one, gives a name.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from dinogrl.checkpoints import write_atomically
from dinogrl.errors import DataError
from dinogrl.records import Modality

FILE = "tracklet.json"
UNKNOWN = "unknown-"
"""How the name of an identity begins that nobody has named."""

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class SeenFrame:
    """One frame of a tracklet. ``time``: seconds from the start of the video, ``index``: of the frame in the video, from 0.

    ``box``: left, top, width, height of the person in the video's pixels, as found, before any padding. ``score``: the detector's,
    0..1.
    """

    file: str
    index: int
    time: float
    box: tuple[float, float, float, float]
    score: float


@dataclass(frozen=True, slots=True)
class Sighting:
    """A tracklet's origin. ``started`` is the wall clock at the video's start, None where nothing tells it."""

    source: str
    fingerprint: str
    camera: str
    modality: Modality
    track: int
    detector: str
    started: datetime | None
    frames: tuple[SeenFrame, ...]

    @property
    def start(self) -> float:
        """Seconds from the start of the video to the first frame."""
        return self.frames[0].time

    @property
    def end(self) -> float:
        """Seconds from the start of the video to the last frame."""
        return self.frames[-1].time

    @property
    def started_at(self) -> datetime | None:
        """Wall clock at the first frame."""
        return None if self.started is None else self.started + timedelta(seconds=self.start)

    @property
    def ended_at(self) -> datetime | None:
        """Wall clock at the last frame."""
        return None if self.started is None else self.started + timedelta(seconds=self.end)


def write_sighting(folder: Path, sighting: Sighting) -> None:
    """Write ``tracklet.json`` into a tracklet's folder."""
    facts = asdict(sighting) | {
        "dinogrl": _FORMAT,
        "modality": sighting.modality.name.lower(),
        "started": _text(sighting.started),
        "start": sighting.start,
        "end": sighting.end,
        "started_at": _text(sighting.started_at),
        "ended_at": _text(sighting.ended_at),
    }
    write_atomically(folder / FILE, json.dumps(facts, indent=1, ensure_ascii=False).encode())


def read_sighting(folder: str | Path) -> Sighting | None:
    """What ``tracklet.json`` in a tracklet's folder says; None where there is none. Raises :class:`DataError` for a broken one."""
    path = Path(folder, FILE)
    try:
        facts: Any = json.loads(path.read_bytes())
        frames = tuple(
            SeenFrame(
                str(frame["file"]),
                int(frame["index"]),
                float(frame["time"]),
                _box(frame["box"]),
                float(frame["score"]),
            )
            for frame in facts["frames"]
        )
        sighting = Sighting(
            source=str(facts["source"]),
            fingerprint=str(facts["fingerprint"]),
            camera=str(facts["camera"]),
            modality=Modality[facts["modality"].upper()],
            track=int(facts["track"]),
            detector=str(facts["detector"]),
            started=None if facts["started"] is None else datetime.fromisoformat(facts["started"]),
            frames=frames,
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} cannot be read ({type(error).__name__}: {error}); remove it, or cut the video again") from error
    if not frames:
        raise DataError(f"{path} names no frame; remove it, or cut the video again")
    return sighting


def _box(values: Any) -> tuple[float, float, float, float]:
    left, top, width, height = (float(value) for value in values)
    return left, top, width, height


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
