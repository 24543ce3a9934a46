"""How a person walks: a cycle of bone directions, and the path of the pelvis that keeps the feet where they stand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dinogrl.simulation.body import INDEX, JOINTS, Body, Floats, heels, joint_positions

SAMPLES = 64
"""Poses of a gait cycle, from one heel strike of the left foot to the next."""

CONTACT = 0.02
"""Metres above the lowest one within which a heel or a toe may bear the body."""

# Joint angles of level walking, degrees against percent of the cycle (textbook curves, simplified).
HIP = ((0, 28), (10, 24), (30, 5), (50, -13), (60, -6), (75, 22), (87, 32), (95, 29))
KNEE = ((0, 4), (14, 17), (38, 4), (50, 9), (60, 35), (72, 62), (86, 28), (97, 2))
ANKLE = ((0, 0), (7, -6), (25, 4), (45, 11), (54, 2), (62, -18), (75, -3), (87, 2))


@dataclass(frozen=True)
class Gait:
    """Parameters of one person's walk; angles in degrees, factors around 1."""

    cadence: float
    """Gait cycles (two steps) a second."""
    stride: float
    knee_lift: float
    arm_swing: float
    elbow: float
    elbow_swing: float
    arm_spread: float
    bounce: float
    lean: float
    slouch: float
    toe_out: float
    step_width: float
    sway: float
    pelvis_twist: float
    shoulder_twist: float
    asymmetry: float
    """Share by which the left side swings wider than the right."""
    limp: float
    """Share of a cycle by which the right leg lags behind half a cycle."""


@dataclass(frozen=True)
class Motion:
    """A walk that repeats: unit bone ``directions`` (F,J,3) in the walker's frame, and how long once through it lasts."""

    directions: Floats
    seconds: float


@dataclass(frozen=True)
class Walk:
    """A motion set on its feet, in metres: ``height`` (F,) of the pelvis, ``advance`` (F,) gone, ``stride`` each time round."""

    motion: Motion
    height: Floats
    advance: Floats
    stride: float

    def at(self, seconds: Floats, body: Body) -> Floats:
        """Joints (T,J,3) at the given times: x metres ahead of the start, y to the left, z above the ground."""
        frames = len(self.height)
        position = seconds / self.motion.seconds * frames
        low = np.floor(position).astype(int)
        part = (position - low).astype(np.float32)
        here, there = low % frames, (low + 1) % frames
        directions = _blend(self.motion.directions[here], self.motion.directions[there], part[:, None, None])
        directions /= np.linalg.norm(directions, axis=2, keepdims=True) + 1e-9
        joints = joint_positions(directions, body.lengths)
        ahead = self.advance[there] + self.stride * (there < here)
        joints[:, :, 0] += (_blend(self.advance[here], ahead, part) + self.stride * (low // frames))[:, None]
        joints[:, :, 2] += _blend(self.height[here], self.height[there], part)[:, None]
        return joints


def draw_gait(rng: np.random.Generator) -> Gait:
    """Draw a way of walking; the spread is wide enough that silhouettes in motion tell people apart."""

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    pockets = rng.random() < 0.15  # hands in the pockets: bent elbows that hardly swing
    return Gait(
        cadence=between(0.78, 1.06),
        stride=between(0.78, 1.2),
        knee_lift=between(0.85, 1.25),
        arm_swing=between(2, 6) if pockets else between(7, 30),
        elbow=between(48, 62) if pockets else between(12, 45),
        elbow_swing=between(0, 4) if pockets else between(2, 26),
        arm_spread=between(10, 15) if pockets else between(3, 16),
        bounce=between(0.7, 1.4),
        lean=between(-3, 10),
        slouch=between(0, 22),
        toe_out=between(-4, 20),
        step_width=between(-0.5, 5),
        sway=between(0, 4.5),
        pelvis_twist=between(2, 11),
        shoulder_twist=between(2, 13),
        asymmetry=between(-0.22, 0.22),
        limp=between(-0.035, 0.035),
    )


def walking_motion(gait: Gait) -> Motion:
    """The cycle of bone directions of a parametric gait."""
    phase = np.arange(SAMPLES) / SAMPLES
    directions = np.zeros((SAMPLES, len(JOINTS), 3), np.float32)
    wave = np.cos(2 * np.pi * phase)  # 1 when the left heel strikes

    sway, lean = np.radians(gait.sway) * np.sin(2 * np.pi * (phase - 0.05)), np.radians(gait.lean)
    directions[:, INDEX["waist"]] = _upright(np.full(SAMPLES, 0.5 * lean), 0.5 * sway)
    directions[:, INDEX["neck"]] = _upright(np.full(SAMPLES, lean + 0.3 * np.radians(gait.slouch)), -0.4 * sway)
    directions[:, INDEX["head"]] = _upright(np.full(SAMPLES, 0.4 * lean + np.radians(gait.slouch)), 0 * sway)

    pelvis_twist, chest_twist = np.radians(gait.pelvis_twist) * wave, np.radians(gait.shoulder_twist) * wave
    for side, sign, start in (("left", 1, 0.0), ("right", -1, 0.5 + gait.limp)):
        amplitude = 1 + sign * gait.asymmetry / 2
        here = (phase + start) % 1
        directions[:, INDEX[f"{side}_hip"]] = _sideways(sign, sign * pelvis_twist, -0.06 * np.sin(2 * np.pi * (here - 0.05)))
        directions[:, INDEX[f"{side}_shoulder"]] = _sideways(sign, -sign * chest_twist, -0.16 - 0.3 * sign * sway)

        hip = (_curve(HIP, here) - 8) * gait.stride * amplitude + 8 + 0.3 * gait.lean
        knee = _curve(KNEE, here) * (0.5 + 0.5 * gait.knee_lift * amplitude)
        foot = hip - knee + _curve(ANKLE, here)
        directions[:, INDEX[f"{side}_knee"]] = _hanging(hip, gait.step_width * sign)
        directions[:, INDEX[f"{side}_ankle"]] = _hanging(hip - knee, 0.2 * gait.step_width * sign)
        directions[:, INDEX[f"{side}_toe"]] = _forward(foot - 21, gait.toe_out * sign)

        swing = -np.cos(2 * np.pi * (here - 0.02))  # the arm goes against the leg of its side
        upper = 0.4 * gait.lean - 3 + gait.arm_swing * amplitude * swing - 0.25 * gait.elbow
        bend = gait.elbow + gait.elbow_swing * 0.5 * (1 + swing)
        inward = -sign * 0.35 * bend
        directions[:, INDEX[f"{side}_elbow"]] = _hanging(upper, gait.arm_spread * sign)
        directions[:, INDEX[f"{side}_wrist"]] = _hanging(upper + bend, 0.4 * gait.arm_spread * sign + inward * 0.35)
        directions[:, INDEX[f"{side}_hand"]] = _hanging(upper + bend + 6, inward * 0.35)
    directions /= np.maximum(np.linalg.norm(directions, axis=2, keepdims=True), 1e-9)
    return Motion(directions, 1 / gait.cadence)


def set_on_feet(motion: Motion, body: Body, bounce: float = 1.0) -> Walk:
    """Find the pelvis path on which the lowest of heels and toes rests on the ground and does not slide.

    ``bounce`` scales the rise and fall of the pelvis about its mean; 1 keeps the sole exactly on the ground.
    """
    joints = joint_positions(motion.directions, body.lengths)
    points = np.concatenate([heels(joints, body), joints[:, [INDEX["left_toe"], INDEX["right_toe"]]]], axis=1)
    lowest = points[:, :, 2].min(axis=1)
    back = points[:, :, 0] - np.roll(points[:, :, 0], -1, axis=0)
    # Of the points near the ground the one that stands is the one that goes back fastest under the body.
    step = np.where(points[:, :, 2] < lowest[:, None] + CONTACT, back, -np.inf).max(axis=1)
    blur = 0.02 / motion.seconds  # 20 ms, where a foot takes over from the other
    step = _smooth(step, blur)
    height = _smooth(-lowest, blur)
    height = height.mean() + bounce * (height - height.mean()) + 0.02  # the toe's own thickness
    advance = np.concatenate([[0.0], np.cumsum(step)])
    return Walk(motion, height.astype(np.float32), advance[:-1].astype(np.float32), float(advance[-1]))


def _blend(low: Floats, high: Floats, part: Floats) -> Floats:
    mixed: Floats = low + (high - low) * part
    return mixed


def _curve(points: tuple[tuple[int, int], ...], phase: np.ndarray) -> np.ndarray:
    """A smooth periodic curve near the points, read at ``phase`` (0..1)."""
    fine = np.arange(256) / 256
    where, what = np.array(points, float).T
    smooth = _smooth(np.interp(fine, where / 100, what, period=1), 0.022)
    return np.interp(phase, fine, smooth, period=1)


def _smooth(values: np.ndarray, width: float) -> np.ndarray:
    """Circular Gaussian smoothing; ``width`` as a share of the cycle."""
    frequency = np.fft.rfftfreq(len(values), 1 / len(values))
    smooth: np.ndarray = np.fft.irfft(np.fft.rfft(values) * np.exp(-2 * (np.pi * width * frequency) ** 2), len(values))
    return smooth


def _upright(forward: np.ndarray, left: np.ndarray) -> np.ndarray:
    return np.stack([np.sin(forward), np.sin(left), np.cos(forward) * np.cos(left)], axis=-1)


def _hanging(forward_degrees: np.ndarray, left_degrees: np.ndarray | float) -> np.ndarray:
    """Down, swung forward, then out to the left."""
    forward, left = np.radians(forward_degrees), np.radians(left_degrees) + 0 * forward_degrees
    return np.stack([np.sin(forward), np.sin(left), -np.cos(forward) * np.cos(left)], axis=-1)


def _forward(pitch_degrees: np.ndarray, left_degrees: float) -> np.ndarray:
    pitch, left = np.radians(pitch_degrees), np.radians(left_degrees)
    return np.stack([np.cos(pitch) * np.cos(left), np.cos(pitch) * np.sin(left), np.sin(pitch)], axis=-1)


def _sideways(sign: int, forward: np.ndarray, up: np.ndarray | float) -> np.ndarray:
    """Out to one side; ``forward`` turns it towards +x, ``up`` lifts it (radians)."""
    lift = up + 0 * forward
    return np.stack([np.sin(forward), sign * np.cos(forward) * np.cos(lift), np.sin(lift)], axis=-1)
