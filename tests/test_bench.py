"""The benchmark measures what it says: both sides compute the same, each in a process of its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import literal
from dinogrl.cli.main import main
from dinogrl.distances import mean_part_distance
from dinogrl.errors import DinogrlError
from dinogrl.reproduce.bench import Bench, Reading, Row, write_results
from dinogrl.reproduce.bench_stages import STAGES, Setting
from dinogrl.reproduce.ceilings import Ceilings, best_seconds

CPU = torch.device("cpu")
CEILINGS = Ceilings(float32=1e11, bfloat16=2e11, copy=1e10)


def test_literal_distances_are_the_same() -> None:
    query, gallery = np.random.default_rng(0).standard_normal((2, 5, 3, 8)).astype(np.float32)
    theirs = literal.mean_part_distance(torch.from_numpy(query), torch.from_numpy(gallery))
    np.testing.assert_allclose(mean_part_distance(query, gallery), theirs, rtol=1e-4)


def test_a_row_is_measured_in_a_process_of_its_own() -> None:
    (row,) = Bench(("distance",), CPU, threads=1, repetitions=1).rows(CEILINGS)
    assert row.literal is not None and row.gain == row.ours.rate / row.literal.rate > 0
    assert row.share == row.ours.flops / 1e11 > 0
    assert min(row.ours.memory, row.literal.memory) > 2**26


def test_without_the_literal_file_its_columns_stay_empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MALLOC_CONF", "narenas:1")
    bench = Bench(("decode",), CPU, threads=1, repetitions=1, literal=tmp_path / "none.py")
    rows = list(bench.rows(CEILINGS))
    assert [row.literal for row in rows] == [None] and rows[0].gain is None and rows[0].share is None
    write_results(tmp_path / "bench.json", bench, CEILINGS, rows)
    written = json.loads((tmp_path / "bench.json").read_text())
    assert written["rows"][0]["ours"]["rate"] == rows[0].ours.rate and written["ceilings"]["bfloat16"] == 2e11
    assert {"date", "machine", "versions"} <= written.keys() and written["allocation"]["MALLOC_CONF"] == "narenas:1"


def test_a_stage_that_dies_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "literal.py"
    broken.write_text("raise SystemExit(3)\n")
    with pytest.raises(DinogrlError, match=r"distance \(literal\).*exit code"):
        list(Bench(("distance",), CPU, threads=1, repetitions=1, literal=broken).rows(CEILINGS))


def test_the_number_of_clips_is_even(capsys: pytest.CaptureFixture[str]) -> None:
    for clips in ("-2", "0", "3"):
        assert main(["bench", "embedding", "--clips", clips]) == 2
        assert "give an even number" in capsys.readouterr().err


def test_so_many_clips_go_through_the_network_as_are_asked_for() -> None:
    few, many = (STAGES["resnet"].ours(Setting(CPU, False, clips=clips)) for clips in (2, 6))
    assert (few.units, many.units) == (12, 36) and many.flop == 3 * few.flop > 0


def test_an_unknown_stage_lists_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "embeding"]) == 2
    assert "embedding, embedding-again, training" in capsys.readouterr().err


def test_best_of_several_leaves_the_first_call_out() -> None:
    calls: list[int] = []
    best_seconds(lambda: calls.append(1), CPU, repetitions=3)
    assert len(calls) == 4


def test_shares_and_gains() -> None:
    row = Row("training", "frames", "bfloat16", Reading(6.0, 1e11, 100), Reading(2.0, 0.0, 400), ceiling=2e11)
    assert (row.gain, row.share, row.memory_share) == (3.0, 0.5, 0.25)
    assert not Setting(CPU, False).autocast()._enabled
