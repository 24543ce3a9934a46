"""What goes over the wire: the bodies of requests and answers, each checked, each in the OpenAPI description."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from dinogrl.gallery import Filters
from dinogrl.modality_names import ModalityName
from dinogrl.records import Modality
from dinogrl.web.journal import Job, Summary
from dinogrl.web.searching import Answer, Question

Id = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$", description="An id that this server gave.")]
Name = Annotated[str, Field(min_length=1, max_length=512)]
Marks = Annotated[list[Name], Field(max_length=200)]
Note = Annotated[str, Field(max_length=2000)]
MOST_ANSWERS = 200


class Form(StrEnum):
    """How a case is written."""

    html = "html"
    zip = "zip"


class Strict(BaseModel):
    """A body without fields that nobody reads."""

    model_config = ConfigDict(extra="forbid")


class Problem(BaseModel):
    """What is wrong, in one line."""

    detail: str


class Token(Strict):
    """What a person signs in with."""

    token: Annotated[str, Field(min_length=1, max_length=512)]


class Conditions(Strict):
    """Which tracklets are searched; an empty list lets all pass. Times without a zone count as UTC."""

    cameras: Annotated[list[Name], Field(max_length=200)] = []
    modalities: Annotated[list[ModalityName], Field(max_length=2)] = []
    collections: Annotated[list[Name], Field(max_length=200)] = []
    after: datetime | None = None
    before: datetime | None = None

    def filters(self) -> Filters:
        """As the gallery takes them."""
        modalities = tuple(Modality[one.name.upper()] for one in self.modalities)
        return Filters(tuple(self.cameras), modalities, tuple(self.collections), self.after, self.before)


class Search(Strict):
    """Look for an uploaded query or a tracklet of the gallery (one of the two), in the light of what was marked.

    ``case`` is a word on why, for the audit log.
    """

    query: Id | None = None
    tracklet: Name | None = None
    top: Annotated[int, Field(ge=1, le=MOST_ANSWERS)] = 24
    conditions: Conditions = Conditions()
    right: Marks = []
    wrong: Marks = []
    case: Annotated[str, Field(max_length=200)] = ""


class Export(Strict):
    """Write down a search, with marks and a note."""

    search: Id
    right: Marks = []
    wrong: Marks = []
    note: Note = ""
    form: Form = Form.html


class Tracklet(BaseModel):
    """Facts of a tracklet of the gallery."""

    id: str
    camera: str
    modality: ModalityName
    collection: str
    start: datetime | None
    end: datetime | None


class FoundTracklet(Tracklet):
    """A tracklet with its rank from 1, its distance to the query, the chance that it is the same person (None: nobody can say),
    and its distance to the query as moved by the marks (None: nothing was marked).
    """

    rank: int
    distance: float
    probability: float | None
    moved_distance: float | None


class Asked(BaseModel):
    """What was looked for."""

    label: str
    modality: ModalityName


class Found(BaseModel):
    """The answer to a search; ``id`` is what an export asks for."""

    id: str
    query: Asked
    hits: list[FoundTracklet]


class FoundQuery(BaseModel):
    """Somebody that an upload shows."""

    id: str
    label: str
    modality: ModalityName
    frames: int
    has_strip: bool


class JobState(BaseModel):
    """How far an upload is: waiting, running, done, failed (``error`` says why). ``queries`` when it is done."""

    id: str
    label: str
    state: str
    stage: str
    done: int
    total: int
    error: str
    created: float
    queries: list[FoundQuery]


class Shelf(BaseModel):
    """Some tracklets of the gallery; ``more``: there are others behind them."""

    tracklets: list[Tracklet]
    more: bool


class Bounds(BaseModel):
    """Of an upload."""

    body_bytes: int
    images: int
    image_bytes: int
    video_seconds: float


class About(BaseModel):
    """What the gallery holds, and who asks. ``calibration``: from whom probabilities were learned, "none" where none are given;
    ``prior``: share of answers that they take to be right.
    """

    who: str
    signed_in: bool
    tracklets: int
    cameras: dict[str, int]
    modalities: dict[str, int]
    collections: dict[str, int]
    first: datetime | None
    last: datetime | None
    model: str
    calibration: str
    prior: float
    expire_after_seconds: float | None
    bounds: Bounds


class Health(BaseModel):
    """The server answers."""

    status: str


def told(modality: Modality) -> ModalityName:
    """A modality by its name."""
    return ModalityName(modality.name.lower())


def job_state(job: Job, queries: list[Summary]) -> JobState:
    """A job as it is told."""
    found = [
        FoundQuery(id=one.id, label=one.label, modality=told(one.modality), frames=one.frames, has_strip=one.has_strip)
        for one in queries
    ]
    facts: dict[str, Any] = {
        name: getattr(job, name) for name in ("id", "label", "state", "stage", "done", "total", "error", "created")
    }
    return JobState(**facts, queries=found)


def found_tracklets(answers: list[Answer]) -> list[FoundTracklet]:
    """Answers as they are told."""
    return [
        FoundTracklet(
            rank=rank,
            id=answer.hit.id,
            camera=answer.hit.camera,
            modality=told(answer.hit.modality),
            collection=answer.hit.collection,
            start=answer.hit.start,
            end=answer.hit.end,
            distance=answer.hit.distance,
            probability=answer.hit.probability,
            moved_distance=answer.moved_distance,
        )
        for rank, answer in enumerate(answers, 1)
    ]


def asked(question: Question) -> Asked:
    """A question as it is told."""
    return Asked(label=question.label, modality=told(question.modality))
