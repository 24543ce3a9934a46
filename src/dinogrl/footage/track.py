"""Who is who from one picture to the next: ByteTrack (Zhang et al., ECCV 2022), as the library ``trackers`` has it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dinogrl.errors import DataError
from dinogrl.footage.boxes import Boxes


@dataclass(frozen=True, slots=True)
class Tracked:
    """A person of a picture. ``track`` counts from 1 in the order in which tracks are confirmed; ``box``: left, top, width,
    height.
    """

    track: int
    box: tuple[float, float, float, float]
    score: float


class Tracker:
    """Gives each box the number of its track.

    ``rate``: pictures a second that it will be shown. ``lost``: seconds for which somebody may be hidden and keep the number.
    ``sure``: a box of this score begins a track; one below goes on with a track at most. ``confirmed``: pictures before a track
    counts. Raises :class:`DataError` that names the extra to install where the library is missing.
    """

    def __init__(self, rate: float, lost: float = 1.5, sure: float = 0.6, confirmed: int = 3, least_overlap: float = 0.15) -> None:
        try:
            from supervision import Detections
            from trackers import ByteTrackTracker
        except ImportError as error:
            raise DataError(
                "tracking needs the library trackers, which is not installed: pip install 'dinogrl[footage]'"
            ) from error
        self._detections = Detections
        self._tracker = ByteTrackTracker(
            lost_track_buffer=max(round(lost * rate), 1),
            frame_rate=30.0,  # the unit of the buffer: at 30 it counts pictures
            track_activation_threshold=sure,
            high_conf_det_threshold=sure,
            minimum_consecutive_frames=confirmed,
            minimum_iou_threshold=least_overlap,
        )
        self._numbers: dict[int, int] = {}  # the library numbers through all its trackers; ours begin at 1

    def update(self, found: Boxes) -> list[Tracked]:
        """The boxes of the next picture that belong to confirmed tracks, in the order of their numbers."""
        corners = np.concatenate([found.boxes[:, :2], found.boxes[:, :2] + found.boxes[:, 2:]], axis=1)
        seen = self._tracker.update(self._detections(xyxy=corners, confidence=found.scores))
        tracked = []
        for (left, top, right, bottom), score, theirs in zip(seen.xyxy, seen.confidence, seen.tracker_id):
            if theirs < 0:
                continue
            track = self._numbers.setdefault(int(theirs), len(self._numbers) + 1)
            box = (float(left), float(top), float(right - left), float(bottom - top))
            tracked.append(Tracked(track, box, float(score)))
        return sorted(tracked, key=lambda person: person.track)
