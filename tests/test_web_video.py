"""Videos that strangers send: cut in a process of their own, which may die without anybody noticing but its sender."""

from __future__ import annotations

import json
import multiprocessing
import resource
from itertools import islice
from pathlib import Path
from threading import Event

import av
import numpy as np
import pytest

from dinogrl.errors import DataError
from dinogrl.records import Modality
from dinogrl.web import cutting
from dinogrl.web.cutting import Cutter, Found, Stopped, check_video
from dinogrl.web.limits import MB, Limits
from dinogrl.web.service import Settings
from tiny_children import outstays
from tiny_films import TWO, Finder, Walker, draw, write_film
from tiny_server import make_home, send, served

GO_ON = Event()


def quiet(*_: object) -> None:
    """Listens to no progress."""


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds, of 240 x 144 pixels."""
    return write_film(tmp_path_factory.mktemp("films") / "film.mp4", 30, lambda number: draw(TWO, number))


def test_what_a_container_declares(film: Path, tmp_path: Path) -> None:
    check_video(film, Limits())
    check_video(film, Limits(video_seconds=2))  # a second more is taken, and not looked at
    with pytest.raises(DataError, match=r"lasts 3 seconds; at most 1 are taken"):
        check_video(film, Limits(video_seconds=1))
    with pytest.raises(DataError, match=r"has 240 x 144 pixels a frame; at most 0\.01 million"):
        check_video(film, Limits(video_pixels=10_000))
    (tmp_path / "0001.mp4").write_bytes(film.read_bytes()[:200])
    with pytest.raises(DataError, match="the video is broken"):
        check_video(tmp_path / "0001.mp4", Limits())
    with av.open(str(tmp_path / "0002.mp4"), "w") as container:
        sound = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.rate = 8000
        container.mux([*sound.encode(frame), *sound.encode()])
    with pytest.raises(DataError, match="no moving pictures"):
        check_video(tmp_path / "0002.mp4", Limits())


def test_a_list_of_other_files_leads_nowhere(tmp_path: Path) -> None:
    """FFmpeg follows such lists; the sniffing takes none, and the decoder would not either."""
    (tmp_path / "secret.jpg").write_bytes(b"x")
    for content in (f"#EXTM3U\n#EXTINF:1,\nfile:{tmp_path}/secret.jpg\n", f"ffconcat version 1.0\nfile {tmp_path}/secret.jpg\n"):
        (tmp_path / "0001.mp4").write_text(content)
        with pytest.raises(DataError):
            check_video(tmp_path / "0001.mp4", Limits())


@pytest.mark.parametrize(("given", "seen"), [("infrared", "INFRARED"), ("visible", "VISIBLE"), ("auto", "VISIBLE")])
def test_it_is_cut_as_it_was_sent(given: str, seen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the other process does, in this one: the modality of the upload, two seconds at most, tracklets of four frames too."""
    walkers = (TWO[0], Walker(200, 70, -1.5, colour=1, last=7))
    film = write_film(tmp_path / "film.mp4", 30, lambda number: draw(walkers, number))
    monkeypatch.setattr(cutting, "_bound", lambda limits: None)
    monkeypatch.setattr("dinogrl.footage.detect.load_detector", lambda *_: Finder(walkers))
    told: list[tuple[int, int]] = []
    for _ in range(2):  # the second time with what the first has left
        found = cutting.cut_here(
            film, given, tmp_path / "cut", Cutter(Limits(video_seconds=2)), lambda at, of: told.append((at, of))
        )
        assert [one["modality"] for one in found] == [seen, seen]
        assert sorted(len(one["frames"]) for one in found) == [4 + 1, 20 - 2], "the tracker takes two to be sure"
        assert all(Path(frame).is_file() for one in found for frame in one["frames"])
        given, seen = "infrared", "INFRARED"
    assert max(at for at, _ in told) >= 20 and all(at <= of for at, of in told)


def test_what_the_process_says_is_heard_in_order() -> None:
    here, there = multiprocessing.Pipe(duplex=False)
    found = [{"modality": "INFRARED", "frames": ["b.jpg", "a.jpg"]}, {"modality": "VISIBLE", "frames": ["c.jpg"]}]
    for message in ({"frame": 3, "frames": 9}, {"frame": 9, "frames": 9}, {"found": found}):
        there.send_bytes(json.dumps(message).encode())
    told: list[tuple[str, int, int]] = []
    assert cutting._listen(here, Limits(), lambda *words: told.append(words), GO_ON) == [
        Found(Modality.INFRARED, [Path("b.jpg"), Path("a.jpg")]),
        Found(Modality.VISIBLE, [Path("c.jpg")]),
    ]
    assert told == [("find people", 3, 9), ("find people", 9, 9)]


def test_a_process_that_does_not_end_is_killed(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "_cut", outstays)
    stopping = Event()
    with pytest.raises(Stopped):
        Cutter(Limits())(film, "auto", tmp_path / "file", lambda *_: stopping.set(), stopping)
    assert not (tmp_path / "file").exists(), "it would have been waited for"


def test_its_bounds_are_those_of_the_server_or_narrower(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[int, tuple[int, int]] = {}
    hard = {resource.RLIMIT_CPU: 7}
    monkeypatch.setattr(resource, "getrlimit", lambda what: (5, hard.get(what, resource.RLIM_INFINITY)))
    monkeypatch.setattr(resource, "setrlimit", lambda what, bounds: given.update({what: bounds}))
    cutting._bound(Limits(job_memory=10 * MB))
    assert given[resource.RLIMIT_CPU] == (7, 7) and given[resource.RLIMIT_FSIZE] == (1024 * MB, resource.RLIM_INFINITY)
    if Path("/proc/self/statm").exists():
        assert given[resource.RLIMIT_AS][0] > 10 * MB, "what it has already comes on top"


def test_it_is_ended_for_its_time_and_with_the_server(film: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"took longer than 0\.1 seconds"):
        Cutter(Limits(job_seconds=0.1))(film, "auto", tmp_path / "a", quiet, GO_ON)
    with pytest.raises(DataError, match="has more than 5 frames"):
        Cutter(Limits(video_frames=5))(film, "auto", tmp_path / "c", quiet, GO_ON)
    stopping = Event()
    stopping.set()
    with pytest.raises(Stopped):
        Cutter(Limits())(film, "auto", tmp_path / "b", quiet, stopping)


def test_it_may_take_so_much_memory(film: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="took too much memory"):
        Cutter(Limits(job_memory=MB // 4))(film, "auto", tmp_path / "a", quiet, GO_ON)


def test_what_it_says_names_no_path_of_ours(tmp_path: Path) -> None:
    (tmp_path / "0001.avi").write_bytes(b"RIFF\0\0\0\0AVI LIST" + bytes(500))
    with pytest.raises(DataError) as refused:
        Cutter(Limits())(tmp_path / "0001.avi", "auto", tmp_path / "a", quiet, GO_ON)
    assert str(tmp_path) not in str(refused.value) and "\n" not in str(refused.value)


def test_real_footage_from_upload_to_answers(shared: Path, tmp_path: Path) -> None:
    """A second and a half of people who walk across a square: uploaded, cut in another process, embedded, searched with."""
    source = shared / "data" / "vtest" / "vtest.avi"
    if not source.is_file():
        pytest.skip("needs ../shared/data/vtest/vtest.avi")
    with av.open(str(source)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in islice(container.decode(video=0), 15)]
    film = write_film(tmp_path / "street.mp4", len(frames), lambda number: frames[number])
    limits = Limits()
    with served(make_home(tmp_path, people=2), Settings(tmp_path / "state", limits=limits), Cutter(limits)) as (client, _):
        job = send(client, [("street.mp4", film.read_bytes())])
        assert job["state"] == "done" and not job["error"], job
        assert len(job["queries"]) >= 2, "several people walk there"
        assert all(4 <= query["frames"] <= 15 and query["modality"] == "visible" for query in job["queries"])
        found = client.post("/api/search", json={"query": job["queries"][0]["id"], "top": 6}).json()
        assert len(found["hits"]) == 6 and found["query"]["label"] == "street.mp4, person 1"
        strip = client.get(f"/api/queries/{job['queries'][0]['id']}/strip")
        assert strip.status_code == 200 and len(strip.content) > 2000
