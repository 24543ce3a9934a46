"""Sections of numbers: the headline, the scores with their intervals, camera pairs, what was trained, the settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dinogrl.evaluation.evaluate import camera_pairs, difference_intervals
from dinogrl.evaluation.metrics import Interval
from dinogrl.evaluation.protocols import PROTOCOLS
from dinogrl.evaluation.results import DirectionMetrics
from dinogrl.reports.html import fold_out, notice, table, text
from dinogrl.reports.run_folder import Run

COLUMNS = {"rank1": "Rank-1", "rank5": "Rank-5", "rank10": "Rank-10", "rank20": "Rank-20", "mAP": "mAP", "mINP": "mINP"}
DIRECTIONS = {
    "infrared_to_visible": ("Night asks, day answers", "infrared query, visible gallery"),
    "visible_to_infrared": ("Day asks, night answers", "visible query, infrared gallery"),
}

Intervals = Mapping[str, Interval]
"""Score's name -> 95 % interval of the difference between the last run and the first."""

LEAST_PEOPLE = 6
"""Below so many people even a gain for every one of them is what chance gives once in twenty times (a sign test)."""


def direction_title(name: str) -> tuple[str, str]:
    """What a direction is called on the page, and in plain terms; markup."""
    return DIRECTIONS.get(name, (text(name.replace("_", " ").capitalize()), ""))


def directions_of(runs: Sequence[Run]) -> list[str]:
    """Directions that any of these runs was scored in."""
    return list(dict.fromkeys(name for run in runs for name in run.metrics.directions))


def one_test(runs: Sequence[Run]) -> bool:
    """Were all runs scored on the same tracklets, so far as their counts tell, under one protocol?"""
    tests = {
        (
            run.metrics.dataset,
            run.metrics.protocol,
            *((name, s.queries, s.skipped, s.gallery, s.identities) for name, s in sorted(run.metrics.directions.items())),
        )
        for run in runs
    }
    return len(tests) == 1


def notices(runs: Sequence[Run]) -> str:
    """What keeps these runs from being compared, and what each folder does not hold."""
    items = []
    if not one_test(runs):
        items.append(
            "These runs were not scored on the same test: dataset, protocol or the number of tracklets differ. Their numbers must"
            " not be compared, and no differences are shown."
        )
    items += [f"<b>{text(run.name)}</b>: {text(remark)}." for run in runs for remark in run.remarks]
    return notice("Before you read", items)


def gains(runs: Sequence[Run]) -> dict[str, Intervals]:
    """Intervals by direction, empty ones where embeddings are not there; no direction where the runs may not be compared.

    Redrawing the people is the costliest step of a page: made once, for the cards and for the tables.
    """
    if len(runs) < 2 or not one_test(runs):
        return {}
    return {name: _intervals(runs, name) for name in directions_of(runs)}


def headline(runs: Sequence[Run], gained: Mapping[str, Intervals]) -> str:
    """A card a direction: rank-1 and mAP of each run as bars, and what the last run gains on the first (:func:`gains`)."""
    return f'<div class="cards">{"".join(_card(runs, name, gained.get(name)) for name in directions_of(runs))}</div>'


def _scored(runs: Sequence[Run], direction: str) -> list[tuple[Run, DirectionMetrics]]:
    return [(run, run.metrics.directions[direction]) for run in runs if direction in run.metrics.directions]


def _card(runs: Sequence[Run], direction: str, intervals: Intervals | None) -> str:
    title, plain = direction_title(direction)
    measures = "".join(_measure(runs, direction, key) for key in ("rank1", "mAP"))
    gain = "" if intervals is None else _gain(runs, direction, intervals)
    return f'<article class="card"><h3>{title}</h3><p class="plain">{plain}</p>{measures}{gain}</article>'


def _measure(runs: Sequence[Run], direction: str, key: str) -> str:
    bars = "".join(_bar(run, getattr(scores, key)) for run, scores in _scored(runs, direction))
    return f'<div class="measure"><h4>{COLUMNS[key]}</h4>{bars}</div>'


def _gain(runs: Sequence[Run], direction: str, intervals: Intervals) -> str:
    first, last = (run.metrics.directions[direction] for run in (runs[0], runs[-1]))
    points = " · ".join(f"{100 * (getattr(last, key) - getattr(first, key)):+.1f} {COLUMNS[key]}" for key in ("rank1", "mAP"))
    open_ones = [COLUMNS[key] for key in ("rank1", "mAP") if key in intervals and not _told(intervals[key], last.identities)]
    chance = f"; may be chance: {' and '.join(open_ones)}" if open_ones else ""
    return f'<p class="gain"><strong>{points}</strong> <span>{text(runs[-1].name)} against {text(runs[0].name)}{chance}</span></p>'


def _intervals(runs: Sequence[Run], direction: str) -> Intervals:
    if runs[0].evaluation is None or runs[-1].evaluation is None:
        return {}
    first, last = (evaluation.directions.get(direction) for evaluation in (runs[0].evaluation, runs[-1].evaluation))
    return {} if first is None or last is None else difference_intervals(first, last)


def _told(interval: Interval, people: int) -> bool:
    """Is it a difference, as far as these people tell?"""
    return people >= LEAST_PEOPLE and (interval.low > 0 or interval.high < 0)


def _bar(run: Run, rate: float) -> str:
    percent = 100 * rate
    return (
        f'<div class="bar"><span class="name">{text(run.name)}</span><span class="track"><span'
        f' class="fill {run_class(run)}" style="width:{percent:.2f}%"></span></span>'
        f'<span class="value">{percent:.1f}<small> %</small></span></div>'
    )


def scores_lead(runs: Sequence[Run]) -> str:
    """What the small numbers and the colours of the tables are."""
    said = "Rates in per cent; below rank-1, mAP and mINP their 95 % interval over redrawn query identities."
    if len(runs) < 2 or not one_test(runs):
        return said
    return (
        f"{said} The interval of a difference takes the same redrawn people for both; where it leaves 0 out, and {LEAST_PEOPLE}"
        " people or more were asked for, the difference is green or red. What is not coloured may be chance."
    )


def score_tables(runs: Sequence[Run], gained: Mapping[str, Intervals]) -> str:
    """A table a direction: every run, its 95 % intervals, chance, and the difference (:func:`gains`)."""
    return "".join(_score_table(runs, name, gained.get(name)) for name in directions_of(runs))


def _score_table(runs: Sequence[Run], direction: str, intervals: Intervals | None) -> str:
    scored, together = _scored(runs, direction), one_test(runs)
    last = scored[-1][1]
    rows = [
        [run_label(run) + ("" if together else f"<small>{_counts(s)}</small>"), *(_rate(s, key) for key in COLUMNS)]
        for run, s in scored
    ]
    if intervals is not None:
        before = scored[0][1]
        changes = ((getattr(last, key) - getattr(before, key), intervals.get(key)) for key in COLUMNS)
        rows.append(["difference", *(_difference(change, interval, last.identities) for change, interval in changes)])
    chance = _chance(scored[-1][0], direction) if together else None
    if chance is not None:
        rows.append(["by chance", f"{100 * chance:.1f}", *[""] * (len(COLUMNS) - 1)])
    title, plain = direction_title(direction)
    return table(["%", *COLUMNS.values()], rows, title, f"{plain}: {_counts(last)}" if together else plain, kind="numbers")


def _counts(scores: DirectionMetrics) -> str:
    skipped = f"; {scores.skipped:,} queries without a match left out" if scores.skipped else ""
    return f"{scores.queries:,} queries of {scores.identities:,} people, {scores.gallery:,} gallery tracklets{skipped}"


def run_class(run: Run) -> str:
    """The style sheet's class of a run's colour."""
    return f"run-{run.index % 6}"


def run_label(run: Run) -> str:
    """The run's name behind a dot in its colour."""
    return f'<span class="dot {run_class(run)}"></span>{text(run.name)}'


def _rate(scores: DirectionMetrics, key: str) -> str:
    value = f"{100 * getattr(scores, key):.1f}"
    if key not in scores.confidence:
        return value
    low, high = scores.confidence[key]
    return f"{value}<small>{100 * low:.1f}–{100 * high:.1f}</small>"


def _difference(change: float, interval: Interval | None, people: int) -> str:
    """In colour only where it is more than chance."""
    points = f"{100 * change:+.1f}"
    if interval is None:
        return points
    kind = ("better" if change > 0 else "worse") if _told(interval, people) else ""
    return f'<span class="{kind}">{points}</span><small>{100 * interval.low:+.1f} to {100 * interval.high:+.1f}</small>'


def _chance(run: Run, direction: str) -> float | None:
    """Rank-1 of a gallery in random order, of which each query sees what the protocol lets it meet."""
    if run.evaluation is None or direction not in run.evaluation.directions:
        return None
    outcome = run.evaluation.directions[direction]
    valid = outcome.queries.valid
    met = run.evaluation.protocol.meeting(outcome.query, outcome.gallery).met()
    return float((outcome.queries.matches[valid] / met[valid]).mean()) if valid.any() else None


def camera_tables(runs: Sequence[Run]) -> str:
    """Rank-1 from each camera to each other one, shaded: of the last run, and folded out of the others."""
    shown = [(run, tables) for run in runs if (tables := _camera_tables(run))]
    if not shown:
        return ""
    *others, (_, last) = shown
    return last + "".join(fold_out(f"The same of {run.name}", tables) for run, tables in others)


def _camera_tables(run: Run) -> str:
    if run.evaluation is None:
        return ""
    tables = []
    for name, outcome in run.evaluation.directions.items():
        pairs = camera_pairs(outcome, run.evaluation.protocol, run.evaluation.distance)
        if not pairs:
            continue
        asking, searched = (sorted({pair[side] for pair in pairs}) for side in (0, 1))
        rows = [
            [f"cam {a}", *(_shade(pairs[a, b].rank(1), pairs[a, b].queries) if (a, b) in pairs else "" for b in searched)]
            for a in asking
        ]
        title, plain = direction_title(name)
        tables.append(table(["query \\ gallery", *(f"cam {b}" for b in searched)], rows, title, plain, kind="heat"))
    return f'<div class="pairs">{"".join(tables)}</div>' if tables else ""


def _shade(rate: float, queries: int) -> str:
    return f'<span class="cell" style="--rate:{100 * rate:.0f}%" title="{queries} queries">{100 * rate:.0f}</span>'


def facts(runs: Sequence[Run]) -> str:
    """What each run was trained and scored on."""
    rows = [
        ["dataset", *(text(run.metrics.dataset) for run in runs)],
        ["protocol", *(text(run.metrics.protocol) for run in runs)],
        ["frames a clip", *(str(run.metrics.frames_per_clip) for run in runs)],
        ["distance", *(text(run.metrics.distance.replace("_", " ")) for run in runs)],
        ["weights chosen by", *(text(_selection(run)) for run in runs)],
        ["training steps", *(f"{len(run.log['step']):,}" if "step" in run.log else "not logged" for run in runs)],
        ["training time", *(_duration(run) for run in runs)],
        ["embedding", *(_embedding(run) for run in runs)],
        ["model", *(f"<code>{text(run.metrics.fingerprint or 'unknown')}</code>" for run in runs)],
        *([text(option.replace("_", " ")), *(_option(run, option) for run in runs)] for option in _options(runs)),
    ]
    names = [run_label(run) for run in runs]
    protocols = dict.fromkeys(run.metrics.protocol for run in runs)
    summaries = "".join(f"<p><b>{text(name)}</b>. {text(PROTOCOLS[name].summary)}</p>" for name in protocols if name in PROTOCOLS)
    return table(["", *names], rows, "Runs", kind="facts") + summaries


def _options(runs: Sequence[Run]) -> list[str]:
    return sorted({option for run in runs for option in run.metrics.options})


def _option(run: Run, name: str) -> str:
    value = run.metrics.options.get(name, "")
    return ("yes" if value else "no") if isinstance(value, bool) else text(value)


def _selection(run: Run) -> str:
    chosen = run.metrics.selection
    words = {"last": "last epoch", "holdout": "held-out training identities"}
    if isinstance(chosen, str):
        return words.get(chosen, chosen)
    name = str(chosen.get("selection", "see metrics.json"))
    epoch = f", epoch {chosen['epoch']}" if "epoch" in chosen else ""
    return words.get(name, name) + epoch


def _duration(run: Run) -> str:
    seconds = float(run.log["seconds"].sum()) if "seconds" in run.log else 0.0
    if not seconds:
        return "not logged"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _embedding(run: Run) -> str:
    if run.evaluation is None:
        return "not stored"
    _, parts, width = next(iter(run.evaluation.directions.values())).query.parts.shape
    return f"{parts} part{'s' if parts > 1 else ''} of {width}"


def settings(runs: Sequence[Run]) -> str:
    """Resolved recipes and versions, folded."""
    recipes = "".join(fold_out(f"Recipe: {run.name}", f"<pre>{text(run.recipe)}</pre>") for run in runs if run.recipe)
    names = list(dict.fromkeys(name for run in runs for name in run.metrics.versions))
    rows = [[text(name), *(text(run.metrics.versions.get(name, "")) for run in runs)] for name in names]
    versions = fold_out("Versions", table(["", *(text(run.name) for run in runs)], rows, "Software", kind="facts")) if rows else ""
    return recipes + versions
