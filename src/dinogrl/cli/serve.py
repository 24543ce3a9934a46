"""``dinogrl serve``: the gallery as a web page, for this machine alone unless told otherwise."""

from __future__ import annotations

import signal
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from dinogrl.cli.results import Compute, ComputedIn
from dinogrl.cli.screen import note, say
from dinogrl.errors import DinogrlError

if TYPE_CHECKING:
    from datetime import timedelta


def add_to(app: typer.Typer) -> None:
    """Hang this command into the program."""
    app.command()(serve)


def serve(
    gallery: Annotated[str, typer.Option("--gallery", metavar="GALLERY", help="A folder, or a Milvus server: http://host:19530.")],
    model: Annotated[Path, typer.Option("--model", metavar="CHECKPOINT", help="The gallery's model.")],
    host: Annotated[str, typer.Option(help="Address to listen on; any but this machine's own needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for any free one.")] = 8000,
    token: Annotated[
        str, typer.Option(envvar="DINOGRL_SERVE_TOKEN", help="What a user signs in with; better in the environment or a file.")
    ] = "",
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="`name token` a line: the audit log tells who searched.")
    ] = None,
    expire_after: Annotated[
        str | None, typer.Option(metavar="AGE", help="Remove tracklets, queries and searches older than this: 30, 30d, 12h.")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of jobs, queries and the audit log; GALLERY.serve where not given.")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A name by which the server may be called; several times.")
    ] = None,
    certificate: Annotated[Path | None, typer.Option(metavar="FILE", help="PEM file: speak TLS (https).")] = None,
    key: Annotated[Path | None, typer.Option(metavar="FILE", help="PEM file: the certificate's key.")] = None,
    proxy: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Of a reverse proxy, whose X-Forwarded headers are believed.")
    ] = None,
    detector: Annotated[str, typer.Option(metavar="NAME", help="Finds people in uploaded videos, as in dinogrl footage.")] = "hog",
    prior: Annotated[float, typer.Option(help="Share of hits expected to be the right person, between 0 and 1.")] = 0.5,
    searches_a_minute: Annotated[int, typer.Option(min=1, help="Searches that one user may make a minute.")] = 120,
    upload_mb: Annotated[int, typer.Option(min=1, help="Megabytes of an upload, at most.")] = 200,
    video_seconds: Annotated[float, typer.Option(min=1, help="Seconds of an uploaded video, at most.")] = 120.0,
    name: Annotated[str, typer.Option(help="Which gallery of a Milvus server.")] = "gallery",
    milvus_token: Annotated[
        str, typer.Option(envvar="DINOGRL_MILVUS_TOKEN", help="Token of a Milvus server, or user:password.")
    ] = "",
    compute: Compute = ComputedIn.float32,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
) -> None:
    """Search a gallery from a browser: upload a query or choose a tracklet, see who looks alike, mark, search again, export.

    Only this machine can reach it, unless --host says otherwise; then a token is needed. Ctrl-C ends it.

    Example: dinogrl serve --gallery people.gallery --model runs/dinogrl/model.safetensors
    """
    expect_web()
    from dinogrl.embedding.embedder import Embedder
    from dinogrl.gallery import Gallery
    from dinogrl.gallery.milvus import is_file
    from dinogrl.web.cutting import Cutter
    from dinogrl.web.guard import host_name
    from dinogrl.web.limits import MB, Limits
    from dinogrl.web.service import Service, Settings
    from dinogrl.web.serving import Door, expect_locked, listen, run
    from dinogrl.web.tokens import Tokens, read_tokens

    if not 0 < prior < 1:
        raise DinogrlError(f"--prior is {prior}; give a share between 0 and 1, such as 0.1 where one hit in ten is right")
    door = Door(host, port, certificate, key, proxy)
    tokens = Tokens({**(read_tokens(token_file) if token_file is not None else {}), **({"operator": token} if token else {})})
    expect_locked(door, bool(tokens))
    limits = Limits(body_bytes=upload_mb * MB, video_seconds=video_seconds, searches_a_minute=searches_a_minute)
    names = frozenset(host_name(one) for one in [*(allow_host or []), host])
    age = _age(expire_after)
    if state is None:
        state = Path(f"{Path(gallery)}.serve") if is_file(gallery) else Path(f"{name}.serve")
    with ExitStack() as open_until_done:
        at = open_until_done.enter_context(listen(door))
        embedder = Embedder.load(model, device, compute.value)
        if age is not None:
            Gallery(gallery, embedder, name=name, token=milvus_token).close()  # opened for writing, a missing one would be made
        shelf = open_until_done.enter_context(Gallery(gallery, embedder, writable=age is not None, name=name, token=milvus_token))
        settings = Settings(state, tokens, names, age, prior, limits)
        service = Service(shelf, settings, Cutter(limits, detector, device))
        if not door.is_local and certificate is None and proxy is None:
            note(
                "warning: tokens and pictures travel in clear text; give --certificate and --key, or put a proxy with TLS before it"
            )
        say(f"[green]{escape(door.at(at.getsockname()[1]))}[/green]: {len(shelf)} tracklets; Ctrl-C ends it")
        note(f"searches are written down in {service.audit.path}")
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with suppress(KeyboardInterrupt):
            run(service, door, at)
        note("ended; unfinished uploads go on when it is started again")


def expect_web() -> None:
    """Raise :class:`DinogrlError` where what the page needs is not installed."""
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise DinogrlError(f"the web page needs {error.name}, which is not installed: pip install 'dinogrl[web]'") from error


def _age(text: str | None) -> timedelta | None:
    """As ``gallery expire`` takes it; a bare number counts days."""
    from dinogrl.gallery import age_of

    return None if text is None else age_of(f"{text}d" if text.strip().isdigit() else text)
