"""What a page and its figures show, number by number and colour by colour."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from dinogrl.embedding.archive import load_embeddings, save_embeddings
from dinogrl.evaluation import evaluate, write_metrics
from dinogrl.evaluation.evaluate import DistanceSamples
from dinogrl.reports import figures
from dinogrl.reports.chart_sections import found_curves, logged_curves
from dinogrl.reports.embedding_map import Flat
from dinogrl.reports.figures import RUNS, Curve
from dinogrl.reports.paper import RIGHT, WRONG, strips
from dinogrl.reports.run_folder import Run, read_run, read_runs
from dinogrl.reports.score_sections import camera_tables, facts, gains, headline, score_tables
from tiny_runs import make_run

DIRECTION = "infrared_to_visible"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    root = tmp_path_factory.mktemp("runs")
    return read_runs([make_run(root / name, name, noise, None, False, 40) for name, noise in (("baseline", 2.6), ("dinogrl", 1.9))])


def axes_of(figure: object) -> Axes:
    return figure.axes[0]  # type: ignore[attr-defined, no-any-return]


# -- the page's numbers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "said"),
    [([100, 19.4], "119 s"), ([60, 60], "2.0 min"), ([7000, 199], "120.0 min"), ([7200], "2.0 h"), ([], "not logged")],
)
def test_training_time_is_told_in_seconds_minutes_or_hours(steps: list[float], said: str, runs: list[Run]) -> None:
    log = {"seconds": np.array(steps)} if steps else {}
    row = re.findall(r'<tr><th scope="row">training time</th>(.*?)</tr>', facts([replace(runs[0], log=log)]))
    assert row == [f"<td>{said}</td>"]


def test_bars_are_as_long_as_the_rate_and_in_the_colour_of_the_run(runs: list[Run]) -> None:
    bars = re.findall(r'name">(\w+)</span>.*?class="fill (run-\d)" style="width:([\d.]+)%', headline(runs, {}))
    expected = [
        (run.name, f"run-{number}", f"{100 * getattr(run.metrics.directions[direction], key):.2f}")
        for direction in runs[0].metrics.directions
        for key in ("rank1", "mAP")
        for number, run in enumerate(runs)
    ]
    assert bars == expected and len({width for _, _, width in bars}) > 4
    assert re.findall(r'class="dot (run-\d)"></span>(\w+)', facts(runs)) == [("run-0", "baseline"), ("run-1", "dinogrl")]


def test_chance_is_the_share_of_right_answers_among_those_that_are_met(tmp_path: Path) -> None:
    """Thirty of 48 visible tracklets: seven people with four, one with two, four with none. That of the same camera is struck."""
    folder = make_run(tmp_path / "run", "baseline", 2.0, None, False, 5)
    query, gallery = (load_embeddings(folder / f"{side}.safetensors") for side in ("query", "gallery"))
    fewer = gallery.take(np.arange(30))
    save_embeddings(folder / "gallery.safetensors", fewer)
    evaluation = evaluate(query, fewer, "hitsz-vcm")
    write_metrics(folder / "metrics.json", evaluation, dataset="hitsz-vcm", model="baseline", frames_per_clip=6, selection="last")
    shown = re.findall(r'<tr><th scope="row">by chance</th><td>([\d.]+)</td>', score_tables([read_run(folder)], {}))
    asked = (28 * 3 / 29 + 2 * 1 / 29 + 2 * 2 / 30) / 32, 3 / 47
    assert shown == [f"{100 * share:.1f}" for share in asked]


def test_tables_of_two_runs_have_a_row_each_and_no_chance_where_the_tests_differ(runs: list[Run]) -> None:
    first = score_tables(runs, gains(runs)).partition("</table>")[0]
    assert re.findall(r'<th scope="row">(?:<span[^>]*></span>)?(\w+[ \w]*)', first) == [
        "baseline",
        "dinogrl",
        "difference",
        "by chance",
    ]
    other = replace(runs[1], metrics=runs[1].metrics.model_copy(update={"protocol": "hitsz-vcm-all"}))
    assert "by chance" not in score_tables([runs[0], other], {})


def test_cells_of_camera_pairs_are_shaded_by_their_rate(runs: list[Run]) -> None:
    cells = re.findall(r'style="--rate:(\d+)%" title="\d+ queries">(\d+)<', camera_tables(runs))
    assert len(cells) > 20 and all(shade == rate for shade, rate in cells) and max(int(rate) for _, rate in cells) > 1


# -- figures ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(len(RUNS) + 1))
def test_a_run_has_one_colour_on_paper_and_on_the_page(number: int) -> None:
    figure = figures.cmc_curves([Curve("run", number, np.arange(1, 21), np.linspace(0.5, 1, 20))])
    (line,) = axes_of(figure).lines
    assert line.get_color() == RUNS[number % len(RUNS)] and len(set(RUNS)) == len(RUNS)
    np.testing.assert_allclose(line.get_ydata(), np.linspace(50, 100, 20))
    assert set(re.findall(r"--run-\d", figures.themed_svg(figure, "curve"))) == {f"--run-{number % len(RUNS)}"}


def test_curves_are_those_of_the_runs_in_their_order(runs: list[Run]) -> None:
    for curves in (logged_curves("total", runs), found_curves(DIRECTION, runs)):
        assert [(curve.name, curve.colour) for curve in curves] == [("baseline", 0), ("dinogrl", 1)]


def test_a_smoothed_loss_keeps_its_level_to_both_ends() -> None:
    logged, smooth = axes_of(figures.loss_curve("loss", [Curve("run", 0, np.arange(200.0), np.full(200, 2.0))])).lines
    np.testing.assert_allclose(smooth.get_ydata(), logged.get_ydata())


def test_the_same_person_has_the_colour_of_what_is_right() -> None:
    figure = figures.distance_distributions(DistanceSamples(np.linspace(1, 2, 400), np.linspace(3, 5, 400), 1.5, 4.0))
    handles, names = axes_of(figure).get_legend_handles_labels()
    shown = {name: to_hex(handle.get_edgecolor() if hasattr(handle, "get_edgecolor") else handle.get_color())
             for handle, name in zip(handles, names, strict=True)}  # fmt: skip
    assert shown == {"same person: 1.50": figures.POSITIVE, "another person: 4.00": figures.NEGATIVE}
    page = figures.themed_svg(figure, "gap")
    assert 0 < page.index("var(--positive)") < page.index("var(--negative)"), "drawn in this order"


def test_a_map_has_a_colour_a_person_and_a_sign_a_modality() -> None:
    flat = Flat(np.arange(16.0).reshape(8, 2), np.repeat([3, 8], 4), np.tile([0, 1], 4), "PCA", "note")
    drawn = [one for one in axes_of(figures.embedding_map(flat)).collections if len(one.get_offsets()) > 0]
    corners = [len(one.get_paths()[0].vertices) for one in drawn]
    assert len(drawn) == 4 and corners[0] == corners[1] > 10 > corners[2] == corners[3], "circles by day, triangles by night"
    colours = [to_hex(one.get_facecolor()[0]) for one in drawn]
    assert colours[0] == colours[2] != colours[1] == colours[3]
    np.testing.assert_array_equal(drawn[2].get_offsets(), flat.points[[1, 3]])


def test_right_answers_are_framed_in_green_and_wrong_ones_in_red(runs: list[Run]) -> None:
    frames = {(axes.get_title(), to_hex(axes.spines["left"].get_edgecolor())) for axes in strips(runs, DIRECTION).axes}
    assert frames == {("query", figures.INK), ("✓", RIGHT), ("✗", WRONG)}
