"""Tables for papers: published rows beside one's own run."""

from __future__ import annotations

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dinogrl.errors import DataError, UnknownNameError
from dinogrl.evaluation.protocols import PROTOCOLS
from dinogrl.evaluation.results import DirectionMetrics, Metrics
from dinogrl.reports.tables import (
    HEAD,
    PUBLISHED,
    TABLE_FORMATS,
    Row,
    as_csv,
    as_latex,
    as_markdown,
    comparison,
    own_row,
    published_rows,
)

RATES = ("i2v_rank1", "i2v_mAP", "v2i_rank1", "v2i_mAP")
COLUMNS = 8


def a_run(rank1: float, protocol: str = "hitsz-vcm", people: int = 0) -> Metrics:
    rates = {"rank1": rank1, "rank5": 0.9, "rank10": 0.95, "rank20": 0.98, "mAP": 0.5, "mINP": 0.3}
    dataset = "buptcampus" if protocol.startswith("bupt") else protocol
    people = people or (1076 if dataset == "buptcampus" else 427)
    asking = people // 2 if dataset == "buptcampus" else people  # there each person is asked for once, by day or by night
    direction = DirectionMetrics(**rates, queries=10, gallery=20, identities=asking)
    directions = {"infrared_to_visible": direction, "visible_to_infrared": direction}
    return Metrics(dataset=dataset, protocol=protocol, model="my_run", directions=directions, frames_per_clip=6, people=people)


def rows_of(*runs: Metrics) -> list[Row]:
    return comparison({f"my_run{i or ''}": run for i, run in enumerate(runs)})


def read_latex(text: str) -> list[list[str]]:
    """A strict reader of the few commands a table may hold: cells of every line, with braces, escapes and rules checked."""
    begin, end = r"\begin{tabular}{llllcccc}", r"\end{tabular}"
    assert text.count(begin) == text.count(end) == 1 and text.endswith(end + "\n")
    body = text[text.index(begin) + len(begin) : text.index(end)]
    rules, lines = [], []
    for raw in body.strip().splitlines():
        line = re.sub(r"(?<!\\)%.*", "", raw).rstrip()
        if line in {r"\toprule", r"\midrule", r"\bottomrule"}:
            rules.append(line)
            continue
        assert line.endswith(r"\\"), f"every line of cells ends in two backslashes: {raw}"
        line = line.removesuffix(r"\\")
        commands = r"\\(?:[&%$#_{}]|textbf(?=\{)|text(?:backslash|asciitilde|asciicircum|less|greater)\{\}|rightarrow\b)"
        bare = re.sub(commands, "", line)
        assert not re.search(r"[\\%#_^~<>]", bare), f"a sign that LaTeX would take for a command: {raw}"
        assert bare.count("{") == bare.count("}") and bare.count("$") % 2 == 0
        cells = [cell.strip() for cell in re.split(r"(?<!\\)&", line)]
        assert len(cells) == COLUMNS, raw
        lines.append(cells)
    assert rules[0] == r"\toprule" and rules[-1] == r"\bottomrule" and set(rules[1:-1]) == {r"\midrule"}
    return lines


def test_every_published_row_is_whole() -> None:
    with PUBLISHED.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert None not in row and None not in row.values(), row
        assert row["dataset"] and row["method"] and row["source"] and row["protocol"]
        assert row["protocol"] in PROTOCOLS or row["protocol"] in {"unknown", "one-frame tracklets dropped"}
        for key in RATES:
            assert not row[key] or 25 < float(row[key]) < 100
    for dataset in ("hitsz-vcm", "buptcampus"):
        methods = {row["method"] for row in rows if row["dataset"] == dataset}
        assert len(methods) >= 17 and "DinoGRL" in methods, "sixteen others, and DinoGRL"
    keys = [(row["dataset"], row["method"], row["frames"]) for row in rows]
    assert len(set(keys)) == len(keys), "no row twice"


def test_rows_that_the_paper_gives() -> None:
    rows = {
        (row.dataset, row.cells[0], row.cells[2]): row.cells[4:] for d in ("hitsz-vcm", "buptcampus") for row in published_rows(d)
    }
    assert rows["hitsz-vcm", "DinoGRL", "6"] == ("72.5", "61.1", "76.1", "62.3")
    assert rows["buptcampus", "DinoGRL", "10"] == ("65.0", "62.2", "70.3", "64.1")
    assert rows["hitsz-vcm", "LbA", ""] == ("46.4", "30.7", "49.3", "32.4")
    assert rows["buptcampus", "DEEN", ""] == ("49.8", "48.6", "53.7", "50.4"), "infrared queries first"


def test_rows_of_another_protocol_compete_with_nobody() -> None:
    rows = rows_of(a_run(0.7, "buptcampus-camera"))
    same = [row for row in rows if row.comparable]
    assert [row.cells[0] for row in same] == ["M3-ReID", "my_run (ours)"] and len(rows) == len(published_rows("buptcampus")) + 1
    assert rows[0] is same[0] and rows[-1] is same[-1], "comparable rows first, then the others, then ours"
    markdown = as_markdown(rows)
    assert "**70.0**" in markdown and "**69.73**" not in markdown and "**70.3**" not in markdown
    assert [row.comparable for row in rows_of(a_run(0.7, "buptcampus-full"), a_run(0.9, "buptcampus-camera"))][-2:] == [True, False]


def test_a_run_stands_in_the_columns_of_its_directions() -> None:
    run = a_run(0.7)
    by_day = run.directions["visible_to_infrared"].model_copy(update={"rank1": 0.6, "mAP": 0.4})
    run = run.model_copy(update={"directions": {**run.directions, "visible_to_infrared": by_day}})
    assert HEAD[4:] == ("I→V R1", "I→V mAP", "V→I R1", "V→I mAP")
    assert own_row("r", run).cells[4:] == (
        "70.0",
        "50.0",
        "60.0",
        "40.0",
    )


def test_runs_of_several_datasets_are_refused() -> None:
    with pytest.raises(DataError, match=r"one dataset, these runs are on 2 \(buptcampus, hitsz-vcm\)"):
        rows_of(a_run(0.7), a_run(0.7, "buptcampus-full"))


def test_another_test_set_is_said_to_be_one() -> None:
    for protocol in ("hitsz-vcm", "buptcampus-legacy", "buptcampus-full"):
        assert own_row("r", a_run(0.7, protocol)).source == "this run"
    assert own_row("r", a_run(0.7).model_copy(update={"people": 0})).source == "this run", "an older result"
    small = a_run(0.999, people=20)
    assert "not comparable" in as_markdown([own_row("r", small)])
    assert "**99.9**" not in as_markdown(rows_of(small)), "and is never the best"
    assert "(20 people): not comparable" in as_latex([own_row("r", small)])
    simulated = a_run(0.999).model_copy(update={"dataset": "simulated (hitsz-vcm layout)"})
    assert "simulated (hitsz-vcm layout), 427 people): not comparable" in as_markdown([own_row("r", simulated)])
    assert len(rows_of(simulated)) == len(published_rows("hitsz-vcm")) + 1 and "**99.9**" not in as_markdown(rows_of(simulated))
    assert own_row("r", a_run(0.7, "folder", people=3)).source == "this run", "no published test set to differ from"


def test_formats() -> None:
    rows = rows_of(a_run(0.991))
    markdown = as_markdown(rows)
    assert "**my_run (ours)**" in markdown and "**99.1**" in markdown and "**64.7**" in markdown
    assert len({line.count("|") for line in markdown.splitlines()}) == 1, "as many cells in every line"
    latex = as_latex(rows)
    cells = read_latex(latex)
    assert len(cells) == len(rows) + 1 and cells[-1][0] == r"my\_run (ours)" and cells[-1][4] == r"\textbf{99.1}"
    assert all(f"% {row.source}" in latex for row in rows), "each row says where it was read"
    assert latex.count(r"\midrule") == 2 and as_latex(rows_of(a_run(0.7, "buptcampus-full"))).count(r"\midrule") == 2
    assert as_latex(rows_of(a_run(0.7, "buptcampus-legacy"))).count(r"\midrule") == 3, "other protocols under a line of their own"
    read = list(csv.reader(io.StringIO(as_csv(rows))))
    assert len(read) == len(rows) + 1 and {len(line) for line in read} == {9}
    with pytest.raises(UnknownNameError, match="latex"):
        TABLE_FORMATS["latx"]


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_name_makes_a_table_that_can_be_read(name: str, source: str) -> None:
    row = Row("d", (name, "", "6", "p", "1.0", "2.0", "3.0", "4.0"), source, ours=True)
    (_, cells) = read_latex(as_latex([row]))
    assert cells[4:] == [rf"\textbf{{{value}.0}}" for value in range(1, 5)]
    assert len(as_markdown([row]).splitlines()) == 3
    _, line = csv.reader(io.StringIO(as_csv([row])))
    assert line[0] == " ".join(name.split()) and line[-1] == " ".join(source.split())
