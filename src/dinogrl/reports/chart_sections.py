"""Sections of charts: loss curves, CMC curves, distance distributions (figure 6), the map of embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dinogrl.records import Scores
from dinogrl.reports import figures
from dinogrl.reports.html import figure, fold_out, text
from dinogrl.reports.run_folder import Run
from dinogrl.reports.score_sections import direction_title, shared_directions

NOT_LOSSES = {"epoch", "step", "learning_rate", "seconds", "total"}


def loss_charts(runs: Sequence[Run]) -> str:
    """The weighted sum, and folded out every named loss."""
    logged = [run for run in runs if "total" in run.log and "step" in run.log]
    if not logged:
        return ""
    names = list(dict.fromkeys(name for run in logged for name in run.log if name not in NOT_LOSSES))
    parts = "".join(_loss_chart(name, logged, name) for name in names)
    rates = _loss_chart("learning_rate", logged, "learning rate")
    total = _loss_chart("total", logged, "weighted sum of all losses")
    more = fold_out(f"Each of the {len(names)} losses, unweighted", f'<div class="charts">{parts}</div>') if names else ""
    return f'<div class="charts">{total}{rates}</div>{more}'


def _loss_chart(name: str, runs: Sequence[Run], title: str) -> str:
    curves = {}
    for run in runs:
        if name in run.log:
            finite = np.isfinite(run.log[name])
            curves[run.name] = (run.log["step"][finite], run.log[name][finite])
    curves = {run: curve for run, curve in curves.items() if len(curve[0])}
    if not curves:
        return ""
    said = figures.describe_curves(title, [(run, float(values[-1])) for run, (_, values) in curves.items()])
    return figure(figures.themed_svg(figures.loss_curve(title, curves), said), text(title))


def cmc_charts(runs: Sequence[Run]) -> str:
    """A chart a direction, all runs in it."""
    charts = []
    for name in shared_directions(runs):
        scores = {run.name: s for run in runs if (s := _scores(run, name)) is not None}
        if scores:
            title, plain = direction_title(name)
            said = f"{title}: " + ", ".join(
                f"{run} finds {100 * s.rank(1):.0f} % first, {100 * s.rank(20):.0f} % in 20" for run, s in scores.items()
            )
            charts.append(figure(figures.themed_svg(figures.cmc_curves(scores), said), f"<b>{title}</b> ({plain})"))
    return f'<div class="charts">{"".join(charts)}</div>' if charts else ""


def distance_charts(runs: Sequence[Run]) -> str:
    """Runs side by side, a row a direction; the ticks of each run are its own, since embeddings have no common unit."""
    rows = []
    for name in shared_directions(runs):
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
            rows.append(f'<h3>{title} <small>{plain}</small></h3><div class="charts">{"".join(charts)}</div>')
    return "".join(rows)


def embedding_maps(runs: Sequence[Run]) -> str:
    """Where a few people lie, seen by both modalities, one map a run."""
    charts = []
    for run in runs:
        if run.evaluation is not None:
            outcome = next(iter(run.evaluation.directions.values()))
            said = f"{run.name}: tracklets of ten people on the two principal axes of their embeddings, visible and infrared"
            charts.append(figure(figures.themed_svg(figures.embedding_map(outcome), said), f"<b>{text(run.name)}</b>"))
    return f'<div class="charts">{"".join(charts)}</div>' if charts else ""


def _scores(run: Run, direction: str) -> Scores | None:
    if run.evaluation is None or direction not in run.evaluation.directions:
        return None
    return run.evaluation.directions[direction].scores
