"""The skeleton and the proportions of a body.

Axes of the walker's own frame: x forward, y left, z up; metres. Letters: F or T frames, J joints.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

JOINTS = (
    *("pelvis", "waist", "neck", "head"),
    *("left_hip", "left_knee", "left_ankle", "left_toe"),
    *("right_hip", "right_knee", "right_ankle", "right_toe"),
    *("left_shoulder", "left_elbow", "left_wrist", "left_hand"),
    *("right_shoulder", "right_elbow", "right_wrist", "right_hand"),
)
PARENTS = (-1, 0, 1, 2, 0, 4, 5, 6, 0, 8, 9, 10, 2, 12, 13, 14, 2, 16, 17, 18)
INDEX = {name: number for number, name in enumerate(JOINTS)}
BONES = np.arange(1, len(JOINTS))
"""Every joint but the pelvis ends one bone, which has the joint's own number."""


@dataclass(frozen=True)
class Body:
    """Proportions of one person, in metres: ``lengths`` (J,) of the bone that ends at each joint; the rest are half-widths."""

    lengths: Floats
    ankle_height: float
    chest: float
    waist: float
    hips: float
    depth: float
    """Depth of the trunk as a share of its width."""
    thigh: float
    calf: float
    ankle: float
    arm: float
    wrist: float
    neck: float
    head_width: float
    head_depth: float

    @property
    def stature(self) -> float:
        """Height of the standing body in metres."""
        legs = self.lengths[INDEX["left_knee"]] + self.lengths[INDEX["left_ankle"]] + self.ankle_height
        return float(legs + self.lengths[[INDEX["waist"], INDEX["neck"], INDEX["head"]]].sum())


def draw_body(rng: np.random.Generator) -> Body:
    """Draw a body: segment lengths as shares of the stature (Drillis and Contini's averages), each with its own deviation."""

    def near(mean: float, deviation: float) -> float:
        return mean * float(np.exp(np.clip(rng.normal(), -2.2, 2.2) * deviation))

    stature = near(1.70, 0.065)
    legs, shoulders, hips, girth, arms = near(1, 0.045), near(1, 0.08), near(1, 0.08), near(1.0, 0.16), near(1, 0.05)
    trunk = 2 - legs  # long legs go with a short trunk, so that the stature stays what was drawn
    shares = {
        "waist": 0.125 * trunk,
        "neck": 0.178 * trunk,
        "head": near(0.172, 0.05),
        "hip": 0.052 * hips,
        "knee": 0.245 * legs,
        "ankle": 0.246 * legs * near(1, 0.03),
        "toe": near(0.114, 0.06),
        "shoulder": 0.112 * shoulders,
        "elbow": 0.182 * arms,
        "wrist": 0.148 * arms * near(1, 0.04),
        "hand": near(0.085, 0.06),
    }
    lengths = np.array([shares.get(name.split("_")[-1], 0.0) * stature for name in JOINTS], np.float32)
    bulk = girth**0.75
    return Body(
        lengths=lengths,
        ankle_height=0.045 * stature,
        chest=0.094 * stature * shoulders * girth**0.45,
        waist=0.080 * stature * girth,
        hips=0.092 * stature * hips * girth**0.6,
        depth=near(0.68, 0.08) * girth**0.25,
        thigh=0.046 * stature * bulk,
        calf=0.031 * stature * bulk,
        ankle=0.022 * stature * girth**0.4,
        arm=0.028 * stature * bulk,
        wrist=0.017 * stature * girth**0.3,
        neck=0.031 * stature * girth**0.4,
        head_width=near(0.076, 0.05),
        head_depth=near(0.096, 0.05),
    )


def joint_positions(directions: Floats, lengths: Floats) -> Floats:
    """Forward kinematics: unit directions (F,J,3) and bone lengths (J,) -> joints (F,J,3), the pelvis at the origin."""
    joints = np.zeros_like(directions)
    for bone in BONES:
        joints[:, bone] = joints[:, PARENTS[bone]] + directions[:, bone] * lengths[bone]
    return joints


def heels(joints: Floats, body: Body) -> Floats:
    """(F,2,3) the back ends of the left and the right sole."""
    found = []
    for side in ("left", "right"):
        ankle, toe = joints[:, INDEX[f"{side}_ankle"]], joints[:, INDEX[f"{side}_toe"]]
        foot = toe - ankle
        level = np.linalg.norm(foot[:, :2], axis=1, keepdims=True) + 1e-6
        length = float(body.lengths[INDEX[f"{side}_toe"]])
        pitch = np.arctan2(foot[:, 2:], level) + np.arcsin(min(body.ankle_height / length, 0.9))  # 0 where the sole is flat
        ahead = np.concatenate([foot[:, :2] / level * np.cos(pitch), np.sin(pitch)], axis=1)
        down = np.concatenate([foot[:, :2] / level * np.sin(pitch), -np.cos(pitch)], axis=1)
        found.append(ankle - 0.18 * length * ahead + body.ankle_height * down)
    return np.stack(found, axis=1)
