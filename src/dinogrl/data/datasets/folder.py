"""Footage of one's own: ``<identity>/<camera>/<visible|infrared>/<tracklet>/*.jpg``.

The identities may stand under train/ and test/, or under train/, query/ and gallery/. Under test/, and where there is no such
level, infrared tracklets are the queries and visible ones the gallery. Without a level everything serves training as well: good
for trying things out, not for reporting a number. A folder called train, test, query or gallery is a level, never an identity.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dinogrl.data.datasets.directories import folders_in, images_in
from dinogrl.data.datasets.layout import Choices, Layout
from dinogrl.data.natural_order import natural_key, natural_sorted
from dinogrl.data.problems import Problems
from dinogrl.records import Dataset, Modality, Tracklet

MODALITY_FOLDERS = {
    "visible": Modality.VISIBLE,
    "rgb": Modality.VISIBLE,
    "infrared": Modality.INFRARED,
    "ir": Modality.INFRARED,
}
_LEVELS = ("train", "test", "query", "gallery")


@dataclass(frozen=True, slots=True)
class Found:
    """A tracklet's folder, with names where the tracklet has numbers."""

    identity: str
    camera: str
    modality: Modality
    label: str
    frames: tuple[str, ...]


def recognises(root: Path) -> bool:
    """Is there one tracklet folder with the name of a modality above it?"""
    return any(
        entry.name.lower() in MODALITY_FOLDERS
        for base in _bases(root).values()
        for _, camera in _camera_folders(base)
        for entry in folders_in(camera.path)
    )


def read(root: Path, choices: Choices, problems: Problems) -> Dataset:
    """Read the index; see :class:`dinogrl.data.datasets.layout.Layout`. No length filter and no discard lists in this layout."""
    bases = _bases(root)
    found = {level: list(_scan(base, problems)) for level, base in bases.items()}
    everything = [item for items in found.values() for item in items]
    identities = {name: number for number, name in enumerate(sorted({i.identity for i in everything}, key=natural_key))}
    cameras = {name: number for number, name in enumerate(sorted({i.camera for i in everything}, key=natural_key))}
    tracklets = {
        level: [
            Tracklet(
                f"{level}/{item.label}".removeprefix("./"),
                identities[item.identity],
                cameras[item.camera],
                item.modality,
                str(bases[level]),
                item.frames,
            )
            for item in items
        ]
        for level, items in found.items()
    }
    test = tracklets.get("test", tracklets.get(".", []))
    return Dataset(
        name="folder",
        root=root,
        train=tracklets.get("train", tracklets.get(".", [])),
        query=tracklets.get("query", [t for t in test if t.modality is Modality.INFRARED]),
        gallery=tracklets.get("gallery", [t for t in test if t.modality is Modality.VISIBLE]),
        identity_names={number: name for name, number in identities.items()},
        camera_names={number: name for name, number in cameras.items()},
    )


def _bases(root: Path) -> dict[str, Path]:
    """Level -> folder of identities; ``.`` where there is no level."""
    folders = {entry.name.lower(): Path(entry.path) for entry in folders_in(root)}
    levels = {name: folders[name] for name in _LEVELS if name in folders}
    return levels or {".": root}


def _camera_folders(base: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    for identity in folders_in(base):
        for camera in folders_in(identity.path):
            yield identity.name, camera


def _scan(base: Path, problems: Problems) -> Iterator[Found]:
    for identity, camera in _camera_folders(base):
        inside = folders_in(camera.path)
        if not inside:
            problems.warning(camera.path, "no folder visible or infrared in this camera's folder")
        for modality in inside:
            if modality.name.lower() not in MODALITY_FOLDERS:
                problems.warning(modality.path, f"is called neither {' nor '.join(MODALITY_FOLDERS)}; left out")
                continue
            for folder in folders_in(modality.path):
                label = f"{identity}/{camera.name}/{modality.name}/{folder.name}"
                names = images_in(folder.path)
                if not names:
                    problems.warning(folder.path, "no image in this tracklet's folder")
                    continue
                frames = tuple([f"{label}/{name}" for name in natural_sorted(names)])
                yield Found(identity, camera.name, MODALITY_FOLDERS[modality.name.lower()], label, frames)


LAYOUT = Layout(
    recognises=recognises,
    read=read,
    expects="<identity>/<camera>/<visible|infrared>/<tracklet>/*.jpg, with or without train/ and test/ above",
    published={},
)
