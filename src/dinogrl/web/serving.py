"""From the settings of a person to a running server: what must be true before a door is opened."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path

from dinogrl.errors import DinogrlError
from dinogrl.web.app import build_app
from dinogrl.web.service import Service

EVERYWHERE = frozenset({"", "0.0.0.0", "::"})
"""Hosts that stand for all addresses of this machine."""


@dataclass(frozen=True)
class Door:
    """Where the server listens. ``certificate`` and ``key`` (PEM) make it speak TLS; ``proxy`` is the address of a reverse proxy
    whose word on where a request comes from is believed.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    certificate: Path | None = None
    key: Path | None = None
    proxy: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise DinogrlError(f"port {self.port} is none; give 1 to 65535, or 0 for any free one")
        if (self.certificate is None) != (self.key is None):
            raise DinogrlError("TLS needs a certificate and its key; give both, or neither")
        for path in (self.certificate, self.key):
            if path is not None and not path.is_file():
                raise DinogrlError(f"no file at {path}; give the certificate and the key as PEM files")

    @property
    def is_local(self) -> bool:
        """Can only this machine reach it?"""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def address(self) -> str:
        """For a browser."""
        return self.at(self.port)

    def at(self, port: int) -> str:
        """For a browser, at the port that was really had; where the server listens everywhere, for one on this machine."""
        host = "localhost" if self.host in EVERYWHERE else f"[{self.host}]" if ":" in self.host else self.host
        return f"{'http' if self.certificate is None else 'https'}://{host}:{port}"


def expect_locked(door: Door, has_tokens: bool) -> None:
    """Raise :class:`DinogrlError` for a door that others can reach, through a proxy too, and that nothing keeps shut."""
    if not has_tokens and not (door.is_local and door.proxy is None):
        through, without = ("", "") if door.proxy is None else (" through the proxy", " without --proxy")
        raise DinogrlError(
            f"others can reach {door.host}{through}, so a token is needed: give --token-file FILE (`name token` a line) or --token,"
            f" or listen on 127.0.0.1{without}"
        )


def listen(door: Door) -> socket.socket:
    """The socket, taken before anything else is done. Raises :class:`DinogrlError` where it cannot be had."""
    try:
        kind = socket.getaddrinfo(door.host, door.port, type=socket.SOCK_STREAM)[0][0]
        both = kind == socket.AF_INET6 and door.host in EVERYWHERE and socket.has_dualstack_ipv6()
        return socket.create_server((door.host, door.port), family=kind, backlog=1024, dualstack_ipv6=both)
    except OSError as error:
        raise DinogrlError(f"cannot listen on {door.address} ({error.strerror}); give another --port or --host") from error


def run(service: Service, door: Door, at: socket.socket) -> None:
    """Serve until the process is asked to end (Ctrl-C); requests that run are answered first."""
    import uvicorn

    expect_locked(door, service.signing.needed)
    config = uvicorn.Config(
        build_app(service),
        ssl_certfile=door.certificate,
        ssl_keyfile=door.key,
        proxy_headers=door.proxy is not None,
        forwarded_allow_ips=door.proxy,
        server_header=False,
        access_log=False,  # ids of people stand in addresses; the audit log tells who asked what
        log_level="warning",
        lifespan="on",
        limit_concurrency=512,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=10,
    )
    uvicorn.Server(config).run(sockets=[at])
