"""How much anybody may ask of the server. Every number here stands between a stranger's file and the machine."""

from __future__ import annotations

from dataclasses import dataclass

MB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Of uploads: ``body_bytes`` in all, ``image_bytes``, ``image_pixels`` and ``images`` of pictures; ``video_pixels`` a frame,
    ``video_seconds`` and ``video_frames`` of videos.

    Of work: ``job_seconds`` and ``job_memory`` (bytes) that cutting one video may take, ``waiting_jobs``, ``uploads_at_once``,
    ``upload_seconds`` for one upload, ``searches_at_once`` and ``waiting_searches``. Of people: ``searches_a_minute`` each, and
    ``failed_tokens`` in ``failed_minutes`` from one address.
    """

    body_bytes: int = 200 * MB
    image_bytes: int = 20 * MB
    image_pixels: int = 25_000_000
    images: int = 300
    video_pixels: int = 9_000_000
    video_seconds: float = 120.0
    video_frames: int = 7200
    job_seconds: float = 1800.0
    job_memory: int = 4096 * MB
    waiting_jobs: int = 8
    uploads_at_once: int = 4
    upload_seconds: float = 900.0
    searches_at_once: int = 2
    waiting_searches: int = 128
    searches_a_minute: int = 120
    failed_tokens: int = 10
    failed_minutes: float = 15.0
