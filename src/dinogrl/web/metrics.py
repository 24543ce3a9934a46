"""Numbers for Prometheus: how much is asked, refused, done, and how long it takes."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """A registry of one application's own, so that two of them in one process do not meet."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("dinogrl_requests", "Requests answered.", ["method", "status"], registry=self.registry)
        self.failed_tokens = Counter("dinogrl_failed_tokens", "Tokens that nobody has.", registry=self.registry)
        self.searches = Histogram("dinogrl_search_seconds", "Time of a search in the gallery.", registry=self.registry)
        self.uploaded = Counter("dinogrl_uploaded_bytes", "Bytes of uploads taken in.", registry=self.registry)
        self.jobs = Gauge("dinogrl_jobs", "Uploads being turned into queries, by state.", ["state"], registry=self.registry)
        self.tracklets = Gauge("dinogrl_gallery_tracklets", "Tracklets in the gallery.", registry=self.registry)
        self.expired = Counter("dinogrl_expired_tracklets", "Tracklets removed for their age.", registry=self.registry)

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return generate_latest(self.registry)
