"""A server on which several things happen at once: each is made to happen in the very moment that matters."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from fastapi.testclient import TestClient

from dinogrl.errors import DataError
from dinogrl.web import cutting
from dinogrl.web.cutting import Cutter
from dinogrl.web.limits import Limits
from dinogrl.web.service import Service, Settings
from tiny_children import tells_what_it_is_deaf_to
from tiny_server import left_of_uploads, make_home, pictures, send, served


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[TestClient, Service]]:
    with served(make_home(tmp_path, people=3), Settings(tmp_path / "state"), writable=True) as both:
        yield both


def test_uploads_are_told_though_one_is_removed_meanwhile(
    both: tuple[TestClient, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, service = both
    ids = [send(client, pictures(person, 1))["id"] for person in range(3)]
    listed = service.journal.jobs

    def removed_meanwhile(who: str) -> list:
        found = listed(who)
        service.journal.forget_job(ids[1])
        return found

    monkeypatch.setattr(service.journal, "jobs", removed_meanwhile)
    told = {job["id"]: len(job["queries"]) for job in client.get("/api/jobs").json()}
    assert (told[ids[0]], told[ids[2]]) == (1, 1) and not told.get(ids[1])


def test_who_is_forgotten_while_being_embedded_is_not_kept(
    both: tuple[TestClient, Service], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, service = both
    embedder, forgotten = service.gallery.embedder, []
    assert embedder is not None
    embed = embedder.embed

    def forgotten_meanwhile(*given: object) -> np.ndarray:
        parts = embed(*given)
        if not forgotten:
            job = service.journal.job(service.journal.unfinished()[0])
            assert job is not None
            service.jobs.forget(job)
            forgotten.append(job.id)
        return parts

    monkeypatch.setattr(embedder, "embed", forgotten_meanwhile)
    client.post("/api/queries", files=[("files", pictures(1, 1)[0])])
    other = send(client, pictures(2, 1))  # one upload of pictures at a time: the first has come to its end
    assert forgotten != [other["id"]] and left_of_uploads(tmp_path / "state") == []
    with sqlite3.connect(tmp_path / "state" / "journal.db") as journal:
        assert journal.execute("SELECT job FROM queries").fetchall() == [(other["id"],)]


@pytest.mark.parametrize("gone", [["person1/3"], ["person1/3", "person2/6", "person2/7"]])
def test_hits_that_are_removed_while_a_search_with_marks_runs(
    gone: list[str], both: tuple[TestClient, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, service = both
    body = {"tracklet": "person0/0", "right": ["person0/1"], "wrong": ["person1/4"], "top": 20}
    before = [hit for hit in client.post("/api/search", json=body).json()["hits"] if hit["id"] not in gone]
    search = service.gallery.search

    def removed_meanwhile(*given: object, **named: object) -> list:
        hits = search(*given, **named)
        service.gallery.remove(gone)
        return hits

    monkeypatch.setattr(service.gallery, "search", removed_meanwhile)
    answer = client.post("/api/search", json=body)
    assert answer.status_code == 200, answer.text
    told = ("id", "distance", "probability", "camera")
    assert [[hit[name] for name in told] for hit in answer.json()["hits"]] == [[hit[name] for name in told] for hit in before]


def test_what_cuts_a_video_never_hears_ctrl_c_nor_sigterm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sent to the whole group, they would end it before the server ends, and the upload would count as a broken video."""
    monkeypatch.setattr(cutting, "_cut", tells_what_it_is_deaf_to)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    for _ in range(2):
        with pytest.raises(DataError) as told:
            Cutter(Limits())(tmp_path, "auto", tmp_path, lambda *_: None, Event())
        assert {int(signal.SIGINT), int(signal.SIGTERM)} <= set(map(int, str(told.value)[1:-1].split(","))), told.value
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
