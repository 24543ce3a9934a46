"""Datasets of single images: what is read is what the files say, and every fault in them is one line that names its place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tiny_datasets
from dinogrl.data.checks import check_dataset
from dinogrl.data.datasets import DATASETS, open_dataset
from dinogrl.data.datasets.layout import SIMULATION_CARD
from dinogrl.errors import DataError
from dinogrl.records import Dataset, Modality, Tracklet


def facts(tracklets: list[Tracklet] | tuple[Tracklet, ...]) -> set[tuple[str, int, int, int]]:
    assert all(t.frames == (t.id,) for t in tracklets), "a tracklet is one image, its id the image's path"
    return {(t.id, t.identity, t.camera, int(t.modality)) for t in tracklets}


def texts(root: Path, severity: str, **choices: int) -> list[str]:
    return [str(problem) for problem in check_dataset(root, **choices).problems if problem.severity == severity]


# SYSU-MM01


def test_sysu_agrees_with_a_literal_reading(tmp_path: Path) -> None:
    """Train and val identities train; of the test's, cameras 3 and 6 ask and 1, 2, 4 and 5 are searched."""
    root = tiny_datasets.sysu_mm01(tmp_path)
    (root / "cam4/0007").rename(tmp_path / "elsewhere")  # not every person passes every camera
    tiny_datasets.put(root / "cam1/0099/0001.jpg", 0)  # on no list
    dataset = open_dataset(root)
    expected: dict[str, set[tuple[str, int, int, int]]] = {"train": set(), "query": set(), "gallery": set()}
    lists = {name: [int(n) for n in (root / f"exp/{name}_id.txt").read_text().split(",")] for name in ("train", "val", "test")}
    for camera in range(1, 7):
        for path in (root / f"cam{camera}").glob("*/*.jpg"):
            identity, infrared = int(path.parent.name), camera in (3, 6)
            fact = (path.relative_to(root).as_posix(), identity, camera, int(infrared))
            if identity in lists["train"] + lists["val"]:
                expected["train"].add(fact)
            elif identity in lists["test"]:
                expected["query" if infrared else "gallery"].add(fact)
    assert {split: facts(getattr(dataset, split)) for split in expected} == expected
    assert len(dataset.query) == 3 * 2 * 2 and len(dataset.gallery) == (3 * 4 - 1) * 2
    assert [t.id for t in dataset.gallery] == sorted([t.id for t in dataset.gallery], key=lambda i: (i.split("/")[1], i))


@pytest.mark.parametrize(
    ("change", "severity", "message"),
    [
        (lambda root: (root / "exp/test_id.txt").unlink(), "warning", "exp/test_id.txt: is missing"),
        (lambda root: (root / "exp/val_id.txt").unlink(), "warning", "exp/val_id.txt: is missing"),
        (lambda root: (root / "exp/train_id.txt").write_text("1,zwei,3\n"), "error", "train_id.txt:1: expected identity numbers"),
        (lambda root: (root / "exp/train_id.txt").write_text("1,-2,3\n"), "error", "found '-2'"),
        (lambda root: (root / "exp/train_id.txt").write_text("1,2,3,2"), "warning", "identity 2 stands here twice"),
        (lambda root: (root / "exp/test_id.txt").write_text(""), "error", "test_id.txt: is empty"),
        (
            lambda root: (root / "exp/test_id.txt").write_text("5,6,7,400"),
            "warning",
            "1 of 4 identities have no image, the first is 400",
        ),
        (lambda root: (root / "exp/test_id.txt").write_text("3,5,6,7"), "warning", "identity 0003: is in both the training and"),
        (lambda root: shutil.rmtree(root / "cam5"), "warning", "cam5: is missing"),
        (
            lambda root: [shutil.rmtree(p) for p in (root / "cam5").iterdir()],
            "warning",
            "cam5: holds no image of a listed identity",
        ),
        (
            lambda root: [p.unlink() for p in (root / "cam2/0005").iterdir()],
            "warning",
            "cam2/0005: no image in this identity's folder",
        ),
        (lambda root: (root / "cam2/0077").mkdir(), "note", "1 identities in the cameras' folders are on no list, the first is 77"),
        (lambda root: (root / "cam2/more").mkdir(), "warning", "cam2/more: is no identity's number"),
    ],
)
def test_sysu_names_each_fault(tmp_path: Path, change: Callable[[Path], object], severity: str, message: str) -> None:
    root = tiny_datasets.sysu_mm01(tmp_path)
    change(root)
    assert any(message in text for text in texts(root, severity)), texts(root, severity)
    if severity == "error":
        with pytest.raises(DataError, match=r"`dinogrl check") as caught:
            open_dataset(root)
        assert "\n" not in str(caught.value)


def test_sysu_trains_without_its_test_list_and_the_other_way_round(tmp_path: Path) -> None:
    root = tiny_datasets.sysu_mm01(tmp_path)
    (root / "exp/test_id.txt").rename(root / "exp/aside")
    report = check_dataset(root)
    assert report.training and not report.evaluation
    (root / "exp/aside").rename(root / "exp/test_id.txt")
    for name in ("train", "val"):
        (root / f"exp/{name}_id.txt").unlink()
    report = check_dataset(root)
    assert report.evaluation and not report.training


# RegDB


@pytest.mark.parametrize("trial", [1, 2])
def test_regdb_reads_the_split_that_is_asked_for(tmp_path: Path, trial: int) -> None:
    root = tiny_datasets.regdb(tmp_path)
    dataset = open_dataset(root, trial=trial)
    names = dataset.identity_names
    for tracklets, lists in (
        (dataset.train, ("train_visible", "train_thermal")),
        (dataset.query, ("test_thermal",)),
        (dataset.gallery, ("test_visible",)),
    ):
        rows = [row.split()[0] for name in lists for row in (root / f"idx/{name}_{trial}.txt").read_text().splitlines()]
        assert [t.id for t in tracklets] == rows
        assert all(names[t.identity] == t.id.split("/")[1] for t in tracklets)
        assert all(t.camera == t.modality == (Modality.INFRARED if "Thermal" in t.id else Modality.VISIBLE) for t in tracklets)
    assert dataset.trial == trial
    assert not {t.identity for t in dataset.train} & {t.identity for t in dataset.query}, "labels count anew, people do not"


def test_regdb_says_which_trials_there_are(tmp_path: Path) -> None:
    root = tiny_datasets.regdb(tmp_path)
    with pytest.raises(DataError, match="there is no trial 11, there are 1, 2"):
        open_dataset(root, trial=11)
    assert texts(root, "error", trial=11)[0].endswith("there is no trial 11, there are 1, 2")
    with pytest.raises(DataError, match=r"idx: there is no trial 1, nor any list such as train_visible_1"):
        open_dataset(tiny_datasets.folder(tmp_path / "other"), "regdb")


@pytest.mark.parametrize(
    ("edit", "severity", "message"),
    [
        (
            lambda text: text.replace(" 0\n", " zero\n", 1),
            "error",
            "train_visible_1.txt:1: expected '<person's folder>/<image> label'",
        ),
        (lambda text: text + "Visible/8/a b.bmp 0\n", "error", "found 'Visible/8/a b.bmp 0'"),
        (lambda text: text + "lonely.bmp 0\n", "error", "found 'lonely.bmp 0'"),
        (lambda text: text + "../../secret/8/a.bmp 0\n", "error", "secret"),
        (lambda text: text + "word\n", "error", "found 'word'"),
        (lambda text: text.replace(" 1\n", " 0\n", 1), "warning", "label 0 is '9' here and '8' in"),
        (lambda text: text.replace(" 1\n", " 7\n", 1), "warning", "'9' has label 1 here and 7 in"),
        (lambda text: text + "Visible/8/gone.bmp 0\n", "error", "Visible/8/gone.bmp: is missing"),
        (lambda text: text + text.splitlines()[0] + "\n", "warning", "repeats the image of"),
        (lambda text: text.replace("Visible/8/male_front_v", "Thermal/8/male_front_t"), "warning", "is listed as visible"),
        (lambda text: "", "error", "train_visible_1.txt: is empty"),
    ],
)
def test_regdb_names_each_fault(tmp_path: Path, edit: Callable[[str], str], severity: str, message: str) -> None:
    root = tiny_datasets.regdb(tmp_path)
    path = root / "idx/train_visible_1.txt"
    path.write_text(edit(path.read_text()))
    assert any(message in text for text in texts(root, severity)), texts(root, severity)
    assert not check_dataset(root).usable or severity == "warning"


def test_a_missing_list_is_one_line(tmp_path: Path) -> None:
    root = tiny_datasets.regdb(tmp_path)
    (root / "idx/test_thermal_1.txt").unlink()
    report = check_dataset(root)
    assert [str(p) for p in report.problems if p.severity == "warning"] == [f"{root}/idx/test_thermal_1.txt: is missing"]
    assert report.training and not report.evaluation


def test_a_cut_bmp_is_found(tmp_path: Path) -> None:
    root = tiny_datasets.regdb(tmp_path)
    victim = open_dataset(root).gallery[0].path(0)
    victim.write_bytes(victim.read_bytes()[:200])
    assert [text for text in texts(root, "error") if str(victim) in text]


# LLCM


def test_llcm_agrees_with_a_literal_reading(tmp_path: Path) -> None:
    root = tiny_datasets.llcm(tmp_path)
    dataset = open_dataset(root)
    expected: dict[str, set[tuple[str, int, int, int]]] = {"train": set(), "query": set(), "gallery": set()}
    for infrared, word in enumerate(("vis", "nir")):
        for row in (root / f"idx/train_{word}.txt").read_text().splitlines():
            name = row.split()[0]
            expected["train"].add((name, int(name.split("/")[1]), int(name.split("_c")[1][:2]), infrared))
        for path in root.glob(f"test_{word}/cam*/*/*.jpg"):
            split = "query" if infrared else "gallery"
            name = path.relative_to(root).as_posix()
            expected[split].add((name, int(path.parent.name), int(path.parent.parent.name[3:]), infrared))
    assert {split: facts(getattr(dataset, split)) for split in expected} == expected
    assert {t.camera for t in dataset.gallery} == {1, 3} and {t.camera for t in dataset.query} == {1, 2}


@pytest.mark.parametrize(
    ("change", "severity", "message"),
    [
        (lambda root: (root / "idx/train_nir.txt").unlink(), "warning", "idx/train_nir.txt: is missing"),
        (lambda root: (root / "idx/test_id.txt").unlink(), "warning", "idx/test_id.txt: is missing"),
        (lambda root: (root / "idx/test_id.txt").write_text("5,6,seven"), "error", "test_id.txt:1: expected identity numbers"),
        (
            lambda root: (root / "idx/train_nir.txt").write_text("nir/0001/no-camera.jpg 0\n"),
            "error",
            "found 'nir/0001/no-camera.jpg'",
        ),
        (
            lambda root: (root / "idx/train_nir.txt").write_text("nir/x/0001_c01_a.jpg 0\n"),
            "error",
            "expected <identity>/<identity>_c<camera>",
        ),
        (lambda root: shutil.rmtree(root / "test_nir"), "warning", "test_nir: is missing"),
        (lambda root: shutil.rmtree(root / "test_nir/cam1/0005"), "note", ""),
        (lambda root: [shutil.rmtree(p) for p in (root / "test_nir/cam1").iterdir()], "warning", "test_nir/cam1: holds no image"),
        (lambda root: next((root / "nir/0001").iterdir()).unlink(), "error", "is missing"),
    ],
)
def test_llcm_names_each_fault(tmp_path: Path, change: Callable[[Path], object], severity: str, message: str) -> None:
    root = tiny_datasets.llcm(tmp_path)
    change(root)
    found = texts(root, severity)
    assert any(message in text for text in found) if message else not found


# all three

GARBAGE = st.one_of(
    st.binary(max_size=80),
    st.lists(
        st.sampled_from(["Visible/8/a.bmp 1", "vis/0001/0001_c01_a.jpg 3", "1,2,3", "4", "-1", ",,", "a/b c", ""]), max_size=6
    ).map(lambda lines: "\n".join(lines).encode()),
)
INDEX = [
    ("sysu-mm01", "exp/train_id.txt"),
    ("sysu-mm01", "exp/test_id.txt"),
    ("regdb", "idx/train_visible_1.txt"),
    ("regdb", "idx/test_thermal_1.txt"),
    ("llcm", "idx/train_vis.txt"),
    ("llcm", "idx/test_id.txt"),
]
MAKE: dict[str, Callable[[Path], Path]] = {
    "sysu-mm01": tiny_datasets.sysu_mm01,
    "regdb": tiny_datasets.regdb,
    "llcm": tiny_datasets.llcm,
}


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(INDEX), GARBAGE, st.booleans())
def test_garbage_in_an_index_is_reported_and_nothing_else_happens(
    tmp_path: Path, file: tuple[str, str], garbage: bytes, appended: bool
) -> None:
    layout, name = file
    root = tmp_path / layout
    if not root.exists():
        MAKE[layout](root)
    path = root / name
    before = path.read_bytes()
    try:
        path.write_bytes(before + garbage if appended else garbage)
        report = check_dataset(root, layout)
        assert all("\n" not in str(problem) and str(problem).encode() for problem in report.problems)
        try:
            open_dataset(root, layout)
        except DataError as error:
            assert not report.usable and "\n" not in str(error)
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize("layout", sorted(MAKE))
def test_windows_line_ends_and_a_byte_order_mark(tmp_path: Path, layout: str) -> None:
    root = MAKE[layout](tmp_path)

    def content(dataset: Dataset) -> list[object]:
        return [(t.id, t.identity, t.camera) for t in (*dataset.train, *dataset.query, *dataset.gallery)]

    before = content(open_dataset(root))
    for path in [*root.glob("idx/*"), *root.glob("exp/*")]:
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert content(open_dataset(root)) == before


def test_published_counts_are_the_authors_totals() -> None:
    """LLCM: 46,767 boxes; RegDB: 412 people, ten images each in each modality; SYSU-MM01: 395 + 96 people."""
    llcm, regdb, sysu = (DATASETS[name].published for name in ("llcm", "regdb", "sysu-mm01"))
    assert sum(counts.images for counts in llcm.values()) == 46_767
    assert (llcm["train visible"].identities, llcm["query infrared"].identities) == (713, 351)
    assert sum(counts.images for counts in regdb.values()) == 412 * 20
    assert sysu["train visible"].identities == 395 and sysu["query infrared"].images == 3_803


@pytest.mark.parametrize("layout", sorted(MAKE))
def test_a_simulated_world_says_so(tmp_path: Path, layout: str) -> None:
    root = MAKE[layout](tmp_path)
    real = open_dataset(root)
    assert (real.title, real.simulated, check_dataset(root).simulated) == (layout, False, False)
    (root / SIMULATION_CARD).write_text(json.dumps({}))
    world = open_dataset(root)
    assert (world.name, world.title) == (layout, f"simulated ({layout} layout)")
    report = check_dataset(root)
    assert report.simulated and report.published == "published counts: not compared (a simulated world)"
