"""From an upload to a case, over the API: what is answered must be what the gallery answers, and nothing is lost on the way."""

from __future__ import annotations

import io
import json
import math
import re
import shutil
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html import escape
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import numpy as np
import pytest
from fastapi.testclient import TestClient

from dinogrl.embedding.calibration import CROSS, WITHIN, Calibration, Curve, in_per_cent
from dinogrl.embedding.embedder import Embedder
from dinogrl.embedding.search_aids import SearchAids
from dinogrl.gallery import Filters, Gallery
from dinogrl.records import Modality
from dinogrl.web.app import build_app
from dinogrl.web.cutting import Found, Stopped, Tell
from dinogrl.web.journal import DONE, FAILED, WAITING, new_id
from dinogrl.web.limits import Limits
from dinogrl.web.service import Service, Settings
from tiny_server import NOON, STRANGE, cut_slowly, finished, left_of_uploads, make_home, pictures, send, served, walker

VIDEO = [("walk.mp4", b"\0\0\0\x20ftypisom" + bytes(100))]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("api"))


@pytest.fixture(scope="module")
def both(home: Path) -> Iterator[tuple[TestClient, Service]]:
    with served(home, Settings(home / "state", limits=Limits(searches_a_minute=1000))) as both:
        yield both


@pytest.fixture(scope="module")
def client(both: tuple[TestClient, Service]) -> TestClient:
    return both[0]


@pytest.fixture(scope="module")
def gallery(both: tuple[TestClient, Service]) -> Gallery:
    return both[1].gallery


@pytest.fixture(scope="module")
def query(client: TestClient) -> str:
    """A query that was uploaded: person 2, in infrared."""
    job = send(client, pictures(2, infrared=True), label="night walk")
    assert job["state"] == "done" and job["queries"][0]["modality"] == "infrared" and job["label"] == "night walk"
    return job["queries"][0]["id"]


def test_pictures_become_what_the_embedder_makes_of_them(
    both: tuple[TestClient, Service], query: str, home: Path, tmp_path: Path
) -> None:
    kept = both[1].journal.query(query, "local")
    assert kept is not None and kept.modality is Modality.INFRARED and kept.frames == 6
    paths = []
    for name, content in pictures(2, infrared=True):
        (tmp_path / name).write_bytes(content)
        paths.append(tmp_path / name)
    truth = Embedder.load(home / "model.safetensors", "cpu").embed(paths, "infrared")
    np.testing.assert_allclose(kept.parts, truth, rtol=1e-5, atol=1e-6)
    assert left_of_uploads(home / "state") == [], "nothing of an upload stays on disk but what was made of it"


@pytest.mark.parametrize(
    ("conditions", "filters"),
    [
        ({}, Filters()),
        ({"cameras": ["gate"], "modalities": ["visible"]}, Filters(("gate",), (Modality.VISIBLE,))),
        ({"collections": ["march"]}, Filters(collections=("march",))),
        (
            {"after": "2026-03-01T12:05:00Z", "before": "2026-03-01T14:00:00+01:00"},
            Filters(after=NOON + timedelta(minutes=5), before=datetime(2026, 3, 1, 13, tzinfo=UTC)),
        ),
        ({"cameras": ['x" or camera != "']}, Filters(('x" or camera != "',))),
    ],
)
def test_a_search_is_the_gallerys(
    both: tuple[TestClient, Service], gallery: Gallery, query: str, conditions: dict, filters: Filters
) -> None:
    answer = both[0].post("/api/search", json={"query": query, "top": 7, "conditions": conditions}).json()
    kept = both[1].journal.query(query, "local")
    assert kept is not None
    truth = gallery.search(kept.parts, top=7, filters=filters, modality=Modality.INFRARED)
    assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in truth]
    assert [hit["distance"] for hit in answer["hits"]] == pytest.approx([hit.distance for hit in truth])
    assert [hit["probability"] for hit in answer["hits"]] == pytest.approx([hit.probability for hit in truth])
    assert [hit["rank"] for hit in answer["hits"]] == list(range(1, len(truth) + 1))


def test_marks_move_the_query(client: TestClient, gallery: Gallery) -> None:
    asked = {"tracklet": "person0/0", "top": 17}
    first = client.post("/api/search", json=asked).json()["hits"]
    assert len(first) == 17 and "person0/0" not in {hit["id"] for hit in first}, "it does not find itself"
    right, wrong = ["person3/9", "person3/10"], [first[0]["id"]]
    second = client.post("/api/search", json={**asked, "right": right, "wrong": wrong}).json()["hits"]
    assert wrong[0] not in {hit["id"] for hit in second}
    own, good, bad = (gallery.parts(ids) for ids in (["person0/0"], right, wrong))
    target = (own[0] + 0.75 * good.mean(0) - 0.15 * bad[0]) / 1.6
    truth = {hit["id"]: np.linalg.norm(gallery.parts([hit["id"]])[0] - target, axis=1).mean() for hit in second}
    assert [hit["moved_distance"] for hit in second] == pytest.approx([truth[hit["id"]] for hit in second], rel=1e-3)
    assert [hit["moved_distance"] for hit in second] == sorted(hit["moved_distance"] for hit in second)
    rank = {hit["id"]: hit["rank"] for hit in second}
    assert max(rank[id] for id in right) < max(hit["rank"] for hit in first if hit["id"] in right), "who was right came forward"
    before = {hit["id"]: (hit["distance"], hit["probability"]) for hit in first}
    for hit in second:
        assert (hit["distance"], hit["probability"]) == pytest.approx(before[hit["id"]], rel=1e-3), (
            "these are of the pair, as before"
        )


@pytest.mark.parametrize("marks", [{}, {"right": ["person3/9"]}])
def test_a_percentage_is_of_the_kind_of_pair_and_of_the_prior(home: Path, tmp_path: Path, marks: dict[str, list[str]]) -> None:
    with served_copy(home, tmp_path, cut_slowly, prior=0.1) as (client, service):
        assert service.gallery.aids is not None
        curves = {CROSS: Curve(1.0, 0.0), WITHIN: Curve(-1.0, 0.0)}  # the same at any distance
        service.gallery.aids = SearchAids(service.gallery.aids.projection, Calibration(curves, "made up"))
        search = client.post("/api/search", json={"tracklet": "person0/0", "top": 17, **marks}).json()
        assert "takes 10 % of" in client.post("/api/export", json={"search": search["id"]}).text
    hits = search["hits"]
    assert {hit["modality"] for hit in hits} == {"visible", "infrared"}
    for hit in hits:
        odds = math.exp(-1.0 if hit["modality"] == "visible" else 1.0) * 0.1 / 0.9  # the query is visible
        assert hit["probability"] == pytest.approx(odds / (1 + odds))


def test_a_query_of_another_model_is_not_compared(both: tuple[TestClient, Service], query: str) -> None:
    client, journal = both[0], both[1].journal
    job, known = journal.add_job(new_id(), "local", "of before", "auto", [("a.jpg", "0001.jpg")]), journal.query(query, "local")
    assert known is not None
    journal.add_query(job, "of before", Modality.VISIBLE, 1, "another model", known.parts, None)
    journal.end(job.id)
    answer = client.post("/api/search", json={"query": journal.queries(job.id)[0].id})
    assert answer.status_code == 404 and "upload it again" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({}, 422, "either query or tracklet"),
        ({"tracklet": "person0/0", "query": "0" * 32}, 422, "either query or tracklet"),
        ({"tracklet": "nobody"}, 404, "no tracklet 'nobody'"),
        ({"query": "0" * 32}, 404, "no such query"),
        ({"query": "../../etc/passwd"}, 422, "query"),
        ({"tracklet": "person0/0", "right": ["nobody"]}, 404, "no tracklet 'nobody'"),
        ({"tracklet": "person0/0", "right": ["person1/3"], "wrong": ["person1/3"]}, 422, "both right and wrong"),
        ({"tracklet": "person0/0", "top": 0}, 422, "top"),
        ({"tracklet": "person0/0", "top": 10**9}, 422, "top"),
        ({"tracklet": "person0/0", "conditons": {}}, 422, "conditons"),
        ({"tracklet": "person0/0", "conditions": {"after": "soon"}}, 422, "after"),
        ({"tracklet": "\ud800"}, 422, "tracklet"),
        ({"tracklet": "x" * 600}, 422, "tracklet"),
    ],
)
def test_searches_that_cannot_be(client: TestClient, body: dict, status: int, message: str) -> None:
    answer = client.post("/api/search", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == status and message in answer.json()["detail"] and "\n" not in answer.json()["detail"]


def test_every_search_is_written_down(client: TestClient, home: Path) -> None:
    client.post("/api/search", json={"tracklet": STRANGE, "case": "lost child\n17", "conditions": {"cameras": ["gate"]}})
    line = json.loads((home / "state" / "audit.jsonl").read_text().splitlines()[-1])
    assert (line["what"], line["who"], line["address"], line["label"]) == ("search", "local", "testclient", STRANGE)
    assert line["request"]["case"] == "lost child\n17" and line["request"]["conditions"]["cameras"] == ["gate"]
    assert datetime.fromisoformat(line["time"]).tzinfo is not None


def test_looking_through_the_gallery(client: TestClient, gallery: Gallery) -> None:
    seen, offset, more = [], 0, True
    while more:
        page = client.get("/api/tracklets", params={"offset": offset, "limit": 7}).json()
        seen, offset, more = seen + [one["id"] for one in page["tracklets"]], offset + 7, page["more"]
    assert len(seen) == len(set(seen)) == 18 and STRANGE in seen
    page = client.get("/api/tracklets", params={"camera": "yard", "modality": "visible", "collection": "march"}).json()
    assert {(one["camera"], one["modality"], one["collection"]) for one in page["tracklets"]} == {("yard", "visible", "march")}
    times = {"after": NOON + timedelta(minutes=5), "before": NOON + timedelta(minutes=9)}
    page = client.get("/api/tracklets", params={name: time.isoformat() for name, time in times.items()}).json()
    assert [one["id"] for one in page["tracklets"]] == gallery.ids(Filters(**times)) and len(page["tracklets"]) == 5
    about = client.get("/api/gallery").json()
    assert about["tracklets"] == 18 and about["cameras"]["gate"] == 6 and (about["calibration"], about["prior"]) == ("made up", 0.5)


def test_pictures_of_tracklets(client: TestClient, gallery: Gallery) -> None:
    assert client.get("/api/tracklets/strip", params={"id": STRANGE}).content == gallery.strip(STRANGE)
    for id in ("person1/3", "nobody", "../../model.safetensors"):
        assert client.get("/api/tracklets/strip", params={"id": id}).status_code == 404


def test_a_case(client: TestClient, query: str) -> None:
    search = client.post("/api/search", json={"query": query, "top": 18, "case": "<i>17</i>"}).json()
    asked = {"search": search["id"], "right": [search["hits"][0]["id"]], "wrong": [STRANGE], "note": "<script>alert(1)</script>"}
    page = client.post("/api/export", json=asked)
    assert page.headers["content-type"].startswith("text/html") and "attachment" in page.headers["content-disposition"]
    assert "<script" not in page.text and "<i>" not in page.text and "onerror=alert(1)>" not in page.text
    assert not re.findall(r"(?:src|href)=[\"'](?!data:image/jpeg)", page.text), "needs nothing but itself"
    assert "learned from made up, which is other footage, and takes 50 % of" in page.text, "a percentage says what it rests on"
    assert all(f">{in_per_cent(hit['probability'])}<" in page.text for hit in search["hits"])
    marked = re.findall(r'<span class="(right|wrong)">(\w+)</span>', page.text)
    assert marked == [("right", "right"), ("wrong", "wrong")], "the first answer, and one further down"
    facts = dict(re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td></tr>', page.text))
    assert (facts["Marked right"], facts["Marked wrong"]) == (escape(asked["right"][0]), escape(STRANGE))
    assert page.text.count("data:image/jpeg") == 18, "the query, and all answers but the one without a picture"
    with zipfile.ZipFile(io.BytesIO(client.post("/api/export", json={**asked, "form": "zip"}).content)) as archive:
        assert archive.testzip() is None
        facts = json.loads(archive.read("case.json"))
        assert facts["found"]["hits"] == search["hits"] and facts["marks"] == {"right": asked["right"], "wrong": [STRANGE]}
        names = set(archive.namelist())
        assert {"case.html", "query.jpg", "001.jpg"} < names and not any("/" in name or ".." in name for name in names)
    assert client.post("/api/export", json={"search": "0" * 32}).status_code == 404


def test_an_upload_is_forgotten(client: TestClient) -> None:
    job = send(client, pictures(1, 2))
    assert client.delete(f"/api/jobs/{job['id']}").status_code == 204
    assert client.get(f"/api/jobs/{job['id']}").status_code == 404
    assert client.post("/api/search", json={"query": job["queries"][0]["id"]}).status_code == 404
    assert client.delete(f"/api/jobs/{job['id']}").status_code == 404


def test_metrics_count(client: TestClient) -> None:
    def number(name: str) -> float:
        return float(re.findall(rf"^{re.escape(name)} (\S+)$", client.get("/metrics").text, re.MULTILINE)[0])

    before = number("dinogrl_search_seconds_count")
    client.post("/api/search", json={"tracklet": "person0/0"})
    assert number("dinogrl_search_seconds_count") == before + 1 and number("dinogrl_gallery_tracklets") == 18
    assert number('dinogrl_jobs{state="running"}') == 0
    taken, sent = number("dinogrl_uploaded_bytes_total"), pictures(1, 3)
    send(client, sent)
    assert number("dinogrl_uploaded_bytes_total") == taken + sum(len(content) for _, content in sent)


def test_a_video_gives_its_people(client: TestClient) -> None:
    job = send(client, VIDEO, modality="infrared")
    assert [(one["frames"], one["modality"], one["label"]) for one in job["queries"]] == [
        (8, "infrared", "walk.mp4, person 1"),
        (4, "infrared", "walk.mp4, person 2"),
    ]


# -- jobs through hard times ------------------------------------------------------------------------------------------------------


def test_jobs_survive_a_restart(home: Path, tmp_path: Path) -> None:
    began = Event()

    def cut_for_ever(video: Path, modality: str, out: Path, tell: Tell, stopping: Event) -> list[Found]:
        began.set()
        stopping.wait()
        raise Stopped("the server ends")

    settings = Settings(tmp_path / "state")
    embedder = Embedder.load(home / "model.safetensors", "cpu")
    with Gallery(_copied(home, tmp_path), embedder) as gallery:
        with TestClient(build_app(Service(gallery, settings, cut_for_ever)), base_url="http://localhost") as client:
            first, second = (client.post("/api/queries", files=[("files", VIDEO[0])]).json()["id"] for _ in range(2))
            began.wait()
            assert client.get(f"/api/jobs/{first}").json()["state"] == "running"
        assert {path.name for path in (tmp_path / "state" / "uploads").iterdir()} == {first, second}
        (tmp_path / "state" / "uploads" / "of-a-process-that-died").mkdir()
        service = Service(gallery, settings, cut_slowly)
        assert [service.journal.job(id).state for id in (first, second)] == [WAITING, WAITING]  # type: ignore[union-attr]
        with TestClient(build_app(service), base_url="http://localhost") as client:
            jobs = [finished(client, client.get(f"/api/jobs/{id}").json()) for id in (first, second)]
        assert [(job["state"], len(job["queries"])) for job in jobs] == [("done", 2), ("done", 2)]
        assert list((tmp_path / "state" / "uploads").iterdir()) == []


def test_a_job_that_kills_the_server_is_given_up(home: Path, tmp_path: Path) -> None:
    with Gallery(_copied(home, tmp_path), Embedder.load(home / "model.safetensors", "cpu")) as gallery:
        service = Service(gallery, Settings(tmp_path / "state"), cut_slowly)
        job = service.journal.add_job("0" * 32, "local", "x", "auto", [("a.mp4", "0001.mp4")])
        for _ in range(3):
            service.journal.begin(job.id)  # and then the process was gone
        with TestClient(build_app(service), base_url="http://localhost") as client:
            ended = finished(client, client.get(f"/api/jobs/{job.id}").json())
    assert ended["state"] == FAILED and "not tried again" in ended["error"]


def test_a_fault_of_ours_ends_one_job_only(home: Path, tmp_path: Path) -> None:
    def fail(*_: object) -> list[Found]:
        raise ZeroDivisionError("secret inside")

    with served_copy(home, tmp_path, fail) as (client, _):
        job = send(client, VIDEO)
        assert job["state"] == "failed" and job["error"] == "something went wrong; see the server's log"
        assert send(client, pictures(0, 2))["state"] == "done"


def test_an_upload_that_is_forgotten_while_it_runs_leaves_nothing(home: Path, tmp_path: Path) -> None:
    began, forgotten = Event(), Event()

    def cut(*given) -> list[Found]:
        began.set()
        forgotten.wait()
        return cut_slowly(*given[:3], lambda *_: None, given[4])  # and does not notice it either

    with served_copy(home, tmp_path, cut) as (client, service):
        id = client.post("/api/queries", files=[("files", VIDEO[0])]).json()["id"]
        began.wait()
        assert client.delete(f"/api/jobs/{id}").status_code == 204
        forgotten.set()
        assert send(client, VIDEO)["state"] == DONE  # one video at a time: the first has come to its end
        assert service.journal.queries(id) == [] and service.journal.unfinished() == []
        assert left_of_uploads(tmp_path / "state") == []


def test_of_a_crowd_the_longest_are_offered(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dinogrl.web.jobs.MOST_QUERIES", 1)
    with served_copy(home, tmp_path, cut_slowly) as (client, _):
        assert [one["frames"] for one in send(client, VIDEO)["queries"]] == [8]


def test_nobody_in_the_video(home: Path, tmp_path: Path) -> None:
    with served_copy(home, tmp_path, lambda *_: []) as (client, _):
        assert "nobody was found" in send(client, VIDEO)["error"]


def test_only_so_many_wait(home: Path, tmp_path: Path) -> None:
    go = Event()

    def cut(*_: object) -> list[Found]:
        go.wait()
        return []

    with served_copy(home, tmp_path, cut, Limits(waiting_jobs=2)) as (client, _):
        answers = [client.post("/api/queries", files=[("files", VIDEO[0])]).status_code for _ in range(2)]
        assert send(client, pictures(0, 2))["state"] == "done", "pictures wait for no video"
        answers += [client.post("/api/queries", files=[("files", VIDEO[0])]).status_code for _ in range(3)]
        go.set()
    assert 503 in answers and answers.count(202) in (2, 3)


def test_expiry(home: Path, tmp_path: Path) -> None:
    settings = Settings(tmp_path / "state", expire_after=timedelta(days=30))
    with Gallery(_copied(home, tmp_path), Embedder.load(home / "model.safetensors", "cpu"), writable=True) as gallery:
        old = gallery.entries(["person0/0"])[0]
        gallery.remove(["person0/0"])
        embedding = np.asarray(gallery.embedder.embed([walker(0, 1)], "visible"))  # type: ignore[union-attr]
        gallery.add([old.stamped(datetime.now(UTC) - timedelta(days=31))], embedding[None])
        service = Service(gallery, settings, cut_slowly)
        with TestClient(build_app(service), base_url="http://localhost") as client:
            while len(gallery) == 18:  # done at the start, beside everything else
                client.get("/healthz")
            assert client.get("/api/gallery").json()["expire_after_seconds"] == 30 * 86400
            assert "person0/0" not in gallery
    lines = [json.loads(line) for line in (tmp_path / "state" / "audit.jsonl").read_text().splitlines()]
    assert [(line["what"], line["tracklets"]) for line in lines] == [("expiry", 1)]


def test_searches_are_forgotten_where_tracklets_never_expire(both: tuple[TestClient, Service], monkeypatch) -> None:
    service, now = both[1], datetime.now(UTC).timestamp()
    ids = []
    for days in (31, 29):
        monkeypatch.setattr("dinogrl.web.journal.time", SimpleNamespace(time=lambda days=days: now - days * 86400))
        ids.append(service.journal.add_search("local", {}, None))
    monkeypatch.undo()
    assert service.expire() == 0
    assert [service.journal.search(id, "local") is None for id in ids] == [True, False]


def _copied(home: Path, tmp_path: Path) -> Path:
    return Path(
        shutil.copytree(
            home / "people.gallery", tmp_path / "people.gallery", ignore=shutil.ignore_patterns("lock", "*.lock", "LOCK")
        )
    )


def served_copy(home: Path, tmp_path: Path, cut, limits: Limits | None = None, prior: float = 0.5):
    _copied(home, tmp_path)
    shutil.copy(home / "model.safetensors", tmp_path)
    return served(tmp_path, Settings(tmp_path / "state", prior=prior, limits=limits or Limits()), cut)
