"""The mean over a dataset's trials, and what must not be averaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dinogrl.cli import main as cli
from dinogrl.errors import DataError
from dinogrl.evaluation.results import Metrics, read_metrics
from dinogrl.evaluation.trials import RATES, mean_metrics


def a_run(trial: int | None, rate: float = 0.5, **changes: object) -> Metrics:
    directions = {
        name: {**dict.fromkeys(RATES, rate + shift), "queries": 2060, "gallery": 2060, "identities": 206}
        for name, shift in (("infrared_to_visible", 0.0), ("visible_to_infrared", 0.1))
    }
    values = {
        "dataset": "regdb",
        "protocol": "regdb",
        "model": "dinogrl_image",
        "directions": directions,
        "frames_per_clip": 1,
        "options": {} if trial is None else {"trial": trial},
    }
    return Metrics.model_validate({**values, **changes})


def test_rates_are_means_and_the_result_says_over_how_many() -> None:
    mean = mean_metrics({f"run{trial}": a_run(trial, 0.1 * trial) for trial in range(1, 6)})
    assert mean.options == {"trials": 5}
    for name, expected in (("infrared_to_visible", 0.3), ("visible_to_infrared", 0.4)):
        assert all(getattr(mean.directions[name], rate) == pytest.approx(expected) for rate in RATES)
        assert (mean.directions[name].queries, mean.directions[name].gallery, mean.directions[name].identities) == (2060, 2060, 206)
    assert (mean.dataset, mean.protocol, mean.model) == ("regdb", "regdb", "dinogrl_image")


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([a_run(1)], "two runs at least, 1 given"),
        ([a_run(1), a_run(1)], "a and b are both of trial 1"),
        ([a_run(1), a_run(2, model="baseline_image")], "model is 'dinogrl_image' in a, 'baseline_image' in b"),
        ([a_run(1), a_run(2, dataset="simulated (regdb layout)")], "dataset is 'regdb' in a"),
        ([a_run(1), a_run(2, options={"trial": 2, "flip": True})], "not scored with the same options"),
        ([a_run(None, dataset="llcm"), a_run(None, dataset="llcm")], "a names no trial: llcm has one split"),
    ],
)
def test_what_must_not_be_averaged(runs: list[Metrics], message: str) -> None:
    with pytest.raises(DataError, match=message.replace("(", r"\(").replace(")", r"\)")):
        mean_metrics(dict(zip("abc", runs)))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for trial in (1, 2):
        folder = tmp_path / f"run{trial}"
        folder.mkdir()
        (folder / "metrics.json").write_text(a_run(trial, 0.2 * trial).model_dump_json())
    runs = [str(tmp_path / "run1"), str(tmp_path / "run2")]
    assert cli.main(["average", *runs, "--json", str(tmp_path / "mean.json")]) == 0
    shown = capsys.readouterr().out
    assert "regdb" in shown and "30.0" in shown and "40.0" in shown
    assert json.loads((tmp_path / "mean.json").read_text())["options"] == {"trials": 2}
    assert read_metrics(tmp_path / "mean.json").directions["infrared_to_visible"].rank1 == pytest.approx(0.3)
    for others, said in (([str(tmp_path / "nowhere")], "nowhere"), ([runs[0] + "/"], "run1 is given 2 times")):
        assert cli.main(["average", runs[0], *others]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert said in line


def test_missing_scores_are_told_with_the_command_that_makes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"

    def said(command: str) -> str:
        assert cli.main([command, str(folder)]) == 2
        error = capsys.readouterr().err.strip()
        assert len(error.splitlines()) == 1 and "Errno" not in error
        return error

    for command in ("report", "average"):
        assert "there is no run folder" in said(command)
    folder.mkdir()
    assert "no metrics.json" in said("report")
    (folder / "recipe.yaml").touch()
    assert f"--out {folder} --resume" in said("report")
    (folder / "model.safetensors").touch()
    for command in ("report", "average"):
        assert said(command).endswith(f"was never evaluated (no metrics.json in it); first: dinogrl evaluate {folder} --data DIR")
