"""What a gallery says about itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from dinogrl.embedding.search_aids import SearchAids
from dinogrl.gallery.entries import Entry, Info
from dinogrl.gallery.founding import Settings


def take_stock(address: str, settings: Settings, aids: SearchAids, entries: Sequence[Entry], sizes: tuple[int, int]) -> Info:
    """Count the entries. ``sizes``: bytes on disk and in memory."""
    times = [time for entry in entries for time in (entry.start, entry.end) if time is not None]
    return Info(
        address=address,
        tracklets=len(entries),
        fingerprint=settings.fingerprint,
        model=settings.model,
        parts=settings.form.parts,
        depth=settings.form.depth,
        width=settings.form.width,
        precision=settings.form.precision,
        distance=settings.distance,
        projection=settings.projection,
        calibration=aids.calibrated_on,
        disk_bytes=sizes[0],
        memory_bytes=sizes[1],
        by_camera=dict(Counter(entry.camera for entry in entries)),
        by_modality=dict(Counter(entry.modality.name.lower() for entry in entries)),
        by_collection=dict(Counter(entry.collection for entry in entries)),
        first=min(times, default=None),
        last=max(times, default=None),
    )
