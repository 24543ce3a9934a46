"""Tables for papers: your runs beside published numbers, as Markdown, LaTeX or CSV.

The published rows are in ``published.csv``, each with the protocol it was scored under and where the number was read.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dinogrl.catalog import Catalog
from dinogrl.errors import DataError
from dinogrl.evaluation.results import Metrics

PUBLISHED = Path(__file__).with_name("published.csv")
HEAD = ("Method", "Venue", "T", "Protocol", "I→V R1", "I→V mAP", "V→I R1", "V→I mAP")
RATES = slice(4, 8)  # columns that are compared
PEOPLE = {"hitsz-vcm": 427, "buptcampus": 1076, "sysu-mm01": 96, "regdb": 206, "llcm": 351}  # identities of the published test sets

_LATEX = str.maketrans(
    {
        **{sign: "\\" + sign for sign in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "→": r"$\rightarrow$",
    }
)


@dataclass(frozen=True)
class Row:
    """One line: rates in per cent, as text, empty where unknown. ``ours`` marks a run of the reader's own. ``comparable`` is False
    where the number stands for another question: another protocol than the run's, or another test set than the published one (a
    simulated or shortened dataset lies in the same layout)."""

    dataset: str
    cells: tuple[str, ...]
    source: str
    ours: bool = False
    comparable: bool = True


def published_rows(dataset: str, protocol: str | None = None) -> list[Row]:
    """Published results on a dataset: those scored under ``protocol`` first, the others after them as not comparable."""
    with PUBLISHED.open(newline="", encoding="utf-8") as file:
        lines = [line for line in csv.DictReader(file) if line["dataset"] == dataset]
    names = ("method", "venue", "frames", "protocol", "i2v_rank1", "i2v_mAP", "v2i_rank1", "v2i_mAP")
    rows = [
        Row(dataset, tuple(line[name] for name in names), line["source"], comparable=protocol in (None, line["protocol"]))
        for line in lines
    ]
    return sorted(rows, key=lambda row: not row.comparable)


def papers_of(dataset: str) -> str:
    """The published dataset that a result's dataset is, or whose layout it has: a simulated one names it in its title."""
    return next((name for name in PEOPLE if name in dataset), dataset)


def people_of(metrics: Metrics) -> int:
    """How many people the test set has; of results that do not say, how many ask in the direction in which most do."""
    return metrics.people or max(direction.identities for direction in metrics.directions.values())


def own_row(name: str, metrics: Metrics) -> Row:
    """The line of a run; its source says so where it was scored on another test set than the published one."""
    rates = [
        f"{100 * getattr(metrics.directions[direction], key):.1f}" if direction in metrics.directions else ""
        for direction in ("infrared_to_visible", "visible_to_infrared")
        for key in ("rank1", "mAP")
    ]
    cells = (f"{name} (ours)", "", str(metrics.frames_per_clip), metrics.protocol, *rates)
    people = people_of(metrics)
    papers = papers_of(metrics.dataset)
    same = metrics.dataset == papers and people == PEOPLE.get(papers, people)
    other = f"{people} people" if metrics.dataset == papers else f"{metrics.dataset}, {people} people"
    source = "this run" if same else f"this run, on another test set ({other}): not comparable"
    return Row(metrics.dataset, cells, source, ours=True, comparable=same)


def comparison(runs: Mapping[str, Metrics]) -> list[Row]:
    """All published rows of the runs' dataset, then the runs by name. Rows of another protocol than the first run's are at the end
    of the published ones, and compete with nobody. Raises :class:`DataError` for runs on several datasets."""
    datasets = sorted({metrics.dataset for metrics in runs.values()})
    if len(datasets) != 1:
        raise DataError(f"a table is about one dataset, these runs are on {len(datasets)} ({', '.join(datasets)}); give one's runs")
    protocol = next(iter(runs.values())).protocol
    own = [own_row(name, metrics) for name, metrics in runs.items()]
    own = [replace(row, comparable=row.comparable and row.cells[3] == protocol) for row in own]
    return [*published_rows(papers_of(datasets[0]), protocol), *own]


def as_markdown(rows: Sequence[Row]) -> str:
    """A Markdown table; the best of each column and the reader's own runs are bold."""
    best = _best(rows)
    lines = ["| " + " | ".join((*HEAD, "Source")) + " |", "|" + "---|" * 4 + "---:|" * 4 + "---|"]
    for row in rows:
        cells = [
            f"**{_markdown(cell)}**" if _is_best(row, i, best) or (row.ours and i == 0) else _markdown(cell)
            for i, cell in enumerate(row.cells)
        ]
        lines.append("| " + " | ".join((*cells, _markdown(row.source))) + " |")
    return "\n".join(lines) + "\n"


def as_latex(rows: Sequence[Row]) -> str:
    """A LaTeX tabular (needs the package booktabs); the source of each row stands behind it as a comment."""
    best = _best(rows)
    head = " & ".join(_latex(name) for name in HEAD)
    lines = [r"% \usepackage{booktabs}", r"\begin{tabular}{llllcccc}", r"\toprule", head + r" \\"]
    group = None
    for row in rows:
        if (row.ours, row.ours or row.comparable) != group:  # published and comparable, published under other protocols, ours
            group = (row.ours, row.ours or row.comparable)
            lines.append(r"\midrule")
        cells = [rf"\textbf{{{_latex(cell)}}}" if _is_best(row, i, best) else _latex(cell) for i, cell in enumerate(row.cells)]
        lines.append(" & ".join(cells) + r" \\" + f"  % {_line(row.source)}")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def as_csv(rows: Sequence[Row]) -> str:
    """Comma-separated values with the source of each row."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow((*HEAD, "Source"))
    writer.writerows([_line(cell) for cell in (*row.cells, row.source)] for row in rows)
    return buffer.getvalue()


TABLE_FORMATS: Catalog[Callable[[Sequence[Row]], str]] = Catalog(
    "table format", {"markdown": as_markdown, "latex": as_latex, "csv": as_csv}
)


def _best(rows: Sequence[Row]) -> dict[int, float]:
    """Column -> the largest number of the rows that can be compared."""
    found = {}
    for column in range(RATES.start, RATES.stop):
        values = [float(row.cells[column]) for row in rows if row.cells[column] and row.comparable]
        if values:
            found[column] = max(values)
    return found


def _is_best(row: Row, column: int, best: Mapping[int, float]) -> bool:
    return row.comparable and column in best and bool(row.cells[column]) and float(row.cells[column]) == best[column]


def _line(cell: str) -> str:
    """Whatever a name holds, a row is one line."""
    return " ".join(cell.split())


def _markdown(cell: str) -> str:
    return _line(cell).replace("|", r"\|")


def _latex(cell: str) -> str:
    return _line(cell).translate(_LATEX)
