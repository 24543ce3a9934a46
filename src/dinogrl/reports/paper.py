"""Every picture of a report as a file of its own, for papers and slides."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dinogrl.catalog import Catalog
from dinogrl.checkpoints import expect_no_file
from dinogrl.data.frames import Image
from dinogrl.records import Embeddings, Modality
from dinogrl.reports import figures
from dinogrl.reports.chart_sections import found_curves, logged_curves
from dinogrl.reports.embedding_map import CHOICES, flatten
from dinogrl.reports.picture_sections import MAP_TITLES, TOP, outcome_of, runs_in_strips, spread_queries
from dinogrl.reports.pictures import enlarged, frame_or_none, in_colour, in_grey
from dinogrl.reports.run_folder import Run, Silhouettes, read_runs
from dinogrl.reports.score_sections import directions_of

FORMATS: Catalog[str] = Catalog("picture format", {"png": ".png", "svg": ".svg", "pdf": ".pdf"})
RIGHT, WRONG = "#1f8043", "#c62f3b"


@dataclass(frozen=True)
class Cell:
    """A picture of a grid, None where its file is gone, with a coloured frame and words above."""

    image: Image | None
    frame: str | None = None
    title: str = ""


def write_figures(folder: Path, runs: Sequence[Path], picture_format: str = "png", projection: str = "auto") -> list[Path]:
    """Write every picture that these run folders allow into ``folder``; returns the paths.

    ``projection`` draws the map of embeddings (:mod:`dinogrl.reports.embedding_map`). Raises :class:`DinogrlError` for a folder
    that cannot be read or written, :class:`UnknownNameError` for an unknown format or projection.
    """
    ending, _ = FORMATS[picture_format], CHOICES[projection]
    expect_no_file(folder, "the pictures")
    written = []
    for name, figure in paper_figures(read_runs(runs), projection):
        written.append(folder / f"{_plain(name)}{ending}")
        figures.save_figure(figure, written[-1])
    return written


def paper_figures(runs: Sequence[Run], projection: str = "auto") -> Iterator[tuple[str, Figure]]:
    """(file name without ending, figure) of everything there is to draw."""
    if curves := logged_curves("total", runs):
        yield "losses", figures.loss_curve("weighted sum of all losses", curves)
    for name in directions_of(runs):
        if curves := found_curves(name, runs):
            yield f"cmc_{name}", figures.cmc_curves(curves)
        for run in runs:
            if run.evaluation is None or name not in run.evaluation.directions:
                continue
            samples = outcome_of(run, name).distances
            if len(samples.positive) and len(samples.negative):
                yield f"distances_{name}_{run.name}", figures.distance_distributions(samples)
        if shown := runs_in_strips(runs, name):
            yield f"strips_{name}", strips(shown, name)
    for run in runs:
        if run.evaluation is not None:
            flat = flatten(next(iter(run.evaluation.directions.values())), run.evaluation.distance, projection)
            yield f"map_{run.name}", figures.embedding_map(flat)
        if run.silhouettes is not None and run.silhouettes.names:
            yield f"silhouettes_{run.name}", silhouette_grid(run.silhouettes)


def _plain(name: str) -> str:
    """A name that may come from outside, as a file's name."""
    return re.sub(r"[^\w.-]+", "_", name).strip("_.")


def strips(runs: Sequence[Run], direction: str, quantiles: Sequence[float] = (0.1, 0.4, 0.6, 0.9)) -> Figure:
    """Figure 5 of the paper: queries and their top six, the first run above the last, right ones green and wrong ones red."""
    last = outcome_of(runs[-1], direction)
    rows, labels = [], []
    for query in spread_queries(last, quantiles):
        tracklet = last.query.tracklet_ids[query]
        for run in runs:
            outcome = outcome_of(run, direction)
            row = outcome.query.tracklet_ids.index(tracklet)
            answers = [
                Cell(
                    _frame(outcome.gallery, int(column)),
                    RIGHT if outcome.right[row, rank] else WRONG,
                    "✓" if outcome.right[row, rank] else "✗",
                )
                for rank, column in enumerate(outcome.nearest[row, :TOP])
                if column >= 0
            ]
            rows.append([Cell(_frame(outcome.query, row), figures.INK, "query"), *answers])
            labels.append(run.name)
    return image_grid(rows, labels)


def silhouette_grid(stored: Silhouettes, limit: int = 3) -> Figure:
    """Figure 3 of the paper: frame, mask, priors and enriched silhouette of up to ``limit`` clips a modality."""
    t = stored.frames.shape[1] // 2
    columns: dict[str, Sequence[Image]] = {"frame": list(stored.frames[:, t])}
    for name, title in MAP_TITLES.items():
        if name in stored.maps:
            maps = stored.maps[name][:, t]
            columns[title] = list(in_grey(maps) if maps.ndim == 3 else in_colour(maps))
    clips = [int(clip) for kind in Modality for clip in np.flatnonzero(stored.modality == kind)[:limit]]
    rows = [[Cell(enlarged(shown[c]), title=title if c == clips[0] else "") for title, shown in columns.items()] for c in clips]
    return image_grid(rows, [Modality(int(stored.modality[c])).name.lower() for c in clips])


def image_grid(rows: Sequence[Sequence[Cell]], labels: Sequence[str]) -> Figure:
    """Pictures in rows, each row with a name at its side."""
    width = max(len(row) for row in rows)
    with matplotlib.rc_context(figures.STYLE):
        figure = Figure(figsize=(0.75 * width + 0.6, 1.5 * len(rows)), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(len(rows), width, squeeze=False)
        for axes_row, row, label in zip(grid, rows, labels, strict=True):
            for axes in axes_row[len(row) :]:
                axes.set_axis_off()
            for axes, cell in zip(axes_row, row, strict=False):
                _draw(axes, cell)
            axes_row[0].set_ylabel(label, fontsize=8)
    return figure


def _draw(axes: matplotlib.axes.Axes, cell: Cell) -> None:
    axes.imshow(np.full((2, 1, 3), 210, np.uint8) if cell.image is None else cell.image, aspect="auto")
    axes.set_box_aspect(2)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    axes.set_title(cell.title, fontsize=8, color=cell.frame or figures.INK, pad=3)
    for spine in axes.spines.values():
        spine.set_visible(cell.frame is not None)
        spine.set_color(cell.frame or figures.INK)
        spine.set_linewidth(2.2)


def _frame(side: Embeddings, row: int) -> Image | None:
    frames = side.frames[row] if side.frames else []
    return frame_or_none(frames[len(frames) // 2]) if frames else None
