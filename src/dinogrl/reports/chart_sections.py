"""Sections of charts: loss curves, CMC curves, distance distributions (figure 6), the map of embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dinogrl.reports import figures
from dinogrl.reports.embedding_map import flatten
from dinogrl.reports.figures import Curve
from dinogrl.reports.html import figure, fold_out, text
from dinogrl.reports.run_folder import Run
from dinogrl.reports.score_sections import direction_title, directions_of

NOT_LOSSES = {"epoch", "step", "learning_rate", "seconds", "total"}


def loss_charts(runs: Sequence[Run]) -> str:
    """The weighted sum and the learning rate, and folded out every named loss."""
    logged = [run for run in runs if "total" in run.log and "step" in run.log]
    if not logged:
        return ""
    names = list(dict.fromkeys(name for run in logged for name in run.log if name not in NOT_LOSSES))
    parts = "".join(_loss_chart(name, logged, name) for name in names)
    rates = _loss_chart("learning_rate", logged, "learning rate", noisy=False)
    total = _loss_chart("total", logged, "weighted sum of all losses")
    more = fold_out(f"Each of the {len(names)} losses, unweighted", _charts([parts])) if names else ""
    return _charts([total, rates]) + more


def logged_curves(name: str, runs: Sequence[Run]) -> list[Curve]:
    """A column of the logs over the steps, where it is a number, of every run that has it."""
    curves = []
    for run in runs:
        if name in run.log and "step" in run.log and (finite := np.isfinite(run.log[name])).any():
            curves.append(Curve(run.name, run.index, run.log["step"][finite], run.log[name][finite]))
    return curves


def _loss_chart(name: str, runs: Sequence[Run], label: str, noisy: bool = True) -> str:
    curves = logged_curves(name, runs)
    if not curves:
        return ""
    said = f"{label}: " + ", ".join(f"{curve.name} ends at {curve.y[-1]:.3g}" for curve in curves)
    return figure(figures.themed_svg(figures.loss_curve(label, curves, noisy), said))


def cmc_charts(runs: Sequence[Run]) -> str:
    """A chart a direction, all runs in it."""
    charts = []
    for name in directions_of(runs):
        curves = found_curves(name, runs)
        if curves:
            title, plain = direction_title(name)
            found = [f"{c.name} finds {100 * c.y[0]:.0f} % first, {100 * c.y[-1]:.0f} % in {len(c.y)}" for c in curves]
            said = f"{title}: {', '.join(found)}"
            charts.append(figure(figures.themed_svg(figures.cmc_curves(curves), said), f"<b>{title}</b> ({plain})"))
    return _charts(charts)


def found_curves(direction: str, runs: Sequence[Run]) -> list[Curve]:
    """The CMC curve of every run that was ranked in this direction."""
    return [
        Curve(run.name, run.index, np.arange(1, len(scores.cmc) + 1), scores.cmc)
        for run in runs
        if run.evaluation is not None and direction in run.evaluation.directions
        for scores in [run.evaluation.directions[direction].scores]
    ]


def distance_charts(runs: Sequence[Run]) -> str:
    """Runs side by side, a row a direction, all but the first folded: mostly they are the same pairs asked the other way round. The
    ticks of each run are its own, since embeddings have no common unit."""
    rows: list[str] = []
    for name in directions_of(runs):
        charts = []
        for run in runs:
            if run.evaluation is None or name not in run.evaluation.directions:
                continue
            samples = run.evaluation.directions[name].distances
            if not len(samples.positive) or not len(samples.negative):
                continue
            spread = float(np.std(np.concatenate([samples.positive, samples.negative])))
            said = (
                f"{run.name}, {name.replace('_', ' ')}: mean distance {samples.positive_mean:.2f} to the same person,"
                f" {samples.negative_mean:.2f} to others"
            )
            caption = f"<b>{text(run.name)}</b> gap {samples.gap / max(spread, 1e-12):.2f} standard deviations"
            charts.append(figure(figures.themed_svg(figures.distance_distributions(samples), said), caption))
        if charts:
            title, plain = direction_title(name)
            first = f"<h3>{title} <small>{plain}</small></h3>{_charts(charts)}"
            rows.append(fold_out(f"{title}: {plain}", _charts(charts)) if rows else first)
    return "".join(rows)


def embedding_maps(runs: Sequence[Run], projection: str) -> str:
    """Where a few people lie, seen by both modalities, one map a run; each caption names the projection and why it is this one."""
    charts = []
    for run in runs:
        if run.evaluation is not None:
            outcome = next(iter(run.evaluation.directions.values()))
            flat = flatten(outcome, run.evaluation.distance, projection)
            people = len(np.unique(flat.identities))
            said = f"{run.name}: {len(flat.points)} tracklets of {people} people, visible and infrared, by {flat.method}"
            drawn = figures.themed_svg(figures.embedding_map(flat), said)
            charts.append(figure(drawn, f"<b>{text(run.name)}</b> {text(flat.note)}"))
    return _charts(charts)


def _charts(charts: Sequence[str]) -> str:
    return f'<div class="charts">{"".join(charts)}</div>' if any(charts) else ""
