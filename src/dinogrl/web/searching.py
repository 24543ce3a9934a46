"""From a query and what was marked to answers: what is asked of the gallery, and what is said about each hit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from fastapi import HTTPException
from numpy.typing import NDArray

from dinogrl.distances import DISTANCES
from dinogrl.errors import GalleryError
from dinogrl.gallery import Entry, Filters, Gallery, Hit
from dinogrl.records import Modality
from dinogrl.web.feedback import moved
from dinogrl.web.journal import Journal


@dataclass(frozen=True)
class Question:
    """Who is looked for: ``parts`` (P,D), how they were seen, what to call them, a picture. ``own``: it is this tracklet's."""

    label: str
    modality: Modality
    parts: NDArray[np.float32]
    strip: bytes | None
    own: str | None = None


@dataclass(frozen=True)
class Answer:
    """A hit. ``distance`` and ``probability`` are those of the query and the hit, whatever was marked; ``moved_distance`` is that
    to the query moved by the marks, by which answers are ordered then.
    """

    hit: Hit
    moved_distance: float | None


class Searching:
    """Asks ``gallery``. ``prior``: share of hits expected to be the right person."""

    def __init__(self, gallery: Gallery, journal: Journal, prior: float) -> None:
        self._gallery, self._journal, self._prior = gallery, journal, prior

    def by_upload(self, id: str, who: str) -> Question:
        """A query that was uploaded. Raises :class:`HTTPException` 404 where there is none, or it is somebody else's."""
        query = self._journal.query(id, who)
        if query is None or query.model != (self._gallery.fingerprint or query.model):
            raise HTTPException(404, "there is no such query; it may have expired, upload it again")
        return Question(query.label, query.modality, query.parts, query.strip)

    def by_tracklet(self, id: str) -> Question:
        """A tracklet of the gallery. Raises :class:`HTTPException` 404 where there is none."""
        entry = self._entries([id])[0]
        return Question(id, entry.modality, self._gallery.parts([id])[0], self._gallery.strip(id), own=id)

    def answer(
        self, question: Question, *, top: int, filters: Filters, right: Sequence[str] = (), wrong: Sequence[str] = ()
    ) -> list[Answer]:
        """The ``top`` nearest. Tracklets marked wrong are left out, as is the query's own.

        Raises :class:`HTTPException` 404 for marks on tracklets that are not there, 422 where one is marked both.
        """
        if set(right) & set(wrong):
            raise HTTPException(422, "a tracklet is marked both right and wrong; choose one")
        self._entries([*right, *wrong])
        left_out = [*wrong, *([question.own] if question.own is not None else [])]
        filters = replace(filters, exclude=left_out)
        query = question.parts
        if right or wrong:
            query = moved(query, self._parts(right, query), self._parts(wrong, query))
        hits = self._gallery.search(
            query,
            top=top,
            filters=filters,
            modality=question.modality,
            fingerprint=self._gallery.fingerprint or "",
            prior=self._prior,
        )
        if not (right or wrong):
            return [Answer(hit, None) for hit in hits]
        return self._judged(hits, question)

    def _judged(self, hits: Sequence[Hit], question: Question) -> list[Answer]:
        """The hits with their distances to the query itself: a probability was learned for pairs of tracklets, not for a mean."""
        parts = None
        while hits and parts is None:
            try:
                parts = self._gallery.parts([hit.id for hit in hits])
            except GalleryError:  # one has been removed in this very moment
                hits = [hit for hit in hits if hit.id in self._gallery]
        settings = self._gallery.settings
        if parts is None or settings is None:
            return []
        distances = np.asarray(DISTANCES[settings.distance](question.parts[None], parts))[0].tolist()
        return [
            Answer(
                replace(
                    hit,
                    distance=distance,
                    probability=self._gallery.probability(distance, hit.modality, question.modality, self._prior),
                ),
                moved_distance=hit.distance,
            )
            for hit, distance in zip(hits, distances, strict=True)
        ]

    def _entries(self, ids: Sequence[str]) -> list[Entry]:
        try:
            return self._gallery.entries(ids)
        except GalleryError as error:
            raise HTTPException(404, f"{error}; it may have been removed") from error

    def _parts(self, ids: Sequence[str], like: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n,P,D) of these tracklets; n may be 0."""
        return self._gallery.parts(ids) if ids else np.empty((0, *like.shape), np.float32)
