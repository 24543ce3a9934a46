"""BUPTCampus as it lies on disk: ``DATA/<identity>/<RGB|IR>/<camera>/*.jpg``, data_paths.json and four text files.

Every training line is a pixel-aligned pair of tracklets. Identities are numbered in the order of their names as text, as the
dataset's own code numbers them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dinogrl.data.datasets.layout import Choices, Counts, Layout
from dinogrl.data.datasets.text_files import is_safe_path, quoted, read_lines
from dinogrl.data.problems import Problems, Severity
from dinogrl.records import Dataset, Modality, Tracklet

CAMERAS = {"LS3": 0, "G25": 1, "CQ1": 2, "W4": 3, "TSG1": 4, "TSG2": 5}
MODALITIES = {"RGB": Modality.VISIBLE, "IR": Modality.INFRARED}
_PAIR = "RGB/IR"
_LISTS = ("train", "train_auxiliary", "query", "gallery")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a list: ``modalities`` has both names in a training line."""

    place: str
    identity: str
    modalities: tuple[str, ...]
    camera: str
    tracklet: str


@dataclass
class Split:
    """Tracklets of one list and the positions of their pairs."""

    tracklets: list[Tracklet] = field(default_factory=list)
    pairs: list[tuple[int, int]] = field(default_factory=list)


def recognises(root: Path) -> bool:
    """Is data_paths.json here, or one level up from a folder DATA? Where it is lost, a list beside DATA tells as well."""
    return _top(root) is not None


def read(root: Path, choices: Choices, problems: Problems) -> Dataset:
    """Read the index; see :class:`dinogrl.data.datasets.layout.Layout`. No length filter and no discard lists in this dataset."""
    top = _top(root) or root
    images = top / "DATA" if (top / "DATA").is_dir() else top
    paths = _read_paths(top / "data_paths.json", problems)
    lists = {name: list(_read_list(top, name, problems)) if paths else [] for name in _LISTS}  # without paths no line can be right
    everyone = [line for lines in lists.values() for line in lines]
    identities = {name: number for number, name in enumerate(sorted({line.identity for line in everyone}))}
    unknown = sorted({line.camera for line in everyone} - CAMERAS.keys())
    cameras = CAMERAS | {name: len(CAMERAS) + number for number, name in enumerate(unknown)}
    seen: dict[str, str] = {}
    splits = {name: _build(lines, paths, str(images), identities, cameras, seen, problems) for name, lines in lists.items()}
    return Dataset(
        name="buptcampus",
        root=top,
        train=splits["train"].tracklets,
        query=splits["query"].tracklets,
        gallery=splits["gallery"].tracklets,
        identity_names={number: name for name, number in identities.items()},
        camera_names={number: name for name, number in cameras.items()},
        train_pairs=splits["train"].pairs,
        auxiliary=splits["train_auxiliary"].tracklets,
        auxiliary_pairs=splits["train_auxiliary"].pairs,
    )


def _top(root: Path) -> Path | None:
    candidates = [root, root.resolve().parent] if root.resolve().name == "DATA" else [root]
    return next((folder for folder in candidates if (folder / "data_paths.json").is_file() or _lists_beside_images(folder)), None)


def _lists_beside_images(folder: Path) -> bool:
    return (folder / "DATA").is_dir() and any((folder / f"{name}.txt").is_file() for name in _LISTS)


def _read_paths(path: Path, problems: Problems) -> dict[str, Any]:
    """The mapping identity -> modality -> camera -> tracklet -> frames, not yet looked into."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        problems.error(path, f"cannot be read ({error.strerror or error})")
    except (ValueError, RecursionError) as error:
        problems.error(path, f"is not valid JSON ({quoted(str(error))})")
    else:
        if isinstance(content, dict) and content:
            return content
        found = "an empty one" if content == {} else f"a {type(content).__name__}"
        problems.error(path, f"expected a mapping of identities, found {found}")
    return {}


def _read_list(top: Path, name: str, problems: Problems) -> Iterator[Line]:
    path = top / f"{name}.txt"
    if not path.is_file():
        severity: Severity = "note" if name == "train_auxiliary" else "warning"
        problems.add(severity, path, "is missing")
        return
    training = name.startswith("train")
    expected = (_PAIR,) if training else tuple(MODALITIES)
    for number, text in enumerate(read_lines(path, problems), start=1):
        if not text:
            continue
        values = text.split()
        if len(values) != 4 or values[1] not in expected:
            problems.error(f"{path}:{number}", f"expected 'identity {'|'.join(expected)} camera tracklet', found {quoted(text)}")
            continue
        identity, modality, camera, tracklet = values
        yield Line(f"{path}:{number}", identity, tuple(modality.split("/")), camera, tracklet)


def _build(
    lines: list[Line],
    paths: dict[str, Any],
    images: str,
    identities: dict[str, int],
    cameras: dict[str, int],
    seen: dict[str, str],
    problems: Problems,
) -> Split:
    """Tracklets of a list. ``seen``: id of a tracklet -> place of the line that first named it, over all lists."""
    split = Split()
    for line in lines:
        found = [_frames(line, modality, paths, problems) for modality in line.modalities]
        if not all(found):
            continue
        labels = [f"{line.identity}_{modality}_{line.camera}_{line.tracklet}" for modality in line.modalities]
        if labels[0] in seen:
            problems.warning(line.place, f"repeats the tracklet of {seen[labels[0]]}; used once")
            continue
        if len({len(frames) for frames in found}) > 1:
            problems.warning(line.place, f"the pair has {len(found[0])} visible and {len(found[1])} infrared frames")
        for label, modality, frames in zip(labels, line.modalities, found):
            seen[label] = line.place
            split.tracklets.append(
                Tracklet(label, identities[line.identity], cameras[line.camera], MODALITIES[modality], images, frames)
            )
        if len(found) == 2:
            split.pairs.append((len(split.tracklets) - 2, len(split.tracklets) - 1))
    return split


def _frames(line: Line, modality: str, paths: dict[str, Any], problems: Problems) -> tuple[str, ...]:
    """Frame paths of one tracklet, empty (and a problem) where data_paths.json does not give them."""
    node: Any = paths
    for key in (line.identity, modality, line.camera, line.tracklet):
        node = node.get(key) if isinstance(node, dict) else None
    where = f"{line.identity}/{modality}/{line.camera}/{line.tracklet}"
    if not isinstance(node, list) or not node:
        problems.error(line.place, f"data_paths.json has no frames of {quoted(where)}")
        return ()
    wrong = [path for path in node if not is_safe_path(path)]
    if wrong:
        problems.error(line.place, f"data_paths.json lists {quoted(wrong[0])} as a frame of {quoted(where)}")
        return ()
    return tuple(node)


LAYOUT = Layout(
    recognises=recognises,
    read=read,
    expects="data_paths.json beside a folder DATA",
    published={
        "train visible": Counts(1_074, 3_574, 398_069),
        "train infrared": Counts(1_074, 3_574, 398_069),
        "auxiliary visible": Counts(930, 930, 104_575),
        "auxiliary infrared": Counts(930, 930, 104_575),
        "query visible": Counts(None, 540, 48_521),
        "query infrared": Counts(None, 536, 53_417),
        "gallery visible": Counts(None, 2_422, 298_771),
        "gallery infrared": Counts(None, 2_422, 298_771),
    },
)
