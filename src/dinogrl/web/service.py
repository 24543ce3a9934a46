"""Everything that the endpoints work with, put together in one place and let go of in the right order."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from dinogrl.errors import GalleryError
from dinogrl.gallery import Gallery, Info
from dinogrl.web.audit import AuditLog
from dinogrl.web.intake import Intake
from dinogrl.web.jobs import Cut, Jobs
from dinogrl.web.journal import DONE, FAILED, RUNNING, WAITING, Journal
from dinogrl.web.limits import Limits
from dinogrl.web.metrics import Metrics
from dinogrl.web.pools import Pool
from dinogrl.web.rates import Rate
from dinogrl.web.searching import Searching
from dinogrl.web.signing import SigningIn
from dinogrl.web.tokens import Tokens

KEPT_ANYWAY = timedelta(days=30)
"""Uploaded queries and searches are forgotten after so long, even where tracklets never expire."""
_SECONDS_BETWEEN_EXPIRIES = 3600.0
_SECONDS_STOCK_IS_FRESH = 60.0

_log = logging.getLogger("dinogrl.web")


@dataclass(frozen=True)
class Settings:
    """``state``: folder for the journal, uploads and the audit log. ``hosts``: names by which the server may be called.

    ``expire_after``: age beyond which tracklets, queries and searches are removed. ``prior``: share of hits expected to be right.
    """

    state: Path
    tokens: Tokens = field(default_factory=lambda: Tokens({}))
    hosts: frozenset[str] = frozenset()
    expire_after: timedelta | None = None
    prior: float = 0.5
    limits: Limits = field(default_factory=Limits)


class Service:
    """Built of a gallery with an embedder, settings, and what cuts videos. To be closed; the gallery stays open."""

    def __init__(self, gallery: Gallery, settings: Settings, cut: Cut) -> None:
        assert gallery.embedder is not None, "queries are embedded"
        assert settings.expire_after is None or gallery.writable, "what is read only cannot expire"
        limits = settings.limits
        self.gallery, self.settings, self.limits = gallery, settings, limits
        settings.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.audit = AuditLog(settings.state / "audit.jsonl")
        self.journal = Journal(settings.state / "journal.db")
        self.intake = Intake(settings.state / "uploads", limits)
        self.jobs = Jobs(self.journal, self.intake, gallery.embedder, cut, limits)
        self.searching = Searching(gallery, self.journal, settings.prior)
        self.metrics = Metrics()
        self.signing = SigningIn(settings.tokens, limits, self.metrics, self.audit)
        self.search_rate = Rate(limits.searches_a_minute, 60)
        self.pool = Pool("search", limits.searches_at_once, limits.waiting_searches)
        self._stock: tuple[float, Info | None] = -float("inf"), None
        self._ending = threading.Event()
        self._keeper = threading.Thread(target=self._keep_house, name="expiry", daemon=True)
        for state in (WAITING, RUNNING, DONE, FAILED):
            self.metrics.jobs.labels(state).set_function(_counting(self.journal, state))
        self.metrics.tracklets.set_function(lambda: len(gallery))

    def start(self) -> None:
        """Go on with what is left to do."""
        self.jobs.start()
        self._keeper.start()

    def close(self) -> None:
        """Let what runs end, note what does not, and let go."""
        self._ending.set()
        self.pool.close()
        self.jobs.stop()
        self._keeper.join()
        self.journal.close()
        self.audit.close()

    def stock(self) -> Info | None:
        """What the gallery holds, None where that is nothing; a minute old at most, for counting takes time."""
        made, info = self._stock
        if time.monotonic() - made > _SECONDS_STOCK_IS_FRESH:
            info = self.gallery.info() if self.gallery.settings is not None else None
            self._stock = time.monotonic(), info
        return info

    def expire(self) -> int:
        """Remove what is too old; gives the number of tracklets removed."""
        age = self.settings.expire_after
        for id in self.journal.expire((age or KEPT_ANYWAY).total_seconds()):
            self.intake.forget(id)
        if age is None or self.gallery.settings is None:
            return 0
        removed = self.gallery.expire(age)
        if removed:
            self.metrics.expired.inc(removed)
            self.audit.write("expiry", "server", tracklets=removed, older_than_seconds=age.total_seconds())
        return removed

    def _keep_house(self) -> None:
        """Once at the start, then every hour."""
        while True:
            try:
                self.expire()
            except (GalleryError, OSError) as error:
                _log.error("expiry failed, it will be tried again: %s", error)
            if self._ending.wait(_SECONDS_BETWEEN_EXPIRIES):
                return


def _counting(journal: Journal, state: str) -> Callable[[], float]:
    return lambda: float(journal.count(state))
