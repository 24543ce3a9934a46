"""``dinogrl simulate`` and ``dinogrl check``: what they print, what they leave, how they exit."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny_datasets
from dinogrl.cli import main as cli
from dinogrl.errors import DataError
from dinogrl.simulation.settings import Settings

SMALL = ["--identities", "4", "--cameras", "2", "--tracklets", "1", "--frames", "13", "--size", "32x16", "--workers", "1"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "world"
    assert cli.main(["simulate", str(out), *SMALL]) == 0
    return out


def test_a_simulated_world_is_usable(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", str(world), "--full"]) == 0
    shown = capsys.readouterr().out
    assert "layout hitsz-vcm" in shown and "usable: 0 errors, 0 warnings" in shown
    assert all(split in shown for split in ("train visible", "train infrared", "query infrared", "gallery visible"))


def test_walks_that_are_too_short_for_the_layout_come_with_the_way_to_use_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "world")
    assert cli.main(["simulate", out, *SMALL, "--frames", "3", "--no-silhouettes"]) == 0
    said = capsys.readouterr()
    assert "train with data.min_frames=3" in " ".join(said.err.split())
    assert "".join(said.out.split()).endswith("".join(f"next: dinogrl check {out} --min-frames 3".split()))
    assert cli.main(["check", out, "--min-frames", "3"]) == 0


def test_a_broken_frame_makes_it_unusable_and_is_named(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "world"
    for path in world.rglob("*"):
        if path.is_file():
            (copy / path.relative_to(world)).parent.mkdir(parents=True, exist_ok=True)
            (copy / path.relative_to(world)).write_bytes(path.read_bytes())
    victim = next(copy.glob("Test/*/*/*/*.jpg"))
    victim.write_bytes(victim.read_bytes()[:100])
    assert cli.main(["check", str(copy)]) == 1
    shown = capsys.readouterr().out
    assert victim.relative_to(copy).as_posix() in shown and "unusable for evaluation: 1 error," in shown


def test_many_findings_of_one_sort_are_counted_unless_all_are_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tiny_datasets.hitsz_vcm(tmp_path)
    lost = sorted((root / "Test").rglob("*.jpg"))
    for path in lost:
        path.unlink()
    assert cli.main(["check", str(root)]) == 1
    lines = " ".join(capsys.readouterr().out.split())
    assert lines.count(".jpg: is missing") == 20 and f"{len(lost) - 20} more such: is missing; --all prints each" in lines
    assert f"unusable for evaluation: {len(lost)} errors" in lines, "all are counted"
    assert cli.main(["check", str(root), "--all"]) == 1
    lines = " ".join(capsys.readouterr().out.split())
    assert lines.count(".jpg: is missing") == len(lost) and "more such" not in lines


def test_what_follows_from_a_split_that_is_not_there_is_left_unsaid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the dataset may be named by the environment, as for the other commands."""
    monkeypatch.setenv("DINOGRL_DATA", str(tiny_datasets.regdb(tmp_path, train=2, test=1)))
    assert cli.main(["check", "--trial", "11"]) == 1
    first, verdict = capsys.readouterr().out.splitlines()
    assert first.endswith("idx: there is no trial 11, there are 1, 2") and verdict == "unusable: 1 error, 0 warnings, 0 notes"
    assert cli.main(["check"]) == 0


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["check", "nowhere"], "no such folder"),
        (["simulate", "new", "--layout", "buptcampsu"], "did you mean 'buptcampus'"),
        (["simulate", "new", "--size", "256"], "height x width"),
        (["simulate", "new", "--size", "0x128"], "height x width"),
        (["simulate", "new", "--size", "²x128"], "height x width"),
        (["simulate", "new", "--identities", "4", "--test-identities", "4"], "at least one for training"),
        (["simulate", "new", "--motion", "nowhere"], "nowhere"),
        (["simulate", "new", "--motion-rate", "60"], "without --motion"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert hint in error and len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir()), "nothing was to be written"


def test_every_option_of_simulate_reaches_the_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    def draw(out: Path, settings: Settings, **_: object) -> str:
        given.append((out, settings))
        return "drawn"

    monkeypatch.setattr("dinogrl.simulation.simulate.simulate", draw)
    line = "--layout llcm --identities 9 --test-identities 3 --cameras 5 --tracklets 4 --frames 7 --size 96x48 --occlusion 0.6"
    line += f" --looseness 0.2 --no-silhouettes --motion {tmp_path} --motion-rate 60 --seed 8"
    assert cli.main(["simulate", str(tmp_path / "out"), *line.split()]) == 0
    hard = {"occlusion": 0.6, "looseness": 0.2, "silhouettes": False}
    expected = Settings("llcm", 9, 3, 5, 4, 7, 96, 48, 8, motion=tmp_path, motion_rate=60, **hard)
    assert given == [(tmp_path / "out", expected)]


def test_every_option_of_check_reaches_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    def look(data: Path, layout: str, **options: object) -> None:
        given.append((data, layout, {name: value for name, value in options.items() if name != "progress"}))
        raise DataError("not today")

    monkeypatch.setattr("dinogrl.data.checks.check_dataset", look)
    line = "--layout regdb --full --min-frames 3 --trial 4 --discard-train a.txt --discard-test b.txt"
    assert cli.main(["check", str(tmp_path), *line.split()]) == 2
    files = {"discard_train": Path("a.txt"), "discard_test": Path("b.txt")}
    assert given == [(tmp_path, "regdb", {"full": True, "min_frames": 3, "trial": 4, **files})]


def test_simulate_overwrites_nothing(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(path for path in world.rglob("*"))
    assert cli.main(["simulate", str(world), *SMALL]) == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert sorted(path for path in world.rglob("*")) == before


def test_recipes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recipes"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("baseline", "dinogrl", "dinogrl_pbmge", "dinogrl_sasgl"))
