"""Tables for papers: your runs beside published numbers, as Markdown, LaTeX or CSV.

The published rows are in ``published.csv``, each with the protocol it was scored under and where the number was read.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dinogrl.catalog import Catalog
from dinogrl.evaluation.results import Metrics

PUBLISHED = Path(__file__).with_name("published.csv")
HEAD = ("Method", "Venue", "T", "Protocol", "I→V R1", "I→V mAP", "V→I R1", "V→I mAP")
RATES = slice(4, 8)  # columns that are compared
PEOPLE = {"hitsz-vcm": 427, "buptcampus": 1076}  # identities of the published test sets


@dataclass(frozen=True)
class Row:
    """One line: rates in per cent, as text, empty where unknown. ``ours`` marks a run of the reader's own; ``comparable`` is False
    where it was scored on another test set than the published one: a simulated or shortened dataset lies in the same layout."""

    dataset: str
    cells: tuple[str, ...]
    source: str
    ours: bool = False
    comparable: bool = True


def published_rows(dataset: str, protocol: str | None = None) -> list[Row]:
    """Published results on a dataset, all of them or those scored under one protocol."""
    with PUBLISHED.open(newline="", encoding="utf-8") as file:
        lines = [line for line in csv.DictReader(file) if line["dataset"] == dataset and protocol in (None, line["protocol"])]
    names = ("method", "venue", "frames", "protocol", "i2v_rank1", "i2v_mAP", "v2i_rank1", "v2i_mAP")
    return [Row(dataset, tuple(line[name] for name in names), line["source"]) for line in lines]


def own_row(metrics: Metrics) -> Row:
    """The line of a run; its source says so where it was scored on another test set than the published one."""
    rates = [
        f"{100 * getattr(metrics.directions[direction], key):.1f}" if direction in metrics.directions else ""
        for direction in ("infrared_to_visible", "visible_to_infrared")
        for key in ("rank1", "mAP")
    ]
    cells = (f"{metrics.model} (ours)", "", str(metrics.frames_per_clip), metrics.protocol, *rates)
    people = max(direction.identities for direction in metrics.directions.values())
    same = people == PEOPLE.get(metrics.dataset)
    source = "this run" if same else f"this run, on another test set ({people} people): not comparable"
    return Row(metrics.dataset, cells, source, ours=True, comparable=same)


def comparison(runs: Sequence[Metrics], same_protocol: bool = True) -> list[Row]:
    """Published rows of the first run's dataset, then the runs. Rows of other protocols are not comparable and are left out,
    unless ``same_protocol`` is False."""
    protocol = runs[0].protocol if same_protocol else None
    return [*published_rows(runs[0].dataset, protocol), *(own_row(run) for run in runs)]


def as_markdown(rows: Sequence[Row]) -> str:
    """A Markdown table; the best of each column and the reader's own runs are bold."""
    best = _best(rows)
    lines = ["| " + " | ".join((*HEAD, "Source")) + " |", "|" + "---|" * 4 + "---:|" * 4 + "---|"]
    for row in rows:
        cells = [
            f"**{cell}**" if cell and (cell in best.get(i, ()) or (row.ours and i == 0)) else cell
            for i, cell in enumerate(row.cells)
        ]
        lines.append("| " + " | ".join((*cells, row.source)) + " |")
    return "\n".join(lines) + "\n"


def as_latex(rows: Sequence[Row]) -> str:
    """A LaTeX tabular (booktabs)."""
    best = _best(rows)
    head = " & ".join(name.replace("→", r"$\rightarrow$") for name in HEAD)
    lines = [r"\begin{tabular}{llllcccc}", r"\toprule", head + r" \\", r"\midrule"]
    published = [row for row in rows if not row.ours]
    for i, row in enumerate(rows):
        if row.ours and published and i == len(published):
            lines.append(r"\midrule")
        cells = [
            rf"\textbf{{{cell}}}" if cell and cell in best.get(j, ()) else _latex_text(cell) for j, cell in enumerate(row.cells)
        ]
        note = f"  % {row.source}" if row.ours else ""
        lines.append(" & ".join(cells) + r" \\" + note)
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def as_csv(rows: Sequence[Row]) -> str:
    """Comma-separated values with the source of each row."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow((*HEAD, "Source"))
    writer.writerows((*row.cells, row.source) for row in rows)
    return buffer.getvalue()


TABLE_FORMATS: Catalog[Callable[[Sequence[Row]], str]] = Catalog(
    "table format", {"markdown": as_markdown, "latex": as_latex, "csv": as_csv}
)


def _best(rows: Sequence[Row]) -> dict[int, set[str]]:
    """Column -> the texts that hold its largest number."""
    found = {}
    for column in range(RATES.start, RATES.stop):
        values = {row.cells[column]: float(row.cells[column]) for row in rows if row.cells[column] and row.comparable}
        if values:
            found[column] = {cell for cell, value in values.items() if value == max(values.values())}
    return found


def _latex_text(cell: str) -> str:
    for sign in "\\&%$#_{}":
        cell = cell.replace(sign, "\\" + sign) if sign != "\\" else cell.replace(sign, r"\textbackslash ")
    return cell
