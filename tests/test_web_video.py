"""Videos that strangers send: cut in a process of their own, which may die without anybody noticing but its sender."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from threading import Event

import av
import numpy as np
import pytest

from dinogrl.errors import DataError
from dinogrl.web.cutting import Cutter, Stopped, check_video
from dinogrl.web.limits import MB, Limits
from dinogrl.web.service import Settings
from tiny_films import TWO, draw, write_film
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
