"""The door: whatever comes in is looked at here before anything else of the program sees it.

In order: is the request meant for this server (its Host header; DNS rebinding), does it come from its own page (Origin; forged
requests), who asks (token or session), is it not too large or too slow. And every answer goes out with strict headers.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import time
from collections.abc import Mapping
from typing import Any

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dinogrl.web.limits import MB, Limits
from dinogrl.web.metrics import Metrics
from dinogrl.web.signing import SigningIn

_log = logging.getLogger("dinogrl.web")
COOKIE = "dinogrl_session"
UPLOADS = "/api/queries"
SIGN_IN = "/api/session"
UNWRITTEN = "the server cannot read or write its files; tell whoever runs it"
"""Told for a full disk, a gallery gone: nothing is answered that could not be written down."""
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_SECONDS_WITHOUT_A_BYTE = 30.0
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; form-action 'none';"
        " base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cache-Control": "no-store",
}


class Guard:
    """Stands around ``app``. ``hosts``: names by which the server may be called besides addresses and localhost."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        signing: SigningIn,
        hosts: frozenset[str],
        limits: Limits,
        metrics: Metrics,
    ) -> None:
        self._app, self._signing, self._hosts = app, signing, hosts
        self._limits, self._metrics = limits, metrics
        self._uploads = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, self._counted(scope, send))
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        is_upload = scope["method"] == "POST" and scope["path"] == UPLOADS
        try:
            self._expect_own_host(headers)
            if scope["method"] not in _SAFE:
                self._expect_own_page(headers)
            scope.setdefault("state", {})["who"] = self._who(scope, headers)
            most = self._limits.body_bytes if is_upload else MB
            _expect_size(headers, most)
            if is_upload and self._uploads >= self._limits.uploads_at_once:
                raise HTTPException(503, "too many uploads at once; try again in a moment", {"Retry-After": "5"})
        except HTTPException as refused:
            await _refuse(refused, send)
            return
        except OSError as error:  # a wrong token that cannot be written down
            _log.error("a request failed", exc_info=error)
            await _refuse(HTTPException(503, UNWRITTEN), send)
            return
        self._uploads += is_upload
        try:
            await self._app(scope, _bounded(receive, most, self._limits.upload_seconds), send)
        finally:
            self._uploads -= is_upload

    def _who(self, scope: Scope, headers: Headers) -> str | None:
        """The name of who asks; None where a token is needed and none came, which only what anybody may see lets pass."""
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and token:
            return self._signing.by_token(token.strip(), address_of(scope))
        name = self._signing.by_session(session_of(headers))
        if name is None and not _is_open(scope):
            raise HTTPException(401, "sign in first, or send a token: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})
        return name

    def _expect_own_host(self, headers: Headers) -> None:
        """A page elsewhere whose name was bent to this address still says its own name."""
        name = host_name(headers.get("host", ""))
        if name != "localhost" and name not in self._hosts and not _is_address(name):
            raise HTTPException(400, "this server is not called so; start it with --allow-host NAME to allow another name")

    def _expect_own_page(self, headers: Headers) -> None:
        """A browser says which page a request comes from; a program does not, and needs not be kept from itself."""
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        foreign = origin is not None and origin.partition("://")[2].lower() != headers.get("host", "").lower()
        if foreign or site in {"cross-site", "same-site"}:
            raise HTTPException(403, "requests from other pages are refused")

    def _counted(self, scope: Scope, send: Send) -> Send:
        method = scope["method"] if scope["method"] in {"GET", "HEAD", "POST", "DELETE"} else "other"

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                self._metrics.requests.labels(method, str(message["status"])).inc()
            await send(message)

        return counted


def _expect_size(headers: Mapping[str, str], most: int) -> None:
    """What the request says of its own size; it is counted as it comes, too."""
    declared = headers.get("content-length", "0")
    if not (declared.isascii() and declared.isdigit() and len(declared) < 20):
        raise HTTPException(400, "Content-Length is no number")
    if int(declared) > most:
        raise HTTPException(413, f"the request has {int(declared) / MB:.0f} MB; at most {most // MB} MB are taken")


def _bounded(receive: Receive, most: int, seconds: float) -> Receive:
    """Takes so many bytes, in so much time, and no long silences before the end of the body."""
    taken, end, over = 0, time.monotonic() + seconds, False

    async def bounded() -> Message:
        nonlocal taken, over
        if over:  # nothing but the end of the connection is waited for now, however long the answer takes
            return await receive()
        try:
            async with asyncio.timeout(max(min(end - time.monotonic(), _SECONDS_WITHOUT_A_BYTE), 0)):
                message = await receive()
        except TimeoutError as error:
            raise HTTPException(408, "the request comes too slowly") from error
        taken += len(message.get("body", b""))
        over = not message.get("more_body", False)
        if taken > most:
            raise HTTPException(413, f"the request has more than {most // MB} MB; send less")
        return message

    return bounded


async def _refuse(refused: HTTPException, send: Send) -> None:
    body = json.dumps({"detail": refused.detail}).encode()
    headers: dict[str, Any] = {"content-type": "application/json", "content-length": str(len(body)), **(refused.headers or {})}
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refused.status_code, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


def _is_open(scope: Scope) -> bool:
    """May anybody ask for it? The page without a word of the gallery in it, whether the server is there, and signing in."""
    method, path = scope["method"], scope["path"]
    if method == "POST":
        return bool(path == SIGN_IN)
    return method in {"GET", "HEAD"} and (path in {"/", "/healthz"} or path.startswith("/static/"))


def host_name(host: str) -> str:
    """Of a Host header: the name without the port, in small letters."""
    name = host.strip().lower()
    return name.partition("]")[0].lstrip("[") if name.startswith("[") else name.partition(":")[0].rstrip(".")


def session_of(headers: Mapping[str, str]) -> str:
    """The session's word in a cookie, or an empty text. Other programs of this machine may have set any cookies beside it."""
    return cookie_parser(headers.get("cookie", "")).get(COOKIE, "")


def address_of(scope: Scope) -> str:
    """Where the request comes from."""
    client = scope.get("client")
    return str(client[0]) if client else "unknown"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
