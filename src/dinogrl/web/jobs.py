"""Long work: an upload becomes queries. One video is cut at a time, and beside it pictures need not wait; there is one model.

Every step is noted in the journal. A server that ends, however it ends, leaves its jobs there, and the next one goes on with them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event, Lock

from fastapi import HTTPException

from dinogrl.data.frames import fault
from dinogrl.embedding.embedder import Embedder
from dinogrl.errors import DataError, DinogrlError
from dinogrl.footage.modality import seen_by
from dinogrl.gallery.strips import make_strip
from dinogrl.records import Modality
from dinogrl.web.cutting import Found, Stopped, Tell
from dinogrl.web.intake import Intake
from dinogrl.web.journal import MOST_ATTEMPTS, WAITING, Job, Journal
from dinogrl.web.limits import Limits

MOST_QUERIES = 60
"""Tracklets of a video that are offered as queries: the longest."""
Cut = Callable[[Path, str, Path, Tell, Event], list[Found]]

_log = logging.getLogger("dinogrl.web")


class Jobs:
    """Carries out what the journal has. ``cut`` finds the tracklets of a video (:class:`dinogrl.web.cutting.Cutter`)."""

    def __init__(self, journal: Journal, intake: Intake, embedder: Embedder, cut: Cut, limits: Limits) -> None:
        self._journal, self._intake, self._embedder, self._cut, self._limits = journal, intake, embedder, cut, limits
        self._videos = ThreadPoolExecutor(1, thread_name_prefix="video")
        self._pictures = ThreadPoolExecutor(1, thread_name_prefix="pictures")
        self._model = Lock()
        self._stopping = Event()

    def start(self) -> None:
        """Go on with what an earlier life has left."""
        left = self._journal.unfinished()
        self._intake.forget_all_but(left)
        for id in left:
            job = self._journal.job(id)
            if job is not None:
                self._submit(job)

    def stop(self) -> None:
        """Put back what runs, and come to an end."""
        self._stopping.set()
        for worker in (self._videos, self._pictures):
            worker.shutdown(wait=True, cancel_futures=True)

    def expect_room(self) -> None:
        """Raises :class:`HTTPException` 503 where too many jobs wait."""
        if self._journal.count(WAITING) >= self._limits.waiting_jobs:
            raise HTTPException(503, "too many uploads are waiting; try again in a minute", {"Retry-After": "60"})

    def add(self, id: str, who: str, label: str, modality: str, files: list[tuple[str, str]]) -> Job:
        """Begin work on files that the intake has received."""
        job = self._journal.add_job(id, who, label, modality, files)
        self._submit(job)
        return job

    def forget(self, job: Job) -> None:
        """Remove a job with all that came of it; one that runs notices it."""
        self._journal.forget_job(job.id)
        self._intake.forget(job.id)

    # -- inside -------------------------------------------------------------------------------------------------------------------

    def _submit(self, job: Job) -> None:
        worker = self._videos if job.is_video else self._pictures
        worker.submit(self._carry_out, job.id).add_done_callback(lambda future: self._ended(job.id, future))

    def _carry_out(self, id: str) -> None:
        job = self._journal.job(id)
        if job is None:
            return
        if job.attempts >= MOST_ATTEMPTS:
            raise DataError("this upload has brought the server down before; it is not tried again")
        self._journal.begin(id)
        folder = self._intake.folder(id)
        first = folder / job.files[0][1]
        found = self._from_video(job, first, folder / "cut") if job.is_video else [self._from_pictures(job, folder)]
        chosen = sorted(found, key=lambda one: -len(one.frames))[:MOST_QUERIES]
        for number, one in enumerate(chosen, 1):
            self._expect_wanted(job)
            with self._model:
                parts = self._embedder.embed(one.frames, one.modality)
            label = f"{job.label}, person {number}" if job.is_video else job.label
            fingerprint, strip = self._embedder.fingerprint, make_strip(one.frames)
            self._journal.add_query(job, label, one.modality, len(one.frames), fingerprint, parts, strip)
            self._journal.advance(id, "embed", number, len(chosen))

    def _from_video(self, job: Job, video: Path, out: Path) -> list[Found]:
        def tell(stage: str, done: int, total: int) -> None:
            self._expect_wanted(job)
            self._journal.advance(job.id, stage, done, total)

        found = self._cut(video, job.modality, out, tell, self._stopping)
        if not found:
            raise DataError("nobody was found in the video; people must be upright and not too small: send pictures of the person")
        return found

    def _from_pictures(self, job: Job, folder: Path) -> Found:
        frames = [folder / kept for _, kept in job.files]
        for number, (frame, (given, _)) in enumerate(zip(frames, job.files, strict=True), 1):
            self._expect_wanted(job)
            wrong = fault(frame, full=True)
            if wrong is not None:
                raise DataError(f"{given} {wrong.partition(';')[0]}; leave it out, or send it again")
            self._journal.advance(job.id, "look at pictures", number, len(frames))
        return Found(seen_by(frames) if job.modality == "auto" else Modality[job.modality.upper()], frames)

    def _expect_wanted(self, job: Job) -> None:
        """Raises :class:`Stopped` where the server ends, or the job was forgotten meanwhile."""
        if self._stopping.is_set() or self._journal.job(job.id) is None:
            raise Stopped("no longer wanted")

    def _ended(self, id: str, future: Future[None]) -> None:
        """Note how it ended. What was uploaded is removed as soon as it is no longer needed."""
        if future.cancelled():
            return
        error = future.exception()
        if isinstance(error, (Stopped, CancelledError)):
            self._journal.put_back(id)
            if self._journal.job(id) is None:
                self._intake.forget(id)
            return
        if error is not None and not isinstance(error, DinogrlError):
            _log.error("job %s failed", id, exc_info=error)
        told = (
            "" if error is None else str(error) if isinstance(error, DinogrlError) else "something went wrong; see the server's log"
        )
        self._journal.end(id, told)
        self._intake.forget(id)
