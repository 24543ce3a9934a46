"""The server does what its OpenAPI description says, whatever is asked (schemathesis)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance
from starlette.types import ASGIApp, Receive, Scope, Send

from dinogrl.embedding.embedder import Embedder
from dinogrl.gallery import Gallery
from dinogrl.web.app import build_app
from dinogrl.web.limits import Limits
from dinogrl.web.service import Service, Settings
from tiny_server import cut_slowly, make_home

EXAMPLES = 8
OPERATIONS = [
    "GET /healthz",
    "POST /api/session",
    "DELETE /api/session",
    "GET /metrics",
    "GET /api/gallery",
    "GET /api/tracklets",
    "GET /api/tracklets/strip",
    "POST /api/search",
    "POST /api/export",
    "POST /api/queries",
    "GET /api/jobs",
    "GET /api/jobs/{id}",
    "DELETE /api/jobs/{id}",
    "GET /api/queries/{id}/strip",
]
REFUSES_MORE = {"POST /api/search", "POST /api/queries"}
"""That one of two fields is given, and that a file is a picture, is no part of a description."""


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[schemathesis.BaseSchema]:
    home: Path = make_home(tmp_path_factory.mktemp("schema"), people=2)
    limits = Limits(searches_a_minute=10_000, waiting_jobs=10_000)
    with Gallery(home / "people.gallery", Embedder.load(home / "model.safetensors", "cpu")) as gallery:
        service = Service(gallery, Settings(home / "state", hosts=frozenset({"testserver"}), limits=limits), cut_slowly)
        service.start()
        yield schemathesis.openapi.from_asgi("/openapi.json", without_life(build_app(service)))
        service.close()


def without_life(app: ASGIApp) -> ASGIApp:
    """Every case would begin and end the service otherwise."""

    async def alive(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})

    return alive


def test_all_is_described(described: schemathesis.BaseSchema) -> None:
    assert {result.ok().label for result in described.get_all_operations()} == set(OPERATIONS)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_description_holds(described: schemathesis.BaseSchema, operation: str) -> None:
    method, path = operation.split()

    @settings(
        max_examples=EXAMPLES, phases=[Phase.generate], suppress_health_check=list(HealthCheck), deadline=None, derandomize=True
    )
    @given(case=described[path][method].as_strategy())
    def check(case: schemathesis.Case) -> None:
        case.call_and_validate(excluded_checks=[positive_data_acceptance] if operation in REFUSES_MORE else [])

    check()
