"""How long things are kept, as people write it: 30d, 12h, 8w."""

from __future__ import annotations

import re
from datetime import timedelta

from dinogrl.errors import GalleryError

UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}

LONGEST = timedelta(days=36525)
"""A hundred years; no calendar reaches back the two thousand that six digits of days could ask for."""


def age_of(text: str) -> timedelta:
    """``30d`` -> 30 days; minutes (m), hours (h), days (d) or weeks (w). Raises :class:`GalleryError` for anything else."""
    found = re.fullmatch(r"\s*(\d{1,6}(?:\.\d{1,6})?)\s*([mhdw])\s*", text)
    age = None if found is None else float(found[1]) * UNITS[found[2]]
    if age is None or age > LONGEST:
        raise GalleryError(f"{text!r} is no age; write a number and m, h, d or w, such as 12h or 30d, up to a hundred years")
    return age
