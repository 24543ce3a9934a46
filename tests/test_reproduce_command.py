"""``dinogrl reproduce`` from the command line: it runs what is missing, goes on with what was stopped, reuses what is done."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean, stdev

import pytest
import torch
from filelock import FileLock

from dinogrl.cli import main as cli
from dinogrl.errors import TrainingError
from dinogrl.evaluation.results import read_metrics
from dinogrl.reproduce import carry_out
from dinogrl.reproduce.outcome import as_latex, fill
from dinogrl.reproduce.plan import Settings
from dinogrl.reproduce.reproduce import Reproduction, prepare
from tiny_recipe import TINY

MINE = """
title: two rows
recipe: demo_dinogrl
rows:
  - {label: baseline, overrides: [model.gait=null, model.enhancement=null], paper: [10, 20, 30, 40]}
  - {label: "whole_method", note: "a|b & c"}
  - {label: masks, masks: no/such, paper: [1, 2, 3, 4]}
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(MINE)
    return path


def words(table: Path, world: Path, out: Path, *more: str) -> list[str]:
    return ["reproduce", str(table), *TINY, "--data", str(world), "--out", str(out), *more]


def planned(table: Path, world: Path, out: Path, *more: str) -> Reproduction:
    return prepare([str(table)], world, Settings(out, overrides=(*TINY, *more)))


def losses(log: Path) -> list[float]:
    with log.open(newline="") as file:
        return [float(row["total"]) for row in csv.DictReader(file)]


def test_a_table_is_filled_in_and_what_is_done_is_reused(
    table: Path, tiny_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert cli.main(words(table, tiny_world, out, "--seeds", "2")) == 0
    shown = capsys.readouterr().out
    assert "whole_method" in shown and "mine.tex" in shown
    folders = sorted(out.glob("demo_dinogrl-*-seed*"))
    assert len(folders) == 4 and all((folder / "metrics.json").is_file() for folder in folders)
    assert not list(out.glob("*/checkpoint.safetensors")), "where a finished run stood is of no use"

    with (out / "mine.csv").open(newline="") as file:
        rows = {row["label"]: row for row in csv.DictReader(file)}
    of_baseline = [folder for folder in folders if "gait: null" in (folder / "recipe.yaml").read_text()]
    measured = [read_metrics(folder / "metrics.json").directions["visible_to_infrared"].mAP * 100 for folder in of_baseline]
    assert len(measured) == 2
    assert float(rows["baseline"]["visible_to_infrared_mAP_mean"]) == pytest.approx(mean(measured), abs=1e-3)
    assert float(rows["baseline"]["visible_to_infrared_mAP_std"]) == pytest.approx(stdev(measured), abs=1e-3)
    assert rows["baseline"]["paper_visible_to_infrared_mAP"] == "40.0" and rows["masks"]["seeds"] == "0"
    text = (out / "mine.md").read_text()
    assert f"{mean(measured):.1f} ± {stdev(measured):.1f}" in text and "a\\|b & c" in text and "no masks at" in text
    assert "another dataset" in text, "simulated people are not the paper's"
    both = {
        (folder in of_baseline, read_metrics(folder / "metrics.json").directions[name].mAP, folder.name[-1])
        for folder in folders
        for name in ("visible_to_infrared", "infrared_to_visible")
    }
    less = [sum(50 * (1 if mine else -1) * mAP for mine, mAP, at in both if at == seed) for seed in "12"]
    assert f"| baseline | {less[0]:+.1f} | {less[1]:+.1f} | {mean(less):.1f} ± {stdev(less):.1f} |" in text
    assert text.count("dinogrl train demo_dinogrl") == 4 and "dinogrl reproduce" in text
    assert r"whole\_method" in (out / "mine.tex").read_text()

    before = {path: path.stat().st_mtime_ns for path in out.glob("*/*.safetensors")}
    assert cli.main(words(table, tiny_world, out, "--seeds", "2")) == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob("*/*.safetensors")} == before, "nothing was run again"
    assert "train" not in capsys.readouterr().err

    (tmp_path / "other.yaml").write_text("title: t\nrecipe: demo_dinogrl\nrows: [{label: another name for it}]\n")
    assert cli.main(words(tmp_path / "other.yaml", tiny_world, out)) == 0
    assert sorted(out.glob("demo_dinogrl-*-seed*")) == folders, "an equal row of another table is the same run"


def test_dry_run_says_what_is_to_do_and_writes_nothing(
    table: Path, tiny_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert cli.main(words(table, tiny_world, out, "--dry-run", "--seconds-a-step", "3600", "--epochs", "3")) == 0
    shown = capsys.readouterr().out
    assert not out.exists()
    assert "2 runs, 0 done; 12 h 00 min" in shown and "missing" in shown and "(assumed)" in shown
    assert cli.main(words(table, tiny_world, out)) == 0
    capsys.readouterr()
    assert cli.main(words(table, tiny_world, out, "--dry-run")) == 0
    assert "2 runs, 2 done; 0 min" in capsys.readouterr().out
    assert cli.main(words(table, tiny_world, out, "--dry-run", "--seeds", "2")) == 0
    shown = capsys.readouterr().out
    assert "4 runs, 2 done" in shown and "(measured)" in shown and "(measured on others)" in shown


def done_and_begun(out: Path) -> tuple[Path, Path] | None:
    """Folders of a run that has its scores and of another that stands at a checkpoint, as soon as there are both."""
    done = {path.parent for path in out.glob("*/metrics.json")}
    begun = {path.parent for path in out.glob("*/checkpoint.safetensors")} - done
    return (done.pop(), begun.pop()) if done and begun else None


def test_a_killed_reproduce_goes_on_where_it_was(table: Path, tiny_world: Path, tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    more = ("training.steps_per_epoch=3", "training.epochs=8")
    command = [sys.executable, "-m", "dinogrl", *words(table, tiny_world, killed, *more)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}  # as here: sums are to be the same
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (both := done_and_begun(killed)):
        assert time.monotonic() < deadline and process.poll() is None, "two runs were to be begun"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done, stopped = both
    steps, finished = len(losses(stopped / "log.csv")), (done / "model.safetensors").stat().st_mtime_ns
    assert 0 < steps < 24 and not (stopped / "metrics.json").exists()

    assert cli.main(words(table, tiny_world, killed, *more)) == 0
    assert (done / "model.safetensors").stat().st_mtime_ns == finished, "the finished run is left as it is"
    resumed = losses(stopped / "log.csv")
    assert len(resumed) == 24
    (never_stopped,) = [run for run in planned(table, tiny_world, whole, *more).runs if run.folder.name == stopped.name]
    carry_out.carry_out([never_stopped], tiny_world, lambda *_: None)
    assert resumed == pytest.approx(losses(whole / stopped.name / "log.csv"), rel=1e-3)


def test_a_run_begun_under_another_name_goes_on(tiny_world: Path, tmp_path: Path, table: Path) -> None:
    (tmp_path / "other.yaml").write_text("title: t\nrecipe: demo_dinogrl\nrows: [{label: another name for it}]\n")
    out = tmp_path / "out"
    first = planned(table, tiny_world, out).runs[1]

    class Stop(Exception):
        pass

    def stop(stage: str, done: int, total: int, word: str) -> None:
        if stage.startswith("evaluate"):
            raise Stop

    with pytest.raises(Stop):
        carry_out.carry_out([first], tiny_world, stop)
    (first.folder / "model.safetensors").unlink()  # as if it had been stopped before its end
    assert cli.main(words(tmp_path / "other.yaml", tiny_world, out)) == 0
    metrics = json.loads((first.folder / "metrics.json").read_text())
    assert metrics["model"] == "mine whole_method"


def test_a_run_that_another_process_is_busy_with_is_waited_for(
    table: Path, tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(table, tiny_world, tmp_path / "out")
    busy, other = plan.runs
    busy.folder.mkdir(parents=True)
    lock = FileLock(busy.folder / ".lock")
    lock.acquire()
    finished: list[bool] = []

    def other_process_ends(seconds: float) -> None:
        finished.append(carry_out.result_of(other) is not None)
        lock.release()

    monkeypatch.setattr(carry_out.time, "sleep", other_process_ends)
    assert carry_out.carry_out(plan.runs, tiny_world, lambda *_: None) == {}
    assert finished == [True], "the others are done first"
    assert carry_out.result_of(busy) is not None


def test_a_run_that_breaks_down_does_not_stop_the_others(
    table: Path, tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = carry_out.train

    def train(recipe, *arguments, **options):  # type: ignore[no-untyped-def]
        if recipe.model.gait is None:
            raise TrainingError("the loss is not finite at epoch 0")
        return real(recipe, *arguments, **options)

    monkeypatch.setattr(carry_out, "train", train)
    out = tmp_path / "out"
    assert cli.main(words(table, tiny_world, out)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "1 run(s) broke down" in error and "not finite" in error
    text = (out / "mine.md").read_text()
    assert "seed 1 failed: the loss is not finite" in text and text.count("1/1") == 1


def test_published_rows_stand_above_our_own_and_a_figure_is_drawn(tiny_world: Path, tmp_path: Path) -> None:
    common = Settings(tmp_path, recipe="demo_dinogrl", overrides=tuple(TINY))
    plan = prepare(["table1", "figure4"], tiny_world, common)
    run = plan.lines["table1"][0].runs[0]
    carry_out.carry_out([run], tiny_world, lambda *_: None)
    plan.write()
    rows = [line.split("|")[1].strip() for line in (tmp_path / "table1.md").read_text().splitlines() if line.startswith("| ")]
    assert any(row.startswith("MITML") for row in rows) and rows[-1] == "DinoGRL"
    assert sum(row.startswith("DinoGRL") for row in rows) == 1
    sweep = (tmp_path / "figure4.svg").read_text(encoding="utf-8")
    assert "objective.mask" in sweep and "objective.diversity" in sweep
    assert (tmp_path / "figure4.png").stat().st_size > 1000 and (tmp_path / "figure4.pdf").is_file()
    filled = fill(plan.lines["figure4"])
    assert sum(row.done for row in filled) == 3, "the paper's own values are the run of table 1"
    assert r"$\lambda$1" in as_latex("t", [], filled)
    signs = r"% a\_b 50\% \textasciicircum{}2 \textasciitilde{}3 \textbackslash{}c"
    assert as_latex(r"a_b 50% ^2 ~3 \c", [], []).splitlines()[0] == signs


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        (["tabel3"], "did you mean 'table3'"),
        (["objective.margin=1"], "name what to reproduce"),
        (["table3", "objective.margn=1"], "did you mean 'margin'"),
        (["table3", "--recipe", "basline"], "did you mean 'baseline'"),
        (["absent.yaml"], "absent.yaml"),
        (["table3", "--data", "nowhere"], "nowhere"),
        (["table3", "--seeds", "0"], "seeds"),
        (["table9", "model.pooling.stripes=[1,2]"], "not among pooling.stripes"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    given: list[str],
    hint: str,
    tiny_world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    data = [] if "--data" in given else ["--data", str(tiny_world)]
    assert cli.main(["reproduce", *given, *data]) == 2
    error = capsys.readouterr().err.strip()
    assert hint in error and len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())
