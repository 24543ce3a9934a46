"""Tiny datasets on disk in every layout, for the tests of the readers and of whatever stands on them.

A frame is flat: its grey level says which frame of its tracklet it is (LEVEL_STEP apart), so that a test can see in a batch which
frames were read.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from dinogrl.data.frames import encode_jpeg

LEVEL_STEP = 6


@cache
def frame_bytes(number: int, suffix: str = ".jpg", height: int = 32, width: int = 16) -> bytes:
    """BMP for that suffix, else JPEG, of a flat grey frame; ``number`` counts from 0."""
    picture = np.full((height, width, 3), 20 + LEVEL_STEP * (number % 36), np.uint8)
    return bytes(cv2.imencode(".bmp", picture)[1]) if suffix == ".bmp" else encode_jpeg(picture)


def level_to_number(level: float) -> int:
    return round((level - 20) / LEVEL_STEP)


def put(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(frame_bytes(number, path.suffix))


def hitsz_vcm(
    root: Path,
    train: int = 4,
    test: int = 3,
    cameras: tuple[int, ...] = (1, 12),
    lengths: tuple[int, ...] = (13, 12),
    level: str = "split",
    info: str = "info",
    query_lines: int = 1,
) -> Path:
    """``level``: split, nested or flat (where the images lie). ``info``: info, root or beside. Two tracklets a camera, modality and
    person, number 9 and 10; frame numbers are 3 apart and start at 8, so that text order is not their order."""
    for split, first, people in (("Train", 1, train), ("Test", 503, test)):
        base = {"split": root / split, "nested": root / split / split, "flat": root}[level]
        folder = {"info": root / "info", "root": root, "beside": root / split}[info]
        folder.mkdir(parents=True, exist_ok=True)
        names: list[str] = []
        rows: list[str] = []
        query: list[int] = []
        for identity in range(first, first + people):
            for modality, place in ((1, "ir"), (2, "rgb")):
                for camera in cameras:
                    written = 8
                    for tracklet, length in zip((9, 10), lengths):
                        start = len(names) + 1
                        for number in range(length):
                            names.append(f"{identity:04d}M{modality}D{camera}T{tracklet}F{written}.jpg")
                            put(base / f"{identity:04d}" / place / f"D{camera}" / f"{written}.jpg", number)
                            written += 3
                        rows.append(f"{modality} {start} {len(names)} {identity:04d} {camera}")
                        if modality == 1:
                            query.append(len(rows))
        (folder / f"{split.lower()}_name.txt").write_text("\n".join(names) + "\n")
        (folder / f"track_{split.lower()}_info.txt").write_text("\n".join(rows) + "\n")
        if split == "Test":
            parts = [query[i::query_lines] for i in range(query_lines)]
            (folder / "query_IDX.txt").write_text("\n".join(" ".join(map(str, part)) for part in parts) + "\n")
    return root


def buptcampus(root: Path, train: int = 4, auxiliary: int = 2, test: int = 3, length: int = 14) -> Path:
    """Identities 8, 9, 10, ... so that text order is not number order; pairs in two cameras, one for auxiliary identities."""
    paths: dict[str, dict[str, dict[str, dict[str, list[str]]]]] = {}
    lists: dict[str, list[str]] = {"train": [], "train_auxiliary": [], "query": [], "gallery": []}

    def make(identity: str, camera: str, tracklet: str) -> None:
        for modality in ("RGB", "IR"):
            listed = []
            for number in range(length):
                path = f"{identity}/{modality}/{camera}/{identity}_{modality}_{camera}_{tracklet}_{number + 1}.jpg"
                put(root / "DATA" / path, number)
                listed.append(path)
            paths.setdefault(identity, {}).setdefault(modality, {}).setdefault(camera, {})[tracklet] = listed

    identity = 8
    for name, people, cameras in (
        ("train", train, ("LS3", "TSG2")),
        ("train_auxiliary", auxiliary, ("W4",)),
        ("test", test, ("G25", "CQ1")),
    ):
        for _ in range(people):
            for tracklet, camera in enumerate(cameras, start=1):
                make(str(identity), camera, str(tracklet))
                if name != "test":
                    lists[name].append(f"{identity} RGB/IR {camera} {tracklet}")
            if name == "test":
                lists["query"].append(f"{identity} {'RGB' if identity % 2 else 'IR'} G25 1")
                lists["gallery"] += [f"{identity} RGB CQ1 2", f"{identity} IR CQ1 2"]
            identity += 1
    (root / "data_paths.json").write_text(json.dumps(paths))
    for name, lines in lists.items():
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return root


def folder(
    root: Path, levels: tuple[str, ...] = ("train", "test"), people: int = 4, length: int = 13, suffix: str = ".jpg"
) -> Path:
    """``levels`` may be empty: identities directly under the root. Frames are called 1, 2, ... 10, ..."""
    for number, level in enumerate(levels or ("",)):
        shift = min(number, 1)  # query and gallery are the same people
        for person in range(people):
            for camera in ("gate", "yard"):
                for modality in ("visible", "infrared"):
                    for frame in range(length):
                        name = f"person{shift * people + person + 8}"
                        put(root / level / name / camera / modality / "walk1" / f"{frame + 1}{suffix}", frame)
    return root


def sysu_mm01(root: Path, train: int = 3, val: int = 1, test: int = 3, images: int = 2) -> Path:
    """Identities 1, 2, ... in all six cameras, the lists of identities in exp/."""
    first = 1
    for name, people in (("train", train), ("val", val), ("test", test)):
        identities = range(first, first + people)
        first += people
        (root / "exp").mkdir(parents=True, exist_ok=True)
        (root / f"exp/{name}_id.txt").write_text(",".join(map(str, identities)) + "\n")
        for identity in identities:
            for camera in range(1, 7):
                for image in range(images):
                    put(root / f"cam{camera}/{identity:04d}/{image + 1:04d}.jpg", 0)
    return root


def regdb(root: Path, train: int = 4, test: int = 3, images: int = 2, trials: int = 2, suffix: str = ".bmp") -> Path:
    """People 8, 9, 10, ... in both modalities. Labels count from 0 in every list; in trial 2 the first people are the test part."""
    people = [str(8 + number) for number in range(train + test)]
    names: dict[tuple[str, str], list[str]] = {}
    for person in people:
        for folder, letter in (("Visible", "v"), ("Thermal", "t")):
            names[person, folder] = [f"{folder}/{person}/male_front_{letter}_{i:05d}_{person}{suffix}" for i in range(images)]
            for name in names[person, folder]:
                put(root / name, 0)
    (root / "idx").mkdir()
    for trial in range(1, trials + 1):
        turned = people[(trial - 1) * test :] + people[: (trial - 1) * test]
        for split, chosen in (("train", turned[:train]), ("test", turned[train:])):
            for word, folder in (("visible", "Visible"), ("thermal", "Thermal")):
                rows = [f"{name} {label}" for label, person in enumerate(chosen) for name in names[person, folder]]
                (root / f"idx/{split}_{word}_{trial}.txt").write_text("\n".join(rows) + "\n")
    return root


def llcm(root: Path, train: int = 4, test: int = 3, images: int = 2) -> Path:
    """Identities 1, 2, ...; cameras 1 and 3 by day, 1 and 2 by night. Training images in vis/ and nir/, test images by camera."""
    (root / "idx").mkdir(parents=True)
    for word, cameras in (("vis", (1, 3)), ("nir", (1, 2))):
        rows = []
        for identity in range(1, train + test + 1):
            for camera in cameras:
                for image in range(images):
                    name = f"{identity:04d}_c{camera:02d}_s1_f{image}_{word}.jpg"
                    if identity <= train:
                        rows.append(f"{word}/{identity:04d}/{name} {identity - 1}")
                        put(root / f"{word}/{identity:04d}/{name}", 0)
                    else:
                        put(root / f"test_{word}/cam{camera}/{identity:04d}/{name}", 0)
        (root / f"idx/train_{word}.txt").write_text("\n".join(rows) + "\n")
    (root / "idx/test_id.txt").write_text(",".join(str(identity) for identity in range(train + 1, train + test + 1)))
    return root
