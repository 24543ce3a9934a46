"""SYSU-MM01 as it lies on disk: ``cam<1..6>/<identity>/<image>.jpg`` and lists of identities in ``exp/``.

Cameras 1, 2, 4 and 5 are visible, 3 and 6 infrared. The training part is that of all published numbers: the identities of
train_id.txt and of val_id.txt together. Of the test identities every infrared image is a query and every visible one stands in the
gallery, from which a protocol draws.
"""

from __future__ import annotations

from pathlib import Path

from dinogrl.data.datasets.layout import Choices, Counts, Layout
from dinogrl.data.datasets.single_images import CameraFolder, read_identities, report_unseen, scan
from dinogrl.data.problems import Problems
from dinogrl.records import Dataset, Modality

INFRARED_CAMERAS = (3, 6)
CAMERAS = tuple(
    CameraFolder(f"cam{number}", number, Modality.INFRARED if number in INFRARED_CAMERAS else Modality.VISIBLE)
    for number in range(1, 7)
)
_LISTS = ("train", "val", "test")


def recognises(root: Path) -> bool:
    """Is there a list of identities in exp/ and a camera's folder beside it?"""
    listed = any((root / "exp" / f"{name}_id.txt").is_file() for name in _LISTS)
    return listed and any((root / folder.path).is_dir() for folder in CAMERAS)


def read(root: Path, choices: Choices, problems: Problems) -> Dataset:
    """Read the index; see :class:`dinogrl.data.datasets.layout.Layout`. Which folders hold images is looked up on disk."""
    paths = {name: root / "exp" / f"{name}_id.txt" for name in _LISTS}
    lists = {name: read_identities(path, problems) for name, path in paths.items()}
    training, test = {*lists["train"], *lists["val"]}, {*lists["test"]}
    images = scan(root, CAMERAS, training | test, problems)
    seen = {image.identity for image in images}
    for name, identities in lists.items():
        report_unseen(identities, seen, paths[name], problems)
    return Dataset(
        name="sysu-mm01",
        root=root,
        train=[image for image in images if image.identity in training],
        query=[image for image in images if image.identity in test and image.modality is Modality.INFRARED],
        gallery=[image for image in images if image.identity in test and image.modality is Modality.VISIBLE],
        identity_names={identity: f"{identity:04d}" for identity in sorted(seen)},
        camera_names={folder.camera: folder.path for folder in CAMERAS},
    )


LAYOUT = Layout(
    recognises=recognises,
    read=read,
    expects="exp/train_id.txt or exp/test_id.txt beside cam1 ... cam6",
    published={
        "train visible": Counts(395, 22_258, 22_258),
        "train infrared": Counts(395, 11_909, 11_909),
        "query infrared": Counts(96, 3_803, 3_803),
    },
)
