"""Options of the test, from the command line to the result that names them."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dinogrl.cli import main as cli
from dinogrl.cli.screen import say, score_table
from dinogrl.data.frames import write_image
from dinogrl.embedding.archive import load_embeddings
from dinogrl.embedding.exported import ExportedModel, ExportedNetwork
from dinogrl.evaluation.results import read_metrics
from dinogrl.models.archive import save_model
from dinogrl.reports.run_folder import read_run
from dinogrl.training import evaluation_run
from tiny_datasets import hitsz_vcm
from tiny_models import tiny_model, tiny_recipe


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command up to its options: an untrained model, a tiny dataset."""
    root = tmp_path_factory.mktemp("options")
    hitsz_vcm(root / "data")
    small = ["data.height=32", "data.width=16", "data.frames=3", "data.workers=0"]
    model = tiny_model("baseline", *small)
    save_model(root / "model.safetensors", model, tiny_recipe("baseline", *small), 5, {"selection": "last"})
    return ["evaluate", str(root / "model.safetensors"), "--data", str(root / "data"), "--device", "cpu"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ([], {}),
        (["--flip"], {"flip": True}),
        (["--clips", "2"], {"clips": 2}),
        (["--flip", "--clips", "all"], {"flip": True, "clips": "all"}),
        (["--compute", "bfloat16"], {"precision": "bfloat16"}),
        (["--rerank", "k_reciprocal"], {"rerank": "k_reciprocal", "rerank_k1": 20, "rerank_k2": 6, "rerank_original": 0.3}),
    ],
    ids=["plain", "flip", "clips", "both", "bfloat16", "rerank"],
)
def test_the_result_names_what_was_done(words: list[str], options: list[str], named: dict[str, object], tmp_path: Path) -> None:
    assert cli.main([*words, *options, "--out", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "metrics.json").read_text())["options"] == named


def test_looks_change_the_vectors_and_nothing_else(words: list[str], tmp_path: Path) -> None:
    assert cli.main([*words, "--out", str(tmp_path / "plain")]) == 0
    assert cli.main([*words, "--clips", "all", "--out", str(tmp_path / "all")]) == 0
    plain, every = (load_embeddings(tmp_path / name / "query.safetensors") for name in ("plain", "all"))
    assert (plain.tracklet_ids, plain.frames, plain.fingerprint) == (every.tracklet_ids, every.frames, every.fingerprint)
    assert not np.allclose(plain.parts, every.parts)


def test_the_network_computes_in_what_is_asked_for(words: list[str], tmp_path: Path) -> None:
    rows = {}
    for compute in ("float32", "bfloat16", None):
        chosen = [] if compute is None else ["--compute", compute]
        assert cli.main([*words, *chosen, "--out", str(tmp_path)]) == 0
        rows[compute] = load_embeddings(tmp_path / "query.safetensors").parts
    error = np.linalg.norm(rows["bfloat16"] - rows["float32"]) / np.linalg.norm(rows["float32"])
    assert 1e-5 < error < 5e-2 and np.array_equal(rows[None], rows["float32"]), "the recipe says float32"


def test_an_exported_model_computes_in_what_it_was_exported_in_whatever_its_recipe_says(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = ["data.height=32", "data.width=16", "data.frames=3", "data.workers=0", "evaluation.precision=bfloat16"]
    rounded = []

    def run(frames: np.ndarray, modality: np.ndarray) -> np.ndarray:
        rounded.append(torch.is_autocast_enabled("cpu"))
        return np.random.default_rng(len(rounded)).random((len(frames), 1, 4), np.float32)

    exported = ExportedModel(ExportedNetwork(run, 0), tiny_recipe("baseline", *small), 5, "0" * 16, {})
    monkeypatch.setattr(evaluation_run, "open_model", lambda path: exported)
    assert cli.main([*words, "--out", str(tmp_path)]) == 0
    assert rounded and not any(rounded)


def test_temporal_reranking_embeds_both_halves(words: list[str], tmp_path: Path) -> None:
    assert cli.main([*words, "--rerank", "temporal", "--out", str(tmp_path)]) == 0
    options = json.loads((tmp_path / "metrics.json").read_text())["options"]
    assert options["rerank"] == "temporal_k_reciprocal" and options["rerank_halves"] == 0.1
    run = read_run(tmp_path)
    assert run.name.endswith(" + temporal re-ranking") and run.evaluation is not None
    for name, scores in run.metrics.directions.items():
        assert run.evaluation.directions[name].scores.mAP == pytest.approx(scores.mAP, abs=1e-9), "a report ranks as the result did"


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--clips", "0"], "number from 1 on, or all"), (["--rerank", "reciprocal"], "did you mean 'k_reciprocal'")],
)
def test_wrong_options_are_one_clear_line(
    words: list[str], options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*words, *options, "--out", str(tmp_path / "never")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "never").exists()


def test_a_file_in_the_place_of_the_results_is_said_before_anything_is_embedded(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("mine")
    assert cli.main([*words, "--out", str(tmp_path / "taken")]) == 2
    said = capsys.readouterr()
    assert "taken is a file; give a folder" in said.err and "tracklets" not in said.out + said.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--protocol", "buptcampus-legacy", "--out", "OUT"], "leaves out incomplete batches of 64"),
        (["--protocol", "buptcampus-full", "--out", "OUT"], "no visible tracklet"),
        (["--out", "TAKEN"], "cannot write into"),
    ],
)
def test_what_would_stop_the_end_is_said_before_anything_is_embedded(
    words: list[str], options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("mine")
    places = {"OUT": str(tmp_path / "out"), "TAKEN": str(tmp_path / "taken" / "results")}
    assert cli.main([*words, *(places.get(option, option) for option in options)]) == 2
    said = capsys.readouterr()
    assert message in said.err and said.err.count("\n") == 1 and not said.out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["evaluate", "embed"])
def test_a_folder_that_takes_no_files_is_said_before_anything_is_embedded(
    command: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(**_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("dinogrl.checkpoints.TemporaryFile", refuse)
    out = tmp_path / "e.safetensors" if command == "embed" else tmp_path
    assert cli.main([command, *words[1:], "--out", str(out)]) == 2
    said = capsys.readouterr()
    assert said.err == f"error: cannot write into {tmp_path}: Read-only file system; give another --out\n" and not said.out


@pytest.mark.parametrize(("options", "length"), [([], 6), (["--protocol", "folder"], 6), (["--protocol", "regdb"], 1)])
def test_clips_that_are_not_as_long_as_the_protocols_are_said(
    options: list[str], length: int, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*words, *options, "--out", str(tmp_path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert ("clips of 3 frames, as the model's recipe has them: the protocol's have 6" in shown) == (length == 6)


def test_one_frame_is_a_frame(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*words, "--out", str(tmp_path)]) == 0
    say(score_table(read_metrics(tmp_path / "metrics.json").model_copy(update={"frames_per_clip": 1})))
    assert "clips of 1 frame, as" in " ".join(capsys.readouterr().out.split())


def test_a_test_in_which_nobody_can_be_found_is_an_error_and_no_row_of_noughts(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One camera alone: all that a query could find is struck out."""
    checkpoint = words[1]
    for person in ("1", "2"):
        for modality in ("visible", "infrared"):
            folder = tmp_path / "data" / person / "gate" / modality / "t"
            folder.mkdir(parents=True)
            write_image(folder / "1.jpg", np.zeros((64, 32, 3), np.uint8))
    assert cli.main(["evaluate", checkpoint, "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert "no query has a match in the gallery; it strikes out those in the query's own camera" in said.err and not said.out
    assert not (tmp_path / "out").exists()
