"""How footage is cut, every threshold by its name."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from dinogrl.catalog import Catalog
from dinogrl.errors import DinogrlError
from dinogrl.records import Modality

MODALITIES: Catalog[Modality | None] = Catalog(
    "modality", {"auto": None, "visible": Modality.VISIBLE, "infrared": Modality.INFRARED}
)


@dataclass(frozen=True)
class FootageSettings:
    """What is looked at, and what is left out. Pixels are those of the video, seconds those of its clock.

    ``camera``: its name in the layout; that of the video where None. ``modality``: ``auto`` tells it from the pixels, segment by
    segment. ``every`` and ``fps`` thin the frames: each so many-th, and of these at most so many a second (None: all).
    ``duration``: seconds after which the video is left. ``start``: wall clock at its start, where the file does not tell it.

    ``min_height``: smaller boxes are left out. ``min_inside``: share of a box that must lie in the picture. ``min_sharpness``:
    blurrier crops are left out (:func:`dinogrl.footage.crops.sharpness`). ``max_crowding``: so is a box that overlaps another by
    more (intersection over union): nobody could say whom it shows. ``max_change``: of the clothes' colour within a track, beyond
    which it follows somebody else now (:func:`dinogrl.footage.clothes.newcomer`). ``min_frames``: tracklets with fewer are left
    out; ``max_frames``: longer tracks are cut. ``max_gap``: seconds without a box after which a track goes on as a new tracklet.
    ``quality``: of the JPEG files.
    """

    camera: str | None = None
    modality: str = "auto"
    every: int = 1
    fps: float | None = 10.0
    duration: float | None = None
    start: datetime | None = None
    min_height: float = 48.0
    min_inside: float = 0.75
    min_sharpness: float = 0.07
    max_crowding: float = 0.35
    max_change: float = 45.0
    min_frames: int = 8
    max_frames: int = 64
    max_gap: float = 1.0
    quality: int = 92

    def __post_init__(self) -> None:
        MODALITIES[self.modality]
        if self.every < 1:
            raise DinogrlError(f"every is {self.every}; give 1 to look at all frames, 2 at every second one ...")
        for name in ("fps", "duration"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise DinogrlError(f"{name} is {value}; give a number above 0")
        if not 1 <= self.min_frames <= self.max_frames:
            raise DinogrlError(f"min_frames {self.min_frames} and max_frames {self.max_frames}: give 1 <= min_frames <= max_frames")
        if not 1 <= self.quality <= 100:
            raise DinogrlError(f"quality is {self.quality}; give 1 to 100")

    def as_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self) | {"start": self.start.isoformat() if self.start else None}
