"""The figures, drawn once: as SVG that takes the page's colours, light or dark, and as PNG, SVG or PDF for papers."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from dinogrl.checkpoints import write_atomically
from dinogrl.evaluation.evaluate import DistanceSamples
from dinogrl.records import Modality
from dinogrl.reports.embedding_map import Flat

# Colours for print, told apart by colour-blind readers too; on the page each becomes the style sheet's variable of that name.
INK, FAINT = "#1c2330", "#9aa3b2"
POSITIVE, NEGATIVE = "#0b7a75", "#c2571a"
RUNS = ("#7b8494", "#2f5bd7", "#b4471f", "#6b3fa0", "#2e7d32", "#946c00")
VARIABLES = {
    INK: "currentColor",
    FAINT: "var(--faint)",
    POSITIVE: "var(--positive)",
    NEGATIVE: "var(--negative)",
    **{colour: f"var(--run-{i})" for i, colour in enumerate(RUNS)},
}
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "dinogrl",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.alpha": 0.35,
    "grid.linewidth": 0.6,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "lines.linewidth": 1.9,
}
SIZE = (4.0, 2.7)  # inches; small, so that the letters stay readable on a phone


def run_colour(index: int) -> str:
    """Colour of the i-th run: the first is grey (the baseline), the others stand out."""
    return RUNS[index % len(RUNS)]


@dataclass(frozen=True)
class Curve:
    """One run's line: its name, the number of its colour, and ``y`` over ``x``, (n,) each."""

    name: str
    colour: int
    x: np.ndarray
    y: np.ndarray


def loss_curve(label: str, curves: Sequence[Curve], noisy: bool = True) -> Figure:
    """One loss over training. What is ``noisy`` is drawn faint as logged, and smoothed."""
    figure, axes = _figure()
    for curve in curves:
        colour = run_colour(curve.colour)
        if noisy:
            axes.plot(curve.x, curve.y, color=colour, alpha=0.25, linewidth=0.8)
        axes.plot(curve.x, _smooth(curve.y) if noisy else curve.y, color=colour, label=curve.name)
    values = np.concatenate([curve.y for curve in curves])
    if noisy and len(values) and values.min() > 0 and values.max() > 20 * values.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")  # powers of ten are set as formulas: slow, and in another type
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("step")
    axes.set_ylabel(label)
    _legend(axes)
    return figure


def cmc_curves(curves: Sequence[Curve]) -> Figure:
    """Share of queries found among the first k: ``x`` the ranks, ``y`` the shares."""
    figure, axes = _figure()
    for curve in curves:
        axes.plot(curve.x, 100 * curve.y, color=run_colour(curve.colour), label=curve.name, marker="o", markersize=2.6)
    axes.set_xlabel("rank k")
    axes.set_ylabel("found among the first k (%)")
    axes.set_ylim(0, 103)
    axes.set_xlim(0.5, None)
    axes.set_xticks([1, 5, 10, 15, 20])
    _legend(axes)
    return figure


def distance_distributions(samples: DistanceSamples) -> Figure:
    """Distances of positive and negative pairs, their means and the gap between them (figure 6 of the paper)."""
    figure, axes = _figure()
    everything = np.concatenate([samples.positive, samples.negative])
    low, high = float(everything.min()), float(everything.max())
    bins = np.linspace(low, high if high > low else low + 1, int(np.clip(np.sqrt(len(samples.positive)), 14, 48)))
    middle = (bins[:-1] + bins[1:]) / 2
    for values, mean, colour, label in (
        (samples.positive, samples.positive_mean, POSITIVE, "same person"),
        (samples.negative, samples.negative_mean, NEGATIVE, "another person"),
    ):
        density, _ = np.histogram(values, bins=bins, density=True) if len(values) else (np.zeros(len(middle)), bins)
        axes.fill_between(middle, density, step="mid", color=colour, alpha=0.3, linewidth=0)
        axes.step(middle, density, where="mid", color=colour, linewidth=1.4, label=f"{label}: {mean:.2f}")
        axes.axvline(mean, color=colour, linewidth=1.2, linestyle=(0, (4, 3)))
    top = axes.get_ylim()[1]
    axes.set_ylim(0, 1.28 * top)
    axes.annotate(
        "",
        (samples.positive_mean, 1.04 * top),
        (samples.negative_mean, 1.04 * top),
        arrowprops={"arrowstyle": "<->", "color": INK, "linewidth": 1, "shrinkA": 0, "shrinkB": 0},
    )
    wide = abs(samples.gap) > 0.2 * (bins[-1] - bins[0])  # else the words stand beside the arrow, clear of the dashed lines
    middle_or_right = (
        (samples.positive_mean + samples.negative_mean) / 2 if wide else max(samples.positive_mean, samples.negative_mean)
    )
    shift = 0 if wide else 0.015 * (bins[-1] - bins[0])
    axes.text(middle_or_right + shift, 1.07 * top, f"gap {samples.gap:.2f}", ha="center" if wide else "left", va="bottom")
    axes.set_xlabel("distance (dashed: the means)")
    axes.set_yticks([])
    axes.set_xlim(bins[0], bins[-1])
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, 1.17), ncols=2, fontsize=9, frameon=False, handlelength=1.2, columnspacing=1
    )
    return figure


def embedding_map(flat: Flat) -> Figure:
    """Tracklets of a few people in the plane: colour is the person, the sign the modality."""
    figure, axes = _figure()
    palette = matplotlib.colormaps["tab10"]
    for kind, sign in ((Modality.VISIBLE, "o"), (Modality.INFRARED, "^")):
        for i, identity in enumerate(np.unique(flat.identities)):
            here = (flat.modalities == kind) & (flat.identities == identity)
            x, y = flat.points[here].T
            axes.scatter(x, y, marker=sign, s=26, color=palette(i % 10), alpha=0.85, linewidths=0)
        axes.scatter([], [], marker=sign, s=26, color=FAINT, label=kind.name.lower())
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(flat.method)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.15), ncols=2, fontsize=9, frameon=False, handletextpad=0.2)
    return figure


def themed_svg(figure: Figure, description: str) -> str:
    """The figure as an ``<svg>`` element for the page: its colours follow the theme, ``description`` is read out instead of it."""
    text = _svg(figure)
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for colour, variable in VARIABLES.items():
        text = re.sub(re.escape(colour), variable, text, flags=re.IGNORECASE)
    # text without a colour of its own is black, which the dark theme would swallow
    text = re.sub(r"<text style=\"(?![^\"]*fill)", '<text style="fill: currentColor; ', text)
    text = re.sub(r"font(?:-family)?: ([\d.]+px) [^;\"]*", r"font-size: \1; font-family: inherit", text)
    used = set(re.findall(r"#([\w-]+)", text))
    text = re.sub(r' id="([\w-]+)"', lambda found: found.group(0) if found.group(1) in used else "", text)
    own = f"f{zlib.crc32(description.encode()):08x}-"  # several drawings share the page: no name twice
    text = re.sub(r'( id="|href="#|url\(#)', rf"\1{own}", text)
    text = text.replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "").replace("xlink:href", "href")
    text = re.sub(r'^<svg[^>]*viewBox="([^"]*)"[^>]*>', rf'<svg viewBox="\1" role="img" aria-label="{_quoted(description)}">', text)
    return re.sub(r"\s*\n\s*", "\n", text).strip()


def save_figure(figure: Figure, path: Path) -> None:
    """Write the figure for a paper; the ending (.png, .svg, .pdf) says how."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format=path.suffix.lstrip("."), dpi=200, bbox_inches="tight", metadata=_undated(path.suffix))
    write_atomically(path, buffer.getvalue())


def _undated(suffix: str) -> dict[str, None]:
    """The same figure gives the same file, whenever it is made."""
    return {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(suffix, {})


def _figure() -> tuple[Figure, matplotlib.axes.Axes]:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        FigureCanvasAgg(figure)
        return figure, figure.add_subplot()


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()


def _legend(axes: matplotlib.axes.Axes) -> None:
    """Names of the lines above the chart, where they hide nothing, and room for them; a line alone needs none."""
    handles, names = axes.get_legend_handles_labels()
    if len(names) < 2:
        return
    columns = 1 if max(map(len, names)) > 20 else min(3, len(names))
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.set_figheight(SIZE[1] + 0.18 * -(-len(names) // columns))
    figure.legend(handles, names, loc="outside upper center", ncols=columns, fontsize=9, frameon=False, handlelength=1.2)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Running mean over about a fortieth of the curve, the ends repeated."""
    width = max(1, len(values) // 40) | 1
    padded = np.pad(values, width // 2, mode="edge")
    return np.convolve(padded, np.full(width, 1 / width), mode="valid")


def _quoted(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace("\\", "\\\\")
