"""What a simulated dataset is made of."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from dinogrl.errors import DinogrlError

PUBLIC_RATE = 120.0
"""Frames a second of the CMU's motion capture."""


@dataclass(frozen=True)
class Settings:
    """How many people, cameras and walks, how large the frames, how hard the pictures. The same settings draw the same bytes."""

    layout: str = "hitsz-vcm"
    """hitsz-vcm, buptcampus, sysu-mm01, regdb, llcm or folder."""
    identities: int = 40
    """All people, training and test."""
    test_identities: int | None = None
    """Those of them that are for the test; None: half."""
    cameras: int = 4
    tracklets: int = 2
    """Walks of a person past a camera in one modality (BUPTCampus: in both at once)."""
    frames: int = 24
    """Frames a tracklet."""
    height: int = 256
    width: int = 128
    seed: int = 1
    seen_by: float = 0.75
    """Share of the cameras that see a person, two at least."""
    occlusion: float = 0.3
    """Share of tracklets in which a pole, a bush or a passer-by comes between."""
    looseness: float = 1.0
    """How badly the boxes fit: 0 fits exactly."""
    silhouettes: bool = True
    """Write the true silhouettes beside the frames."""
    motion: Path | None = None
    """Folder of ASF/AMC motion capture to walk by; None walks by a model."""
    motion_rate: float = PUBLIC_RATE
    """Frames a second of these recordings: the files do not say."""

    def __post_init__(self) -> None:
        if self.motion is not None:
            object.__setattr__(self, "motion", Path(self.motion))
        least = {"identities": 2, "cameras": 2, "tracklets": 1, "frames": 1, "height": 16, "width": 8, "seed": 0}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise DinogrlError(f"{name} is {getattr(self, name)}; give {low} or more")
        if max(self.height, self.width) > 1000:
            raise DinogrlError(f"frames of {self.height}x{self.width} are larger than the cameras' pictures; give 1000 or less")
        for name, high in (("seen_by", 1.0), ("occlusion", 1.0), ("looseness", 3.0)):
            if not 0 <= getattr(self, name) <= high:
                raise DinogrlError(f"{name} is {getattr(self, name)}; give a number from 0 to {high:g}")
        if not 10 <= self.motion_rate <= 1000:
            raise DinogrlError(f"motion_rate is {self.motion_rate:g} frames a second; give a number from 10 to 1000")
        if not 1 <= self.test < self.identities:
            raise DinogrlError(
                f"test_identities is {self.test} of {self.identities}; leave at least one for training and one for the test"
            )

    @property
    def test(self) -> int:
        """How many people are for the test."""
        return self.identities // 2 if self.test_identities is None else self.test_identities

    @property
    def train(self) -> int:
        """How many people are for training."""
        return self.identities - self.test

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {**asdict(self), "motion": None if self.motion is None else str(self.motion)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Settings:
        """The opposite of :meth:`as_dict`. Raises :class:`DinogrlError` for values that are no settings."""
        known = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or set(values) - known:
            raise DinogrlError("these are no settings of a simulated world; they were written by another version")
        try:
            return cls(**values)
        except TypeError as error:
            raise DinogrlError(f"these are no settings of a simulated world: {error}") from error
