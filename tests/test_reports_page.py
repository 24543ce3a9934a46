"""The page: everything in it, nothing fetched from outside, whole when parts of a run are missing."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from dinogrl.errors import DinogrlError, UnknownNameError
from dinogrl.evaluation.evaluate import camera_pairs
from dinogrl.evaluation.metrics import Interval
from dinogrl.reports import figures, pictures, score_sections
from dinogrl.reports.html import text
from dinogrl.reports.page import write_page
from dinogrl.reports.paper import write_figures
from dinogrl.reports.picture_sections import spread_queries
from dinogrl.reports.run_folder import read_run
from tiny_runs import make_frames, make_run

VOID = {"meta", "link", "img", "br", "input", "hr"}


class Reader(HTMLParser):
    """Checks that elements are closed in order, and keeps what the tests ask for."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.drawings: list[dict[str, str | None]] = []
        self.ids: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href", "srcset", "data", "action", "poster"}]
        if values.get("id"):
            self.ids.append(str(values["id"]))
        if tag == "img":
            self.images.append(values)
        if tag == "svg":
            self.drawings.append(values)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("runs")
    frames = make_frames(root / "frames")
    return [make_run(root / "baseline", "baseline", 2.6, frames, False), make_run(root / "dinogrl", "dinogrl", 1.9, frames, True)]


@pytest.fixture(scope="module")
def page(folders: list[Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    out = write_page(tmp_path_factory.mktemp("out") / "report.html", folders, "By day & by night")
    return out.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert not reader.open
    return reader


def test_nothing_is_fetched(page: str, read: Reader) -> None:
    assert read.addresses and all(a.startswith(("#", "data:")) for a in read.addresses), "only places in the page, and data in it"
    assert "@import" not in page and "<script" not in page
    assert not [a for a in re.findall(r"url\(([^)]*)\)", page) if not a.strip("'\"").startswith(("#", "data:"))]
    assert set(re.findall(r"https?://[^\s\"'<]+", page)) <= {"http://www.w3.org/2000/svg"}
    assert len(page) < 6e6


def test_it_says_everything(read: Reader, folders: list[Path]) -> None:
    words = ("By day & by night", "Rank-1", "mINP", "difference", "by chance", "hitsz-vcm", "gait prior", "Hardest queries")
    assert all(word in read.text for word in (*words, "learning_rate: 0.00035", "torch", "48 queries of 12 people"))
    first, last = (read_run(folder).metrics.directions["infrared_to_visible"] for folder in folders)
    for rate in (first.rank1, last.rank1, last.mAP):
        assert f"{100 * rate:.1f}" in read.text
    gained = f"{100 * (last.rank1 - first.rank1):+.1f} Rank-1 · {100 * (last.mAP - first.mAP):+.1f} mAP"
    assert f"{gained} dinogrl against baseline" in read.text, "on the card"
    low, high = last.confidence["mAP"]
    assert f"{100 * last.mAP:.1f}{100 * low:.1f}–{100 * high:.1f}" in read.text, "with its interval"
    anchors = {a[1:] for a in read.addresses if a.startswith("#")}
    assert anchors <= set(read.ids) and {"scores", "strips", "silhouettes", "distances", "losses", "cameras", "settings"} <= anchors


def test_a_difference_is_coloured_where_enough_people_tell_it(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def differences(*runs: Path) -> list[tuple[str, str]]:
        text = write_page(tmp_path / "report.html", runs, projection="pca").read_text(encoding="utf-8")
        row = re.findall(r'<tr><th scope="row">difference</th>(.*?)</tr>', text)[0]
        return re.findall(r'<span class="(\w*)">([+-])[\d.]+</span>', row)

    baseline, better = folders
    assert ("better", "+") in differences(baseline, better) and ("worse", "-") in differences(better, baseline)
    assert {kind for kind, _ in differences(baseline, baseline)} == {""}, "no difference has no colour"
    assert all(sign == {"better": "+", "worse": "-"}[kind] for kind, sign in differences(better, baseline) if kind)
    monkeypatch.setattr(score_sections, "LEAST_PEOPLE", 13)
    assert {kind for kind, _ in differences(baseline, better)} == {""}, "twelve people are too few then"
    monkeypatch.undo()
    monkeypatch.setattr(score_sections, "difference_intervals", lambda *_: dict.fromkeys(("rank1", "mAP"), Interval(-0.1, 0.2)))
    assert {kind for kind, _ in differences(baseline, better)} == {""}, "it may be nothing, or the reverse"
    assert "may be chance: Rank-1 and mAP" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_people_are_redrawn_once_a_direction(folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the card and the table together: it is the costliest step of a page."""
    asked, redraw = [], score_sections.difference_intervals
    monkeypatch.setattr(score_sections, "difference_intervals", lambda *pair: (asked.append(pair), redraw(*pair))[1])
    write_page(tmp_path / "report.html", folders, projection="pca")
    assert len(asked) == 2


def test_queries_are_chosen_by_precision_and_cameras_ask_by_row(folders: list[Path], page: str) -> None:
    run = read_run(folders[1])
    assert run.evaluation is not None
    outcome = run.evaluation.directions["infrared_to_visible"]
    best, worst = outcome.queries.precision[spread_queries(outcome, (0.0, 1.0))]
    assert best == outcome.queries.precision.max() > worst
    pairs = camera_pairs(outcome, run.evaluation.protocol, run.evaluation.distance)
    heat = re.findall(r'<table class="heat">.*?</table>', page)[0]
    rows = re.findall(r'<tr><th scope="row">cam (\d+)</th>(.*?)</tr>', heat)
    shown = {int(a): [float(rate) for rate in re.findall(r">(\d+)</span>", cells)] for a, cells in rows}
    assert shown == {a: [pytest.approx(100 * pairs[a, b].rank(1), abs=0.51) for b in range(4) if (a, b) in pairs] for a in range(4)}
    assert any(pairs[a, b].rank(1) != pairs[b, a].rank(1) for a, b in pairs), "and it matters who asks"


def test_text_from_outside_cannot_leave_its_place() -> None:
    assert text("""<b title='x' lang="y">&""") == "&lt;b title=&#x27;x&#x27; lang=&quot;y&quot;&gt;&amp;"


def test_it_can_be_read_out(read: Reader) -> None:
    assert len(read.images) > 100 and all(image.get("alt") for image in read.images)
    assert len(read.drawings) >= 10 and all(d.get("role") == "img" and d.get("aria-label") for d in read.drawings)
    assert len(set(read.ids)) == len(read.ids)
    assert any("the same person" in str(image["alt"]) for image in read.images)
    assert any("another person" in str(image["alt"]) for image in read.images)


def test_charts_take_the_colours_of_the_theme(page: str) -> None:
    drawings = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert all("currentColor" in drawing for drawing in drawings)
    for drawing in drawings:
        assert not re.findall(r"(?:fill|stroke): #(?:000000|1c2330)", drawing, flags=re.IGNORECASE), (
            "black would vanish in the dark"
        )
    assert "prefers-color-scheme: dark" in page


def test_pictures_that_are_gone_are_said_to_be(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "dinogrl", 1.0, tmp_path / "gone", False, steps=20)
    text = write_page(tmp_path / "report.html", [run], projection="pca").read_text()
    assert "(picture not found)" in text and "the frames lie no longer where they were" in text


def test_figures_for_papers(folders: list[Path], tmp_path: Path) -> None:
    evaluation = read_run(folders[1]).evaluation
    assert evaluation is not None
    outcome = evaluation.directions["infrared_to_visible"]
    for name, magic in (("gap.png", b"\x89PNG"), ("gap.svg", b"<?xml"), ("gap.pdf", b"%PDF")):
        figures.save_figure(figures.distance_distributions(outcome.distances), tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(magic)
    curve = figures.Curve("a", 0, np.arange(1, 21), outcome.scores.cmc)
    once = figures.themed_svg(figures.cmc_curves([curve]), "curve")
    assert once == figures.themed_svg(figures.cmc_curves([curve]), "curve"), "the same drawing gives the same file"


def test_every_picture_as_a_file(folders: list[Path], tmp_path: Path) -> None:
    written = write_figures(tmp_path / "figures", folders, "png", projection="pca")
    names = {path.stem for path in written}
    for direction in ("infrared_to_visible", "visible_to_infrared"):
        assert {f"cmc_{direction}", f"strips_{direction}", f"distances_{direction}_dinogrl"} <= names
    assert {"losses", "map_baseline", "silhouettes_dinogrl"} <= names and "silhouettes_baseline" not in names
    assert all(path.stat().st_size > 4000 and path.suffix == ".png" for path in written)


def test_an_unknown_picture_format_is_named(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="png"):
        write_figures(tmp_path / "figures", folders, "pgn")
    assert not (tmp_path / "figures").exists()
    (tmp_path / "figures").write_text("a file")
    with pytest.raises(DinogrlError, match="give a folder for the pictures"):
        write_figures(tmp_path / "figures", folders, "png")


def test_colours_of_maps() -> None:
    random = np.random.default_rng(0)
    maps = random.random((2, 16, 8, 4))
    maps[:, :, :2] = 0
    colours = pictures.in_colour(maps)
    assert colours.shape == (2, 8, 4, 3) and colours.dtype == np.uint8
    assert (colours[:, :2] == 0).all() and colours[:, 2:].max() > 100
    np.testing.assert_array_equal(colours, pictures.in_colour(maps))
    assert (pictures.in_colour(np.zeros((1, 16, 4, 4))) == 0).all()
    assert pictures.in_colour(random.random((1, 1, 4, 4))).shape == (1, 4, 4, 3)


def test_names_from_outside_cannot_become_markup(folders: list[Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    text = (folders[0] / "metrics.json").read_text().replace('"baseline"', '"../<script>alert(1)</script>"')
    (run / "metrics.json").write_text(text.replace('"visible_to_infrared"', '"../../<script>"'))
    (run / "log.csv").write_bytes((folders[0] / "log.csv").read_bytes())
    (run / "recipe.yaml").write_text("name: </pre><script>\n")
    assert "<script" not in write_page(tmp_path / "report.html", [run, run], "</title><script>").read_text()
    for side in ("query", "gallery"):
        (run / f"{side}.safetensors").write_bytes((folders[0] / f"{side}.safetensors").read_bytes())
    written = write_figures(tmp_path / "figures", [run], "svg", projection="pca")
    assert all(path.parent == tmp_path / "figures" and not path.name.startswith(".") for path in written)
