"""One self-contained HTML page about one or more runs: it opens from disk and asks nothing of any network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

from dinogrl.checkpoints import expect_writable_file, write_atomically
from dinogrl.errors import DataError
from dinogrl.reports import chart_sections, picture_sections, score_sections
from dinogrl.reports.html import section, text
from dinogrl.reports.run_folder import Run, read_runs

HERE = Path(__file__).parent


def write_page(out: Path, runs: Sequence[Path], title: str = "Runs of dinogrl", projection: str = "auto") -> Path:
    """Write the report of these run folders, the first being what the last is compared with; returns ``out``.

    A folder must hold ``metrics.json``; sections whose files are missing are left out, and the page says so. ``projection`` draws
    the map of embeddings (:mod:`dinogrl.reports.embedding_map`). Raises :class:`DataError` where a folder or a file in it cannot be
    read, :class:`UnknownNameError` for an unknown projection, :class:`DinogrlError`, before any drawing, where ``out`` cannot be
    written.
    """
    if not runs:
        raise DataError("a report needs at least one run folder")
    known = read_runs(runs)
    expect_writable_file(out)
    write_atomically(out, page(known, title, projection).encode())
    return out


def page(runs: Sequence[Run], title: str, projection: str = "auto") -> str:
    """The page's text."""
    gained = score_sections.gains(runs)
    sections = _sections(runs, gained, projection)
    contents = "".join(f'<li><a href="#{name}">{text(heading)}</a></li>' for name, heading, body, _ in sections if body)
    template = Template((HERE / "page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=text(title),
        subtitle=text(_subtitle(runs)),
        style=(HERE / "page.css").read_text(encoding="utf-8"),
        contents=contents,
        headline=score_sections.notices(runs) + score_sections.headline(runs, gained),
        body="".join(section(name, heading, body, lead) for name, heading, body, lead in sections),
    )


def _subtitle(runs: Sequence[Run]) -> str:
    datasets, protocols = (
        dict.fromkeys(values) for values in zip(*((r.metrics.dataset, r.metrics.protocol) for r in runs), strict=True)
    )
    *others, last = (run.name for run in runs)
    names = f"{last} against {', '.join(others)}" if others and score_sections.one_test(runs) else ", ".join([*others, last])
    return f"{names} · dataset {', '.join(datasets)} · protocol {', '.join(protocols)}"


def _sections(
    runs: Sequence[Run], gained: Mapping[str, score_sections.Intervals], projection: str
) -> list[tuple[str, str, str, str]]:
    """(anchor, heading, body, introduction) of each section, in the page's order; an empty body leaves it out."""
    return [
        (
            "scores",
            "Scores",
            score_sections.score_tables(runs, gained),
            score_sections.scores_lead(runs),
        ),
        (
            "strips",
            "Ranked tracklets",
            picture_sections.ranked_strips(runs),
            "The six nearest gallery tracklets of a query. Green and ✓: the same person; red and ✗: another. The queries are not"
            f" picked by hand: by average precision under {text(runs[-1].name)} they stand 10, 40, 60 and 90 % down the list.",
        ),
        (
            "silhouettes",
            "What the gait stream sees",
            picture_sections.silhouettes(runs),
            "A frame, the silhouette that the frozen features give, the two priors, and the enriched silhouette, by day and by"
            " night. Of the maps' many channels the three principal components are shown as colour.",
        ),
        (
            "distances",
            "Distances",
            chart_sections.distance_charts(runs),
            "How far query and gallery tracklets are apart when they show the same person and when they do not. The farther apart"
            " the two hills, the easier the search.",
        ),
        ("cmc", "How far down the list", chart_sections.cmc_charts(runs), "Share of queries with a match among the first k."),
        (
            "map",
            "Map of embeddings",
            chart_sections.embedding_maps(runs, projection),
            "Up to ten people, a colour each: where circles and triangles of one colour lie together, day and night agree.",
        ),
        ("losses", "Training", chart_sections.loss_charts(runs), "Each step as logged, faint, and its running mean."),
        (
            "cameras",
            "Camera by camera",
            score_sections.camera_tables(runs),
            f"Rank-1 of {text(runs[-1].name)} in per cent, from each camera to each other alone, without re-ranking.",
        ),
        (
            "hardest",
            "Hardest queries",
            picture_sections.hardest_queries(runs),
            f"The queries, of different people, whose nearest match stands farthest down the list of {text(runs[-1].name)}.",
        ),
        ("facts", "What was trained and scored", score_sections.facts(runs), ""),
        ("settings", "Settings", score_sections.settings(runs), "Everything that the numbers depend on."),
    ]
