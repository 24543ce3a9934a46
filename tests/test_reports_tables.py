"""Tables for papers: published rows beside one's own run."""

from __future__ import annotations

import csv
import io

import pytest

from dinogrl.errors import UnknownNameError
from dinogrl.evaluation.protocols import PROTOCOLS
from dinogrl.evaluation.results import DirectionMetrics, Metrics
from dinogrl.reports.tables import PUBLISHED, TABLE_FORMATS, as_csv, as_latex, as_markdown, comparison, own_row, published_rows


def a_run(rank1: float, protocol: str = "hitsz-vcm", people: int = 427) -> Metrics:
    rates = {"rank1": rank1, "rank5": 0.9, "rank10": 0.95, "rank20": 0.98, "mAP": 0.5, "mINP": 0.3}
    direction = DirectionMetrics(**rates, queries=10, gallery=20, identities=people)
    directions = {"infrared_to_visible": direction, "visible_to_infrared": direction}
    return Metrics(dataset=protocol.split("-l")[0], protocol=protocol, model="my_run", directions=directions, frames_per_clip=6)


def test_every_published_row_is_whole() -> None:
    with PUBLISHED.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert None not in row and None not in row.values(), row
        assert row["dataset"] and row["method"] and row["source"] and row["protocol"]
        assert row["protocol"] in PROTOCOLS or row["protocol"] in {"unknown", "one-frame tracklets dropped"}
        for key in ("i2v_rank1", "i2v_mAP", "v2i_rank1", "v2i_mAP"):
            assert not row[key] or 30 < float(row[key]) < 100
    paper = [r for r in published_rows("hitsz-vcm") if r.cells[0] == "DinoGRL"]
    assert paper[0].cells[4:] == ("72.5", "61.1", "76.1", "62.3")


def test_only_the_same_protocol_is_compared() -> None:
    rows = comparison([a_run(0.7, "buptcampus-legacy")])
    assert {row.cells[3] for row in rows} == {"buptcampus-legacy"} and rows[-1].ours
    assert len(comparison([a_run(0.7, "buptcampus-legacy")], same_protocol=False)) > len(rows)


def test_another_test_set_is_said_to_be_one() -> None:
    assert own_row(a_run(0.7)).source == "this run"
    assert "not comparable" in as_markdown([own_row(a_run(0.7, people=20))])
    assert "**99.9**" not in as_markdown(comparison([a_run(0.999, people=20)])), "and is never the best"
    assert "(20 people): not comparable" in as_latex([own_row(a_run(0.7, people=20))])


def test_formats() -> None:
    rows = comparison([a_run(0.991)])
    markdown = as_markdown(rows)
    assert "**my_run (ours)**" in markdown and "**99.1**" in markdown and "**64.7**" in markdown
    assert len({line.count("|") for line in markdown.splitlines()}) == 1, "as many cells in every line"
    latex = as_latex(rows)
    assert r"\textbf{99.1}" in latex and r"my\_run (ours)" in latex and latex.count(r"\midrule") == 2
    columns = len("llllcccc")
    assert all(line.count(" & ") == columns - 1 for line in latex.splitlines() if r"\\" in line)
    read = list(csv.reader(io.StringIO(as_csv(rows))))
    assert len(read) == len(rows) + 1 and {len(line) for line in read} == {9}
    with pytest.raises(UnknownNameError, match="latex"):
        TABLE_FORMATS["latx"]
