"""HITSZ-VCM as it lies on disk: ``<identity>/<ir|rgb>/D<camera>/<frame>.jpg`` and five text files that index it.

Copies differ: with a Train/ and Test/ level, without one, with the level twice (Train/Train), the text files in info/ or beside
the images. The reader looks instead of assuming. Tracklet's ``root`` is the folder that holds the identities, so that every
variant gives the same frame names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from dinogrl.data.datasets.layout import Choices, Counts, Layout
from dinogrl.data.datasets.text_files import natural_number, quoted, read_lines
from dinogrl.data.problems import Problems, Severity
from dinogrl.records import Dataset, Modality, Tracklet

_INFO_FOLDERS = ("info", ".", "Train", "Test", "train", "test", "Train/info", "Test/info")
_NAME = re.compile(
    r"(?P<identity>[0-9]+)M(?P<modality>[0-9]+)D(?P<camera>[^T/\\\0]+)T(?P<tracklet>[^F/\\\0]+)F(?P<frame>[^/\\\0]+)"
)
_FORBIDDEN_IN_FRAME = re.compile(r"[/\\\0]")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a track file: frames ``names[start - 1 : end]`` belong to ``identity`` under ``camera``."""

    place: str
    modality: Modality
    start: int
    end: int
    identity: int
    camera: int


def recognises(root: Path) -> bool:
    """Is there a track file where one is known to lie?"""
    return any(_info_file(root, f"track_{split}_info.txt") is not None for split in ("train", "test"))


def read(root: Path, choices: Choices, problems: Problems) -> Dataset:
    """Read the index; see :class:`dinogrl.data.datasets.layout.Layout`."""
    names: dict[int, str] = {}
    left_out: dict[str, int] = {}
    splits = []
    for split, discard in (("train", choices.discard_train), ("test", choices.discard_test)):
        skip = frozenset() if discard is None else _discarded(discard, problems)
        splits.append(_read_split(root, split, skip, choices.min_frames, names, left_out, problems))
    train, test = splits
    query_rows = _query_rows(root, test, problems)
    return Dataset(
        name="hitsz-vcm",
        root=root,
        train=[t for t in train if t is not None],
        query=[test[row] for row in query_rows if test[row] is not None],  # type: ignore[misc]
        gallery=[t for row, t in enumerate(test) if t is not None and row not in query_rows],
        identity_names=names,
        camera_names={camera: f"D{camera}" for camera in sorted({t.camera for rows in splits for t in rows if t is not None})},
        left_out=left_out,
    )


def _info_file(root: Path, name: str) -> Path | None:
    return next((path for folder in _INFO_FOLDERS if (path := root / folder / name).is_file()), None)


def _read_split(
    root: Path,
    split: str,
    skip: frozenset[str],
    min_frames: int,
    identity_names: dict[int, str],
    left_out: dict[str, int],
    problems: Problems,
) -> list[Tracklet | None]:
    """One entry a row of the track file, in its order; None for a row that is broken, too short or wholly discarded."""
    files = [_info_file(root, f"{split}_name.txt"), _info_file(root, f"track_{split}_info.txt")]
    if files[0] is None or files[1] is None:
        severity: Severity = "warning" if files == [None, None] else "error"
        missing = [name for name, file in zip((f"{split}_name.txt", f"track_{split}_info.txt"), files) if file is None]
        problems.add(severity, root, f"no {' and no '.join(missing)} (looked in {', '.join(_INFO_FOLDERS)})")
        return []
    names_file, track_file = files[0], files[1]
    names = read_lines(names_file, problems)
    rows = _parse_rows(track_file, len(names), names_file.name, problems)
    base = str(_image_folder(root, split.capitalize(), names))
    seen: dict[str, int] = {}
    tracklets: list[Tracklet | None] = []
    used_discards: set[str] = set()
    short = 0
    for row in rows:
        decoded = None if row is None else _decode(row, names, names_file, problems)
        if row is None or decoded is None:
            tracklets.append(None)
            continue
        label, identity_name, frames = decoded
        if skip:
            used_discards.update(skip.intersection(frames))
            frames = tuple(frame for frame in frames if frame not in skip)
        if len(frames) < max(min_frames, 1):
            short += 1
            problems.note(row.place, f"{len(frames)} frames, fewer than {min_frames}: left out")
            tracklets.append(None)
            continue
        identity_names.setdefault(row.identity, identity_name)
        seen[label] = seen.get(label, 0) + 1
        unique = label if seen[label] == 1 else f"{label}#{seen[label]}"
        tracklets.append(Tracklet(unique, row.identity, row.camera, row.modality, base, frames))
    _report_overlaps(rows, problems)
    if short:
        left_out[f"{split} tracklets shorter than {min_frames} frames"] = short
    if skip:
        left_out[f"{split} frames on the discard list"] = len(used_discards)
        if unknown := len(skip) - len(used_discards):
            problems.warning(f"discard_{split}", f"{unknown} of {len(skip)} entries name no frame of this split")
    return tracklets


def _image_folder(root: Path, level: str, names: list[str]) -> Path:
    """The folder that holds the identities: the one of the known places where most of a few sampled identities are."""
    sample = [match["identity"] for name in names[:: max(1, len(names) // 8)] if (match := _NAME.fullmatch(name))]
    places = [root / level / level, root / level, root / level.lower() / level.lower(), root / level.lower(), root]
    hits = [sum((place / identity).is_dir() for identity in sample) for place in places]
    if max(hits, default=0) > 0:
        return places[hits.index(max(hits))]
    return root / level if (root / level).is_dir() else root


def _parse_rows(path: Path, names: int, names_file: str, problems: Problems) -> list[Row | None]:
    """The rows of a track file; None for one that cannot be used. Blank lines hold no row."""
    rows: list[Row | None] = []
    for number, line in enumerate(read_lines(path, problems), start=1):
        if not line:
            continue
        place = f"{path}:{number}"
        values = [natural_number(token) for token in line.split()]
        if len(values) != 5 or None in values:
            problems.error(place, f"expected 'modality start end identity camera', found {quoted(line)}")
            rows.append(None)
            continue
        modality, start, end, identity, camera = (value for value in values if value is not None)
        if not 1 <= start <= end <= names:
            problems.error(place, f"frames {start}..{end} are not within lines 1..{names} of {names_file}")
            rows.append(None)
            continue
        if modality not in (1, 2):
            problems.warning(place, f"modality {modality} is neither 1 (infrared) nor 2 (visible); read as visible")
        rows.append(Row(place, Modality.INFRARED if modality == 1 else Modality.VISIBLE, start, end, identity, camera))
    return rows


def _decode(row: Row, names: list[str], names_file: Path, problems: Problems) -> tuple[str, str, tuple[str, ...]] | None:
    """(label, identity as written, frame paths) of a row. All names of a good row share everything up to the frame's number."""
    listed = names[row.start - 1 : row.end]
    first = _NAME.fullmatch(listed[0])
    if first is not None:
        prefix = listed[0][: first.start("frame")]
        frames = [name[len(prefix) :] for name in listed if name.startswith(prefix)]
        if len(frames) == len(listed) and all(frames) and not _FORBIDDEN_IN_FRAME.search("".join(frames)):
            _compare(row, first, problems)
            folder = _folder(first)
            return prefix[:-1], first["identity"], tuple([f"{folder}/{frame}" for frame in frames])
    return _decode_each(row, listed, names_file, problems)


def _decode_each(row: Row, listed: list[str], names_file: Path, problems: Problems) -> tuple[str, str, tuple[str, ...]] | None:
    """The same for a row whose names differ before the frame's number, or are no names at all."""
    matches = []
    for line, name in enumerate(listed, start=row.start):
        match = _NAME.fullmatch(name)
        if match is None:
            problems.error(f"{names_file}:{line}", f"expected a name such as 0001M2D3T1F1.jpg, found {quoted(name)}")
        else:
            matches.append(match)
    if len(matches) < len(listed):
        return None
    if len({(match["tracklet"], _folder(match)) for match in matches}) > 1:
        problems.warning(row.place, f"frames {row.start}..{row.end} are of more than one tracklet")
    _compare(row, matches[0], problems)
    label = listed[0][: matches[0].end("tracklet")]
    return label, matches[0]["identity"], tuple([f"{_folder(match)}/{match['frame']}" for match in matches])


def _folder(match: re.Match[str]) -> str:
    return f"{match['identity']}/{'ir' if match['modality'] == '1' else 'rgb'}/D{match['camera']}"


def _compare(row: Row, match: re.Match[str], problems: Problems) -> None:
    """Does the row say the same as the names? The row decides, as in all public code."""
    modality = Modality.INFRARED if match["modality"] == "1" else Modality.VISIBLE
    for title, said, named in (
        ("identity", str(row.identity), match["identity"].lstrip("0") or "0"),
        ("camera", str(row.camera), match["camera"].lstrip("0") or "0"),
        ("modality", row.modality.name.lower(), modality.name.lower()),
    ):
        if said != named:
            problems.warning(row.place, f"{title} {said}, but the frames are named {quoted(match.string)} ({named})")


def _report_overlaps(rows: list[Row | None], problems: Problems) -> None:
    """Rows that claim the same frames: the same range twice, or ranges that meet."""
    last: Row | None = None
    for row in sorted((row for row in rows if row is not None), key=lambda row: (row.start, row.end)):
        if last is not None and row.start <= last.end:
            same = (row.start, row.end) == (last.start, last.end)
            message = (
                f"repeats frames {row.start}..{row.end}"
                if same
                else f"frames {row.start}..{row.end} overlap {last.start}..{last.end}"
            )
            problems.warning(row.place, f"{message} of {last.place}")
        if last is None or row.end > last.end:
            last = row


def _query_rows(root: Path, test: list[Tracklet | None], problems: Problems) -> dict[int, None]:
    """0-based rows of the queries in the order of the file, each once. The file counts from 1 and may have several lines."""
    path = _info_file(root, "query_IDX.txt")
    if path is None:
        if test:
            problems.error(root, f"no query_IDX.txt (looked in {', '.join(_INFO_FOLDERS)})")
        return {}
    if not test:  # said already: there is no track file whose rows these could be
        return {}
    rows: dict[int, None] = {}
    for number, line in enumerate(read_lines(path, problems), start=1):
        for token in line.split():
            value = natural_number(token)
            if value is None or not 1 <= value <= len(test):
                found = quoted(token)
                problems.error(f"{path}:{number}", f"expected rows 1..{len(test)} of track_test_info.txt, found {found}")
                continue
            if value - 1 in rows:
                problems.warning(f"{path}:{number}", f"row {value} stands here twice; used once")
            elif (tracklet := test[value - 1]) is not None and tracklet.modality is not Modality.INFRARED:
                problems.warning(f"{path}:{number}", f"row {value} is a visible tracklet; queries are infrared")
            rows[value - 1] = None
    return rows


def _discarded(path: Path, problems: Problems) -> frozenset[str]:
    """Frames of a discard list, as identity/modality/camera/frame whatever stands before."""
    lines = read_lines(path, problems, may_be_empty=True)
    return frozenset("/".join(line.replace("\\", "/").split("/")[-4:]) for line in lines if line)


LAYOUT = Layout(
    recognises=recognises,
    read=read,
    expects="track_train_info.txt or track_test_info.txt, in info/ or beside the images",
    published={
        "train visible": Counts(500, 5_460, 126_543),
        "train infrared": Counts(500, 4_291, 98_214),
        "query infrared": Counts(427, 4_584, 105_979),
        "gallery visible": Counts(427, 5_099, 118_137),
    },
)
