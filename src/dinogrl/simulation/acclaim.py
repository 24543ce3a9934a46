"""Reader of ASF/AMC, the motion-capture format of the CMU database, and its forward kinematics.

An ASF file holds a skeleton: each bone's direction and length, and the axes in which its rotations are written. An AMC file holds
the rotations of every frame. The files are y-up, the subject looks along z, and x is on the left.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinogrl.errors import DataError

Doubles = NDArray[np.float64]

INCH = 0.0254


@dataclass(frozen=True)
class Bone:
    """``offset`` (3,) from its start to its end at rest, in the file's units; ``axis`` (3,3) the frame of its rotations; ``dof``
    the names of these in order."""

    offset: Doubles
    axis: Doubles
    dof: tuple[str, ...]


@dataclass(frozen=True)
class Skeleton:
    """``bones`` by name, parents first; ``parents`` by name ("root" is the start of all); ``scale``: metres of a unit of length."""

    bones: dict[str, Bone]
    parents: dict[str, str]
    root_order: tuple[str, ...]
    scale: float
    degrees: bool


def read_asf(path: Path) -> Skeleton:
    """Read a skeleton. Raises :class:`DataError` naming file and line."""
    lines = _lines(path)
    length, degrees = 1.0, True
    order: tuple[str, ...] = ("TX", "TY", "TZ", "RX", "RY", "RZ")
    bones: dict[str, Bone] = {}
    parents: dict[str, str] = {}
    section, bone = "", dict[str, list[Any]]()
    for number, words in lines:
        key = words[0].lower()
        try:
            if key.startswith(":"):
                section = key[1:]
            elif section == "units":
                length = float(words[1]) if key == "length" else length
                degrees = words[1].lower().startswith("deg") if key == "angle" else degrees
            elif section == "root" and key == "order":
                order = tuple(word.upper() for word in words[1:])
            elif section == "root" and key == "orientation" and any(map(_number, words[1:])):
                raise DataError(f"{path}, line {number}: a root with an orientation of its own is not supported; expected 0 0 0")
            elif section == "bonedata":
                if key == "begin":
                    bone = {}
                elif key == "end":
                    read = _bone(bone, degrees)
                    bones[bone["name"][0]] = read
                else:
                    numbers = words[1:4] if key in {"direction", "length", "axis"} else []
                    bone[key] = [*map(_number, numbers), *words[1 + len(numbers) :]]
            elif section == "hierarchy" and key not in {"begin", "end"}:
                for child in words[1:]:
                    if child not in bones:
                        raise DataError(f"{path}, line {number}: the hierarchy names a bone {child!r} that has no data")
                    parents[child] = words[0]
        except (ValueError, IndexError, KeyError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(
                f"{path}, line {number}: cannot read {' '.join(words)!r} in section :{section or '?'} ({error})"
            ) from error
    if not bones or not parents:
        raise DataError(f"{path}: no :bonedata or no :hierarchy; expected an ASF skeleton")
    return Skeleton(_parents_first(path, bones, parents), parents, order, INCH / length, degrees)


def read_amc(path: Path, skeleton: Skeleton) -> dict[str, Doubles]:
    """Read a recording: bone name -> (F,k) values in the order of the file (angles in radians), "root" among them.

    Raises :class:`DataError` naming file and line.
    """
    wanted = {"root": len(skeleton.root_order), **{name: len(bone.dof) for name, bone in skeleton.bones.items() if bone.dof}}
    frames: list[dict[str, list[float]]] = []
    number = 0
    for number, words in _lines(path):
        if words[0].startswith(":"):
            continue
        if len(words) == 1 and words[0].isdigit():
            _whole_frame(path, number - 1, frames, wanted)
            frames.append({})
            continue
        name = words[0]
        if name not in wanted:
            raise DataError(f"{path}, line {number}: bone {name!r} is not in the skeleton, or does not move there")
        if not frames or name in frames[-1]:
            raise DataError(
                f"{path}, line {number}: {name!r} stands {'twice in a frame' if frames else 'before the first frame number'}"
            )
        try:
            values = [float(word) for word in words[1:]]
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {' '.join(words)!r} is not a bone and its numbers") from error
        if len(values) != wanted[name] or not all(map(math.isfinite, values)):
            raise DataError(f"{path}, line {number}: {name!r} has {len(values)} values, expected {wanted[name]} finite numbers")
        frames[-1][name] = values
    _whole_frame(path, number, frames, wanted)
    if not frames:
        raise DataError(f"{path}: no frames; expected an AMC recording")
    moved = {name: np.array([frame[name] for frame in frames]) for name in wanted}
    if skeleton.degrees:
        for name, array in moved.items():
            turning = [i for i, dof in enumerate(_dofs(skeleton, name)) if dof.lower().startswith("r")]
            array[:, turning] = np.radians(array[:, turning])
    return moved


def bone_ends(skeleton: Skeleton, moved: dict[str, Doubles]) -> dict[str, Doubles]:
    """Forward kinematics: (F,3) metres of the end of every bone in the file's axes; "root" is the root's own position.

    A bone turns by its parent's rotation, then by its own, which is written in its own axes: R = R_parent A M A^-1.
    """
    order = skeleton.root_order
    shift = np.stack([moved["root"][:, order.index(name)] for name in ("TX", "TY", "TZ")], axis=1) * skeleton.scale
    turns = {"root": _rotation(moved["root"], order)}
    ends = {"root": shift}
    for name, bone in skeleton.bones.items():
        parent = skeleton.parents[name]
        own = _rotation(moved[name], bone.dof) if bone.dof else np.eye(3)
        turns[name] = turns[parent] @ bone.axis @ own @ bone.axis.T
        ends[name] = ends[parent] + turns[name] @ (bone.offset * skeleton.scale)
    return ends


def _rotation(values: Doubles, order: Sequence[str]) -> Doubles:
    """(F,3,3) rotations from angles in radians: about x first, then y, then z (each about the fixed axes)."""
    turn = np.broadcast_to(np.eye(3), (len(values), 3, 3))
    for column, name in enumerate(order):
        if name.lower().startswith("r"):
            turn = _about(name[1].lower(), values[:, column]) @ turn
    return turn


def _about(axis: str, angle: Doubles) -> Doubles:
    """(F,3,3) rotations about x, y or z."""
    sine, cosine, one, zero = np.sin(angle), np.cos(angle), np.ones_like(angle), np.zeros_like(angle)
    rows = {
        "x": ((one, zero, zero), (zero, cosine, -sine), (zero, sine, cosine)),
        "y": ((cosine, zero, sine), (zero, one, zero), (-sine, zero, cosine)),
        "z": ((cosine, -sine, zero), (sine, cosine, zero), (zero, zero, one)),
    }[axis]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def _number(word: str) -> float:
    number = float(word)
    if not math.isfinite(number):
        raise ValueError(f"{word} is not finite")
    return number


def _bone(facts: dict[str, list[Any]], degrees: bool) -> Bone:
    missing = sorted({"name", "direction", "length", "axis"} - set(facts))
    if missing:
        raise ValueError(f"the bone has no {', '.join(missing)}")
    direction, angles = np.array(facts["direction"]), np.array([facts["axis"][:3]])
    norm = float(np.linalg.norm(direction))
    if direction.shape != (3,) or angles.shape != (1, 3) or not norm > 0:
        raise ValueError("direction and axis must be three numbers, and a direction not 0")
    order = [f"r{letter}" for letter in facts["axis"][3]] if len(facts["axis"]) > 3 else ["rx", "ry", "rz"]
    axis = _rotation(np.radians(angles) if degrees else angles, order)[0]
    return Bone(direction / norm * facts["length"][0], axis, tuple(facts.get("dof", ())))


def _dofs(skeleton: Skeleton, name: str) -> tuple[str, ...]:
    return skeleton.root_order if name == "root" else skeleton.bones[name].dof


def _parents_first(path: Path, bones: dict[str, Bone], parents: dict[str, str]) -> dict[str, Bone]:
    ordered: dict[str, Bone] = {}
    waiting = [name for name in bones if name in parents]
    while waiting:
        ready = [name for name in waiting if parents[name] == "root" or parents[name] in ordered]
        if not ready:
            raise DataError(f"{path}: the hierarchy does not lead from these bones to the root: {', '.join(waiting)}")
        ordered.update({name: bones[name] for name in ready})
        waiting = [name for name in waiting if name not in ordered]
    return ordered


def _whole_frame(path: Path, number: int, frames: list[dict[str, list[float]]], wanted: dict[str, int]) -> None:
    if frames and len(frames[-1]) < len(wanted):
        missing = sorted(set(wanted) - set(frames[-1]))
        raise DataError(f"{path}, line {number}: the frame that ends here lacks {', '.join(missing[:5])}; the file may be cut off")


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Numbered lines as words, without blank lines and comments."""
    try:
        text = path.read_text(encoding="latin-1")
    except OSError as error:
        raise DataError(f"cannot read motion capture {path}: {error}") from error
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#", 1)[0].split()
        if words:
            yield number, words
