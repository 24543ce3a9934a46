"""A table filled in: the paper's numbers beside the measured ones, as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev

from dinogrl.checkpoints import write_atomically
from dinogrl.records import Dataset
from dinogrl.reports.tables import PEOPLE, people_of, published_rows
from dinogrl.reproduce.carry_out import result_of
from dinogrl.reproduce.plan import Line, Run
from dinogrl.reproduce.tables import Rates, Table

HEADS = ("I→V R1", "I→V mAP", "V→I R1", "V→I mAP")
PLACES = [(d, key) for d in ("infrared_to_visible", "visible_to_infrared") for key in ("rank1", "mAP")]


@dataclass(frozen=True)
class Filled:
    """A line with its results: ``rates[i]`` are the seeds' values of HEADS[i] in per cent. ``remark``: what should be known.

    ``mean_mAP``: by seed, the mean of all directions' mAP in per cent.
    """

    label: str
    paper: Rates | None
    rates: tuple[tuple[float, ...], ...]
    wanted: int
    remark: str
    mean_mAP: Mapping[int, float] = field(default_factory=dict)

    @property
    def done(self) -> int:
        """Seeds that have been measured."""
        return max(map(len, self.rates))


def fill(lines: Sequence[Line], failed: Mapping[Run, str] | None = None) -> list[Filled]:
    """The lines with whatever their runs have measured so far."""
    return [_filled(line, failed or {}) for line in lines]


def _filled(line: Line, failed: Mapping[Run, str]) -> Filled:
    found = {run.recipe.seed: metrics for run in line.runs if (metrics := result_of(run)) is not None}
    rates = tuple(tuple(100 * getattr(m.directions[d], key) for m in found.values() if d in m.directions) for d, key in PLACES)
    mean_mAP = {seed: 100 * mean(scores.mAP for scores in m.directions.values()) for seed, m in found.items()}
    broken = [f"seed {run.recipe.seed} failed: {failed[run]}" for run in line.runs if run in failed]
    remark = "; ".join(filter(None, [line.row.note, line.lacking, *broken]))
    return Filled(line.label, line.row.paper, rates, len(line.runs), remark, mean_mAP)


def published(dataset: str) -> list[Filled]:
    """Published results of other methods as lines without a measurement; DinoGRL's own are rows of the table already."""
    rows = [row for row in published_rows(dataset) if row.cells[0] != "DinoGRL"]
    complete = [row for row in rows if all(row.cells[4:8])]
    return [
        Filled(_method(row.cells), tuple(float(cell) for cell in row.cells[4:8]), ((),) * 4, 0, row.source)  # type: ignore[arg-type]
        for row in complete
    ]


def _method(cells: Sequence[str]) -> str:
    method, venue, frames = cells[:3]
    return ", ".join(filter(None, [method, venue, f"{frames} frames" if frames else ""]))


def spread(values: Sequence[float]) -> str:
    """``72.5 ± 0.4``: mean and standard deviation of a sample; one value alone has no deviation, none gives a dash."""
    if not values:
        return "–"
    return f"{mean(values):.1f} ± {stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


def caption(table: Table, lines: Sequence[Line], dataset: Dataset) -> list[str]:
    """What a reader must know before he compares."""
    results = [metrics for line in lines for run in line.runs if (metrics := result_of(run)) is not None]
    protocols = ", ".join(sorted({m.protocol for m in results})) or "none yet"
    said = [f"Measured on {dataset.title}, protocol {protocols}; mean ± standard deviation over seeds, in per cent."]
    papers = table.published or "hitsz-vcm"
    if dataset.simulated or dataset.name != papers:
        said.append(f"The paper's numbers are of {papers}, another dataset: compare differences between rows, not the numbers.")
    elif results and any(people_of(m) != PEOPLE.get(papers) for m in results):
        said.append(
            f"This test set has other people than the published one ({PEOPLE.get(papers)}): the numbers are not comparable."
        )
    return said


def write_table(
    folder: Path, name: str, title: str, said: Sequence[str], filled: Sequence[Filled], commands: Sequence[str], *, compare: bool
) -> list[Path]:
    """Write NAME.md, with the commands, NAME.csv and NAME.tex; gives their paths. ``compare``: the rows less the last one too."""
    contents = {
        ".md": as_markdown(title, said, filled, commands, compare),
        ".csv": as_csv(filled),
        ".tex": as_latex(title, said, filled),
    }
    for ending, content in contents.items():
        write_atomically(folder / f"{name}{ending}", content.encode())
    return [folder / f"{name}{ending}" for ending in contents]


def as_markdown(title: str, said: Sequence[str], filled: Sequence[Filled], commands: Sequence[str], compare: bool = False) -> str:
    heads = ["", *(f"paper {head}" for head in HEADS), *HEADS, "seeds", ""]
    lines = [f"# {title}", "", *said, "", _bar(heads), "|---|" + "---:|" * 9 + "---|"]
    lines += [_bar(_cells(row)) for row in filled]
    lines += _beside_the_last(filled) if compare else []
    return "\n".join([*lines, "", "## Commands", "", "```console", *commands, "```", ""])


def _beside_the_last(filled: Sequence[Filled]) -> list[str]:
    """Every row less the last one that was measured, seed by seed: what a seed does to both falls out."""
    measured = [row for row in filled if row.mean_mAP]
    if len(measured) < 2:
        return []
    last, seeds = measured[-1], sorted(measured[-1].mean_mAP)
    lines = ["", f"## Beside {last.label!r}", "", f"mAP, mean of both directions, in points: the row less {last.label!r}.", ""]
    lines += [_bar(["", *(f"seed {seed}" for seed in seeds), "mean"]), "|---|" + "---:|" * (len(seeds) + 1)]
    for row in measured[:-1]:
        less = {seed: row.mean_mAP[seed] - last.mean_mAP[seed] for seed in seeds if seed in row.mean_mAP}
        each = [f"{less[seed]:+.1f}" if seed in less else "–" for seed in seeds]
        lines.append(_bar([row.label, *each, spread(list(less.values()))]))
    return lines


def _cells(row: Filled) -> list[str]:
    paper = ["–"] * 4 if row.paper is None else [f"{value:.1f}" for value in row.paper]
    return [row.label, *paper, *map(spread, row.rates), f"{row.done}/{row.wanted}" if row.wanted else "", row.remark]


def _bar(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |"


def as_csv(filled: Sequence[Filled]) -> str:
    """One line a row; columns of the paper's numbers, and of mean and standard deviation."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [f"{direction}_{key}" for direction, key in PLACES]
    columns = [f"{name}_{what}" for name in names for what in ("mean", "std")]
    writer.writerow(["label", *(f"paper_{name}" for name in names), *columns, "seeds", "remark"])
    for row in filled:
        paper: list[float | str] = ["" for _ in HEADS] if row.paper is None else list(row.paper)
        numbers = [number for values in row.rates for number in (_number(mean, values, 1), _number(stdev, values, 2))]
        writer.writerow([row.label, *paper, *numbers, row.done, row.remark])
    return text.getvalue()


def _number(of: Callable[[Sequence[float]], float], values: Sequence[float], least: int) -> str:
    return f"{of(values):.4f}" if len(values) >= least else ""


def as_latex(title: str, said: Sequence[str], filled: Sequence[Filled]) -> str:
    """A tabular (booktabs), the paper's columns left, the measured ones right."""
    heads = " & ".join(_latex(head) for head in HEADS)
    lines = [
        *(f"% {_latex(text)}" for text in (title, *said)),
        r"\begin{tabular}{lcccccccc}",
        r"\toprule",
        r" & \multicolumn{4}{c}{paper} & \multicolumn{4}{c}{here} \\",
        rf" & {heads} & {heads} \\",
        r"\midrule",
        *(" & ".join(_latex(cell) for cell in _cells(row)[:9]) + r" \\" for row in filled),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


_SIGNS: dict[str, str | int | None] = {
    **{sign: "\\" + sign for sign in "&%$#_{}"},
    "→": r"$\to$",
    "±": r"$\pm$",
    "–": "--",
    "λ": r"$\lambda$",
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
}


def _latex(text: str) -> str:
    return " ".join(text.split()).translate(str.maketrans(_SIGNS))
