"""What datasets of single images have in common: tracklets of one frame, lists of identities and of images, camera folders."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dinogrl.data.datasets.directories import folders_in, images_in
from dinogrl.data.datasets.text_files import is_safe_path, natural_number, quoted, read_lines
from dinogrl.data.problems import Problems
from dinogrl.records import Modality, Tracklet


@dataclass(frozen=True, slots=True)
class CameraFolder:
    """A camera's folder below the root, ``cam3`` or ``test_nir/cam2``, which holds a folder for each identity."""

    path: str
    camera: int
    modality: Modality


@dataclass(frozen=True, slots=True)
class ListedImage:
    """One row ``path label`` of a list. ``person`` is the folder in which the image lies."""

    place: str
    path: str
    person: str
    label: int


def image_tracklet(root: Path, path: str, identity: int, camera: int, modality: Modality) -> Tracklet:
    """A single image as a tracklet of one frame; its path below the root is its id."""
    return Tracklet(path, identity, camera, modality, str(root), (path,))


def read_identities(path: Path, problems: Problems) -> list[int]:
    """Identity numbers of a file, separated by commas; each once. A missing file is a warning and gives none."""
    if not path.is_file():
        problems.warning(path, "is missing")
        return []
    identities: dict[int, None] = {}
    for number, line in enumerate(read_lines(path, problems), start=1):
        for token in filter(None, line.replace(",", " ").split()):
            identity = natural_number(token)
            if identity is None:
                problems.error(f"{path}:{number}", f"expected identity numbers separated by commas, found {quoted(token)}")
            elif identity in identities:
                problems.warning(f"{path}:{number}", f"identity {identity} stands here twice")
            else:
                identities[identity] = None
    return list(identities)


def read_images(path: Path, problems: Problems) -> list[ListedImage]:
    """Rows ``path label`` of a file, each image once. A missing file is a warning and gives none."""
    if not path.is_file():
        problems.warning(path, "is missing")
        return []
    rows: dict[str, ListedImage] = {}
    for number, line in enumerate(read_lines(path, problems), start=1):
        if not line:
            continue
        place, words = f"{path}:{number}", line.split()
        label = natural_number(words[-1])
        parts = words[0].split("/")
        if len(words) != 2 or label is None or len(parts) < 2 or not is_safe_path(words[0]):
            problems.error(place, f"expected '<person's folder>/<image> label', found {quoted(line)}")
        elif words[0] in rows:
            problems.warning(place, f"repeats the image of {rows[words[0]].place}; used once")
        else:
            rows[words[0]] = ListedImage(place, words[0], parts[-2], label)
    return list(rows.values())


def report_contradictions(rows: Iterable[ListedImage], problems: Problems) -> None:
    """Within one split, a label is one person and a person one label, in both modalities; where not, the folder decides."""
    pairs: dict[tuple[str, int], ListedImage] = {}
    for row in rows:
        pairs.setdefault((row.person, row.label), row)
    found: list[tuple[str, str]] = []
    person_of: dict[int, ListedImage] = {}
    label_of: dict[str, ListedImage] = {}
    for row in pairs.values():
        first = person_of.setdefault(row.label, row)
        if first.person != row.person:
            found.append((row.place, f"label {row.label} is {quoted(row.person)} here and {quoted(first.person)} in {first.place}"))
        first = label_of.setdefault(row.person, row)
        if first.label != row.label:
            found.append((row.place, f"{quoted(row.person)} has label {row.label} here and {first.label} in {first.place}"))
    if found:
        place, message = found[0]
        problems.warning(place, f"{message}; the folder decides" + (f" ({len(found) - 1} more such lines)" if found[1:] else ""))


def scan(root: Path, folders: Iterable[CameraFolder], identities: Collection[int], problems: Problems) -> list[Tracklet]:
    """Images of ``identities`` (numbers) in ``<camera>/<identity>/``, ordered by identity, camera and file name."""
    found: list[Tracklet] = []
    unlisted: set[int] = set()
    for folder in folders:
        place = root / folder.path
        images = list(_scan_camera(root, folder, identities, unlisted, problems))
        if not images:
            problems.warning(place, "holds no image of a listed identity" if place.is_dir() else "is missing")
        found += images
    if unlisted:
        problems.note(root, f"{len(unlisted)} identities in the cameras' folders are on no list, the first is {min(unlisted)}")
    return sorted(found, key=lambda image: (image.identity, image.camera, image.id))


def _scan_camera(
    root: Path, folder: CameraFolder, identities: Collection[int], unlisted: set[int], problems: Problems
) -> Iterator[Tracklet]:
    """Images of one camera; adds to ``unlisted`` the identities that are not asked for."""
    for entry in folders_in(root / folder.path):
        identity = natural_number(entry.name)
        if identity is None:
            problems.warning(entry.path, "is no identity's number; left out")
            continue
        if identity not in identities:
            unlisted.add(identity)
            continue
        names = images_in(entry.path)
        if not names:
            problems.warning(entry.path, "no image in this identity's folder")
        for name in names:
            path = f"{folder.path}/{entry.name}/{name}"
            yield image_tracklet(root, path, identity, folder.camera, folder.modality)


def report_unseen(listed: Iterable[int], seen: Collection[int], path: Path, problems: Problems) -> None:
    """Identities of a list of whom there is no image."""
    listed = list(listed)
    unseen = [identity for identity in listed if identity not in seen]
    if unseen:
        problems.warning(path, f"{len(unseen)} of {len(listed)} identities have no image, the first is {unseen[0]}")
