"""LLCM as it lies on disk: lists of training images in ``idx/``, test images in ``test_{vis,nir}/cam<n>/<identity>/``.

Nine cameras see by day and by night (no infrared images of camera 3). A training image's camera stands in its name
(``nir/0001/0001_c01_s185535_f7010_nir.jpg``). The test lists are all images of the identities of idx/test_id.txt; a protocol draws.
"""

from __future__ import annotations

import re
from pathlib import Path

from dinogrl.data.datasets.directories import folders_in
from dinogrl.data.datasets.layout import Choices, Counts, Layout
from dinogrl.data.datasets.single_images import (
    CameraFolder,
    ListedImage,
    image_tracklet,
    read_identities,
    read_images,
    report_contradictions,
    report_unseen,
    scan,
)
from dinogrl.data.datasets.text_files import natural_number, quoted
from dinogrl.data.problems import Problems
from dinogrl.records import Dataset, Modality, Tracklet

_WORDS = {"vis": Modality.VISIBLE, "nir": Modality.INFRARED}
_CAMERA_IN_NAME = re.compile(r"_c([0-9]{1,3})_")
_CAMERA_FOLDER = re.compile(r"cam([0-9]{1,3})")


def recognises(root: Path) -> bool:
    """Is there a list of training images, or a list of test identities beside their folders?"""
    training = any((root / "idx" / f"train_{word}.txt").is_file() for word in _WORDS)
    return training or ((root / "idx/test_id.txt").is_file() and any((root / f"test_{word}").is_dir() for word in _WORDS))


def read(root: Path, choices: Choices, problems: Problems) -> Dataset:
    """Read the lists and look up the folders of the test part; see :class:`dinogrl.data.datasets.layout.Layout`."""
    listed = {modality: read_images(root / "idx" / f"train_{word}.txt", problems) for word, modality in _WORDS.items()}
    report_contradictions([row for rows in listed.values() for row in rows], problems)
    read_rows = [_training_image(root, row, modality, problems) for modality, rows in listed.items() for row in rows]
    train = [image for image in read_rows if image is not None]
    path = root / "idx/test_id.txt"
    identities = read_identities(path, problems)
    test = scan(root, _camera_folders(root, problems), set(identities), problems) if identities else []
    report_unseen(identities, {image.identity for image in test}, path, problems)
    return Dataset(
        name="llcm",
        root=root,
        train=train,
        query=[image for image in test if image.modality is Modality.INFRARED],
        gallery=[image for image in test if image.modality is Modality.VISIBLE],
        identity_names={number: f"{number:04d}" for number in sorted({image.identity for image in (*train, *test)})},
        camera_names={number: f"cam{number}" for number in sorted({image.camera for image in (*train, *test)})},
    )


def _training_image(root: Path, row: ListedImage, modality: Modality, problems: Problems) -> Tracklet | None:
    identity, camera = natural_number(row.person), _CAMERA_IN_NAME.search(row.path)
    if identity is None or camera is None:
        problems.error(row.place, f"expected <identity>/<identity>_c<camera>_<...>.jpg, found {quoted(row.path)}")
        return None
    return image_tracklet(root, row.path, identity, int(camera[1]), modality)


def _camera_folders(root: Path, problems: Problems) -> list[CameraFolder]:
    """Every camera's folder below test_vis/ and test_nir/."""
    folders: list[CameraFolder] = []
    for word, modality in _WORDS.items():
        top = f"test_{word}"
        cameras = [(entry.name, match) for entry in folders_in(root / top) if (match := _CAMERA_FOLDER.fullmatch(entry.name))]
        if not cameras:
            problems.warning(root / top, "holds no camera's folder" if (root / top).is_dir() else "is missing")
        folders += [CameraFolder(f"{top}/{name}", int(match[1]), modality) for name, match in cameras]
    return folders


LAYOUT = Layout(
    recognises=recognises,
    read=read,
    expects="idx/train_vis.txt or idx/train_nir.txt beside test_vis and test_nir",
    published={
        "train visible": Counts(713, 16_946, 16_946),
        "train infrared": Counts(713, 13_975, 13_975),
        "query infrared": Counts(351, 7_166, 7_166),
        "gallery visible": Counts(351, 8_680, 8_680),
    },
)
