"""Run folders as people have them: moved, cut off, half empty, of different tests, re-ranked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from dinogrl.checkpoints import write_atomically
from dinogrl.embedding.archive import load_embeddings, save_embeddings
from dinogrl.errors import DataError, DinogrlError
from dinogrl.evaluation import evaluate, write_metrics
from dinogrl.evaluation.rerank import KReciprocal, Reranker, TemporalKReciprocal
from dinogrl.records import Embeddings
from dinogrl.reports.page import write_page
from dinogrl.reports.run_folder import read_run, read_runs
from tiny_runs import make_frames, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("folders")
    return make_run(root / "dinogrl", "dinogrl", 1.9, make_frames(root / "frames"), True, steps=20)


def copy(run: Path, to: Path, *without: str) -> Path:
    shutil.copytree(run, to)
    for name in without:
        (to / name).unlink()
    return to


def both_sides(folder: Path, noise: float, seed: int) -> Embeddings:
    """All tracklets of a run, each vector a little off."""
    query, gallery = (load_embeddings(folder / f"{side}.safetensors") for side in ("query", "gallery"))
    random = np.random.default_rng(seed)
    parts = np.concatenate([query.parts, gallery.parts])
    labels = {
        name: np.concatenate([getattr(query, name), getattr(gallery, name)]) for name in ("identities", "cameras", "modalities")
    }
    names = [*query.tracklet_ids, *gallery.tracklet_ids]
    return Embeddings((parts + noise * random.standard_normal(parts.shape)).astype(np.float32), names, fingerprint="f", **labels)


def rerank(folder: Path, reranker: Reranker, **options: bool) -> float:
    """Score the run's embeddings again; the mean average precision of the first direction."""
    query, gallery = (load_embeddings(folder / f"{side}.safetensors") for side in ("query", "gallery"))
    made = evaluate(query, gallery, "hitsz-vcm", rerank=reranker)
    facts = {"dataset": "hitsz-vcm", "model": "dinogrl", "frames_per_clip": 6}
    write_metrics(folder / "metrics.json", made, **facts, options=options)
    return made.directions["infrared_to_visible"].scores.mAP


def page_of(tmp_path: Path, *runs: Path) -> str:
    return write_page(tmp_path / "report.html", list(runs), projection="pca").read_text(encoding="utf-8")


def test_scores_alone_make_a_page_that_says_what_is_missing(run: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "metrics.json").write_bytes((run / "metrics.json").read_bytes())
    text = page_of(tmp_path, bare)
    assert "Rank-1" in text and 'id="strips"' not in text and "difference" not in text
    assert "query.safetensors and gallery.safetensors missing" in text and "log.csv missing" in text
    assert "Before you read" not in page_of(tmp_path, run), "a whole run has nothing to say"


def test_temporal_reranking_is_made_anew(run: Path, tmp_path: Path) -> None:
    folder = copy(run, tmp_path / "temporal")
    halves = [both_sides(folder, 0.5, seed) for seed in (1, 2)]
    plain = read_run(run).metrics.directions["infrared_to_visible"].mAP
    expected = rerank(folder, TemporalKReciprocal(*halves), flip=True)
    assert abs(expected - plain) > 0.01, "it changes something"
    for name, half in zip(("first_half", "second_half"), halves, strict=True):
        save_embeddings(folder / f"{name}.safetensors", half)
    again = read_run(folder)
    assert again.evaluation is not None and again.remarks == []
    assert again.evaluation.directions["infrared_to_visible"].scores.mAP == pytest.approx(expected, abs=1e-6)
    assert again.name == "dinogrl + flip + temporal re-ranking"
    text = page_of(tmp_path, run, folder)
    assert text.count("dinogrl + flip + temporal re-ranking") > 10 and "rerank halves" in text

    (folder / "first_half.safetensors").unlink()
    before = read_run(folder)
    assert before.evaluation is not None and "those before re-ranking" in before.remarks[0]
    assert before.evaluation.directions["infrared_to_visible"].scores.mAP == pytest.approx(plain, abs=1e-6)


def test_k_reciprocal_reranking_is_made_anew(run: Path, tmp_path: Path) -> None:
    folder = copy(run, tmp_path / "reranked")
    expected = rerank(folder, KReciprocal(k1=8, k2=3))
    again = read_run(folder)
    assert again.evaluation is not None and again.remarks == [] and again.name == "dinogrl + k-reciprocal re-ranking"
    assert again.evaluation.directions["infrared_to_visible"].scores.mAP == pytest.approx(expected, abs=1e-6)


def test_embeddings_of_another_evaluation_are_noticed(run: Path, tmp_path: Path) -> None:
    folder = copy(run, tmp_path / "mixed")
    shutil.copy(make_run(tmp_path / "other", "other", 0.5, None, False) / "query.safetensors", folder / "query.safetensors")
    with pytest.raises(DataError, match=r"mixed cannot be ranked again: .* embed both with one model"):
        page_of(tmp_path, folder)
    shutil.copy(tmp_path / "other" / "gallery.safetensors", folder / "gallery.safetensors")
    assert "give other scores than its metrics.json" in page_of(tmp_path, folder)


def test_runs_of_one_name_are_told_apart(run: Path, tmp_path: Path) -> None:
    other = copy(run, tmp_path / "second")
    assert [r.name for r in read_runs([run, other])] == ["dinogrl (dinogrl)", "dinogrl (second)"]
    assert [r.name for r in read_runs([run, run, other])] == ["dinogrl (1)", "dinogrl (2)", "dinogrl (second)"]
    assert [r.index for r in read_runs([run, run, other])] == [0, 1, 2]
    assert page_of(tmp_path, run, run, other).count("dinogrl (second)") > 10


def test_runs_of_different_tests_are_not_subtracted(run: Path, tmp_path: Path) -> None:
    other = copy(run, tmp_path / "campus", "query.safetensors", "gallery.safetensors")
    metrics = json.loads((other / "metrics.json").read_text())
    metrics |= {"dataset": "buptcampus", "protocol": "buptcampus-camera", "model": "campus"}
    del metrics["directions"]["visible_to_infrared"]
    write_atomically(other / "metrics.json", json.dumps(metrics).encode())
    text = page_of(tmp_path, run, other)
    assert "not scored on the same test" in text and "difference</th>" not in text and "against" not in text
    assert text.count("48 queries of 12 people, 48 gallery tracklets") == 3, "two rows in one direction, one in the other"
    assert "difference</th>" in page_of(tmp_path, run, run)


def test_frames_are_found_where_a_moved_run_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "first").mkdir()
    monkeypatch.chdir(tmp_path / "first")
    make_run(Path("runs/dinogrl"), "dinogrl", 1.9, make_frames(Path("runs/frames")), False, steps=20)
    monkeypatch.chdir(tmp_path)
    assert read_run(Path("first/runs/dinogrl")).remarks == [], "from elsewhere"
    (tmp_path / "first" / "runs").rename(tmp_path / "moved")
    assert read_run(Path("moved/dinogrl")).remarks == [], "after a move"
    assert "no picture" not in page_of(tmp_path, Path("moved/dinogrl"))
    shutil.rmtree(tmp_path / "moved" / "frames")
    assert "frames lie no longer" in read_run(Path("moved/dinogrl")).remarks[0]


def test_one_query_makes_a_page(run: Path, tmp_path: Path) -> None:
    folder = copy(run, tmp_path / "one", "silhouettes.npz", "log.csv")
    query, gallery = (load_embeddings(folder / f"{side}.safetensors") for side in ("query", "gallery"))
    query, gallery = query.take(np.arange(1)), gallery.take(np.arange(1, 3))
    for name, side in (("query", query), ("gallery", gallery)):
        save_embeddings(folder / f"{name}.safetensors", side)
    write_metrics(
        folder / "metrics.json", evaluate(query, gallery, "hitsz-vcm"), dataset="hitsz-vcm", model="one", frames_per_clip=6
    )
    text = write_page(tmp_path / "report.html", [folder]).read_text()
    assert "1 queries of 1 people, 2 gallery tracklets" in text and 'id="silhouettes"' not in text
    assert "principal components (3 tracklets are too few for t-SNE)" in text


@pytest.mark.parametrize("name", ["query.safetensors", "gallery.safetensors", "silhouettes.npz"])
@pytest.mark.parametrize("left", [0, 7, 600, -40])
def test_files_that_were_cut_off_are_one_clear_line(run: Path, tmp_path: Path, name: str, left: int) -> None:
    folder = copy(run, tmp_path / "cut")
    (folder / name).write_bytes((folder / name).read_bytes()[:left])
    with pytest.raises(DinogrlError, match=name) as caught:
        page_of(tmp_path, folder)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report.html").exists(), "nothing half-written"


def test_bytes_turned_over_inside_are_one_clear_line(run: Path, tmp_path: Path) -> None:
    folder = copy(run, tmp_path / "rotten")
    content = bytearray((folder / "silhouettes.npz").read_bytes())
    content[200:260] = bytes(255 - value for value in content[200:260])
    (folder / "silhouettes.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"silhouettes\.npz is broken"):
        read_run(folder)
    np.savez(folder / "silhouettes.npz", frames=np.zeros((2, 1, 4, 4, 3)), modality=np.zeros(3), names=np.array(["a", "b"]))
    with pytest.raises(DataError, match="different lengths"):
        read_run(folder)


def test_a_place_that_takes_no_page_is_said_before_the_work(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dinogrl.reports.page.page", lambda *_: pytest.fail("began to draw"))
    with pytest.raises(DinogrlError, match="is a folder; give the name of a file in it"):
        write_page(tmp_path, [run])
    with pytest.raises(DinogrlError, match=r"log\.csv is a file; give a folder"):
        write_page(run / "log.csv" / "report.html", [run])


def test_bad_folders_are_one_clear_line(run: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least one run"):
        page_of(tmp_path)
    with pytest.raises(DataError, match="no run folder"):
        page_of(tmp_path, tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"is no run, but holds 1; give .*dinogrl"):
        page_of(tmp_path, run.parent)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"metrics\.json"):
        page_of(tmp_path, tmp_path / "empty")
    for name in ("recipe.yaml", "log.csv"):
        folder = copy(run, tmp_path / name.split(".")[0])
        (folder / name).write_bytes(b"\xff\xfe\x00 not text")
        with pytest.raises(DataError, match="no text"):
            read_run(folder)


def test_a_log_that_was_cut_off_is_read_up_to_there(run: Path, tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_bytes((run / "metrics.json").read_bytes())
    (tmp_path / "log.csv").write_text("epoch,step,learning_rate,total,seconds\n0,0,0.1,3.0,0.2\n0,1,0.1,2")
    assert read_run(tmp_path).log["total"].tolist() == [3.0]
    (tmp_path / "log.csv").write_text("epoch,step,learning_rate,total,seconds\n0,zero,0.1,3.0,0.2\n0,1,0.1,2,0.1\n")
    with pytest.raises(DataError, match=r"log\.csv"):
        read_run(tmp_path)
