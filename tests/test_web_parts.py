"""What the server is made of, each by itself: rates, tokens, feedback, the journal, sniffing, the log, the door."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import os
import socket
import struct
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import uvicorn
from fastapi import HTTPException
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from dinogrl.errors import DinogrlError
from dinogrl.records import Modality
from dinogrl.web.audit import AuditLog
from dinogrl.web.feedback import QUERY, RIGHT, WRONG, moved
from dinogrl.web.guard import host_name
from dinogrl.web.intake import shown
from dinogrl.web.journal import DONE, FAILED, WAITING, Journal, new_id
from dinogrl.web.pools import Pool
from dinogrl.web.rates import Rate
from dinogrl.web.serving import Door, expect_locked, listen, run
from dinogrl.web.sniffing import kind_of
from dinogrl.web.tokens import Sessions, Tokens, read_tokens

# -- rates ------------------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 5), st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 4)), max_size=60))
def test_no_window_holds_more_than_allowed(most: int, events: list[tuple[str, float]]) -> None:
    now, taken = 0.0, []
    rate = Rate(most, 10, clock=lambda: now)
    for name, pause in events:
        now += pause
        wait = rate.take(name)
        before = [time for other, time in taken if other == name and time > now - 10]
        assert (wait == 0) == (len(before) < most)
        if wait == 0:
            taken.append((name, now))
        else:
            assert wait == pytest.approx(before[-most] + 10 - now)


def test_what_a_rate_remembers_is_bounded() -> None:
    rate = Rate(1, 10, names=3, clock=lambda: 0.0)
    for name in "abcdefg":
        assert rate.take(name) == 0
    assert rate.take("g") > 0 and rate.take("a") == 0, "the oldest name is forgotten"


def test_who_asks_often_is_not_forgotten_for_those_who_ask_once() -> None:
    rate = Rate(2, 10, names=3, clock=lambda: 0.0)
    for name in "abacd":
        assert rate.take(name) == 0
    assert rate.take("a") > 0


def test_a_pool_refuses_what_it_has_no_room_for_and_is_free_again() -> None:
    async def ask() -> list[int]:
        pool, go = Pool("looking", 1, 1), Event()
        waiting = [asyncio.ensure_future(pool.run(go.wait)) for _ in range(2)]
        await asyncio.sleep(0)  # both have come to their work
        try:
            with pytest.raises(HTTPException) as refused:
                await asyncio.wait_for(pool.run(go.wait), 30)
        finally:
            go.set()
        assert refused.value.status_code == 503
        await asyncio.gather(*waiting)
        answers = [await pool.run(lambda: 7) for _ in range(5)]
        pool.close()
        return answers

    assert asyncio.run(ask()) == [7] * 5


# -- tokens -----------------------------------------------------------------------------------------------------------------------


def test_tokens_by_name() -> None:
    tokens = Tokens({"ann": "a" * 16, "bob": "b" * 40})
    assert tokens.name_of("a" * 16) == "ann" and tokens.name_of("b" * 40) == "bob"
    assert tokens.name_of("a" * 17) is None and tokens.name_of("") is None and tokens.name_of("é" * 16) is None
    assert tokens and not Tokens({})


def test_every_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, compared = Tokens({"ann": "a" * 16, "bob": "b" * 40}), []
    spy = SimpleNamespace(compare_digest=lambda a, b: (compared.append((len(a), len(b))), a == b)[1])
    monkeypatch.setattr("dinogrl.web.tokens.secrets", spy)
    assert tokens.name_of("a" * 16) == "ann" and compared == [(32, 32)] * 2


@pytest.mark.parametrize("token", ["short", "with a space in it", "zwölf-umlaute-hier", "a" * 15])
def test_weak_tokens(token: str) -> None:
    with pytest.raises(DinogrlError, match="16 or more printable letters"):
        Tokens({"ann": token})


def test_nobody_has_anothers_token() -> None:
    with pytest.raises(DinogrlError, match="'ann' and 'cid' have the same token"):
        Tokens({"ann": "a" * 16, "bob": "b" * 16, "cid": "a" * 16})


def test_token_files(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("# who may\n\nann   aaaaaaaaaaaaaaaa\nbbbbbbbbbbbbbbbb\n")
    assert read_tokens(path) == {"ann": "a" * 16, "operator": "b" * 16}
    path.write_text(f"ann {'a' * 16}\n", encoding="utf-8-sig")  # as some editors save
    assert read_tokens(path) == {"ann": "a" * 16}
    for content, message in (("", "holds no token"), ("ann a\nann b", "each name once"), ("a b c", "one `name token` a line")):
        path.write_text(content)
        with pytest.raises(DinogrlError, match=message):
            read_tokens(path)
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(DinogrlError, match="cannot be read"):
            read_tokens(path)


def test_sessions_end(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = Sessions()
    word = sessions.open("ann")
    assert sessions.name_of(word) == "ann" and sessions.name_of(word + "x") is None and sessions.name_of("") is None
    sessions.close(word)
    assert sessions.name_of(word) is None
    now = 0.0
    monkeypatch.setattr("dinogrl.web.tokens.time", SimpleNamespace(monotonic=lambda: now))
    word = sessions.open("ann")
    now = 12 * 3600 - 1
    assert sessions.name_of(word) == "ann"
    now = 12 * 3600
    assert sessions.name_of(word) is None


def test_of_too_many_sessions_the_oldest_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dinogrl.web.tokens._SESSIONS", 2)
    sessions = Sessions()
    words = [sessions.open(name) for name in ("ann", "bob", "cyd")]
    assert [sessions.name_of(word) for word in words] == [None, "bob", "cyd"]


# -- feedback ---------------------------------------------------------------------------------------------------------------------

VECTORS = hnp.arrays(np.float32, (2, 3), elements=st.floats(-4, 4, width=32))


@given(VECTORS, st.lists(VECTORS, max_size=3), st.lists(VECTORS, max_size=3))
def test_rocchio_number_by_number(query: np.ndarray, right: list[np.ndarray], wrong: list[np.ndarray]) -> None:
    empty = np.empty((0, 2, 3), np.float32)
    result = moved(query, np.array(right) if right else empty, np.array(wrong) if wrong else empty)
    for p in range(2):
        for d in range(3):
            total, weight = QUERY * float(query[p, d]), QUERY
            if right:
                total += RIGHT * sum(float(one[p, d]) for one in right) / len(right)
                weight += RIGHT
            if wrong:
                total -= WRONG * sum(float(one[p, d]) for one in wrong) / len(wrong)
                weight -= WRONG
            assert result[p, d] == pytest.approx(total / weight, abs=1e-5)


@given(VECTORS, VECTORS, VECTORS, st.floats(-3, 3, width=32))
def test_a_shift_of_everything_shifts_the_query(query: np.ndarray, right: np.ndarray, wrong: np.ndarray, shift: float) -> None:
    """Distances do not change when all vectors are shifted, so feedback must not either."""
    before = moved(query, right[None], wrong[None])
    after = moved(query + np.float32(shift), right[None] + np.float32(shift), wrong[None] + np.float32(shift))
    np.testing.assert_allclose(after, before + shift, atol=1e-4)


# -- journal ----------------------------------------------------------------------------------------------------------------------


def test_the_journal_survives_its_process(tmp_path: Path) -> None:
    journal, parts = Journal(tmp_path / "j"), np.arange(6, dtype=np.float32).reshape(2, 3)
    first = journal.add_job(new_id(), "ann", "walk", "auto", [("a.jpg", "0001.jpg")])
    journal.begin(first.id)
    journal.add_query(first, "walk", Modality.INFRARED, 1, "model", parts, b"jpeg")
    journal.advance(first.id, "embed", 1, 2)
    done = journal.add_job(new_id(), "bob", "other", "visible", [("b.jpg", "0001.jpg")])
    journal.end(done.id)
    journal.close()
    journal = Journal(tmp_path / "j")
    found = journal.job(first.id, "ann")
    assert found is not None and (found.stage, found.done, found.total, found.files) == ("embed", 1, 2, (("a.jpg", "0001.jpg"),))
    assert journal.unfinished() == [first.id] and journal.job(done.id, "bob").state == DONE  # type: ignore[union-attr]
    assert journal.job(first.id, "bob") is None, "somebody else's"
    summary = journal.queries(first.id)[0]
    assert (summary.label, summary.modality, summary.frames, summary.has_strip) == ("walk", Modality.INFRARED, 1, True)
    query = journal.query(summary.id, "ann")
    assert query is not None and journal.query(summary.id, "bob") is None
    np.testing.assert_array_equal(query.parts, parts)
    assert query.modality is Modality.INFRARED and query.strip == b"jpeg"
    journal.begin(first.id)
    assert journal.queries(first.id) == [], "begun again, it has found nothing yet"
    journal.put_back(first.id)
    assert journal.job(first.id).state == WAITING and journal.job(first.id).attempts == 1  # type: ignore[union-attr]
    journal.end(first.id, "broken")
    assert journal.job(first.id).state == FAILED and journal.count(FAILED) == 1  # type: ignore[union-attr]


def test_uploads_are_told_newest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = itertools.count()
    monkeypatch.setattr("dinogrl.web.journal.time", SimpleNamespace(time=lambda: float(next(moments))))
    journal = Journal(tmp_path / "j")
    for label in ("first", "second", "third"):
        journal.add_job(new_id(), "ann", label, "auto", [("a.jpg", "0001.jpg")])
    assert [job.label for job in journal.jobs("ann")] == ["third", "second", "first"]
    assert [job.label for job in journal.jobs("ann", most=1)] == ["third"] and journal.jobs("bob") == []
    assert [journal.job(id).label for id in journal.unfinished()] == ["first", "second", "third"], "the oldest is done first"  # type: ignore[union-attr]
    assert (tmp_path / "j").stat().st_mode & 0o077 == 0, "for its owner alone"


def test_what_is_old_is_forgotten_to_the_last_byte(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    job = journal.add_job(new_id(), "ann", "SECRETLABEL", "auto", [("a.jpg", "0001.jpg")])
    journal.add_query(job, "SECRETLABEL", Modality.VISIBLE, 1, "m", np.zeros((1, 2), np.float32), b"SECRETSTRIP")
    search = journal.add_search("ann", {"what": "SECRETSEARCH"}, None)
    assert journal.expire(0) == [], "what still waits stays"
    journal.end(job.id)
    assert journal.expire(3600) == [] and journal.search(search, "ann") is None
    assert journal.expire(-1) == [job.id]
    journal.close()
    assert b"SECRET" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


def test_the_last_searches_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dinogrl.web.journal.MOST_SEARCHES", 3)
    journal = Journal(tmp_path / "j")
    ids = [journal.add_search("ann", {"number": number}, None) for number in range(8)]
    assert [journal.search(id, "ann") is not None for id in ids] == [False] * 5 + [True] * 3


def test_no_journal(tmp_path: Path) -> None:
    (tmp_path / "j").write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(DinogrlError, match="cannot be used"):
        Journal(tmp_path / "j")


# -- sniffing ---------------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from(["JPEG", "PNG", "WEBP", "WEBP lossless"]), st.booleans())
def test_sizes_of_pictures_are_read_from_their_headers(height: int, width: int, form: str, alpha: bool) -> None:
    content = io.BytesIO()
    picture = Image.new(
        "RGBA" if alpha and form != "JPEG" else "RGB", (width, height), (90, 20, 30, 128)[: 4 if alpha and form != "JPEG" else 3]
    )
    options = {"lossless": True} if "lossless" in form else {"progressive": alpha} if form == "JPEG" else {}
    picture.save(content, form.split()[0], **options)
    kind = kind_of(content.getvalue()[:512])
    assert kind is not None and kind.size is not None and kind.size(content.getvalue()) == (height, width)
    assert kind.overflows is None or not kind.overflows(content.getvalue(), (height, width)), "what is honest is let in"
    assert cv2.imdecode(np.frombuffer(content.getvalue(), np.uint8), cv2.IMREAD_COLOR).shape[:2] == (height, width)


@given(st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b""]), st.binary(max_size=300))
def test_bytes_of_any_kind_are_told_or_refused(start: bytes, rest: bytes) -> None:
    kind = kind_of((start + rest)[:512])
    if kind is not None and kind.size is not None:
        size = kind.size(start + rest)
        assert size is None or (min(size) >= 0 and max(size) < 2**32)


@pytest.mark.parametrize(
    "content",
    [
        b"PK\3\4" + bytes(60),
        b"GIF89a" + bytes(60),
        b"%PDF-1.7",
        b"<svg xmlns=",
        b"#EXTM3U\n/etc/passwd",
        b"\x80\x04\x95",
        b"",
        b"RIFF",
    ],
)
def test_what_is_not_taken(content: bytes) -> None:
    """ZIP (also of torch), GIF, PDF, SVG, a playlist that names files, a pickle, nothing at all."""
    assert kind_of(content) is None


def test_a_header_that_lies() -> None:
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + struct.pack(">II", 2**31 - 1, 2**31 - 1) + bytes(9)
    kind = kind_of(bomb)
    assert kind is not None and kind.size is not None and kind.size(bomb) == (2**31 - 1, 2**31 - 1)


# -- the log, names, doors --------------------------------------------------------------------------------------------------------


def test_the_log_is_only_added_to(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    for who in ("ann", 'bob"\n{"what": "forged"}'):
        log = AuditLog(path)
        log.write("search", who, label="line\nbreak  é")
        log.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["who"] for line in lines] == ["ann", 'bob"\n{"what": "forged"}'] and lines[0]["label"] == "line\nbreak  é"
    assert path.stat().st_mode & 0o077 == 0, "for its owner alone"
    with pytest.raises(DinogrlError, match="nobody is served without it"):
        AuditLog(tmp_path / "none" / "audit.jsonl")


def test_half_a_line_spoils_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, write = tmp_path / "audit.jsonl", os.write
    path.write_bytes(b'{"who": "cut off when the machine went do')
    log = AuditLog(path)
    log.write("search", "ann")
    with monkeypatch.context() as full:
        full.setattr("dinogrl.web.audit.os.write", lambda file, content: write(file, content[:9]))
        with pytest.raises(OSError, match="could not be written whole"):
            log.write("search", "bob")
    log.write("search", "cid")
    log.close()
    lines = path.read_text().splitlines()
    assert [json.loads(lines[row])["who"] for row in (1, 3)] == ["ann", "cid"] and len(lines) == 4


@given(st.text())
def test_names_in_messages(name: str) -> None:
    plain = shown(name)
    assert plain and len(plain) <= 80 and plain.isprintable() and "/" not in plain and "\\" not in plain


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("127.0.0.1:8000", "127.0.0.1"),
        ("[::1]:8000", "::1"),
        ("LocalHost", "localhost"),
        ("evil.example.", "evil.example"),
        ("", ""),
    ],
)
def test_names_in_host_headers(host: str, name: str) -> None:
    assert host_name(host) == name


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.9.10"])
def test_this_machine_alone_needs_no_token(host: str) -> None:
    expect_locked(Door(host), has_tokens=False)
    with pytest.raises(DinogrlError, match="through the proxy, so a token is needed"):
        expect_locked(Door(host, proxy="127.0.0.1"), has_tokens=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org", ""])
def test_others_need_one(host: str) -> None:
    with pytest.raises(DinogrlError, match="a token is needed"):
        expect_locked(Door(host), has_tokens=False)
    expect_locked(Door(host), has_tokens=True)


def test_doors_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(DinogrlError, match="port 70000 is none"):
        Door(port=70000)
    with pytest.raises(DinogrlError, match="give both, or neither"):
        Door(certificate=tmp_path)
    with pytest.raises(DinogrlError, match="no file at"):
        Door(certificate=tmp_path, key=tmp_path)
    with listen(Door(port=0)) as at, pytest.raises(DinogrlError, match="cannot listen on"):
        listen(Door(port=at.getsockname()[1]))


@pytest.mark.parametrize("proxy", [None, "10.0.0.7"])
def test_nobody_but_the_proxy_that_was_named_is_believed(proxy: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who could say where he comes from could guess tokens for ever."""
    configured: list[uvicorn.Config] = []
    monkeypatch.setattr("dinogrl.web.serving.build_app", lambda _: None)
    monkeypatch.setattr(uvicorn.Server, "run", lambda server, sockets: configured.append(server.config))
    with listen(Door(port=0)) as at:
        run(SimpleNamespace(signing=SimpleNamespace(needed=True)), Door(proxy=proxy), at)  # type: ignore[arg-type]
    assert configured[0].proxy_headers == (proxy is not None) and not configured[0].access_log
    assert proxy is None or configured[0].forwarded_allow_ips == proxy


def test_listening_everywhere() -> None:
    assert Door("0.0.0.0").address == "http://localhost:8000" and Door("::1", 9).address == "http://[::1]:9"
    if not socket.has_dualstack_ipv6():
        pytest.skip("needs IPv6")
    with listen(Door("::", 0)) as at, socket.create_connection(("127.0.0.1", at.getsockname()[1])):
        pass
