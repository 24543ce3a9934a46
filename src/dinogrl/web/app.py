"""The application: pages, endpoints and the guard around them, made of a service."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from dinogrl.errors import DinogrlError
from dinogrl.web.guard import UNWRITTEN, Guard
from dinogrl.web.routes import open_routes, query_routes, search_routes
from dinogrl.web.service import Service

_log = logging.getLogger("dinogrl.web")
HERE = Path(__file__).parent
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def build_app(service: Service) -> Guard:
    """The application, guarded. It starts the service when it is started, and closes it when it ends.

    The gallery is not closed: whoever opened it does that.
    """

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            service.close()

    app = FastAPI(
        title="dinogrl",
        summary="Find the same person across visible and infrared cameras.",
        version="1",
        lifespan=life,
        docs_url=None,  # these two pages load scripts from other hosts
        redoc_url=None,
    )
    for router in (open_routes(service), search_routes(service), query_routes(service)):
        app.include_router(router)
    _add_pages(app, _pages())
    app.add_exception_handler(RequestValidationError, _misunderstood)
    app.add_exception_handler(DinogrlError, _refused)
    app.add_exception_handler(OSError, _failed)
    app.add_exception_handler(Exception, _broke)
    hosts, limits = service.settings.hosts, service.limits
    return Guard(app, signing=service.signing, hosts=hosts, limits=limits, metrics=service.metrics)


def _pages() -> dict[str, tuple[bytes, str]]:
    """Address -> content and type of every file of the page, read once: no request ever leads to the disk."""
    files = {f"/static/{path.name}": path for path in sorted((HERE / "static").iterdir()) if path.suffix in _KINDS}
    return {
        address: (path.read_bytes(), _KINDS[path.suffix]) for address, path in {"/": HERE / "pages" / "index.html", **files}.items()
    }


def _add_pages(app: FastAPI, pages: Mapping[str, tuple[bytes, str]]) -> None:
    @app.get("/", include_in_schema=False)
    @app.get("/static/{name}", include_in_schema=False)
    async def page(request: Request) -> Response:
        found = pages.get(request.url.path)
        if found is None:
            raise HTTPException(404, "there is no such page")
        content, kind = found
        return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})


async def _misunderstood(_: Request, error: Exception) -> JSONResponse:
    """What is wrong with a request, in one line, and nothing of what it held."""
    assert isinstance(error, RequestValidationError)
    said = "; ".join(f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()[:3])
    return JSONResponse({"detail": said.encode("ascii", "replace").decode()[:500]}, 422)


async def _refused(_: Request, error: Exception) -> JSONResponse:
    """An error of the user, who is somewhere else here."""
    return JSONResponse({"detail": " ".join(str(error).split())}, 422)


async def _failed(_: Request, error: Exception) -> JSONResponse:
    """See :data:`UNWRITTEN`."""
    _log.error("a request failed", exc_info=error)
    return JSONResponse({"detail": UNWRITTEN}, 503)


async def _broke(_: Request, error: Exception) -> JSONResponse:
    """A fault of ours, whose traceback the server logs; the answer has the form that every problem has."""
    return JSONResponse({"detail": "something went wrong; see the server's log"}, 500)
