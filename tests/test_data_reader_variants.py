"""What the readers take besides the usual: other names of folders, other orders, lists that repeat themselves or lie."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import tiny_datasets
from dinogrl.data.checks import check_dataset
from dinogrl.data.datasets import find_layout, open_dataset
from dinogrl.data.datasets.directories import IMAGE_SUFFIXES
from dinogrl.data.datasets.text_files import is_safe_path, natural_number, read_lines
from dinogrl.data.problems import Problems
from dinogrl.records import Dataset, Modality


def content(dataset: Dataset) -> list[object]:
    every = (*dataset.train, *dataset.query, *dataset.gallery)
    return [(t.id, t.identity, t.camera, t.modality, t.frames) for t in every]


def warnings(root: Path, **choices: object) -> list[str]:
    return [str(problem) for problem in check_dataset(root, **choices).problems if problem.severity == "warning"]  # type: ignore[arg-type]


# HITSZ-VCM


def in_lower_case(root: Path) -> None:
    for name in ("Train", "Test"):
        (root / name).rename(root / name.lower())


def with_info_inside(root: Path) -> None:
    for path in [*root.glob("Train/*.txt"), *root.glob("Test/*.txt")]:
        (path.parent / "info").mkdir(exist_ok=True)
        path.rename(path.parent / "info" / path.name)


@pytest.mark.parametrize("change", [in_lower_case, with_info_inside])
def test_hitsz_is_read_under_other_names_of_its_folders(change: Callable[[Path], None], tmp_path: Path) -> None:
    root = tiny_datasets.hitsz_vcm(tmp_path, train=2, test=1, info="beside")
    before = content(open_dataset(root))
    change(root)
    dataset = open_dataset(root)
    assert content(dataset) == before and find_layout(root) == "hitsz-vcm"
    assert all(t.path(0).is_file() for t in (*dataset.train, *dataset.query, *dataset.gallery))
    assert dataset.camera_names == {1: "D1", 12: "D12"}


def test_hitsz_takes_the_folder_with_most_of_the_people(tmp_path: Path) -> None:
    """A stray copy of one of them in another known place does not lead it away."""
    root = tiny_datasets.hitsz_vcm(tmp_path, train=3, test=1)
    (root / "Train/Train/0001").mkdir(parents=True)
    assert all(t.path(0).is_file() for t in open_dataset(root).train)


def test_hitsz_keeps_the_order_of_its_queries_and_tells_rows_of_one_name_apart(tmp_path: Path) -> None:
    root = tiny_datasets.hitsz_vcm(tmp_path, train=2, test=2)
    before = [t.id for t in open_dataset(root).query]
    queries, rows = root / "info/query_IDX.txt", root / "info/track_train_info.txt"
    queries.write_text(" ".join(reversed(queries.read_text().split())))
    rows.write_text(rows.read_text() + rows.read_text().splitlines()[0] + "\n")
    dataset = open_dataset(root)
    assert [t.id for t in dataset.query] == before[::-1]
    assert dataset.train[-1].id == f"{dataset.train[0].id}#2" and dataset.train[-1].frames == dataset.train[0].frames


def test_hitsz_names_every_row_that_lies_within_another(tmp_path: Path) -> None:
    root = tiny_datasets.hitsz_vcm(tmp_path, train=2, test=1)
    rows = root / "info/track_train_info.txt"
    rows.write_text(rows.read_text() + "1 2 3 0001 1\n1 5 6 0001 1\n3 1 13 0001 1\n")
    found = warnings(root, min_frames=1)
    assert [text for text in found if "frames 2..3 overlap 1..13 of" in text]
    assert [text for text in found if "frames 5..6 overlap 1..13 of" in text]
    assert [text for text in found if "modality 3 is neither 1 (infrared) nor 2 (visible); read as visible" in text]
    assert open_dataset(root).train[-1].modality is Modality.VISIBLE


def test_hitsz_counts_what_its_discard_list_takes(tmp_path: Path) -> None:
    """Paths as Windows writes them too; a tracklet of which nothing is left is none, whatever length is asked for."""
    root = tiny_datasets.hitsz_vcm(tmp_path / "data", train=2, test=1)
    first, second = open_dataset(root).train[:2]
    discard = tmp_path / "discard.txt"
    gone = [frame.replace("/", "\\") for frame in first.frames]
    discard.write_text("\n".join([*gone, f"D:\\Train/{second.frames[0]}", "0001/ir/D1/none.jpg"]))
    dataset = open_dataset(root, discard_train=discard, min_frames=0)
    assert dataset.train[0].frames == second.frames[1:] and first.id not in {t.id for t in dataset.train}
    assert dataset.left_out["train frames on the discard list"] == len(first.frames) + 1
    total = len(first.frames) + 2
    assert f"discard_train: 1 of {total} entries name no frame of this split" in warnings(root, discard_train=discard)


# folders


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES | {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}))
def test_folders_of_every_sort_of_picture(suffix: str, tmp_path: Path) -> None:
    dataset = open_dataset(tiny_datasets.folder(tmp_path, people=2, length=2, suffix=suffix))
    assert len(dataset.train) == 8 and dataset.train[0].frames[0].endswith(f"/1{suffix}")


def test_folders_are_numbered_as_people_count(tmp_path: Path) -> None:
    for person in ("anna2", "anna10"):
        for camera in ("cam2", "cam10"):
            for walk in ("walk2", "walk10"):
                for modality in ("RGB", "Ir"):
                    tiny_datasets.put(tmp_path / person / camera / modality / walk / "1.jpg", 0)
            (tmp_path / person / camera / "Calibration").mkdir()
    dataset = open_dataset(tmp_path)
    assert dataset.identity_names == {0: "anna2", 1: "anna10"} and dataset.camera_names == {0: "cam2", 1: "cam10"}
    assert [t.id for t in dataset.gallery][:3] == ["anna2/cam2/RGB/walk2", "anna2/cam2/RGB/walk10", "anna2/cam10/RGB/walk2"]
    assert {t.modality for t in dataset.query} == {Modality.INFRARED} and len(dataset.query) == len(dataset.gallery) == 8


def test_a_link_that_leads_nowhere_hides_none_of_its_neighbours(tmp_path: Path) -> None:
    root = tiny_datasets.folder(tmp_path, people=2, length=2)
    before = content(open_dataset(root))
    for place in (root, root / "train", *(root / "train").glob("*/*")):
        if place.is_dir():
            (place / "circle").symlink_to("circle")
            (place / "lost").symlink_to("nobody")
    assert content(open_dataset(root)) == before


# single images


def test_people_of_regdb_and_llcm_are_numbered_and_named_in_their_order(tmp_path: Path) -> None:
    names = open_dataset(tiny_datasets.regdb(tmp_path / "regdb")).identity_names
    assert list(names.values()) == [str(number) for number in range(8, 15)], "8 before 10"
    names = open_dataset(tiny_datasets.llcm(tmp_path / "llcm")).identity_names
    assert names == {number: f"{number:04d}" for number in range(1, 8)}


# text


@pytest.mark.parametrize("token", ["", "-1", "1.5", "²", "١", "1" * 10, "1_0", "9" * 5000])
def test_what_is_no_small_number(token: str) -> None:
    assert natural_number(token) is None and natural_number("000000012") == 12


@pytest.mark.parametrize("path", ["", "/a", "a/../b", "..", "a\\b", "a\0b", "a/\ud800.jpg", None, 3])
def test_what_is_no_safe_path(path: object) -> None:
    assert not is_safe_path(path) and is_safe_path("a/..b/c d.jpg")


def test_lines_end_at_line_ends_alone(tmp_path: Path) -> None:
    """A form feed or a Unicode separator within a name must not shift the numbers of the lines behind it."""
    (tmp_path / "names.txt").write_bytes("a\x0cb\r\n\u2028c\u2028d\n\nlast\n\n".encode())
    assert read_lines(tmp_path / "names.txt", Problems()) == ["a\x0cb", "c\u2028d", "", "last"]
