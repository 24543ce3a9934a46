"""Footage to tracklets, end to end: films with known walkers, cut by the whole line, interrupted and gone on with."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from filelock import FileLock

from dinogrl.data.checks import check_dataset
from dinogrl.data.datasets import open_dataset
from dinogrl.data.frames import read_frame
from dinogrl.data.sightings import read_sighting
from dinogrl.errors import DataError, DinogrlError
from dinogrl.footage import FootageProgress, FootageSettings, cut_tracklets, cut_video
from dinogrl.records import Modality
from tiny_films import COLOURS, HEIGHT, RATE, TWO, Finder, Walker, draw, write_film


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 frames, 9 seconds, two walkers that pass each other."""
    return write_film(tmp_path_factory.mktemp("films") / "street.mp4", 90, lambda frame: draw(TWO, frame))


def tree(out: Path) -> dict[str, bytes]:
    """Every tracklet's file with its content."""
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.glob("unknown-*/**/*") if path.is_file()}


def test_two_walkers_are_cut_out_where_and_when_they_walk(film: Path, tmp_path: Path) -> None:
    start = datetime(2026, 11, 21, 18, 30, tzinfo=UTC)
    cut = cut_tracklets(
        film, tmp_path, detector=Finder(TWO), settings=FootageSettings(camera="gate", start=start, max_crowding=1, max_change=999)
    )
    assert {tracklet.folder.parents[2].name for tracklet in cut} == {
        cut[0].folder.parents[2].name[:-4] + n for n in ("0001", "0002")
    }
    for tracklet in cut:
        seen = read_sighting(tracklet.folder)
        assert seen is not None and (seen.camera, seen.source) == ("gate", str(film)) and tracklet.frames == len(seen.frames)
        assert seen.started_at == start + timedelta(seconds=seen.start) and seen.modality is Modality.VISIBLE
        walker = TWO[seen.track - 1]
        for frame in seen.frames:
            assert frame.time == pytest.approx(frame.index / RATE, abs=1e-3)
            assert frame.box == pytest.approx(walker.box(frame.index), abs=0.02)
            crop = read_frame(tracklet.folder / frame.file)
            assert crop.shape[0] == pytest.approx(2 * crop.shape[1], abs=2), "padded to 2:1, never stretched"
            middle = crop[crop.shape[0] * 4 // 10, crop.shape[1] // 2].astype(int)
            if abs(TWO[0].box(frame.index)[0] - TWO[1].left + 1.5 * (frame.index - 5)) > 30:  # not where they meet
                assert np.abs(middle - COLOURS[walker.colour]).max() < 60, "the crop shows this walker"
    indices = sorted(
        frame.index for t in cut if t.folder.parents[2].name.endswith("0002") for frame in read_sighting(t.folder).frames
    )
    assert indices[0] <= 8 and indices[-1] == 69 and len(indices) == len(set(indices))


def test_what_is_cut_is_a_dataset_that_the_others_can_read(film: Path, tmp_path: Path) -> None:
    cut = cut_tracklets(film, tmp_path, detector=Finder(TWO))
    report = check_dataset(tmp_path, full=True)
    assert report.usable and report.search_only and not report.problems.errors()
    dataset = open_dataset(tmp_path)
    assert len(dataset.gallery) == len(cut) and {len(t.frames) for t in dataset.gallery} == {t.frames for t in cut}
    broken = cut[0].folder / "0001.jpg"
    broken.write_bytes(broken.read_bytes()[:50])
    assert not check_dataset(tmp_path).usable
    for tracklet in cut:  # once somebody has a name, the usual demands hold
        person = tracklet.folder.parents[2]
        if person.exists():
            person.rename(tmp_path / f"anna{person.name[-1]}")
    assert not check_dataset(tmp_path).search_only


def test_long_tracks_are_cut_and_short_small_and_crowded_ones_left_out(tmp_path: Path) -> None:
    walkers = (
        Walker(5, 60, 1.0),  # 60 frames: cut into pieces of 25
        Walker(60, 10, 0.5, last=9),  # 9 frames, of which the tracker takes 2 to be sure
        Walker(100, 60, 0.5, height=30),  # too small
        Walker(180, 60, 0.2, colour=1),  # two who walk as one
        Walker(184, 60, 0.2, colour=2),
    )
    film = write_film(tmp_path / "film.mp4", 60, lambda frame: draw(walkers, frame))
    cut = cut_tracklets(film, tmp_path / "out", detector=Finder(walkers), settings=FootageSettings(max_frames=25))
    assert {read_sighting(t.folder).track for t in cut} == {1}
    assert [t.frames for t in cut][:2] == [25, 25] and [t.folder.name for t in cut] == ["01", "02", "03"][: len(cut)]
    assert cut[0].end < cut[1].start


def test_somebody_who_was_away_goes_on_in_another_tracklet(tmp_path: Path) -> None:
    """Half a second hidden is bridged, more than ``max_gap`` is not; the track stays the same."""
    away = (Walker(5, 60, 2.0, last=25), Walker(5 + 2 * 37, 60, 2.0, first=37, last=60), Walker(5 + 2 * 64, 60, 2.0, first=64))
    film = write_film(tmp_path / "film.mp4", 85, lambda frame: draw(away, frame))
    settings = FootageSettings(max_change=999, max_crowding=1)
    seen = [read_sighting(t.folder) for t in cut_tracklets(film, tmp_path / "out", detector=Finder(away), settings=settings)]
    assert [(one.frames[0].index, one.frames[-1].index) for one in seen][-1] == (37, 84) and len(seen) == 2
    assert seen[0].frames[-1].index == 24 and seen[0].track == seen[1].track


def test_thresholds_take_in_what_just_meets_them(tmp_path: Path) -> None:
    """One walker of 30 frames, who is half outside the picture at first, in a film of 3 seconds."""
    one = (Walker(-12, 60, 1.0, height=60),)
    film = write_film(tmp_path / "film.mp4", 30, lambda frame: draw(one, frame))

    def cut(name: str, **settings: float) -> list[int]:
        found = cut_tracklets(film, tmp_path / name, detector=Finder(one), settings=FootageSettings(max_crowding=1, **settings))
        return [frame.index for tracklet in found for frame in read_sighting(tracklet.folder).frames]

    every = cut("all", min_inside=0, min_sharpness=0)
    assert every == list(range(every[0], 30)) and every[0] <= 3
    assert cut("inside", min_inside=0.75, min_sharpness=0) == list(range(6, 30)), "24 pixels wide, 12 of them outside at first"
    assert cut("sharp", min_inside=0, min_sharpness=9) == []
    assert cut("two", min_inside=0, min_sharpness=0, duration=2.0) == list(range(every[0], 20))
    assert cut("enough", min_inside=0, min_sharpness=0, min_frames=len(every)) == every
    assert cut("few", min_inside=0, min_sharpness=0, min_frames=len(every) + 1) == []
    sizes = {}
    for quality in (30, 95):
        cut(f"q{quality}", quality=quality)
        sizes[quality] = sum(len(content) for name, content in tree(tmp_path / f"q{quality}").items() if name.endswith(".jpg"))
    assert sizes[95] > 2 * sizes[30]


@pytest.mark.parametrize(
    ("created", "given", "expected"),
    [
        ("2026-03-01T12:00:00Z", None, datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("2026-03-01T12:00:00Z", datetime(2026, 3, 2, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC)),
        ("1970-01-01T00:00:00Z", None, None),
        (None, None, None),
    ],
)
def test_the_clock_of_the_file_counts_unless_another_is_given(
    created: str | None, given: datetime | None, expected: datetime | None, tmp_path: Path
) -> None:
    film = write_film(tmp_path / "film.mkv", 20, lambda frame: draw(TWO, frame), created=created)
    cut = cut_tracklets(film, tmp_path / "out", detector=Finder(TWO), settings=FootageSettings(start=given))
    assert {read_sighting(tracklet.folder).started for tracklet in cut} == {expected}


def test_a_track_that_changes_over_to_somebody_else_is_parted(tmp_path: Path) -> None:
    """One box follows the first walker until he meets the second, then goes on with that one: as trackers do."""
    blue = Walker(105, 60, -0.5, colour=1)
    red = replace(TWO[0], row=60)
    meeting = next(frame for frame in range(90) if red.box(frame)[0] >= blue.box(frame)[0])
    film = write_film(tmp_path / "film.mp4", 80, lambda frame: draw((red,) if frame < meeting else (blue,), frame))
    finder = Finder((replace(red, last=meeting), replace(blue, left=blue.box(meeting)[0], first=meeting)))
    cut = cut_tracklets(film, tmp_path / "out", detector=finder)
    assert len(cut) == 2 and cut[0].folder.parents[2] != cut[1].folder.parents[2]
    first, second = (read_sighting(tracklet.folder) for tracklet in cut)
    assert first.frames[-1].index < meeting <= second.frames[0].index <= first.frames[-1].index + 2
    together = cut_tracklets(
        film, tmp_path / "together", detector=replaced(finder), settings=FootageSettings(max_change=999, max_frames=99)
    )
    assert len(together) == 1, "the tracker alone does not see it"


def replaced(finder: Finder) -> Finder:
    """The same, from the first picture on again."""
    return Finder(finder.walkers)


def test_a_camera_that_switches_at_dusk_gives_both_modalities(tmp_path: Path) -> None:
    one = (Walker(5, 60, 1.5),)
    film = write_film(tmp_path / "dusk.mp4", 90, lambda frame: draw(one, frame, infrared=frame >= 41))
    cut = cut_tracklets(film, tmp_path / "out", detector=Finder(one))
    assert [t.modality for t in cut] == [Modality.VISIBLE, Modality.INFRARED]
    assert [t.folder.parent.name for t in cut] == ["visible", "infrared"]
    assert read_sighting(cut[0].folder).frames[-1].index == 40 and read_sighting(cut[1].folder).frames[0].index == 41
    given = cut_tracklets(
        film,
        tmp_path / "given",
        detector=Finder(one),
        settings=FootageSettings(modality="infrared", max_frames=100, max_change=999),
    )
    assert [t.modality for t in given] == [Modality.INFRARED]


@pytest.mark.parametrize(("settings", "step"), [({"fps": 5.0}, 2), ({"every": 3, "fps": None}, 3), ({"fps": 100.0}, 1)])
def test_frames_are_thinned(film: Path, tmp_path: Path, settings: dict[str, float | None], step: int) -> None:
    finder = Finder(TWO, step)
    cut = cut_tracklets(film, tmp_path, detector=finder, settings=FootageSettings(**settings))
    assert finder.calls == 90 // step
    assert {frame.index % step for t in cut for frame in read_sighting(t.folder).frames} == {0}


def test_interrupted_anywhere_it_goes_on_and_ends_the_same(film: Path, tmp_path: Path) -> None:
    settings = FootageSettings(max_frames=20)
    whole = cut_video(film, tmp_path / "whole", detector=Finder(TWO), settings=settings)
    for stop in (40, 70):
        with pytest.raises(KeyboardInterrupt):
            cut_video(
                film, tmp_path / "parts", detector=Finder(TWO, stop_at=stop, start=0 if stop == 40 else 40), settings=settings
            )
    journal = next((tmp_path / "parts" / ".footage").glob("*.jsonl"))
    assert len(journal.read_bytes().splitlines()) == 70
    with journal.open("ab") as file:
        file.write(b"[70, [[1, 2")  # a line that was torn by a power cut
    finder = Finder(TWO, start=70)
    parts = cut_video(film, tmp_path / "parts", detector=finder, settings=settings)
    assert finder.calls == 20, "what was found before is not looked for again"
    assert tree(tmp_path / "parts") == tree(tmp_path / "whole") and len(parts.tracklets) == len(whole.tracklets)
    assert not journal.exists()


SLOW = """
import sys, time
from dinogrl.footage import FootageSettings, cut_video
from tiny_films import TWO, Finder
class Slow(Finder):
    def __call__(self, image):
        time.sleep(0.02)
        return super().__call__(image)
cut_video(sys.argv[1], sys.argv[2], detector=Slow(TWO), settings=FootageSettings(max_frames=20))
"""


def test_killed_it_goes_on_and_ends_the_same(film: Path, tmp_path: Path, repository: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(film), str(tmp_path / "killed")], cwd=repository / "tests")
    while not list((tmp_path / "killed").glob("unknown-*/*/*/01")) and process.poll() is None:
        time.sleep(0.005)  # until the first tracklet is there: in the middle of the film
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = len(next((tmp_path / "killed" / ".footage").glob("*.jsonl")).read_bytes().splitlines())
    assert 20 <= done < 90
    settings = FootageSettings(max_frames=20)
    cut_video(film, tmp_path / "killed", detector=Finder(TWO, start=done), settings=settings)
    cut_video(film, tmp_path / "whole", detector=Finder(TWO), settings=settings)
    assert tree(tmp_path / "killed") == tree(tmp_path / "whole")
    assert not list((tmp_path / "killed").rglob(".*.part"))


def test_a_stream_is_watched_to_its_end_and_dated(tmp_path: Path) -> None:
    """Served from this machine; the wall clock at the start is that of the watching."""
    write_film(tmp_path / "street.mkv", 90, lambda frame: draw(TWO, frame))
    handler = partial(QuietHandler, directory=str(tmp_path))
    told: list[FootageProgress] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/street.mkv"
        before = datetime.now(UTC)
        result = cut_video(address, tmp_path / "whole", detector=Finder(TWO), on_progress=told.append)
        stopped = cut_video(address, tmp_path / "stopped", detector=Finder(TWO, stop_at=60))
        server.shutdown()
    assert len(result.tracklets) >= 2 and told[-1].frame == 90
    assert all(before < tracklet.started_at < before + timedelta(minutes=5) for tracklet in result.tracklets)
    assert stopped.tracklets and max(tracklet.end for tracklet in stopped.tracklets) < 6, "Ctrl-C keeps what was seen"


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files, and says nothing."""

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_finished_video_is_passed_over_under_any_name(film: Path, tmp_path: Path) -> None:
    first = cut_video(film, tmp_path, detector=Finder(TWO), settings=FootageSettings(camera="gate"))
    copy = tmp_path / "copy of it.mp4"
    copy.write_bytes(film.read_bytes())
    finder = Finder(TWO)
    again = cut_video(copy, tmp_path, detector=finder, settings=FootageSettings(camera="gate"))
    assert again.skipped and finder.calls == 0 and again.tracklets == first.tracklets


def test_what_was_wrong_with_a_finished_film_is_told_again(film: Path, tmp_path: Path) -> None:
    (tmp_path / "torn.avi").write_bytes(write_film(tmp_path / "whole.avi", 40, lambda frame: draw(TWO, frame)).read_bytes()[:-9000])
    first, again = (cut_video(tmp_path / "torn.avi", tmp_path / "out", detector=Finder(TWO)) for _ in range(2))
    assert first.warnings and again.skipped and again.warnings == first.warnings


def test_what_a_power_cut_left_of_a_tracklet_is_written_anew(film: Path, tmp_path: Path) -> None:
    settings = FootageSettings(max_frames=20)
    with pytest.raises(KeyboardInterrupt):
        cut_video(film, tmp_path, detector=Finder(TWO, stop_at=60), settings=settings)
    whole = next(tmp_path.glob("unknown-*/*/*/01"))
    (whole / "tracklet.json").unlink()
    (whole / "9999.jpg").write_bytes(b"of an older version")
    whole.rename(whole.with_name(".01.part"))
    cut_video(film, tmp_path, detector=Finder(TWO, start=60), settings=settings)
    assert sorted(path.name for path in whole.iterdir())[-2:] == ["0020.jpg", "tracklet.json"]
    assert not list(tmp_path.rglob(".*.part"))


def test_progress_goes_as_far_as_the_film_is_looked_at(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dinogrl.footage.cut._SECONDS_BETWEEN_REPORTS", 0)
    for duration, frames in ((3.0, 30), (None, 90)):
        told: list[FootageProgress] = []
        settings = FootageSettings(duration=duration)
        cut_tracklets(film, tmp_path / f"{frames}", detector=Finder(TWO), settings=settings, on_progress=told.append)
        assert [(at.frame, at.frames) for at in told[:30]] == [(number, frames) for number in range(1, 31)]


def test_other_settings_are_told_and_replace_on_request(film: Path, tmp_path: Path) -> None:
    first = cut_video(film, tmp_path, detector=Finder(TWO))
    named = tmp_path / "anna"
    first.tracklets[0].folder.parents[2].rename(named)
    with pytest.raises(DataError, match=r"max_frames.*--replace"):
        cut_video(film, tmp_path, detector=Finder(TWO), settings=FootageSettings(max_frames=20))
    second = cut_video(film, tmp_path, detector=Finder(TWO), settings=FootageSettings(max_frames=20), replace_earlier=True)
    assert max(t.frames for t in second.tracklets) == 20 and named.is_dir(), "what somebody has named is not taken away"
    assert len({path.as_posix() for path in tmp_path.glob("unknown-*/*/*/*")}) == len(second.tracklets)


def test_one_process_at_a_time(film: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        cut_video(film, tmp_path, detector=Finder(TWO, stop_at=3))
    with FileLock(next((tmp_path / ".footage").glob("*.lock"))), pytest.raises(DataError, match="another process"):
        cut_video(film, tmp_path, detector=Finder(TWO))


def test_a_broken_card_is_told(film: Path, tmp_path: Path) -> None:
    cut_video(film, tmp_path, detector=Finder(TWO))
    card = next((tmp_path / ".footage").glob("*.json"))
    assert json.loads(card.read_text())["done"] is True
    card.write_text('{"done": tr')
    with pytest.raises(DataError, match="remove it to cut"):
        cut_video(film, tmp_path, detector=Finder(TWO))


def test_memory_does_not_grow_with_the_film(tmp_path: Path) -> None:
    def peak(frames: int) -> int:
        """Bytes at the highest, of one who walks round and round for so many frames."""
        round_and_round = [Walker(10, 60, 2.0, first=start, last=start + 90) for start in range(0, frames, 100)]
        film = write_film(tmp_path / f"{frames}.mp4", frames, lambda frame: draw(round_and_round, frame))
        tracemalloc.start()
        cut = cut_tracklets(
            film, tmp_path / f"out{frames}", detector=Finder(round_and_round), settings=FootageSettings(max_frames=40)
        )
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(cut) >= frames // 50
        return highest

    peak(100)  # libraries keep what they need for good
    assert peak(400) < peak(150) + 60 * HEIGHT * 240 * 3 // 10, "six more frames of 250 would already fail"


@pytest.mark.parametrize(
    "wrong",
    [
        {"every": 0},
        {"fps": 0.0},
        {"fps": float("nan")},
        {"duration": -1.0},
        {"min_frames": 9, "max_frames": 8},
        {"quality": 0},
        {"modality": "infrard"},
    ],
)
def test_settings_that_make_no_sense_are_told(wrong: dict[str, object]) -> None:
    with pytest.raises(DinogrlError):
        FootageSettings(**wrong)
