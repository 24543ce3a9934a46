"""The whole journey by commands alone: simulate, train, go on, evaluate, embed, report."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from unittest.mock import Mock

import pytest

from dinogrl.cli import main as cli
from dinogrl.data.datasets import open_dataset
from dinogrl.embedding.archive import load_embeddings
from tiny_recipe import TINY


@pytest.fixture(scope="module")
def run(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run that the command trained."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    assert cli.main(["train", "demo_dinogrl", *TINY, "--data", str(tiny_world), "--out", str(out)]) == 0
    return out


def test_training_leaves_what_it_promises(run: Path) -> None:
    assert {"recipe.yaml", "log.csv", "checkpoint.safetensors", "model.safetensors"} <= {path.name for path in run.iterdir()}


def test_a_second_run_in_the_same_folder_is_refused(run: Path, tiny_world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "model.safetensors").read_bytes()
    assert cli.main(["train", "demo_dinogrl", *TINY, "--data", str(tiny_world), "--out", str(run)]) == 2
    assert "--resume" in capsys.readouterr().err
    assert cli.main(["train", "demo_dinogrl", *TINY, "--data", str(tiny_world), "--out", str(run), "--resume"]) == 0
    assert (run / "model.safetensors").read_bytes() == before, "a finished run is left as it is"


def test_an_interrupted_training_says_the_command_that_goes_on(
    tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a run"
    with monkeypatch.context() as patch:
        patch.setattr("dinogrl.cli.training._show", Mock(side_effect=KeyboardInterrupt))
        assert cli.main(["train", "demo_dinogrl", *TINY, "--data", str(tiny_world), "--out", str(out)]) == 130
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("interrupted; go on by: dinogrl train demo_dinogrl") and line.endswith("--resume")
    assert cli.main(shlex.split(line.partition(": ")[2])[1:]) == 0 and (out / "model.safetensors").is_file()


def test_evaluate_and_report(run: Path, tiny_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = tmp_path / "scores.json"
    model = str(run / "model.safetensors")
    assert cli.main(["evaluate", model, "--data", str(tiny_world), "--device", "cpu", "--json", str(scores)]) == 0
    shown = capsys.readouterr().out
    assert "protocol hitsz-vcm" in shown and "infrared -> visible" in shown and "visible -> infrared" in shown
    metrics = json.loads(scores.read_text())
    assert metrics == json.loads((run / "metrics.json").read_text())
    assert metrics["model"] == "dinogrl" and set(metrics["directions"]) == {"infrared_to_visible", "visible_to_infrared"}
    for direction in metrics["directions"].values():
        assert all(0 <= direction[name] <= 1 for name in ("rank1", "rank5", "rank10", "rank20", "mAP", "mINP"))

    assert cli.main(["report", str(run), "--out", str(tmp_path / "report.html")]) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<html" in page and "http://" not in page.replace("http://www.w3.org", "")

    capsys.readouterr()
    assert cli.main(["report", str(run), "--table", "markdown"]) == 0
    table = capsys.readouterr().out
    assert table.startswith("| Method") and "| **dinogrl (ours)** |" in table


def test_a_run_folder_receives_its_own_results(run: Path, tiny_world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "metrics.json").unlink(missing_ok=True)
    assert cli.main(["evaluate", str(run), "--data", str(tiny_world), "--device", "cpu"]) == 0
    assert f"next: dinogrl report {run}\n" in capsys.readouterr().out
    assert (run / "metrics.json").is_file() and not (run.parent / "metrics.json").exists()


def test_embed(run: Path, tiny_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("test", "train"):
        out = tmp_path / f"{split}.safetensors"
        model = run / "model.safetensors" if split == "test" else run  # the folder of the run stands for its model
        words = ["embed", str(model), "--data", str(tiny_world), "--out", str(out), "--split", split]
        assert cli.main([*words, "--device", "cpu"]) == 0
        embeddings = load_embeddings(out)
        assert f"{len(embeddings)} tracklets" in capsys.readouterr().out
        assert len(set(embeddings.tracklet_ids)) == len(embeddings) > 4


@pytest.fixture
def torn_world(tiny_world: Path, tmp_path: Path) -> Path:
    """The world, with one tracklet of the test and one for training of which only the last frame can be read."""
    world = shutil.copytree(tiny_world, tmp_path / "torn")
    dataset = open_dataset(world)
    for tracklet in (dataset.query[0], dataset.train[0]):
        tracklet.path(0).unlink()
        for index in range(1, len(tracklet.frames) - 1):
            tracklet.path(index).write_bytes(b"\xff\xd8\xff")
    return world


@pytest.mark.parametrize(
    "words",
    [["evaluate", "MODEL", "--out", "."], ["embed", "MODEL", "--out", "x.safetensors"], ["gallery", "add", "g", "MODEL"]],
    ids=["evaluate", "embed", "gallery add"],
)
def test_broken_frames_stop_a_command_unless_it_is_told_otherwise(
    words: list[str], run: Path, torn_world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(torn_world.parent)
    given = [str(run) if word == "MODEL" else word for word in words] + ["--data", str(torn_world), "--device", "cpu"]
    assert cli.main(given) == 2
    assert "--broken-frames neighbour" in capsys.readouterr().err
    assert cli.main([*given, "--broken-frames", "neighbour"]) == 0
    if words[0] == "evaluate":
        assert "dinogrl + broken frames replaced" in capsys.readouterr().out
        assert json.loads(Path("metrics.json").read_text())["options"] == {"broken_frames": "neighbour"}


def test_learning_for_searches_goes_past_broken_frames_too(run: Path, torn_world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(run / "model.safetensors", torn_world.parent)
    given = ["gallery", "learn", str(torn_world.parent), "--data", str(torn_world), "--device", "cpu"]
    assert cli.main(given) == 2
    assert cli.main([*given, "--broken-frames", "neighbour"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["evaluate", "MODEL", "--data", "nowhere"], "nowhere"),
        (["evaluate", "MODEL", "--data", "WORLD", "--protocol", "hitsz"], "did you mean 'hitsz-vcm'"),
        (["evaluate", "CHECKPOINT", "--data", "WORLD"], "another kind: training, expected model"),
        (["evaluate", "LOG", "--data", "WORLD"], "is no model file; give a model.safetensors"),
        (["evaluate", "MODEL", "--data", "WORLD", "--device", "tpu7"], "device"),
        (["embed", "MODEL", "--data", "nowhere", "--out", "x.safetensors"], "nowhere"),
        (["embed", "MODEL", "--data", "WORLD", "--out", "."], ". is a folder; give the name of a file in it"),
        (["evaluate", "MODEL", "--data", "WORLD", "--out", "x", "--json", "."], ". is a folder; give the name of a file in it"),
        (["report", "WORLD"], "metrics.json"),
        (["report", "WORLD", "--table", "markdwon"], "did you mean 'markdown'"),
        (["train", "demo_dinogrl", "--data", "nowhere", "--out", "new"], "nowhere"),
        (["convert", "LOG", "LOG", "LOG", "--out", "x.safetensors"], "cannot read weights"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    words: list[str],
    hint: str,
    run: Path,
    tiny_world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"MODEL": "model.safetensors", "CHECKPOINT": "checkpoint.safetensors", "LOG": "log.csv"}
    given = [str(tiny_world) if word == "WORLD" else str(run / places[word]) if word in places else word for word in words]
    monkeypatch.chdir(tmp_path)
    assert cli.main(given) == 2
    error = capsys.readouterr().err.strip()
    assert hint in error and len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir()), "nothing was to be written"
