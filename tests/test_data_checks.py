"""The check names everything that is wrong, agrees with what can be opened, and survives any garbage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tiny_datasets
from dinogrl.data.checks import CheckReport, check_dataset
from dinogrl.data.datasets import DATASETS, open_dataset
from dinogrl.data.datasets.layout import Counts
from dinogrl.errors import DataError, UnknownNameError

MAKE: dict[str, Callable[[Path], Path]] = {
    "hitsz-vcm": lambda root: tiny_datasets.hitsz_vcm(root, train=2, test=2),
    "buptcampus": lambda root: tiny_datasets.buptcampus(root, train=2, auxiliary=1, test=2),
    "sysu-mm01": lambda root: tiny_datasets.sysu_mm01(root, train=1, val=1, test=2),
    "regdb": lambda root: tiny_datasets.regdb(root, train=2, test=2, suffix=".jpg"),
    "llcm": lambda root: tiny_datasets.llcm(root, train=2, test=2),
    "folder": lambda root: tiny_datasets.folder(root, people=2),
}


def texts(report: CheckReport, severity: str) -> list[str]:
    return [str(problem) for problem in report.problems if problem.severity == severity]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("layout", sorted(DATASETS))
def test_a_whole_dataset_is_usable(tmp_path: Path, layout: str, full: bool) -> None:
    root = MAKE[layout](tmp_path)
    steps: list[tuple[int, int]] = []
    report = check_dataset(root, full=full, progress=lambda done, total: steps.append((done, total)))
    assert report.usable and report.layout == layout and not texts(report, "error") and not texts(report, "warning")
    dataset = open_dataset(root)
    everything = [*dataset.train, *dataset.auxiliary, *dataset.query, *dataset.gallery]
    assert report.frames_checked == sum(len(t.frames) for t in everything) == steps[-1][0] == steps[-1][1]
    visible = [t for t in dataset.train if t.modality == 0]
    assert report.splits["train visible"] == Counts(2, len(visible), sum(len(t.frames) for t in visible))
    assert report.counts["train visible tracklets"] == len(visible)


@pytest.mark.parametrize("layout", sorted(DATASETS))
def test_every_bad_file_is_named_and_no_other(tmp_path: Path, layout: str) -> None:
    root = MAKE[layout](tmp_path)
    dataset = open_dataset(root)
    missing, empty, short, wrong = (t.path((i + 1) % len(t.frames)) for i, t in enumerate(dataset.train[:4]))
    inside = dataset.query[0].path(2 % len(dataset.query[0].frames))
    content = short.read_bytes()
    missing.unlink()
    empty.write_bytes(b"")
    short.write_bytes(content[: len(content) // 2])
    wrong.write_bytes(b"this is text")
    inside.write_bytes(content[:150] + b"\xff\xd9")
    quick, full = check_dataset(root), check_dataset(root, full=True)
    outside = [f"{empty}: is empty", f"{missing}: is missing", f"{short}: is truncated or broken", f"{wrong}: is no image"]
    if layout in ("folder", "sysu-mm01"):
        outside.pop(1)  # no list says that there was such a file
    assert len(texts(quick, "error")) == len(outside) and len(texts(full, "error")) == len(outside) + 1
    for expected in outside:
        assert any(text.startswith(expected) for text in texts(quick, "error")), expected
    assert any(str(inside) in text for text in texts(full, "error"))
    assert not quick.training and quick.evaluation and not full.evaluation and not quick.usable


@pytest.mark.parametrize(
    ("file", "edit", "severity", "message"),
    [
        ("track_train_info.txt", lambda t: t + "2 1 9999 0001 3\n", "error", "frames 1..9999 are not within lines"),
        ("track_train_info.txt", lambda t: t + "two words\n", "error", "found 'two words'"),
        ("track_train_info.txt", lambda t: t + t.splitlines()[0] + "\n", "warning", "repeats frames 1..13"),
        ("track_train_info.txt", lambda t: t + "1 3 15 0001 1\n", "warning", "overlap"),
        ("track_train_info.txt", lambda t: t.replace("1 1 13 0001", "1 1 14 0001"), "warning", "frames 14..25 overlap 1..14"),
        (
            "track_train_info.txt",
            lambda t: t.replace("1 1 13 0001 1", "1 1 13 0002 1"),
            "warning",
            "identity 2, but the frames are named",
        ),
        (
            "track_train_info.txt",
            lambda t: t.replace("1 1 13 0001 1", "1 1 13 0001 7"),
            "warning",
            "camera 7, but the frames are named",
        ),
        ("track_train_info.txt", lambda t: t.replace("1 1 13 0001 1", "2 1 13 0001 1"), "warning", "modality visible, but"),
        ("track_test_info.txt", lambda t: t.replace("1 1 13 0503 1", "1 1 11 0503 1"), "note", "11 frames, fewer than 12"),
        ("query_IDX.txt", lambda t: t.strip() + " 4000", "error", "found '4000'"),
        ("query_IDX.txt", lambda t: t.strip() + " 1", "warning", "row 1 stands here twice"),
        ("query_IDX.txt", lambda t: t.strip() + " 5", "warning", "row 5 is a visible tracklet"),
        ("test_name.txt", lambda t: t.replace("0503M1D1T9F8.jpg", "x"), "error", "test_name.txt:1"),
        ("test_name.txt", lambda t: t.replace("0503", "0001"), "warning", "is in both the training and the test tracklets"),
    ],
)
def test_index_faults_are_named(tmp_path: Path, file: str, edit: Callable[[str], str], severity: str, message: str) -> None:
    root = MAKE["hitsz-vcm"](tmp_path)
    path = root / "info" / file
    path.write_text(edit(path.read_text()))
    if "both" in message:
        rows = root / "info/track_test_info.txt"
        rows.write_text(rows.read_text().replace("0503", "0001"))
    report = check_dataset(root)
    assert any(message in text for text in texts(report, severity)), report.problems
    assert report.usable or severity == "error" or "both" in message


def test_every_wrong_line_is_named_not_the_first_only(tmp_path: Path) -> None:
    root = MAKE["hitsz-vcm"](tmp_path)
    path = root / "info/track_train_info.txt"
    path.write_text(path.read_text() + "bad\n" * 5)
    lines = len(path.read_text().splitlines())
    assert [text.split(":")[1] for text in texts(check_dataset(root), "error")] == [str(lines - i) for i in range(4, -1, -1)]
    with pytest.raises(DataError, match="and 4 more"):
        open_dataset(root)


def test_bupt_repetition_and_unequal_pairs(tmp_path: Path) -> None:
    root = MAKE["buptcampus"](tmp_path)
    lines = (root / "train.txt").read_text()
    (root / "train.txt").write_text(lines + lines.splitlines()[0] + "\n")
    paths = json.loads((root / "data_paths.json").read_text())
    paths["8"]["IR"]["LS3"]["1"].pop()
    (root / "data_paths.json").write_text(json.dumps(paths))
    found = texts(check_dataset(root), "warning")
    assert any("repeats the tracklet of" in text for text in found)
    assert any("14 visible and 13 infrared frames" in text for text in found)


def test_a_frame_in_two_tracklets(tmp_path: Path) -> None:
    root = MAKE["buptcampus"](tmp_path)
    paths = json.loads((root / "data_paths.json").read_text())
    paths["8"]["RGB"]["LS3"]["1"][0] = paths["8"]["RGB"]["TSG2"]["2"][0]
    paths["9"]["RGB"]["LS3"]["1"][3] = paths["9"]["RGB"]["LS3"]["1"][4]
    (root / "data_paths.json").write_text(json.dumps(paths))
    found = texts(check_dataset(root), "warning")
    assert len(found) == 2 and "is in tracklet 8_RGB_LS3_1 too" in found[0] and "same frame twice" in found[1]


def test_folder_without_split_and_a_person_on_both_sides(tmp_path: Path) -> None:
    report = check_dataset(tiny_datasets.folder(tmp_path / "flat", levels=(), people=2))
    assert report.usable and any("no train/test split" in text for text in texts(report, "note"))
    root = tiny_datasets.folder(tmp_path / "split", people=2)
    shutil.copytree(root / "train/person8", root / "test/person8")
    assert texts(check_dataset(root), "warning") == ["identity person8: is in both the training and the test tracklets"]


def test_folders_that_hold_no_tracklet_are_named(tmp_path: Path) -> None:
    root = tiny_datasets.folder(tmp_path, people=2)
    (root / "train/person8/roof").mkdir()
    (root / "train/person8/gate/thermal/walk1").mkdir(parents=True)
    (root / "train/person8/gate/visible/walk2").mkdir()
    assert texts(check_dataset(root), "warning") == [
        f"{root}/train/person8/gate/thermal: is called neither visible nor rgb nor infrared nor ir; left out",
        f"{root}/train/person8/gate/visible/walk2: no image in this tracklet's folder",
        f"{root}/train/person8/roof: no folder visible or infrared in this camera's folder",
    ]


def test_one_modality_cannot_train_or_be_evaluated(tmp_path: Path) -> None:
    root = tiny_datasets.folder(tmp_path, people=2)
    for path in list(root.rglob("infrared")):
        shutil.rmtree(path)
    report = check_dataset(root)
    assert not report.training and not report.evaluation and len(texts(report, "error")) == 2


def test_training_part_alone_opens_but_is_not_usable(tmp_path: Path) -> None:
    root = MAKE["hitsz-vcm"](tmp_path)
    for name in ("test_name.txt", "track_test_info.txt", "query_IDX.txt"):
        (root / "info" / name).unlink()
    report = check_dataset(root)
    assert report.training and not report.evaluation
    assert open_dataset(root).train and not open_dataset(root).query


def test_published_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = MAKE["hitsz-vcm"](tmp_path)
    assert "not compared" in check_dataset(root).published
    for key in list(DATASETS["hitsz-vcm"].published):
        monkeypatch.setitem(DATASETS["hitsz-vcm"].published, key, Counts(2, 8, 100))
    report = check_dataset(root)
    assert report.published == "published counts: match" and not texts(report, "warning")
    monkeypatch.setitem(DATASETS["hitsz-vcm"].published, "query infrared", Counts(2, 9, 100))
    report = check_dataset(root)
    assert report.published == "published counts: differ: query infrared tracklets 8 (published 9)"
    assert report.usable and len(texts(report, "warning")) == 1
    for people, said in ((4, "differ: train visible identities 2 (published 4)"), (5, "not compared (2 training identities, ")):
        monkeypatch.setitem(DATASETS["hitsz-vcm"].published, "train visible", Counts(people, 8, 100))
        assert check_dataset(root).published.startswith(f"published counts: {said}"), "half of them are enough to compare"


def test_auxiliary_tracklets_are_part_of_the_training(tmp_path: Path) -> None:
    root = MAKE["buptcampus"](tmp_path)
    dataset = open_dataset(root)
    dataset.auxiliary[0].path(0).write_bytes(b"this is text")
    report = check_dataset(root)
    assert not report.training and report.evaluation
    somebody = dataset.identity_names[dataset.auxiliary[0].identity]
    paths = json.loads((root / "data_paths.json").read_text())
    paths[somebody]["RGB"]["W4"]["9"] = paths[somebody]["RGB"]["W4"]["1"]
    (root / "data_paths.json").write_text(json.dumps(paths))
    (root / "query.txt").write_text((root / "query.txt").read_text() + f"{somebody} RGB W4 9\n")
    assert any(f"identity {somebody}: is in both" in text for text in texts(check_dataset(root), "warning"))


def test_who_was_seen_by_one_modality_only_is_counted(tmp_path: Path) -> None:
    root = tiny_datasets.folder(tmp_path, people=4)
    for number, modality in ((8, "visible"), (9, "infrared")):
        for camera in ("gate", "yard"):
            shutil.rmtree(root / f"train/person{number}/{camera}/{modality}")
    for camera in ("gate", "yard"):
        shutil.rmtree(root / f"test/person12/{camera}/visible")
    report = check_dataset(root)
    assert report.usable
    assert "training tracklets: 2 identities were seen by one modality only and are never drawn" in texts(report, "note")
    lonely = (
        "test tracklets: 2 queries have no gallery tracklet of the other modality, the first is test/person12/gate/infrared/walk1"
    )
    assert lonely in texts(report, "note")
    shutil.rmtree(root / "test/person12/gate")
    assert any("1 queries have no gallery tracklet" in text for text in texts(check_dataset(root), "note"))


def test_one_name_among_the_nameless_asks_for_all(tmp_path: Path) -> None:
    root = tiny_datasets.folder(tmp_path, levels=(), people=2)
    for number in (8, 9):
        (root / f"person{number}").rename(root / f"unknown-{number}")
    assert check_dataset(root).search_only
    (root / "unknown-8").rename(root / "anna")
    report = check_dataset(root)
    assert not report.search_only and report.training


def test_real_totals_are_the_published_ones() -> None:
    """Sums that the authors give for the whole dataset."""
    counts = DATASETS["hitsz-vcm"].published
    assert sum(c.tracklets for name, c in counts.items() if name.startswith("train")) == 9_751
    assert sum(c.images for name, c in counts.items() if name.startswith("train")) == 224_757
    bupt = DATASETS["buptcampus"].published
    assert sum(c.images for name, c in bupt.items() if name.startswith("train")) == 796_138
    assert sum(c.tracklets for name, c in bupt.items() if name.startswith("query")) == 1_076
    assert sum(c.tracklets for name, c in bupt.items() if name.startswith("gallery")) == 4_844


def test_no_dataset_is_a_report_and_a_wrong_layout_an_error(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "typo"):
        report = check_dataset(root)
        assert not report.usable and report.layout == "unknown" and len(texts(report, "error")) == 1
    with pytest.raises(UnknownNameError, match="buptcampus"):
        check_dataset(tmp_path, "bupt")


NUMBERS = st.lists(st.integers(-3, 10**20).map(str), max_size=7).map(" ".join)
NAMES = st.from_regex(r"[0-9]{1,5}M[0-9x]D[0-9]{0,3}T[0-9]F[./\w]{0,5}", fullmatch=True)
GARBAGE = st.one_of(
    st.binary(max_size=120),
    st.text(max_size=120).map(lambda text: text.encode("utf-8", "replace")),
    st.lists(NUMBERS | NAMES, max_size=9).map(lambda lines: "\n".join(lines).encode("utf-8", "replace")),
)
KEYS = st.sampled_from(["8", "RGB", "IR", "LS3", "1"])
NESTED = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=20,
)
INDEX_FILES = ["train_name.txt", "track_train_info.txt", "test_name.txt", "track_test_info.txt", "query_IDX.txt"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(INDEX_FILES), GARBAGE, st.booleans())
def test_hitsz_survives_garbage(tmp_path: Path, file: str, garbage: bytes, appended: bool) -> None:
    agree(tmp_path, "hitsz-vcm", Path("info") / file, garbage, appended)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["data_paths.json", "train.txt", "train_auxiliary.txt", "query.txt", "gallery.txt"]),
    GARBAGE | NESTED.map(lambda value: json.dumps(value).encode()),
    st.booleans(),
)
def test_bupt_survives_garbage(tmp_path: Path, file: str, garbage: bytes, appended: bool) -> None:
    agree(tmp_path, "buptcampus", Path(file), garbage, appended)


def agree(folder: Path, layout: str, file: Path, garbage: bytes, appended: bool) -> None:
    """The check ends with a report that can be printed, and says 'usable' only of what opens."""
    root = folder / "data"
    if not root.exists():
        MAKE[layout](root)
    path = root / file
    before = path.read_bytes()
    try:
        path.write_bytes(before + garbage if appended else garbage)
        report = check_dataset(root)
        for problem in report.problems:
            assert "\n" not in str(problem) and str(problem).encode()
        try:
            dataset = open_dataset(root)
        except DataError as error:
            assert not report.usable and "\n" not in str(error)
        else:
            assert {f"train {m}" for m in ("visible", "infrared")} <= set(report.splits) or not report.training
            assert all(t.frames for t in dataset.train)
    finally:
        path.write_bytes(before)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=6), min_size=4, max_size=4))
def test_folders_survive_strange_names(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    if any(name in (".", "..") for name in names):
        return
    root = tmp_path_factory.mktemp("strange")
    tiny_datasets.put(root / names[0] / names[1] / "visible" / names[2] / f"{names[3]}.jpg", 1)
    tiny_datasets.put(root / names[0] / names[1] / "infrared" / names[2] / f"{names[3]}.jpg", 1)
    report = check_dataset(root)
    assert all("\n" not in str(problem) and str(problem).encode() for problem in report.problems)


def test_names_that_are_no_text(tmp_path: Path) -> None:
    root = tiny_datasets.folder(tmp_path, people=2)
    place = bytes(root / "train/person8/gate/visible/walk1")
    Path((place + b"/\xff\xfe.jpg").decode("utf-8", "surrogateescape")).write_bytes(b"")
    found = texts(check_dataset(root), "error")
    assert len(found) == 1 and found[0].encode().endswith(b": is empty")
