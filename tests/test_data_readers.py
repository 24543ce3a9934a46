"""One body of tests for all readers and all their variants on disk, then what is special to each."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny_datasets
from dinogrl.data.datasets import DATASETS, find_layout, open_dataset
from dinogrl.data.datasets.layout import SIMULATION_CARD
from dinogrl.data.natural_order import natural_sorted
from dinogrl.errors import DataError, UnknownNameError
from dinogrl.records import Dataset, Modality, Tracklet

FAMILY: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "hitsz-vcm": ("hitsz-vcm", tiny_datasets.hitsz_vcm),
    "hitsz-vcm nested, text beside": ("hitsz-vcm", lambda r: tiny_datasets.hitsz_vcm(r, level="nested", info="beside")),
    "hitsz-vcm flat, text in root": ("hitsz-vcm", lambda r: tiny_datasets.hitsz_vcm(r, level="flat", info="root", query_lines=3)),
    "buptcampus": ("buptcampus", tiny_datasets.buptcampus),
    "buptcampus by DATA": ("buptcampus", lambda r: tiny_datasets.buptcampus(r) / "DATA"),
    "sysu-mm01": ("sysu-mm01", tiny_datasets.sysu_mm01),
    "regdb": ("regdb", tiny_datasets.regdb),
    "llcm": ("llcm", tiny_datasets.llcm),
    "folder": ("folder", tiny_datasets.folder),
    "folder with query and gallery": ("folder", lambda r: tiny_datasets.folder(r, ("train", "query", "gallery"))),
}


@pytest.fixture(scope="module", params=FAMILY)
def member(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Dataset]:
    layout, make = FAMILY[request.param]
    root = make(tmp_path_factory.mktemp("dataset"))
    assert find_layout(root) == layout
    return layout, open_dataset(root)


def everything(dataset: Dataset) -> list[Tracklet]:
    return [*dataset.train, *dataset.auxiliary, *dataset.query, *dataset.gallery]


def test_every_catalog_entry_is_in_the_family() -> None:
    assert {layout for layout, _ in FAMILY.values()} == set(DATASETS)


def test_all_frames_exist(member: tuple[str, Dataset]) -> None:
    for tracklet in everything(member[1]):
        assert all(tracklet.path(index).is_file() for index in range(len(tracklet.frames)))


def test_nothing_is_empty_and_both_modalities_train(member: tuple[str, Dataset]) -> None:
    dataset = member[1]
    assert dataset.train and dataset.query and dataset.gallery
    for identity in dataset.train_labels():
        assert {t.modality for t in dataset.train if t.identity == identity} == set(Modality)


def test_no_identity_trains_and_tests(member: tuple[str, Dataset]) -> None:
    dataset = member[1]
    train = {t.identity for t in (*dataset.train, *dataset.auxiliary)}
    assert not train & {t.identity for t in (*dataset.query, *dataset.gallery)}


def test_ids_are_unique(member: tuple[str, Dataset]) -> None:
    ids = [tracklet.id for tracklet in everything(member[1])]
    assert len(set(ids)) == len(ids)


def test_frames_are_in_the_order_of_time(member: tuple[str, Dataset]) -> None:
    """The tiny datasets write the frame's place in its tracklet into the picture."""
    from dinogrl.data.frames import read_frame

    for tracklet in everything(member[1])[::5]:
        shown = [tiny_datasets.level_to_number(read_frame(tracklet.path(i)).mean()) for i in range(len(tracklet.frames))]
        assert shown == list(range(len(tracklet.frames)))


def test_every_identity_and_camera_has_a_name(member: tuple[str, Dataset]) -> None:
    dataset = member[1]
    assert {t.identity for t in everything(dataset)} <= set(dataset.identity_names)
    assert {t.camera for t in everything(dataset)} <= set(dataset.camera_names)


SPOKEN = dict.fromkeys(("rgb", "visible", "vis", "test_vis", "cam1", "cam2", "cam4", "cam5"), Modality.VISIBLE) | dict.fromkeys(
    ("ir", "infrared", "thermal", "nir", "test_nir", "cam3", "cam6"), Modality.INFRARED
)


def test_modality_stands_in_the_path(member: tuple[str, Dataset]) -> None:
    for tracklet in everything(member[1]):
        for frame in tracklet.frames:
            assert next(SPOKEN[part] for part in frame.lower().split("/") if part in SPOKEN) is tracklet.modality


# HITSZ-VCM


def test_hitsz_variants_give_the_same_tracklets(tmp_path: Path) -> None:
    variants = [
        open_dataset(tiny_datasets.hitsz_vcm(tmp_path / f"{level}-{info}", train=2, test=1, level=level, info=info))
        for level in ("split", "nested", "flat")
        for info in ("info", "root", "beside")
    ]
    plain = [[(t.id, t.identity, t.camera, t.modality, t.frames) for t in everything(dataset)] for dataset in variants]
    assert all(other == plain[0] for other in plain)


def test_hitsz_agrees_with_a_literal_reading(tmp_path: Path) -> None:
    """names[start - 1 : end], 1 = infrared, queries by 1-based row; here written out from the files."""
    root = tiny_datasets.hitsz_vcm(tmp_path, lengths=(13, 5))
    names = (root / "info/test_name.txt").read_text().split()
    queries = [int(word) for word in (root / "info/query_IDX.txt").read_text().split()]
    expected: dict[str, list[tuple[int, int, int, tuple[str, ...]]]] = {"query": [], "gallery": []}
    for number, line in enumerate((root / "info/track_test_info.txt").read_text().splitlines(), start=1):
        modality, start, end, identity, camera = (int(word) for word in line.split())
        frames = tuple(
            "/".join(
                (
                    name.split("M")[0],
                    "ir" if name.split("M")[1][0] == "1" else "rgb",
                    "D" + name.split("D")[1].split("T")[0],
                    name.split("F")[1],
                )
            )
            for name in names[start - 1 : end]
        )
        if len(frames) >= 12:
            expected["query" if number in queries else "gallery"].append((identity, camera, 1 if modality == 1 else 0, frames))
    dataset = open_dataset(root)
    for title, tracklets in (("query", dataset.query), ("gallery", dataset.gallery)):
        assert [(t.identity, t.camera, int(t.modality), t.frames) for t in tracklets] == expected[title]
    assert all(t.modality is Modality.INFRARED for t in dataset.query)
    assert all(t.modality is Modality.VISIBLE for t in dataset.gallery)
    assert {t.camera for t in dataset.query} == {1, 12}


def test_length_filter_keeps_twelve_and_drops_eleven(tmp_path: Path) -> None:
    root = tiny_datasets.hitsz_vcm(tmp_path, lengths=(12, 11))
    dataset = open_dataset(root)
    assert {len(t.frames) for t in everything(dataset)} == {12}
    assert dataset.left_out == {
        "train tracklets shorter than 12 frames": len(dataset.train),
        "test tracklets shorter than 12 frames": len(dataset.query) + len(dataset.gallery),
    }
    assert {len(t.frames) for t in everything(open_dataset(root, min_frames=1))} == {12, 11}


def test_discard_list_comes_before_the_length_filter(tmp_path: Path) -> None:
    root = tiny_datasets.hitsz_vcm(tmp_path / "data", lengths=(13, 12))
    whole = open_dataset(root)
    thirteen = next(t for t in whole.train if len(t.frames) == 13)
    twelve = next(t for t in whole.train if len(t.frames) == 12)
    discard = tmp_path / "discard_train.txt"
    discard.write_text(f"Train/{thirteen.frames[4]}\n/somebody/elses/disk/Train/{twelve.frames[0]}\n")
    left = {t.id: t for t in open_dataset(root, discard_train=discard).train}
    assert left[thirteen.id].frames == thirteen.frames[:4] + thirteen.frames[5:]
    assert twelve.id not in left
    assert len(left) == len(whole.train) - 1
    with pytest.raises(DataError, match="nowhere"):
        open_dataset(root, discard_test=tmp_path / "nowhere.txt")


@pytest.mark.parametrize(
    ("file", "edit", "message"),
    [
        ("track_train_info.txt", lambda text: text + "2 1 9999 0001 3\n", "not within lines"),
        ("track_train_info.txt", lambda text: text + "2 0 5 0001 3\n", "not within lines"),
        ("track_train_info.txt", lambda text: text + "2 9 5 0001 3\n", "not within lines"),
        ("track_train_info.txt", lambda text: "two words\n" + text, r"track_train_info.txt:1: expected 'modality"),
        ("track_test_info.txt", lambda text: text.replace("0503", "x503", 1), "expected 'modality start"),
        ("query_IDX.txt", lambda text: text.strip() + " 99999", "expected rows 1.."),
        ("query_IDX.txt", lambda text: text.strip() + " 0", "expected rows 1.."),
        ("query_IDX.txt", lambda text: "", "is empty"),
        ("test_name.txt", lambda text: text.replace("M", "Q", 1), r"test_name.txt:1: expected a name such as"),
        ("train_name.txt", lambda text: text.replace("F8.jpg", "F/../../secret.jpg", 1), "train_name.txt:1: expected a name"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, file: str, edit: Callable[[str], str], message: str) -> None:
    root = tiny_datasets.hitsz_vcm(tmp_path, train=2, test=2)
    path = root / "info" / file
    path.write_text(edit(path.read_text()))
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(root)
    assert "\n" not in str(caught.value)


def test_windows_line_ends_and_a_byte_order_mark(tmp_path: Path) -> None:
    root = tiny_datasets.hitsz_vcm(tmp_path, train=2, test=2)
    before = [t.frames for t in everything(open_dataset(root))]
    for path in (root / "info").iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert [t.frames for t in everything(open_dataset(root))] == before


# BUPTCampus


def test_bupt_pairs_are_aligned(tmp_path: Path) -> None:
    dataset = open_dataset(tiny_datasets.buptcampus(tmp_path))
    assert len(dataset.train_pairs) * 2 == len(dataset.train) and len(dataset.auxiliary_pairs) * 2 == len(dataset.auxiliary)
    for tracklets, pairs in ((dataset.train, dataset.train_pairs), (dataset.auxiliary, dataset.auxiliary_pairs)):
        for first, second in pairs:
            a, b = tracklets[first], tracklets[second]
            assert (a.modality, b.modality) == (Modality.VISIBLE, Modality.INFRARED)
            assert tuple(frame.replace("RGB", "IR") for frame in a.frames) == b.frames


def test_bupt_numbers_identities_as_text(tmp_path: Path) -> None:
    """8, 9, 10, 11 train: as text 10 < 11 < 8 < 9, and so the classes."""
    dataset = open_dataset(tiny_datasets.buptcampus(tmp_path))
    by_class = sorted(dataset.train_labels().items(), key=lambda item: item[1])
    assert [dataset.identity_names[identity] for identity, _ in by_class] == ["10", "11", "8", "9"]
    assert {dataset.camera_names[t.camera]: t.camera for t in everything(dataset)} == {
        "LS3": 0,
        "G25": 1,
        "CQ1": 2,
        "W4": 3,
        "TSG2": 5,
    }
    assert {t.modality for t in dataset.query} == {t.modality for t in dataset.gallery} == set(Modality)


@pytest.mark.parametrize("given", ["", "DATA"])
def test_bupt_says_that_it_is_simulated_wherever_it_is_opened(tmp_path: Path, given: str) -> None:
    root = tiny_datasets.buptcampus(tmp_path)
    assert not open_dataset(root / given).simulated
    (root / SIMULATION_CARD).write_text("{}")
    assert open_dataset(root / given).simulated


def test_bupt_numbers_a_camera_that_nobody_knows_behind_the_known_ones(tmp_path: Path) -> None:
    root = tiny_datasets.buptcampus(tmp_path)
    for path in (root / "data_paths.json", *root.glob("*.txt")):
        path.write_text(path.read_text().replace('"CQ1"', '"NEW"').replace(" CQ1 ", " NEW "))
    dataset = open_dataset(root)
    assert {dataset.camera_names[t.camera]: t.camera for t in dataset.gallery} == {"NEW": 6}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda paths: paths["8"]["IR"]["LS3"].pop("1"), "no frames of '8/IR/LS3/1'"),
        (lambda paths: paths["8"]["IR"]["LS3"].update({"1": ["../../secret.jpg"]}), "secret"),
        (lambda paths: paths["8"]["IR"]["LS3"].update({"1": [3]}), "as a frame"),
        (lambda paths: paths["8"].update({"IR": []}), "no frames"),
    ],
)
def test_bupt_names_what_the_index_lacks(tmp_path: Path, change: Callable[[dict], object], message: str) -> None:
    root = tiny_datasets.buptcampus(tmp_path)
    paths = json.loads((root / "data_paths.json").read_text())
    change(paths)
    (root / "data_paths.json").write_text(json.dumps(paths))
    with pytest.raises(DataError, match=message):
        open_dataset(root)


def test_bupt_deeply_nested_json_is_an_error_not_a_crash(tmp_path: Path) -> None:
    root = tiny_datasets.buptcampus(tmp_path)
    (root / "data_paths.json").write_text("[" * 200_000)
    with pytest.raises(DataError, match="not valid JSON"):
        open_dataset(root)


@pytest.mark.parametrize("content", [None, "{}", "[]", '{"8":'])
@pytest.mark.parametrize("given", ["", "DATA"])
def test_bupt_without_its_index_is_not_taken_for_a_folder_of_footage(tmp_path: Path, content: str | None, given: str) -> None:
    root = tiny_datasets.buptcampus(tmp_path)
    if content is None:
        (root / "data_paths.json").unlink()
    else:
        (root / "data_paths.json").write_text(content)
    with pytest.raises(DataError, match=r"data_paths\.json: ") as caught:
        open_dataset(root / given)
    assert " more)" not in str(caught.value), "the lists are not blamed for it"


# folders


def test_folder_without_levels_serves_all_purposes(tmp_path: Path) -> None:
    dataset = open_dataset(tiny_datasets.folder(tmp_path, levels=()))
    assert {t.identity for t in dataset.train} == {t.identity for t in dataset.query} == {t.identity for t in dataset.gallery}
    assert {t.modality for t in dataset.query} == {Modality.INFRARED} and {t.modality for t in dataset.gallery} == {
        Modality.VISIBLE
    }
    assert len(dataset.train) == len(dataset.query) + len(dataset.gallery)


def test_folder_ignores_what_is_no_image(tmp_path: Path) -> None:
    root = tiny_datasets.folder(tmp_path, people=2, suffix=".PNG")
    before = [t.frames for t in open_dataset(root).train]
    place = root / "train/person8/gate/visible/walk1"
    for name in ("Thumbs.db", ".hidden.jpg", "notes.txt"):
        (place / name).write_text("x")
    (root / ".git/a/visible/b").mkdir(parents=True)
    assert [t.frames for t in open_dataset(root).train] == before


# probing


def test_queries_of_a_lost_track_file_are_not_blamed(tmp_path: Path) -> None:
    root = tiny_datasets.hitsz_vcm(tmp_path)
    (root / "info/track_test_info.txt").unlink()
    with pytest.raises(DataError, match=r"no track_test_info\.txt \(looked in [^()]*\); `dinogrl check"):
        open_dataset(root)


def test_nothing_known_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"track_train_info.*data_paths.json.*tracklet"):
        open_dataset(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        open_dataset(tmp_path / "typo")
    with pytest.raises(UnknownNameError, match="did you mean 'hitsz-vcm'"):
        open_dataset(tmp_path, "hitsz_vcm")
    tiny_datasets.hitsz_vcm(tmp_path / "HITSZ-VCM", train=2, test=1)
    with pytest.raises(DataError, match=r"there is one in .*HITSZ-VCM"):
        open_dataset(tmp_path)


def test_a_test_part_alone_opens(tmp_path: Path) -> None:
    dataset = open_dataset(tiny_datasets.folder(tmp_path, levels=("test",)))
    assert not dataset.train and dataset.query and dataset.gallery


def test_a_dataset_that_gives_no_tracklet_is_told(tmp_path: Path) -> None:
    root = tiny_datasets.hitsz_vcm(tmp_path, train=2, test=1)
    with pytest.raises(DataError, match=r"holds no usable tracklet as hitsz-vcm; `dinogrl check .*` says why"):
        open_dataset(root, min_frames=100)


def test_another_layout_than_what_lies_there_is_named(tmp_path: Path) -> None:
    """A recipe may name its layout; ``dinogrl check`` would only say that all is well."""
    tiny_datasets.folder(tmp_path)
    with pytest.raises(DataError, match=r"is laid out as folder, not as hitsz-vcm; .*data\.layout=auto"):
        open_dataset(tmp_path, "hitsz-vcm")


def test_the_wrong_layout_is_an_error(tmp_path: Path) -> None:
    tiny_datasets.hitsz_vcm(tmp_path, train=2, test=1)
    for layout in ("buptcampus", "folder"):
        with pytest.raises(DataError):
            open_dataset(tmp_path, layout)
    for file in (tmp_path / "info").iterdir():
        file.unlink()
    # and not a folder dataset with two people, Train and Test
    with pytest.raises(DataError, match=r"no known dataset .*`dinogrl footage` cuts people out of videos"):
        open_dataset(tmp_path)


def test_a_large_index_opens_quickly(tmp_path: Path) -> None:
    """Frames are not touched: 100,000 names that do not even exist (the full size is five times this)."""
    (tmp_path / "info").mkdir()
    for split in ("train", "test"):
        rows, names = [], []
        for row in range(2_000):
            names += [f"{row:04d}M{1 + row % 2}D{row % 12}T{row % 3}F{5 * frame}.jpg" for frame in range(25)]
            rows.append(f"{1 + row % 2} {25 * row + 1} {25 * row + 25} {row} {row % 12}")
        (tmp_path / f"info/{split}_name.txt").write_text("\n".join(names))
        (tmp_path / f"info/track_{split}_info.txt").write_text("\n".join(rows))
    (tmp_path / "info/query_IDX.txt").write_text(" ".join(str(row + 1) for row in range(0, 2_000, 2)))
    start = time.process_time()
    dataset = open_dataset(tmp_path)
    assert time.process_time() - start < 2
    assert sum(len(t.frames) for t in everything(dataset)) == 100_000


# order of names


@given(st.lists(st.integers(0, 10**6), unique=True), st.booleans())
def test_natural_order_is_the_order_of_numbers(numbers: list[int], padded: bool) -> None:
    names = [f"frame{number:07d}.jpg" if padded else f"frame{number}.jpg" for number in numbers]
    assert natural_sorted(names) == [name for _, name in sorted(zip(numbers, names))]


@given(st.lists(st.text(max_size=8), unique=True))
def test_natural_order_takes_any_names(names: list[str]) -> None:
    ordered = natural_sorted(names)
    assert sorted(ordered) == sorted(names)
    assert natural_sorted(reversed(names)) == ordered
