"""Figure 4: rank-1 and mAP over the value of a setting, one panel a setting, bars for the spread over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dinogrl.reports import figures
from dinogrl.reproduce.outcome import HEADS, Filled
from dinogrl.reproduce.tables import Sweep

ENDINGS = (".svg", ".png", ".pdf")


def draw_sweeps(sweeps: Sequence[Sweep], filled: Mapping[str, Filled]) -> Figure:
    """``filled``: lines by label. Values without a result yet are left out."""
    with matplotlib.rc_context(figures.STYLE):
        figure = Figure(figsize=(3.2 * len(sweeps), 2.9), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(1, len(sweeps), sharey=True, squeeze=False)[0]
        for axes, sweep in zip(panels, sweeps, strict=True):
            for colour, head in enumerate(HEADS):
                rates = [(value, filled[sweep.row(value).label].rates[colour]) for value in sweep.values]
                known = [(value, seeds) for value, seeds in rates if seeds]
                axes.errorbar(
                    [value for value, _ in known],
                    [mean(seeds) for _, seeds in known],
                    yerr=[stdev(seeds) if len(seeds) > 1 else 0.0 for _, seeds in known],
                    color=figures.run_colour(colour),
                    label=head,
                    marker="o",
                    markersize=3,
                    linewidth=1.5,
                    elinewidth=0.8,
                    capsize=2,
                )
            if sweep.values[0] > 0:
                axes.set_xscale("log")
            axes.set_xlabel(f"{sweep.symbol}  ({sweep.key})")
        panels[0].set_ylabel("%")
        named = panels[0].get_legend_handles_labels()
        figure.legend(*named, loc="outside upper center", ncols=len(HEADS), fontsize=8, frameon=False)
    return figure


def write_sweeps(folder: Path, name: str, sweeps: Sequence[Sweep], filled: Sequence[Filled]) -> list[Path]:
    """Write NAME.svg, NAME.png and NAME.pdf; gives their paths."""
    figure = draw_sweeps(sweeps, {line.label: line for line in filled})
    paths = [folder / f"{name}{ending}" for ending in ENDINGS]
    for path in paths:
        figures.save_figure(figure, path)
    return paths
