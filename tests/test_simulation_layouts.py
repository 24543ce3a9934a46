"""Simulated datasets on disk: lists whose arithmetic is done again by hand, counts, and nothing left behind when it fails."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg

from dinogrl.data.datasets import open_dataset
from dinogrl.errors import DataError, DinogrlError
from dinogrl.records import Modality
from dinogrl.simulation import simulate as simulate_file
from dinogrl.simulation.layouts import LAYOUTS, plan
from dinogrl.simulation.settings import Settings
from dinogrl.simulation.simulate import read_settings, silhouette_path, simulate
from dinogrl.simulation.world import World

SINGLE_IMAGES = ("sysu-mm01", "regdb", "llcm")
TINY = {"identities": 6, "cameras": 3, "tracklets": 2, "frames": 3, "height": 32, "width": 16, "seed": 4}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One tiny dataset in each layout."""
    root = tmp_path_factory.mktemp("worlds")
    return {layout: simulate(root / layout, layout=layout, workers=1, **TINY).root for layout in LAYOUTS}


def rows(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()]


def everything(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("split", ["train", "test"])
def test_hitsz_vcm_lists_name_every_frame_once(written, split):
    root = written["hitsz-vcm"]
    names = [row[0] for row in rows(root / f"info/{split}_name.txt")]
    tracks = [[int(value) for value in row] for row in rows(root / f"info/track_{split}_info.txt")]
    pids = range(1, 4) if split == "train" else range(4, 7)
    assert {pid for *_, pid, _ in tracks} == set(pids)
    expected_start = 1
    files = []
    for modality, start, end, pid, camera in tracks:
        assert start == expected_start and end == start + TINY["frames"] - 1  # 1-based, both ends included
        expected_start = end + 1
        of_track = names[start - 1 : end]
        assert len({name[: name.index("F")] for name in of_track}) == 1
        for name in of_track:
            assert (
                name[:4] == f"{pid:04d}" and name[5] == str(modality) and name[name.index("D") + 1 : name.index("T")] == str(camera)
            )
            frame = name[name.index("F") + 1 :]
            files.append(f"{split.capitalize()}/{name[:4]}/{'ir' if name[5] == '1' else 'rgb'}/D{camera}/{frame}")
    assert expected_start == len(names) + 1 and len(set(files)) == len(files)
    on_disk = {str(path.relative_to(root)) for path in (root / split.capitalize()).rglob("*.jpg")}
    assert set(files) == on_disk


def test_hitsz_vcm_queries_are_all_infrared_rows_on_one_line(written):
    info = written["hitsz-vcm"] / "info"
    lines = (info / "query_IDX.txt").read_text().splitlines()
    assert len(lines) == 1
    tracks = rows(info / "track_test_info.txt")
    queries = [int(value) for value in lines[0].split()]
    assert queries == [number for number, row in enumerate(tracks, 1) if row[0] == "1"]
    for number in queries:  # another camera shows the same person by day
        _, _, _, pid, camera = tracks[number - 1]
        assert any(row[0] == "2" and row[3] == pid and row[4] != camera for row in tracks)


def test_buptcampus_lists_and_paths_agree(written):
    root = written["buptcampus"]
    paths = json.loads((root / "data_paths.json").read_text())
    listed = Counter()
    for name in ("train", "train_auxiliary", "query", "gallery"):
        for pid, modality, camera, tracklet in rows(root / f"{name}.txt"):
            modalities = modality.split("/")
            assert (modalities == ["RGB", "IR"]) == name.startswith("train")
            for one in modalities:
                files = paths[pid][one][camera][tracklet]
                assert files == [
                    f"{pid}/{one}/{camera}/{pid}_{one}_{camera}_{tracklet}_{k}.jpg" for k in range(1, TINY["frames"] + 1)
                ]
                listed.update(files)
    on_disk = {str(path.relative_to(root / "DATA")) for path in (root / "DATA").rglob("*.jpg")}
    assert set(listed) == on_disk and set(listed.values()) == {1}
    queries = rows(root / "query.txt")
    assert sorted(row[0] for row in queries) == ["4", "5", "6"] and {row[1] for row in queries} == {"RGB", "IR"}
    assert {row[0] for row in rows(root / "train.txt")}.isdisjoint(row[0] for row in rows(root / "gallery.txt"))


def test_buptcampus_auxiliary_identities_have_one_camera():
    whole = plan(Settings(layout="buptcampus", identities=20, frames=1))
    by_pid = {}
    for line in whole.texts["train_auxiliary.txt"].splitlines():
        pid, _, camera, _ = line.split()
        by_pid.setdefault(pid, set()).add(camera)
    assert len(by_pid) == 2 and all(len(cameras) == 1 for cameras in by_pid.values())
    assert set(by_pid).isdisjoint(line.split()[0] for line in whole.texts["train.txt"].splitlines())


def test_buptcampus_pairs_are_pixel_aligned(written):
    root = written["buptcampus"]
    pid, _, camera, tracklet = rows(root / "train.txt")[0]
    name = "DATA/{0}/{1}/{2}/{0}_{1}_{2}_{3}_1.jpg"
    day, night = (silhouette_path(name.format(pid, modality, camera, tracklet)) for modality in ("RGB", "IR"))
    assert (root / day).read_bytes() == (root / night).read_bytes()


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_counts_asked_are_counts_written_and_the_readers_read_them(written, layout):
    root = written[layout]
    card = json.loads((root / "simulation.json").read_text())
    dataset = open_dataset(root, min_frames=1)
    assert dataset.name == layout
    frames = sum(1 for path in root.rglob("*.jpg"))
    assert card["counts"]["frames"] == frames == card["counts"]["tracklets"] * TINY["frames"]
    assert card["counts"]["train_identities"] == 3 == card["counts"]["test_identities"]
    assert len({t.identity for t in dataset.query} | {t.identity for t in dataset.gallery}) == 3
    tracklets = [*dataset.train, *dataset.auxiliary, *dataset.query, *dataset.gallery]
    length = 1 if layout in SINGLE_IMAGES else TINY["frames"]
    assert all(len(t.frames) == length for t in tracklets)
    assert len({t.path(0) for t in tracklets}) == frames / length
    assert dataset.simulated
    assert read_settings(root) == Settings(layout=layout, **TINY)


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_every_frame_has_its_size_and_its_true_silhouette(written, layout):
    root = written[layout]
    for path in root.rglob("*.jpg"):
        relative = str(path.relative_to(root))
        frame, mask = cv2.imread(str(path)), cv2.imread(str(root / silhouette_path(relative)), cv2.IMREAD_UNCHANGED)
        assert frame.shape == (32, 16, 3) and mask.shape == (32, 16) and set(np.unique(mask)) <= {0, 255}


def test_sysu_mm01_cameras_see_in_one_modality_and_everybody_in_both(written):
    root = written["sysu-mm01"]
    lists = {name: [int(n) for n in (root / f"exp/{name}_id.txt").read_text().split(",")] for name in ("train", "val", "test")}
    assert lists == {"train": [1, 2], "val": [3], "test": [4, 5, 6]}
    assert sorted(path.name for path in root.glob("cam*")) == ["cam1", "cam2", "cam6"], "three cameras were asked for"
    for person in range(1, 7):
        seen = {path.name for path in root.glob("cam*") if (path / f"{person:04d}").is_dir()}
        assert "cam6" in seen and len(seen) >= 2
    for folder in root.glob("cam*/*"):
        assert sorted(path.stem for path in folder.iterdir()) == [f"{n:04d}" for n in range(1, 7)]


def test_regdb_parts_the_same_people_in_ten_ways(written):
    root = written["regdb"]
    parts = set()
    for trial in range(1, 11):
        people = {}
        for split in ("train", "test"):
            listed = [rows(root / f"idx/{split}_{word}_{trial}.txt") for word in ("visible", "thermal")]
            labels = [{name.split("/")[1]: int(label) for name, label in side} for side in listed]
            assert labels[0] == labels[1] and sorted(labels[0].values()) == [0, 1, 2]
            assert [len(side) for side in listed] == [3 * TINY["tracklets"] * TINY["frames"]] * 2
            people[split] = frozenset(labels[0])
        assert people["train"] | people["test"] == {str(n) for n in range(1, 7)} and not people["train"] & people["test"]
        parts.add(people["train"])
    assert len(parts) > 5


def test_llcm_training_images_bear_their_camera_and_test_images_lie_in_it(written):
    root = written["llcm"]
    for word in ("vis", "nir"):
        for name, label in rows(root / f"idx/train_{word}.txt"):
            assert int(name.split("/")[1]) == int(label) + 1 == int(name.split("/")[2][:4])
        for path in root.glob(f"test_{word}/*/*/*.jpg"):
            assert path.parts[-3] == f"cam{int(path.name.split('_c')[1][:2])}" and path.name.endswith(f"_{word}.jpg")
    assert (root / "idx/test_id.txt").read_text() == "4,5,6\n"


def test_what_is_on_disk_is_what_the_world_draws(written):
    take = plan(Settings(layout="hitsz-vcm", **TINY)).takes[0]
    who, modality = take.sighting, take.sighting.modalities[0]
    drawn = World(TINY["seed"]).tracklet(who.split, who.person, who.camera, modality, who.walk, 3, 32, 16)
    for name, frame, silhouette in zip(take.files[modality], drawn.frames, drawn.silhouettes):
        jpeg = simplejpeg.encode_jpeg(frame, quality=drawn.quality, colorspace="RGB", colorsubsampling="420")
        assert (written["hitsz-vcm"] / name).read_bytes() == jpeg
        mask = cv2.imread(str(written["hitsz-vcm"] / silhouette_path(name)), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(mask > 0, silhouette)


def test_by_day_and_by_night_are_different_walks_and_mostly_different_cameras():
    takes = plan(Settings(layout="hitsz-vcm", identities=30, cameras=4)).takes
    walks = {(s.split, s.person, s.camera, s.walk) for s in (take.sighting for take in takes)}
    assert len(walks) == len(takes)
    cameras = {}
    for take in takes:
        who = take.sighting
        cameras.setdefault((who.split, who.person), {m: set() for m in Modality})[who.modalities[0]].add(who.camera)
    for seen in cameras.values():
        assert seen[Modality.VISIBLE] - seen[Modality.INFRARED] and seen[Modality.INFRARED] - seen[Modality.VISIBLE]
        assert 2 <= len(seen[Modality.VISIBLE] | seen[Modality.INFRARED]) <= 3  # not everybody passes every camera


@pytest.mark.slow
def test_two_processes_write_the_same_bytes_as_one(tmp_path, written, monkeypatch):
    monkeypatch.setattr(simulate_file, "_SMALL", 0)
    monkeypatch.setattr(simulate_file, "TAKES_A_CHUNK", 7)
    told = []
    other = simulate(tmp_path / "two", workers=2, on_progress=lambda done, total: told.append((done, total)), **TINY)
    assert everything(other.root) == everything(written["hitsz-vcm"])
    assert [done for done, _ in told] == sorted(done for done, _ in told) and told[-1] == (other.tracklets, other.tracklets)


def test_a_folder_that_holds_something_is_refused_and_untouched(tmp_path):
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(DinogrlError, match="not an empty folder; give a new folder"):
        simulate(tmp_path, **TINY)
    assert everything(tmp_path) == {"mine.txt": b"kept"}


def test_the_folder_that_one_stands_in_is_refused_by_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DinogrlError, match=r"^\. has no name of its own; give a new folder, such as world$"):
        simulate(Path(), **TINY)


def test_a_place_that_cannot_be(tmp_path):
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(DinogrlError, match="Not a directory") as caught:
        simulate(tmp_path / "mine.txt" / "world", **TINY)
    assert ".part" not in str(caught.value), "a name that nobody has given"


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "new").mkdir()
    assert (simulate(tmp_path / "new", layout="folder", silhouettes=False, **{**TINY, "frames": 1}).root / "train").is_dir()
    assert not (tmp_path / "new/silhouettes").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(simulate_file, "_write", full)
    with pytest.raises(DinogrlError, match="no space left"):
        simulate(tmp_path / "out", **TINY)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": "hitsz"}, "unknown layout 'hitsz'; did you mean 'hitsz-vcm'"),
        ({"layout": "buptcampus", "cameras": 7}, "BUPTCampus has 6"),
        ({"identities": 20000}, "9999 or fewer"),
        ({"layout": "sysu-mm01", "cameras": 7}, "SYSU-MM01 has 6"),
        ({"layout": "llcm", "cameras": 10}, "LLCM has 9"),
        ({"cameras": 1}, "cameras is 1; give 2 or more"),
        ({"identities": 4, "test_identities": 4}, "leave at least one for training"),
        ({"occlusion": 1.5}, "occlusion is 1.5; give a number from 0 to 1"),
        ({"height": 2000}, "larger than the cameras' pictures"),
    ],
)
def test_settings_that_cannot_be_met_are_refused_with_a_reason(tmp_path, changes, message):
    with pytest.raises(DinogrlError, match=message):
        simulate(tmp_path / "out", **changes)
    assert not list(tmp_path.iterdir())


def test_settings_are_not_read_from_where_there_are_none(tmp_path):
    with pytest.raises(DataError, match="no simulated dataset"):
        read_settings(tmp_path)
    (tmp_path / "simulation.json").write_text('{"settings": {"colour": 3}}')
    with pytest.raises(DataError, match="another version"):
        read_settings(tmp_path)
