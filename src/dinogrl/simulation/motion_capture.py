"""Real walks: recordings of motion capture -> loops of bone directions on our skeleton."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dinogrl.errors import DataError
from dinogrl.simulation.acclaim import Doubles, Skeleton, bone_ends, read_amc, read_asf
from dinogrl.simulation.body import BONES, INDEX, JOINTS, PARENTS, Floats
from dinogrl.simulation.gait import Motion
from dinogrl.simulation.settings import PUBLIC_RATE

SAMPLES_A_SECOND = 48
WALKING = (0.5, 2.1)
"""Metres a second between which somebody walks."""
LEAST_SECONDS = 1.2

# Where our joints lie on the recorded skeleton: the mean of the ends of these bones.
ENDS = {
    "pelvis": ("root",),
    "waist": ("upperback",),
    "neck": ("lclavicle", "rclavicle"),
    "head": ("head",),
    **{f"{side}_{ours}": (f"{side[0]}{theirs}",)
       for side in ("left", "right")
       for ours, theirs in (("hip", "hipjoint"), ("knee", "femur"), ("ankle", "tibia"), ("toe", "toes"),
                            ("shoulder", "clavicle"), ("elbow", "humerus"), ("wrist", "wrist"), ("hand", "fingers"))},
}  # fmt: skip


def load_motions(folder: Path, rate: float = PUBLIC_RATE) -> tuple[tuple[Motion, ...], ...]:
    """All walks below a folder, one group a skeleton (a subject): AMC files that lie beside their ASF file.

    ``rate``: frames a second of all the recordings; the files do not say. Of several skeletons in one folder a recording's is the
    one whose name its own begins with. Recordings in which nobody walks (standing, running) are left out. Raises
    :class:`DataError` naming file and line for a broken file, and where no walk is found, saying what was.
    """
    files = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in {".asf", ".amc"})
    skeletons = {path: read_asf(path) for path in files if path.suffix.lower() == ".asf"}
    walks: dict[Path, list[Motion]] = {path: [] for path in skeletons}
    left_out: list[float] = []
    for amc in (path for path in files if path not in skeletons):
        asf = _skeleton_of(amc, skeletons)
        if asf is None:
            continue
        moved = read_amc(amc, skeletons[asf])
        try:
            walk = walking_part(skeletons[asf], moved, rate)
        except DataError as error:
            raise DataError(f"{asf}: {error}") from error
        if walk is None:
            left_out.append(_usual_speed(skeletons[asf], moved, rate))
        else:
            walks[asf].append(walk)
    groups = tuple(tuple(group) for group in walks.values() if group)
    if not groups:
        raise DataError(f"no walk found below {folder}: {_what_there_is(folder, skeletons, left_out, rate)}")
    return groups


def _skeleton_of(amc: Path, skeletons: Iterable[Path]) -> Path | None:
    beside = [asf for asf in skeletons if asf.parent == amc.parent]
    if len(beside) == 1:
        return beside[0]
    return max((asf for asf in beside if amc.stem.startswith(asf.stem)), key=lambda asf: len(asf.stem), default=None)


def _what_there_is(folder: Path, skeletons: Mapping[Path, Skeleton], speeds: list[float], rate: float) -> str:
    if not Path(folder).is_dir():
        return "it is no folder; give one with .asf skeletons and .amc recordings beside them"
    if not skeletons:
        return "no .asf skeleton is there; expected ASF/AMC motion capture (BVH, C3D and FBX are not read)"
    if not speeds:
        return f"no .amc recording lies beside {min(skeletons)}; put each skeleton into the folder of its recordings"
    return (
        f"nobody walks for {LEAST_SECONDS} s at {WALKING[0]} to {WALKING[1]} metres a second in its recordings ({len(speeds)}, "
        f"{min(speeds):.1f} to {max(speeds):.1f} metres a second); they are read as {rate:g} frames a second, one unit being "
        "1 / length inches (:units in the .asf); if they were recorded at another rate, give it (--motion-rate)"
    )


def our_joints(ends: dict[str, Doubles]) -> Doubles:
    """(F,J,3) our joints on the recorded skeleton, in our axes: x and y on the ground, z up.

    Raises :class:`DataError` for a skeleton with other bones.
    """
    missing = sorted({name for names in ENDS.values() for name in names} - set(ends))
    if missing:
        raise DataError(f"the skeleton has no bones {', '.join(missing)}; expected the bone names of the CMU recordings")
    joints = np.stack([np.mean([ends[name] for name in ENDS[joint]], axis=0) for joint in JOINTS], axis=1)
    return joints[..., [2, 0, 1]]


def walking_part(skeleton: Skeleton, moved: dict[str, Doubles], rate: float) -> Motion | None:
    """The walk in a recording, turned to face +x and closed to a loop of whole gait cycles; None where nobody walks that far."""
    joints = our_joints(bone_ends(skeleton, moved))
    velocity = _smooth(np.gradient(joints[:, INDEX["pelvis"], :2], axis=0) * rate, rate)
    speed = np.linalg.norm(velocity, axis=1)
    first, last = _longest((speed > WALKING[0]) & (speed < WALKING[1]))
    if last - first < LEAST_SECONDS * rate:
        return None
    joints, heading = joints[first:last], np.arctan2(velocity[first:last, 1], velocity[first:last, 0])
    directions = np.zeros_like(joints)
    for bone in BONES:
        directions[:, bone] = joints[:, bone] - joints[:, PARENTS[bone]]
    sine, cosine = np.sin(-heading)[:, None], np.cos(-heading)[:, None]
    ahead = cosine * directions[..., 0] - sine * directions[..., 1]
    aside = sine * directions[..., 0] + cosine * directions[..., 1]
    directions = np.stack([ahead, aside, directions[..., 2]], axis=-1)
    directions[:, 1:] /= np.maximum(np.linalg.norm(directions[:, 1:], axis=2, keepdims=True), 1e-9)
    loop = _best_loop(directions, rate)
    if loop is None:
        return None
    closed = _close(directions[loop[0] : loop[1] + 1])
    seconds = (loop[1] - loop[0]) / rate
    return Motion(_resample(closed, max(round(seconds * SAMPLES_A_SECOND), 16)), seconds)


def _usual_speed(skeleton: Skeleton, moved: dict[str, Doubles], rate: float) -> float:
    """Metres a second over the ground: the median over a recording."""
    steps = np.diff(bone_ends(skeleton, moved)["root"][:, [2, 0]], axis=0)
    return float(np.median(np.linalg.norm(steps, axis=1)) * rate) if len(steps) else 0.0


def _best_loop(directions: Doubles, rate: float) -> tuple[int, int] | None:
    """First and last frame of the loop whose ends are most alike: whole cycles, since the legs must be in the same place."""
    frames, shortest = len(directions), round(0.8 * rate)
    if frames <= shortest + 2:
        return None
    legs = directions[:, [INDEX[f"{side}_{name}"] for side in ("left", "right") for name in ("knee", "ankle", "elbow")]]
    pose = np.concatenate([legs, np.gradient(legs, axis=0) * rate * 0.1], axis=1).reshape(frames, -1)
    step = max(round(rate / 40), 1)
    best = (np.inf, 0, 0)  # gap, start, end: of equal gaps the first
    for length in range(shortest, min(frames, int(4.5 * rate) + 1), step):  # the gaps of all pairs of frames would fill the memory
        starts = np.arange(0, frames - length, step)
        gap = np.linalg.norm(pose[starts] - pose[starts + length], axis=1) - 0.1 * np.minimum(length / rate, 3)
        nearest = int(np.argmin(gap))
        best = min(best, (float(gap[nearest]), int(starts[nearest]), int(starts[nearest]) + length))
    return best[1:] if np.isfinite(best[0]) else None


def _close(directions: Doubles) -> Doubles:
    """Bend the last fifth so that the last pose is the first; the last frame, now a repeat, is dropped."""
    frames = len(directions)
    ramp = np.clip((np.arange(frames) / (frames - 1) - 0.8) / 0.2, 0, 1)
    ramp = ramp * ramp * (3 - 2 * ramp)
    closed = directions + ramp[:, None, None] * (directions[0] - directions[-1])
    return closed[:-1] / np.maximum(np.linalg.norm(closed[:-1], axis=2, keepdims=True), 1e-9)


def _resample(closed: Doubles, samples: int) -> Floats:
    """``samples`` poses of a loop, linear between the recorded ones."""
    frames = len(closed)
    position = np.arange(samples) * frames / samples
    low = position.astype(int)
    part = (position - low)[:, None, None]
    mixed = closed[low] * (1 - part) + closed[(low + 1) % frames] * part
    return np.asarray(mixed / np.maximum(np.linalg.norm(mixed, axis=2, keepdims=True), 1e-9), np.float32)


def _smooth(values: Doubles, width: float) -> Doubles:
    """Mean over a sliding window of about ``width`` frames, the ends repeated."""
    half = min(round(width / 2), len(values) - 1)
    padded = np.pad(values, ((half, half), (0, 0)), mode="edge")
    sums = np.cumsum(np.concatenate([np.zeros((1, values.shape[1])), padded]), axis=0)
    return np.asarray((sums[2 * half + 1 :] - sums[: -2 * half - 1]) / (2 * half + 1))


def _longest(flags: NDArray[np.bool_]) -> tuple[int, int]:
    """Start and end (exclusive) of the longest run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    runs = [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2])]
    return max(runs, key=lambda run: run[1] - run[0], default=(0, 0))
