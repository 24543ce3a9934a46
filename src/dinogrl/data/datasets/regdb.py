"""RegDB as it lies on disk: ``{Visible,Thermal}/<person>/<image>.bmp`` and, for each of ten splits, four lists in ``idx/``.

A list names images and labels, which count anew in the training and in the test part; the person is known by the folder. One camera
pair saw everybody. Which split (trial) is read is a choice; published numbers are means over ten models, one a split.
"""

from __future__ import annotations

import re
from pathlib import Path

from dinogrl.data.datasets.directories import names_in
from dinogrl.data.datasets.layout import Choices, Counts, Layout
from dinogrl.data.datasets.single_images import ListedImage, image_tracklet, read_images, report_contradictions
from dinogrl.data.natural_order import natural_sorted
from dinogrl.data.problems import Problems
from dinogrl.records import Dataset, Modality, Tracklet

_WORDS = {"visible": Modality.VISIBLE, "thermal": Modality.INFRARED}
_LIST = re.compile(r"(?:train|test)_(?:visible|thermal)_([0-9]{1,4})\.txt")


def recognises(root: Path) -> bool:
    """Is there one list of a split in idx/?"""
    return bool(_trials(root))


def read(root: Path, choices: Choices, problems: Problems) -> Dataset:
    """Read the lists of one split; see :class:`dinogrl.data.datasets.layout.Layout`."""
    trials = _trials(root)
    there = choices.trial in trials
    if not there:
        known = f"there are {', '.join(map(str, trials))}" if trials else "nor any list such as train_visible_1.txt"
        problems.error(root / "idx", f"there is no trial {choices.trial}, {known}")
    rows: dict[tuple[str, Modality], list[ListedImage]] = {}
    for split in ("train", "test"):
        for word, modality in _WORDS.items():
            path = root / "idx" / f"{split}_{word}_{choices.trial}.txt"
            rows[split, modality] = read_images(path, problems) if there else []
            _report_modality(rows[split, modality], modality, problems)
        report_contradictions([row for modality in Modality for row in rows[split, modality]], problems)
    persons = natural_sorted({row.person for listed in rows.values() for row in listed})
    identities = {person: number for number, person in enumerate(persons)}
    tracklets: dict[tuple[str, Modality], list[Tracklet]] = {
        (split, modality): [image_tracklet(root, row.path, identities[row.person], int(modality), modality) for row in listed]
        for (split, modality), listed in rows.items()
    }
    return Dataset(
        name="regdb",
        root=root,
        train=tracklets["train", Modality.VISIBLE] + tracklets["train", Modality.INFRARED],
        query=tracklets["test", Modality.INFRARED],
        gallery=tracklets["test", Modality.VISIBLE],
        identity_names={number: person for person, number in identities.items()},
        camera_names={int(modality): f"{word} camera" for word, modality in _WORDS.items()},
        trial=choices.trial,
    )


def _trials(root: Path) -> list[int]:
    """Numbers of the splits of which there is at least one list."""
    return sorted({int(match[1]) for name in names_in(root / "idx") if (match := _LIST.fullmatch(name))})


def _report_modality(rows: list[ListedImage], modality: Modality, problems: Problems) -> None:
    """The list decides; a folder that says otherwise is worth a word."""
    for row in rows:
        if _WORDS.get(row.path.split("/")[0].lower(), modality) is not modality:
            problems.warning(row.place, f"{row.path} is listed as {modality.name.lower()}")


LAYOUT = Layout(
    recognises=recognises,
    read=read,
    expects="idx/train_visible_1.txt and its like beside Visible and Thermal",
    published={
        "train visible": Counts(206, 2_060, 2_060),
        "train infrared": Counts(206, 2_060, 2_060),
        "query infrared": Counts(206, 2_060, 2_060),
        "gallery visible": Counts(206, 2_060, 2_060),
    },
)
