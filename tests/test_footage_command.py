"""``dinogrl footage``: what it prints, what it leaves, how it exits, and that what it leaves can be searched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dinogrl.cli import main as cli
from dinogrl.data.sightings import read_sighting
from dinogrl.errors import DataError
from dinogrl.footage import FootageSettings
from dinogrl.footage.video import Thinning, open_source
from tiny_films import write_film


@pytest.fixture(scope="module")
def street(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of the real street clip, the part in which three men walk."""
    with open_source(shared / "data" / "vtest" / "vtest.avi") as source:
        pictures = []
        for picture in source.pictures(Thinning()):
            assert picture is not None
            pictures.append(np.ascontiguousarray(picture.image[100:420, 150:]))
            if len(pictures) == 24:
                break
    return write_film(tmp_path_factory.mktemp("street") / "street.mp4", len(pictures), lambda frame: pictures[frame], codec="mpeg4")


@pytest.fixture(scope="module")
def cut(street: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, cut by the command with the detector that is built in."""
    out = tmp_path_factory.mktemp("cut") / "footage"
    arguments = ["footage", str(street), "--out", str(out), "--camera", "gate", "--start", "2026-11-21T18:30:00+01:00"]
    assert cli.main(arguments) == 0
    return out


def test_real_walkers_become_tracklets_that_check_accepts(cut: Path, capsys: pytest.CaptureFixture[str]) -> None:
    people = sorted(cut.glob("unknown-street-*"))
    assert 2 <= len(people) <= 5, "three men walk here"
    for notes in cut.glob("*/gate/visible/*/tracklet.json"):
        seen = read_sighting(str(notes.parent))
        assert seen is not None and seen.detector == "hog" and str(seen.started_at).startswith("2026-11-21 18:30:0")
        boxes = np.array([frame.box for frame in seen.frames])
        steps = np.linalg.norm(np.diff(boxes[:, :2] + boxes[:, 2:] / 2, axis=0), axis=1)
        assert 60 < np.median(boxes[:, 3]) < 130 and np.median(steps) < 12, "somebody of that height who walks"
    assert cli.main(["check", str(cut)]) == 0
    assert "usable to embed and search" in capsys.readouterr().out


def test_called_again_it_has_nothing_to_do(cut: Path, street: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in cut.glob("unknown-*/**/*")}
    arguments = ["footage", str(street), "--out", str(cut), "--camera", "gate", "--start", "2026-11-21T18:30:00+01:00"]
    assert cli.main(arguments) == 0
    assert "cut before, nothing to do" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in cut.glob("unknown-*/**/*")}
    assert cli.main([*arguments, "--max-frames", "10"]) == 2
    assert "max_frames" in capsys.readouterr().err


def test_bad_videos_are_named_and_the_others_go_on(street: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torn = street.with_suffix(".torn.avi")
    (tmp_path / "letter.mp4").write_text("hello")
    empty = write_film(tmp_path / "empty.avi", 30, lambda frame: np.random.default_rng(frame).integers(0, 9, (64, 64, 3), np.uint8))
    torn.write_bytes(empty.read_bytes()[: empty.stat().st_size // 2])
    videos = [str(tmp_path / "letter.mp4"), str(tmp_path / "nowhere.mp4"), str(torn), str(empty)]
    assert cli.main(["footage", *videos, "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert (
        "letter.mp4 is no video" in printed.err and "no video at" in printed.err and "2 of 4 videos could not be cut" in printed.err
    )
    assert "could be decoded" in printed.err and printed.out.count("0 tracklets") == printed.err.count("nobody was found") == 2
    assert "Traceback" not in printed.err
    assert cli.main(["footage", str(empty), "--out", str(tmp_path / "out")]) == 0
    assert "next:" not in capsys.readouterr().out, "there is nothing to check"


def test_a_start_without_a_zone_is_utc_as_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written down names its zone, so that nobody who reads it elsewhere takes it for his own."""
    given: list[FootageSettings] = []

    def cut_nothing(*_: object, settings: FootageSettings, **__: object) -> None:
        given.append(settings)
        raise DataError("not today")

    monkeypatch.setattr("dinogrl.footage.cut_video", cut_nothing)
    for start in ("2026-11-21T18:30:00", "2026-11-21T18:30:00+01:00"):
        cli.main(["footage", "night.mp4", "--out", str(tmp_path / "out"), "--start", start])
    assert [str(settings.start) for settings in given] == ["2026-11-21 18:30:00+00:00", "2026-11-21 18:30:00+01:00"]


def test_every_option_reaches_the_cutting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict] = []

    def cut_nothing(video: str, out: Path, **options: object) -> None:
        given.append({"video": video, "out": out, **options})
        raise DataError("not today")

    monkeypatch.setattr("dinogrl.footage.cut_video", cut_nothing)
    line = "footage night.mp4 --camera gate --modality infrared --fps 0 --every 3 --duration 60 --min-height 30 --min-sharpness 0"
    line += " --min-frames 4 --max-frames 99 --replace --out"
    assert cli.main([*line.split(), str(tmp_path / "out")]) == 2
    expected = FootageSettings(
        camera="gate",
        modality="infrared",
        fps=None,
        every=3,
        duration=60,
        min_height=30,
        min_sharpness=0,
        min_frames=4,
        max_frames=99,
    )
    assert (given[0]["settings"], given[0]["replace_earlier"], given[0]["video"]) == (expected, True, "night.mp4")


def test_a_file_in_the_place_of_the_folder_is_left_alone(street: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = street.read_bytes()
    assert cli.main(["footage", str(street), "--out", str(street)]) == 2
    assert f"{street} is a file; give a folder for the tracklets" in capsys.readouterr().err and street.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--modality", "infrard"], "did you mean 'infrared'"),
        (["--detector", "hogg"], "no detector 'hogg'"),
        (["--start", "yesterday"], "--start 'yesterday'"),
        (["--min-frames", "99"], "min_frames 99"),
        (["--duration", "-1"], "duration"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["footage", "x.mp4", "--out", str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert hint in error and len(error.splitlines()) == 1 and not (tmp_path / "out").exists()
