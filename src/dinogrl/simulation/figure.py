"""A dressed body as a list of tapered limbs, ready to be drawn. T frames, L limbs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from dinogrl.simulation.body import INDEX, Body, Floats, heels
from dinogrl.simulation.wardrobe import Outfit, Surface


class Part(IntEnum):
    """Labels of body parts in a picture."""

    BACKGROUND = 0
    HEAD = 1
    TORSO = 2
    LEFT_ARM = 3
    RIGHT_ARM = 4
    LEFT_LEG = 5
    RIGHT_LEG = 6
    CARRIED = 7


@dataclass(frozen=True)
class Figure:
    """Limbs in world coordinates, metres.

    A limb is a cone with an elliptic section from ``start`` to ``end`` (T,L,3) with half-widths ``wide_start``, ``wide_end`` (T,L)
    along ``left``; along ``forward`` they are ``depth`` (L,) times that. ``flat`` (L,) limbs end square, the others round.
    ``owner`` (L,) is 0 for the person of the tracklet and 1 for others in the picture.
    """

    start: Floats
    end: Floats
    wide_start: Floats
    wide_end: Floats
    forward: Floats
    left: Floats
    depth: Floats
    flat: NDArray[np.bool_]
    part: NDArray[np.uint8]
    surface: NDArray[np.intp]
    owner: NDArray[np.uint8]
    surfaces: tuple[Surface, ...]

    def beside(self, other: Figure) -> Figure:
        """Both figures in one picture; ``other`` is somebody else."""
        along_limbs = {
            name: np.concatenate([getattr(self, name), getattr(other, name)], axis=1)
            for name in ("start", "end", "wide_start", "wide_end", "forward", "left")
        }
        per_limb = {name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in ("depth", "flat", "part")}
        return Figure(
            **along_limbs,
            **per_limb,
            surface=np.concatenate([self.surface, other.surface + len(self.surfaces)]),
            owner=np.concatenate([self.owner, np.ones_like(other.owner)]),
            surfaces=self.surfaces + other.surfaces,
        )


class _Tailor:
    """Collects limbs; ``frames`` is T."""

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self.rows: list[tuple[Floats, ...]] = []
        self.facts: list[tuple[float, bool, Part, int]] = []

    def add(
        self, start: Floats, end: Floats, wide: tuple[float | Floats, float | Floats], axes: tuple[Floats, Floats],
        part: Part, surface: int, depth: float = 1.0, flat: bool = False,
    ) -> None:  # fmt: skip
        widths = [np.broadcast_to(np.asarray(w, np.float32), (self.frames,)) for w in wide]
        self.rows.append((start, end, widths[0], widths[1], axes[0], axes[1]))
        self.facts.append((depth, flat, part, surface))

    def figure(self, surfaces: tuple[Surface, ...]) -> Figure:
        names = ("start", "end", "wide_start", "wide_end", "forward", "left")
        rows = {name: np.stack(column, axis=1).astype(np.float32) for name, column in zip(names, zip(*self.rows))}
        depth, flat, part, surface = zip(*self.facts)
        return Figure(
            start=rows["start"],
            end=rows["end"],
            wide_start=rows["wide_start"],
            wide_end=rows["wide_end"],
            forward=rows["forward"],
            left=rows["left"],
            depth=np.array(depth, np.float32),
            flat=np.array(flat),
            part=np.array(part, np.uint8),
            surface=np.array(surface),
            owner=np.zeros(len(part), np.uint8),
            surfaces=surfaces,
        )


TOP, BOTTOM, SHOES, SKIN, HEAD, HAIR, HAT, BAG = range(8)


def dress(joints: Floats, body: Body, outfit: Outfit) -> Figure:
    """Put flesh, clothes and things on a skeleton. ``joints`` (T,J,3) in the world (z up); returns T frames of limbs."""
    tailor = _Tailor(len(joints))
    point = {name: joints[:, number] for name, number in INDEX.items()}
    hip_axes = _axes(point["left_hip"] - point["right_hip"])
    chest_axes = _axes(point["left_shoulder"] - point["right_shoulder"])
    _trunk(tailor, point, hip_axes, chest_axes, body, outfit)
    _head(tailor, point, chest_axes, body, outfit)
    sole = heels(joints, body)
    for number, side in enumerate(("left", "right")):
        _arm(tailor, point, side, chest_axes, body, outfit)
        _leg(tailor, point, side, sole[:, number], hip_axes, body, outfit)
    _below_the_hips(tailor, point, hip_axes, body, outfit)
    _carried(tailor, point, chest_axes, hip_axes, body, outfit)
    surfaces = (
        outfit.top,
        outfit.bottom,
        outfit.shoes,
        outfit.skin,
        outfit.head,
        _hair(outfit),
        outfit.hat_surface,
        outfit.bag_surface,
    )
    return tailor.figure(surfaces)


def _hair(outfit: Outfit) -> Surface:
    """Hair that stands off the skull; on the skull it is the head's second colour."""
    head = outfit.head
    return Surface(head.second, head.second, head.infrared_second, head.infrared_second, "hair", fold=0.12)


def _axes(lateral: Floats) -> tuple[Floats, Floats]:
    """Forward and left directions (T,3) of a part of the trunk from its right-to-left line."""
    left = lateral / (np.linalg.norm(lateral, axis=1, keepdims=True) + 1e-9)
    forward = np.cross(left, np.array([0, 0, 1], np.float32))
    forward /= np.linalg.norm(forward, axis=1, keepdims=True) + 1e-9
    return forward.astype(np.float32), left.astype(np.float32)


def _between(a: Floats, b: Floats, share: float) -> Floats:
    mixed: Floats = a + np.float32(share) * (b - a)
    return mixed


Points = dict[str, Floats]
Axes = tuple[Floats, Floats]


def _trunk(tailor: _Tailor, point: Points, hips: Axes, chest: Axes, body: Body, outfit: Outfit) -> None:
    pad = outfit.padding
    seat = _between(point["pelvis"], point["waist"], -0.25)
    belly, shoulder_line = point["waist"], _between(point["waist"], point["neck"], 0.78)
    tailor.add(seat, _between(seat, belly, 0.45), (body.hips, 0.94 * body.hips), hips, Part.TORSO, BOTTOM, body.depth * 1.12)
    waist = body.waist + pad
    hem = body.hips + pad + 0.012  # the top hangs over the belt
    tailor.add(_between(point["pelvis"], belly, 0.1), belly, (hem, waist), hips, Part.TORSO, TOP, body.depth * 1.16, flat=True)
    tailor.add(belly, shoulder_line, (waist, body.chest + pad), chest, Part.TORSO, TOP, body.depth * 1.06)
    spread = 0.86
    left = _between(point["neck"], point["left_shoulder"], spread)
    right = _between(point["neck"], point["right_shoulder"], spread)
    thick = 1.3 * body.arm + pad
    for end in (left, right):
        tailor.add(_between(point["neck"], point["waist"], 0.06), end, (thick * 1.1, thick), chest, Part.TORSO, TOP)


def _head(tailor: _Tailor, point: Points, chest: Axes, body: Body, outfit: Outfit) -> None:
    forward, left = chest
    neck, crown = point["neck"], point["head"]
    up = crown - neck
    up = up / np.linalg.norm(up, axis=1, keepdims=True)
    wide, deep = body.head_width, body.head_depth
    centre_low = crown - up * (0.235 - wide) + forward * 0.02
    centre_high = crown - up * wide + forward * 0.005
    tailor.add(_between(neck, crown, -0.05), centre_low, (body.neck * 1.1, body.neck), chest, Part.HEAD, SKIN)
    tailor.add(centre_low, centre_high, (wide * 0.78, wide), chest, Part.HEAD, HEAD, deep / wide)
    if outfit.hat == "" and outfit.hair > 0.012:
        back = centre_high - forward * (0.012 + 0.5 * outfit.hair) + up * 0.3 * outfit.hair
        size = wide + outfit.hair
        tailor.add(_between(centre_low, back, 0.75), back, (size * 0.97, size), chest, Part.HEAD, HAIR, deep / wide)
    if outfit.long_hair > 0:
        start = centre_high - forward * 0.035
        end = start - up * (0.12 + outfit.long_hair) - forward * 0.045
        tailor.add(start, end, (wide * 0.95, wide * 0.75), chest, Part.HEAD, HAIR, 0.75)
    if outfit.hat == "beanie":
        tailor.add(
            centre_high + up * 0.015, centre_high + up * 0.045, (wide + 0.014, wide + 0.002), chest, Part.HEAD, HAT, deep / wide
        )
    if outfit.hat == "cap":
        tailor.add(centre_high + up * 0.02, centre_high + up * 0.03, (wide + 0.012, wide), chest, Part.HEAD, HAT, deep / wide)
        tailor.add(centre_high + forward * 0.1, centre_high + forward * 0.17 - up * 0.01, (0.03, 0.012), chest, Part.HEAD, HAT)
    if outfit.hood:
        start = _between(neck, crown, 0.12) - forward * 0.075
        tailor.add(start + left * 0.06, start - left * 0.06, (0.055, 0.055), chest, Part.TORSO, TOP)


def _arm(tailor: _Tailor, point: Points, side: str, chest: Axes, body: Body, outfit: Outfit) -> None:
    part = Part.LEFT_ARM if side == "left" else Part.RIGHT_ARM
    shoulder, elbow, wrist, hand = (point[f"{side}_{name}"] for name in ("shoulder", "elbow", "wrist", "hand"))
    pad = outfit.padding * 0.8
    sleeved = min(outfit.sleeves * 2, 1.0)
    middle = 0.82 * body.arm
    tailor.add(shoulder, _between(shoulder, elbow, sleeved), (1.02 * body.arm + pad, middle + pad), chest, part, TOP)
    if sleeved < 1:
        tailor.add(shoulder, elbow, (body.arm, middle), chest, part, SKIN)
        tailor.add(elbow, wrist, (middle, body.wrist), chest, part, SKIN)
    else:
        tailor.add(elbow, wrist, (middle + pad, body.wrist + 0.7 * pad + 0.004), chest, part, TOP)
    tailor.add(_between(wrist, hand, 0.1), _between(wrist, hand, 0.85), (body.wrist * 1.35, body.wrist * 1.1), chest, part, SKIN)


def _leg(tailor: _Tailor, point: Points, side: str, heel: Floats, hips: Axes, body: Body, outfit: Outfit) -> None:
    part = Part.LEFT_LEG if side == "left" else Part.RIGHT_LEG
    hip, knee, ankle, toe = (point[f"{side}_{name}"] for name in ("hip", "knee", "ankle", "toe"))
    cloth = outfit.trouser_width
    at_knee = 0.72 * body.thigh
    covered = min(outfit.legs * 2, 1.0)
    if outfit.legs >= 1:
        tailor.add(hip, knee, (body.thigh + 0.006 + 0.3 * cloth, at_knee + 0.5 * cloth), hips, part, BOTTOM)
        cuff = _between(knee, ankle, 0.97)
        tailor.add(knee, cuff, (at_knee + 0.5 * cloth, body.ankle + 0.01 + cloth), hips, part, BOTTOM)
    else:
        tailor.add(hip, knee, (body.thigh, at_knee), hips, part, SKIN)
        calf = _between(knee, ankle, 0.3)
        tailor.add(knee, calf, (at_knee, body.calf * 1.25), hips, part, SKIN)
        tailor.add(calf, ankle, (body.calf * 1.25, body.ankle), hips, part, SKIN)
        if outfit.legs > 0:
            hem = _between(hip, knee, covered)
            tailor.add(hip, hem, (body.thigh + 0.012, body.thigh * 0.9 + 0.022), hips, part, BOTTOM, flat=True)
    thick = 0.037
    sole_end = heel + np.array([0, 0, thick * 0.8], np.float32)
    tailor.add(sole_end, toe, (thick * 1.15, thick * 0.85), hips, part, SHOES)
    tailor.add(ankle, sole_end, (body.ankle * 1.1, thick), hips, part, SHOES)


def _below_the_hips(tailor: _Tailor, point: Points, hips: Axes, body: Body, outfit: Outfit) -> None:
    """Skirts and coats: one cone that opens with the step."""
    knees = 0.5 * (point["left_knee"] + point["right_knee"])
    ankles = 0.5 * (point["left_ankle"] + point["right_ankle"])
    for length, surface, pad in ((outfit.skirt, BOTTOM, 0.008), (outfit.coat, TOP, outfit.padding + 0.012)):
        if length <= 0:
            continue
        hem = _between(point["pelvis"], knees, 2 * length) if length <= 0.5 else _between(knees, ankles, 2 * length - 1)
        reach = np.linalg.norm(point["left_knee"] - point["right_knee"], axis=1) * min(length * 1.3, 1.0)
        half = body.hips + pad
        # The section is round enough in depth to hold both thighs; seen from the side it opens and closes with the step.
        opening = half * 1.04 + 0.05 * length + 0.28 * reach
        for side in ("left", "right"):  # the cloth lies on whichever thigh is ahead
            hip, knee, ankle = (point[f"{side}_{name}"] for name in ("hip", "knee", "ankle"))
            upper, lower = min(2 * length, 1.0), 2 * length - 1
            under = _between(hip, knee, 0.0 if surface == TOP else min(0.3, 0.6 * upper))
            tailor.add(
                under, _between(hip, knee, upper), (body.thigh + pad, body.thigh + pad), hips, Part.TORSO, surface, flat=upper < 1
            )
            if lower > 0:
                tailor.add(
                    knee, _between(knee, ankle, lower), (body.thigh + pad, body.thigh + pad), hips, Part.TORSO, surface, flat=True
                )
        start = _between(point["pelvis"], point["waist"], 0.3)
        depth = 0.8 if length > 0.2 else body.depth * 1.2
        tailor.add(start, hem, (half * 0.98, opening), hips, Part.TORSO, surface, depth, flat=True)


def _carried(tailor: _Tailor, point: Points, chest: Axes, hips: Axes, body: Body, outfit: Outfit) -> None:
    forward, left = chest
    size, up = outfit.bag_size, np.array([0, 0, 1], np.float32)
    behind = body.chest * body.depth + outfit.padding
    if outfit.bag == "backpack":
        top = _between(point["waist"], point["neck"], 0.75) - forward * (behind + 0.055 * size)
        bottom = _between(point["waist"], point["neck"], -0.05) - forward * (behind + 0.085 * size)
        tailor.add(top, bottom, (0.105 * size, 0.13 * size), chest, Part.CARRIED, BAG, 0.72)
        for sign in (1, -1):
            strap = point["neck"] + left * (sign * 0.09) + forward * 0.06 - up * 0.0
            end = point["waist"] + left * (sign * 0.11) + forward * behind * 0.8
            tailor.add(strap, end, (0.02, 0.02), chest, Part.CARRIED, BAG)
    if outfit.bag == "shoulder":
        hang = point["left_hip"] + left * (body.hips * 0.45 + 0.07) + up * 0.06
        tailor.add(hang + up * 0.06, hang - up * 0.16 * size, (0.065, 0.08), chest, Part.CARRIED, BAG, 1.75 * size, flat=True)
        tailor.add(point["right_shoulder"] + up * 0.05, hang, (0.014, 0.014), chest, Part.CARRIED, BAG)
    if outfit.bag == "suitcase":
        hand = point["right_hand"]
        foot = np.concatenate([hand[:, :2] - forward[:, :2] * 0.42, np.full((len(hand), 1), 0.08, np.float32)], axis=1)
        top = _between(foot, hand, 0.68)
        tailor.add(foot, top, (0.15 * size, 0.15 * size), hips, Part.CARRIED, BAG, 0.6, flat=True)
        tailor.add(top, hand, (0.012, 0.012), hips, Part.CARRIED, BAG)
