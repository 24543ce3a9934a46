"""The door: who is let in, what is refused before anything else sees it, and what goes out with every answer."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from dinogrl.web.audit import AuditLog
from dinogrl.web.guard import UPLOADS, Guard, _bounded
from dinogrl.web.limits import MB, Limits
from dinogrl.web.metrics import Metrics
from dinogrl.web.service import Settings
from dinogrl.web.signing import SigningIn
from dinogrl.web.tokens import Tokens
from tiny_server import make_home, pictures, send, served

ANN, BOB = "a-token-of-ann-0123456789", "a-token-of-bob-0123456789"
OPEN = ["/", "/healthz", "/static/app.js"]
CLOSED = [
    "/api/gallery",
    "/api/tracklets",
    "/api/tracklets/strip?id=x",
    "/api/jobs",
    "/metrics",
    "/openapi.json",
    "/docs",
    "/nowhere",
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("guard"), people=2)


@pytest.fixture()
def client(home: Path, tmp_path: Path) -> Iterator[TestClient]:
    """Of a server with tokens and tight limits."""
    limits = Limits(body_bytes=2 * MB, failed_tokens=3, searches_a_minute=4, images=5)
    tokens = Tokens({"ann": ANN, "bob": BOB})
    with served(home, Settings(tmp_path / "state", tokens, frozenset({"search.example"}), limits=limits)) as (client, _):
        yield client


@pytest.fixture()
def ann(client: TestClient) -> TestClient:
    client.headers["Authorization"] = f"Bearer {ANN}"
    return client


def audit(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "state" / "audit.jsonl").read_text().splitlines()]


def test_without_a_token(client: TestClient) -> None:
    assert {path: client.get(path).status_code for path in OPEN} == dict.fromkeys(OPEN, 200)
    assert {path: client.get(path).status_code for path in CLOSED} == dict.fromkeys(CLOSED, 401)
    assert client.post("/api/search", json={"tracklet": "x"}).status_code == 401
    assert client.post("/api/queries", files=[("files", pictures()[0])]).status_code == 401
    assert client.request("PROPFIND", "/api/gallery").status_code == 401
    with pytest.raises(Exception), client.websocket_connect("/api/gallery"):
        pass


def test_with_a_token(ann: TestClient) -> None:
    assert ann.get("/api/gallery").json()["who"] == "ann"
    assert ann.get("/metrics").status_code == 200
    assert "/api/search" in ann.get("/openapi.json").json()["paths"]
    assert ann.get("/docs").status_code == 404, "that page loads scripts of another host"


def test_guessing(client: TestClient, tmp_path: Path) -> None:
    for _ in range(3):
        assert client.get("/api/gallery", headers={"Authorization": "Bearer wrong"}).status_code == 401
    refused = client.get("/api/gallery", headers={"Authorization": f"Bearer {ANN}"})
    assert refused.status_code == 429 and int(refused.headers["Retry-After"]) > 600, "even the right one, or guessing would go on"
    assert client.post("/api/session", json={"token": ANN}).status_code == 429
    assert client.get("/healthz").status_code == 200
    assert [line["what"] for line in audit(tmp_path)] == ["wrong token"] * 3
    assert ANN not in (tmp_path / "state" / "audit.jsonl").read_text()


def test_a_session(client: TestClient) -> None:
    assert client.post("/api/session", json={"token": "wrong"}).status_code == 401
    answer = client.post("/api/session", json={"token": BOB})
    assert answer.status_code == 204
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and BOB not in cookie and "Secure" not in cookie
    assert client.get("/api/gallery").json()["who"] == "bob"
    word = cookie.partition(";")[0]
    beside = {"Cookie": f'theirs={{"of": "another program"}}; {word}; odd[]="'}
    client.cookies.clear()
    assert client.get("/api/gallery", headers=beside).json()["who"] == "bob", "whatever else this machine's programs have set"
    assert client.delete("/api/session", headers=beside).status_code == 204
    assert client.get("/api/gallery", headers={"Cookie": word}).status_code == 401, "the word counts no more"
    over_tls = client.post("https://127.0.0.1:8000/api/session", json={"token": BOB})
    assert "Secure" in over_tls.headers["set-cookie"], "never to be sent in clear text again"


def test_what_is_anothers(ann: TestClient) -> None:
    job = send(ann, pictures(1, 2))
    query = job["queries"][0]["id"]
    search = ann.post("/api/search", json={"query": query}).json()["id"]
    bob = {"Authorization": f"Bearer {BOB}"}
    assert ann.get("/api/jobs", headers=bob).json() == []
    for answer in (
        ann.get(f"/api/jobs/{job['id']}", headers=bob),
        ann.delete(f"/api/jobs/{job['id']}", headers=bob),
        ann.get(f"/api/queries/{query}/strip", headers=bob),
        ann.post("/api/search", json={"query": query}, headers=bob),
        ann.post("/api/export", json={"search": search}, headers=bob),
    ):
        assert answer.status_code == 404
    assert ann.get(f"/api/queries/{query}/strip").content.startswith(b"\xff\xd8\xff")


def test_all_that_touches_people_is_written_down(ann: TestClient, tmp_path: Path) -> None:
    ann.post("/api/session", json={"token": ANN})
    ann.get("/api/tracklets", params={"camera": "gate"})
    job = send(ann, pictures(1, 2))
    search = ann.post("/api/search", json={"query": job["queries"][0]["id"]}).json()
    ann.post("/api/export", json={"search": search["id"], "right": [search["hits"][0]["id"]]})
    ann.delete(f"/api/jobs/{job['id']}")
    lines = audit(tmp_path)
    assert [line["what"] for line in lines] == ["sign in", "browse", "upload", "search", "export", "forget"]
    assert {line["who"] for line in lines} == {"ann"}
    assert "gate" in lines[1]["filters"] and (lines[2]["upload"], lines[2]["files"]) == (job["id"], 2)
    assert (lines[4]["search"], lines[4]["right"]) == (search["id"], [search["hits"][0]["id"]])


def test_what_is_kept_is_for_its_owner_alone(ann: TestClient, tmp_path: Path) -> None:
    ann.post("/api/search", json={"tracklet": "person0/0"})
    kept = [tmp_path / "state", *(tmp_path / "state").iterdir()]
    assert {"audit.jsonl", "journal.db", "uploads"} < {path.name for path in kept}
    assert [path.name for path in kept if path.stat().st_mode & 0o077] == []


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "localhost.evil.example:8000", "2130706433x"])
def test_names_that_are_not_ours(ann: TestClient, host: str) -> None:
    """A page at another name that was bent to this address (DNS rebinding) says that name."""
    assert ann.get("/api/gallery", headers={"Host": host}).status_code == 400
    assert ann.get("/", headers={"Host": host}).status_code == 400


@pytest.mark.parametrize(
    "host", ["localhost:9", "127.0.0.1", "[::1]:8000", "192.168.7.7:8000", "search.example", "SEARCH.example:80"]
)
def test_names_that_are(ann: TestClient, host: str) -> None:
    assert ann.get("/api/gallery", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_requests_from_other_pages(ann: TestClient, headers: dict[str, str]) -> None:
    for method, path in (("POST", "/api/search"), ("POST", "/api/queries"), ("POST", "/api/session"), ("DELETE", "/api/session")):
        assert ann.request(method, path, headers=headers).status_code == 403
    own = {"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"}
    assert ann.post("/api/search", json={"tracklet": "person0/0"}, headers=own).status_code == 200


def test_headers_of_every_answer(client: TestClient) -> None:
    for path in (*OPEN, *CLOSED):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin" and "server" not in headers
    assert client.get("/api/gallery").headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    ["/static/../app.py", "/static/..%2fapp.py", "/static/%2e%2e/guard.py", "/static/x.js", "/static//app.js"],
)
def test_only_what_is_a_page_is_given(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code in (401, 404) and b"import" not in answer.content


def test_too_large(ann: TestClient) -> None:
    big = ("files", ("a.jpg", b"\xff\xd8\xff" + bytes(3 * MB)))
    assert ann.post("/api/queries", files=[big]).status_code == 413
    assert ann.post("/api/search", content=b"x" * (MB + 1)).status_code == 413
    for length in ("x", "9" * 5000):
        assert ann.get("/api/gallery", headers={"Content-Length": length}).status_code == 400

    def endless() -> Iterator[bytes]:  # says nothing of its size
        for _ in range(64):
            yield bytes(MB // 16)

    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    assert ann.post("/api/queries", content=endless(), headers=kind).status_code == 413
    assert ann.post("/api/search", content=endless(), headers={"Content-Type": "application/json"}).status_code == 413


def test_too_slow() -> None:
    async def never() -> dict:
        await asyncio.sleep(60)
        return {}

    with pytest.raises(Exception) as refused:
        asyncio.run(_bounded(never, MB, 0.01)())  # type: ignore[arg-type]
    assert refused.value.status_code == 408  # type: ignore[attr-defined]


def test_only_so_many_uploads_at_once(tmp_path: Path) -> None:
    async def statuses() -> list[int]:
        go, limits = asyncio.Event(), Limits(uploads_at_once=1)

        async def app(scope, receive, send) -> None:
            await go.wait()
            await send({"type": "http.response.start", "status": 202, "headers": []})

        signing = SigningIn(Tokens({}), limits, Metrics(), AuditLog(tmp_path / "audit.jsonl"))
        guard = Guard(app, signing=signing, hosts=frozenset(), limits=limits, metrics=Metrics())

        async def post() -> int:
            told = []

            async def send(message) -> None:
                told.append(message)

            scope = {"type": "http", "method": "POST", "path": UPLOADS, "headers": [(b"host", b"localhost")]}
            await guard(scope, None, send)  # type: ignore[arg-type]
            return told[0]["status"]

        first = asyncio.ensure_future(post())
        await asyncio.sleep(0)  # it is at its work
        second = await asyncio.wait_for(post(), 30)
        go.set()
        return [await first, second, await post()]

    assert asyncio.run(statuses()) == [202, 503, 202]


def test_too_often(ann: TestClient) -> None:
    answers = [ann.post("/api/search", json={"tracklet": "person0/0"}).status_code for _ in range(6)]
    assert answers == [200] * 4 + [429] * 2
    bob = {"Authorization": f"Bearer {BOB}"}
    assert ann.post("/api/search", json={"tracklet": "person0/0"}, headers=bob).status_code == 200, "each has a rate of their own"


def test_a_full_disk_ends_the_service(ann: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dinogrl.web.audit.os.write", full)
    answer = ann.post("/api/search", json={"tracklet": "person0/0"})
    assert answer.status_code == 503 and "hits" not in answer.json(), "what cannot be written down is not answered"
    guessed = ann.get("/api/gallery", headers={"Authorization": "Bearer wrong"})
    assert guessed.status_code == 503 and guessed.json() == answer.json() and guessed.headers["Cache-Control"] == "no-store"


def test_a_fault_of_ours_has_the_form_of_every_problem(ann: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr("dinogrl.web.searching.Searching.by_tracklet", broken)
    browser = TestClient(ann.app, base_url=str(ann.base_url), headers=ann.headers, raise_server_exceptions=False)
    answer = browser.post("/api/search", json={"tracklet": "person0/0"})
    assert answer.status_code == 500 and answer.json() == {"detail": "something went wrong; see the server's log"}
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_without_tokens_nobody_signs_in(home: Path, tmp_path: Path) -> None:
    home = Path(shutil.copytree(home, tmp_path / "home", ignore=shutil.ignore_patterns("lock")))
    with served(home, Settings(tmp_path / "state")) as (client, _):
        assert client.get("/api/gallery").json()["who"] == "local"
