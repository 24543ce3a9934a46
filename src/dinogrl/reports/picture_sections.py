"""Sections of pictures: ranked strips (figure 5), the hardest queries, silhouettes and priors (figure 3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dinogrl.evaluation.evaluate import Outcome
from dinogrl.records import Embeddings, Modality
from dinogrl.reports.html import image
from dinogrl.reports.pictures import enlarged, in_colour, in_grey, jpeg_address, png_address, thumbnail
from dinogrl.reports.run_folder import Run, Silhouettes
from dinogrl.reports.score_sections import direction_title, directions_of, run_label

TOP = 6
MAP_TITLES = {"silhouette": "mask", "gait_prior": "gait prior", "appearance_prior": "appearance prior", "enriched": "enriched"}


def ranked_strips(runs: Sequence[Run], quantiles: Sequence[float] = (0.1, 0.4, 0.6, 0.9)) -> str:
    """Top six of the same queries under every run, the first run above the last; queries chosen by rule, not by hand."""
    return "".join(
        _strips(shown, name, spread_queries(outcome_of(runs[-1], name), quantiles))
        for name in directions_of(runs)
        if (shown := runs_in_strips(runs, name))
    )


def hardest_queries(runs: Sequence[Run], count: int = 2) -> str:
    """The queries that the last run answers worst."""
    return "".join(
        _strips(shown, name, _hardest_people(outcome_of(runs[-1], name), count))
        for name in directions_of(runs)
        if (shown := runs_in_strips(runs, name))
    )


def silhouettes(runs: Sequence[Run], limit: int = 3) -> str:
    """Frame, mask and priors of up to ``limit`` clips a modality, of the last run that has any."""
    run = next((run for run in reversed(runs) if run.silhouettes is not None and run.silhouettes.names), None)
    if run is None or run.silhouettes is None:
        return ""
    return f"<h3>{run_label(run)}</h3>{_silhouette_tables(run.silhouettes, limit)}"


def runs_in_strips(runs: Sequence[Run], direction: str) -> Sequence[Run]:
    """The runs whose strips stand together: all where they answered the same queries, else the last alone, or none where it has
    no embeddings or no query with a match."""
    last = runs[-1].evaluation
    if last is None or direction not in last.directions or not last.directions[direction].queries.valid.any():
        return []
    asked = set(last.directions[direction].query.tracklet_ids)
    for run in runs:
        if run.evaluation is None or direction not in run.evaluation.directions:
            return runs[-1:]
        if set(outcome_of(run, direction).query.tracklet_ids) != asked:
            return runs[-1:]
    return runs


def outcome_of(run: Run, direction: str) -> Outcome:
    assert run.evaluation is not None, "asked only of runs with embeddings"
    return run.evaluation.directions[direction]


def spread_queries(outcome: Outcome, quantiles: Sequence[float]) -> np.ndarray:
    """Rows of the queries at these quantiles of average precision, each of another person where possible."""
    valid = np.flatnonzero(outcome.queries.valid)
    order = valid[np.argsort(-outcome.queries.precision[valid], kind="stable")]
    chosen: list[int] = []
    for quantile in quantiles:
        place = int(quantile * (len(order) - 1))
        people = {int(outcome.query.identities[row]) for row in chosen}
        fresh = [row for row in np.roll(order, -place) if int(outcome.query.identities[row]) not in people]
        chosen.append(int(fresh[0] if fresh else order[place]))
    return np.array(list(dict.fromkeys(chosen)), dtype=np.int64)


def _hardest_people(outcome: Outcome, count: int) -> np.ndarray:
    """The hardest query of each of the ``count`` people that have the hardest."""
    rows = outcome.hardest(len(outcome.query))
    _, first = np.unique(outcome.query.identities[rows], return_index=True)
    return rows[np.sort(first)[:count]]


def _strips(runs: Sequence[Run], direction: str, queries: np.ndarray) -> str:
    title, plain = direction_title(direction)
    query = outcome_of(runs[-1], direction).query
    strips = "".join(_strip(runs, direction, query.tracklet_ids[row]) for row in queries)
    return f'<h3>{title} <small>{plain}</small></h3><div class="strips">{strips}</div>'


def _strip(runs: Sequence[Run], direction: str, tracklet: str) -> str:
    outcome = outcome_of(runs[-1], direction)
    row = outcome.query.tracklet_ids.index(tracklet)
    camera = int(outcome.query.cameras[row])
    asked = image(
        _middle(outcome.query, row), f"query: person {outcome.query.identities[row]}, camera {camera}, tracklet {tracklet}"
    )
    rows = "".join(_strip_row(run, outcome_of(run, direction), tracklet) for run in runs)
    return (
        f'<div class="strip"><figure class="query">{asked}<figcaption>query<br>camera {camera}</figcaption></figure>'
        f'<div class="answers">{rows}</div></div>'
    )


def _strip_row(run: Run, outcome: Outcome, tracklet: str) -> str:
    row = outcome.query.tracklet_ids.index(tracklet)
    items = "".join(
        _answer(outcome.gallery, int(column), rank + 1, bool(outcome.right[row, rank]))
        for rank, column in enumerate(outcome.nearest[row, :TOP])
        if column >= 0
    )
    place = f"first match at rank {outcome.queries.first[row] + 1}" if outcome.queries.matches[row] else "no match"
    title = f"<p>{run_label(run)} <small>{place}</small></p>"
    return f'<div class="answer">{title}<ol>{items}</ol></div>'


def _answer(gallery: Embeddings, column: int, rank: int, right: bool) -> str:
    kind, sign, word = ("right", "✓", "the same person") if right else ("wrong", "✗", "another person")
    camera = int(gallery.cameras[column])
    picture = image(_middle(gallery, column), f"rank {rank}: {word}, camera {camera}, tracklet {gallery.tracklet_ids[column]}")
    return f'<li class="{kind}">{picture}<span class="mark" aria-hidden="true">{sign}</span></li>'


def _middle(side: Embeddings, row: int) -> str | None:
    frames = side.frames[row] if side.frames else []
    return thumbnail(frames[len(frames) // 2]) if frames else None


def _silhouette_tables(stored: Silhouettes, limit: int) -> str:
    """A table a modality, a row a clip; colours are shared by both, so that equal colours mean equal features."""
    t = stored.frames.shape[1] // 2
    columns: dict[str, list[str]] = {"frame": [jpeg_address(enlarged(frame)) for frame in stored.frames[:, t]]}
    for name, title in MAP_TITLES.items():
        if name in stored.maps:
            maps = stored.maps[name][:, t]
            pictures = in_grey(maps) if maps.ndim == 3 else in_colour(maps)
            columns[title] = [png_address(enlarged(picture)) for picture in pictures]
    head = "".join(f'<th scope="col">{title}</th>' for title in columns)
    tables = []
    for kind in Modality:
        word = kind.name.lower()
        rows = []
        for clip in np.flatnonzero(stored.modality == kind)[:limit]:
            cells = [image(shown[clip], f"{title} of {stored.names[clip]}, {word}") for title, shown in columns.items()]
            rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
        if rows:
            tables.append(
                f'<div><table class="silhouettes"><caption>{word}</caption><thead><tr>{head}</tr></thead>'
                f"<tbody>{''.join(rows)}</tbody></table></div>"
            )
    return f'<div class="clips">{"".join(tables)}</div>'
