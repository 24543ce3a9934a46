"""The endpoints: each takes what was asked, lets the service do it, notes it in the audit log, and answers."""

from __future__ import annotations

import time
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, HTTPException, Query, Request, Response, UploadFile

from dinogrl.gallery import Entry, Filters
from dinogrl.modality_names import ModalityName, ToldModality
from dinogrl.records import Modality
from dinogrl.web import words
from dinogrl.web.case import Case
from dinogrl.web.guard import COOKIE, SIGN_IN, UPLOADS, address_of, session_of
from dinogrl.web.intake import Sent, printable
from dinogrl.web.journal import DONE, Job
from dinogrl.web.metrics import CONTENT_TYPE
from dinogrl.web.searching import Question
from dinogrl.web.service import Service
from dinogrl.web.tokens import SESSION_SECONDS

_DEEPEST = 20_000
_JPEG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}}}
_FILE: dict[int | str, dict[str, Any]] = {
    200: {"content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in ("text/html", "application/zip")}}
}
_STATUSES = (400, 401, 403, 404, 405, 408, 413, 415, 422, 429, 500, 503, 507)
PROBLEMS: dict[int | str, dict[str, Any]] = {status: {"model": words.Problem} for status in _STATUSES}
"""What any endpoint may answer instead."""


def open_routes(service: Service) -> APIRouter:
    """What anybody may ask."""
    router = APIRouter(responses=PROBLEMS)

    @router.get("/healthz", response_model=words.Health)
    async def health() -> words.Health:
        """Is the server there?"""
        return words.Health(status="ok")

    @router.post(SIGN_IN, status_code=204, response_class=Response)
    def sign_in(request: Request, body: words.Token) -> Response:
        """Give a browser a session for a token."""
        name = service.signing.by_token(body.token, address_of(request.scope))
        service.audit.write("sign in", name, address=address_of(request.scope))
        response = Response(status_code=204)
        secure = request.url.scheme == "https"
        response.set_cookie(
            COOKIE, service.signing.sessions.open(name), max_age=SESSION_SECONDS, httponly=True, samesite="strict", secure=secure
        )
        return response

    @router.delete(SIGN_IN, status_code=204, response_class=Response)
    def sign_out(request: Request) -> Response:
        """End the session."""
        service.signing.sessions.close(session_of(request.headers))
        response = Response(status_code=204)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response

    return router


def search_routes(service: Service) -> APIRouter:
    """The gallery, and searching in it."""
    router = APIRouter(responses=PROBLEMS)
    gallery, audit = service.gallery, service.audit

    @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    def metrics() -> Response:
        """Numbers for Prometheus."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)

    @router.get("/api/gallery", response_model=words.About)
    async def about(request: Request) -> words.About:
        """What the gallery holds, and who asks."""
        info = await service.pool.run(service.stock)
        limits, age = service.limits, service.settings.expire_after
        return words.About(
            who=_who(request),
            signed_in=service.signing.needed,
            tracklets=0 if info is None else info.tracklets,
            cameras={} if info is None else info.by_camera,
            modalities={} if info is None else info.by_modality,
            collections={} if info is None else info.by_collection,
            first=None if info is None else info.first,
            last=None if info is None else info.last,
            model="" if info is None else f"{info.fingerprint} {info.model}".strip(),
            calibration="none" if info is None else info.calibration,
            prior=service.settings.prior,
            expire_after_seconds=None if age is None else age.total_seconds(),
            bounds=words.Bounds(
                body_bytes=limits.body_bytes,
                images=limits.images,
                image_bytes=limits.image_bytes,
                video_seconds=limits.video_seconds,
            ),
        )

    @router.get("/api/tracklets", response_model=words.Shelf)
    async def tracklets(
        request: Request,
        camera: Annotated[str, Query(max_length=512)] = "",
        collection: Annotated[str, Query(max_length=512)] = "",
        modality: ModalityName | None = None,
        after: datetime | None = None,
        before: datetime | None = None,
        offset: Annotated[int, Query(ge=0, le=_DEEPEST)] = 0,
        limit: Annotated[int, Query(ge=1, le=100)] = 24,
    ) -> words.Shelf:
        """Look through the gallery, to choose a tracklet to search with."""
        modalities = () if modality is None else (Modality[modality.name.upper()],)
        filters = Filters(_some(camera), modalities, _some(collection), after, before)

        def look() -> list[Entry]:
            audit.write("browse", _who(request), address=address_of(request.scope), filters=repr(filters), offset=offset)
            return list(islice(gallery.every(filters), offset, offset + limit + 1))

        found = await service.pool.run(look)
        shelf = [
            words.Tracklet(
                id=entry.id,
                camera=entry.camera,
                modality=words.told(entry.modality),
                collection=entry.collection,
                start=entry.start,
                end=entry.end,
            )
            for entry in found[:limit]
        ]
        return words.Shelf(tracklets=shelf, more=len(found) > limit)

    @router.get("/api/tracklets/strip", response_class=Response, responses=_JPEG)
    def strip(id: Annotated[str, Query(min_length=1, max_length=512)]) -> Response:
        """Some frames of a tracklet side by side, as the gallery keeps them."""
        return _picture(gallery.strip(id))

    @router.post("/api/search", response_model=words.Found)
    async def search(request: Request, body: words.Search) -> words.Found:
        """Rank the gallery's tracklets by their likeness to a query."""
        who = _who(request)
        wait = service.search_rate.take(who if service.signing.needed else address_of(request.scope))
        if wait:
            raise HTTPException(429, "too many searches; wait a moment", {"Retry-After": str(int(wait) + 1)})
        return await service.pool.run(lambda: _search(service, body, who, address_of(request.scope)))

    @router.post("/api/export", response_class=Response, responses=_FILE)
    async def export(request: Request, body: words.Export) -> Response:
        """A search as one page, or as a ZIP of it with its pictures and facts."""
        return await service.pool.run(lambda: _export(service, body, _who(request), address_of(request.scope)))

    return router


def query_routes(service: Service) -> APIRouter:
    """Uploads and what becomes of them."""
    router = APIRouter(responses=PROBLEMS)
    journal = service.journal

    def told(job: Job) -> words.JobState:
        return words.job_state(job, journal.queries(job.id) if job.state == DONE else [])

    def theirs(id: str, who: str) -> Job:
        found = journal.job(id, who)
        if found is None:
            raise HTTPException(404, "there is no such upload; it may have expired")
        return found

    @router.post(UPLOADS, status_code=202, response_model=words.JobState)
    def upload(
        request: Request,
        files: Annotated[list[UploadFile], File(description="Pictures of one person, or one video.")],
        modality: Annotated[ToldModality, Form(description="How the person was seen.")] = ToldModality.auto,
        label: Annotated[str, Form(max_length=200, description="What to call the query.")] = "",
    ) -> words.JobState:
        """Send pictures of one person, or a short video; what becomes of them is asked for at /api/jobs/{id}."""
        who = _who(request)
        service.jobs.expect_room()
        received = service.intake.receive([Sent(file.filename or "", file.file, file.size or 0) for file in files])
        title = printable(label, 200) or received.files[0][0]
        size = sum(file.size or 0 for file in files)
        with ExitStack() as otherwise:  # what cannot be written down is not kept either
            otherwise.callback(service.intake.forget, received.id)
            service.audit.write(
                "upload", who, address=address_of(request.scope), upload=received.id, files=len(files), bytes=size, label=title
            )
            job = service.jobs.add(received.id, who, title, modality.value, received.files)
            otherwise.pop_all()
        service.metrics.uploaded.inc(size)
        return told(job)

    @router.get("/api/jobs", response_model=list[words.JobState])
    def jobs(request: Request) -> list[words.JobState]:
        """Your uploads, newest first."""
        return [told(job) for job in journal.jobs(_who(request))]

    @router.get("/api/jobs/{id}", response_model=words.JobState)
    def job(request: Request, id: words.Id) -> words.JobState:
        """How far an upload is, and the queries that came of it."""
        return told(theirs(id, _who(request)))

    @router.delete("/api/jobs/{id}", status_code=204, response_class=Response)
    def forget(request: Request, id: words.Id) -> Response:
        """Remove an upload and its queries, or stop work on it."""
        found = theirs(id, _who(request))
        service.jobs.forget(found)
        service.audit.write("forget", found.who, upload=id)
        return Response(status_code=204)

    @router.get("/api/queries/{id}/strip", response_class=Response, responses=_JPEG)
    def query_strip(request: Request, id: words.Id) -> Response:
        """Some frames of a query side by side."""
        query = journal.query(id, _who(request))
        return _picture(None if query is None else query.strip)

    return router


def _search(service: Service, body: words.Search, who: str, address: str) -> words.Found:
    if (body.query is None) == (body.tracklet is None):
        raise HTTPException(422, "say what to search for: either query or tracklet")
    searching, started = service.searching, time.perf_counter()
    question: Question
    if body.query is not None:
        question = searching.by_upload(body.query, who)
    else:
        assert body.tracklet is not None
        question = searching.by_tracklet(body.tracklet)
    # before the answer: who cannot be noted is not answered
    service.audit.write("search", who, address=address, label=question.label, request=body.model_dump(mode="json"))
    answers = searching.answer(question, top=body.top, filters=body.conditions.filters(), right=body.right, wrong=body.wrong)
    hits = words.found_tracklets(answers)
    service.metrics.searches.observe(time.perf_counter() - started)
    found = words.Found(id="", query=words.asked(question), hits=hits)
    content = {
        "time": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
        "model": service.gallery.fingerprint,
        "prior": service.settings.prior,
        "calibration": "none" if service.gallery.aids is None else service.gallery.aids.calibrated_on,
        "request": body.model_dump(mode="json"),
        "found": found.model_dump(mode="json"),
    }
    return found.model_copy(update={"id": service.journal.add_search(who, content, question.strip)})


def _export(service: Service, body: words.Export, who: str, address: str) -> Response:
    known = service.journal.search(body.search, who)
    if known is None:
        raise HTTPException(404, "there is no such search; it may have expired, search again")
    content, strip = known
    service.audit.write(
        "export", who, address=address, search=body.search, right=body.right, wrong=body.wrong, form=body.form.value
    )
    strips = {hit["id"]: service.gallery.strip(hit["id"]) for hit in content["found"]["hits"]}
    case = Case(content, strip, strips, body.right, body.wrong, body.note, who)
    as_page = body.form is words.Form.html
    name = f'attachment; filename="case-{body.search[:8]}.{body.form.value}"'
    kind = "text/html" if as_page else "application/zip"
    return Response(case.as_html() if as_page else case.as_zip(), media_type=kind, headers={"Content-Disposition": name})


def _who(request: Request) -> str:
    who = request.state.who
    assert isinstance(who, str), "the guard lets nobody without a name come here"
    return who


def _some(name: str) -> tuple[str, ...]:
    return (name,) if name else ()


def _picture(content: bytes | None) -> Response:
    if content is None:
        raise HTTPException(404, "there is no picture")
    return Response(content, media_type="image/jpeg")
