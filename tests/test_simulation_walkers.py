"""The simulated walkers: bones keep their length, knees and arms move as people's do, feet stand, everybody is somebody else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dinogrl.simulation.body import BONES, INDEX, PARENTS, draw_body, heels, joint_positions
from dinogrl.simulation.gait import CONTACT, draw_gait, set_on_feet, walking_motion
from dinogrl.simulation.world import SPLITS, World

seeds = st.integers(0, 2**31)
STEP = 0.02


def walker(seed: int, seconds: float = 4.0):
    """Body, gait, walk and the joints at every fiftieth of a second."""
    rng = np.random.default_rng(seed)
    body, gait = draw_body(rng), draw_gait(rng)
    walk = set_on_feet(walking_motion(gait), body, gait.bounce)
    times = np.arange(0, seconds, STEP, dtype=np.float32)
    return body, gait, walk, walk.at(times, body)


@settings(max_examples=25)
@given(seeds)
def test_bones_keep_their_length(seed):
    body, _, _, joints = walker(seed)
    for bone in BONES:
        length = np.linalg.norm(joints[:, bone] - joints[:, PARENTS[bone]], axis=1)
        assert np.allclose(length, body.lengths[bone], atol=1e-4)


@settings(max_examples=25)
@given(seeds)
def test_people_are_of_human_size_and_walk_at_human_speed(seed):
    body, _, walk, joints = walker(seed)
    assert 1.35 < body.stature < 2.1
    assert 0.4 < walk.stride / walk.motion.seconds < 2.2
    assert 0.6 < np.median(joints[:, INDEX["head"], 2]) / body.stature < 1.05


@settings(max_examples=25)
@given(seeds)
def test_knees_bend_backwards_and_elbows_forwards(seed):
    _, _, _, joints = walker(seed, 2.0)
    for side in ("left", "right"):
        hip, knee, ankle = (joints[:, INDEX[f"{side}_{name}"], 0] for name in ("hip", "knee", "ankle"))
        hip_z, knee_z, ankle_z = (joints[:, INDEX[f"{side}_{name}"], 2] for name in ("hip", "knee", "ankle"))
        thigh, shin = np.arctan2(knee - hip, hip_z - knee_z), np.arctan2(ankle - knee, knee_z - ankle_z)
        assert (thigh - shin).min() > -0.02  # the shin never swings ahead of the thigh
        assert (thigh - shin).max() > 0.6  # and is well bent in the swing
        shoulder, elbow, wrist = (joints[:, INDEX[f"{side}_{name}"]] for name in ("shoulder", "elbow", "wrist"))
        upper = np.arctan2(elbow[:, 0] - shoulder[:, 0], shoulder[:, 2] - elbow[:, 2])
        lower = np.arctan2(wrist[:, 0] - elbow[:, 0], elbow[:, 2] - wrist[:, 2])
        assert (lower - upper).min() > 0


@settings(max_examples=25)
@given(seeds)
def test_arms_swing_against_the_legs(seed):
    _, _, _, joints = walker(seed)
    for side in ("left", "right"):
        leg = joints[:, INDEX[f"{side}_ankle"], 0] - joints[:, INDEX[f"{side}_hip"], 0]
        arm = joints[:, INDEX[f"{side}_elbow"], 0] - joints[:, INDEX[f"{side}_shoulder"], 0]
        assert np.corrcoef(leg, arm)[0, 1] < -0.5


@settings(max_examples=25)
@given(seeds)
def test_a_foot_always_stands_and_none_sinks_into_the_ground(seed):
    body, _, walk, joints = walker(seed)
    points = np.concatenate([heels(joints, body), joints[:, [INDEX["left_toe"], INDEX["right_toe"]]]], axis=1)
    speed = walk.stride / walk.motion.seconds
    lowest = points[:, :, 2].min(axis=1)
    assert abs(lowest.mean() - 0.02) < 0.005 and lowest.min() > 0 and lowest.max() < 0.05
    near = points[:-1, :, 2] < lowest[:-1, None] + CONTACT
    slide = np.abs(np.diff(points[:, :, 0], axis=0)) / STEP
    standing = np.where(near, slide, np.inf).min(axis=1)
    assert np.median(standing) < 0.15 * speed  # a walker that merely glides would have 1.0
    assert np.quantile(standing, 0.75) < 0.45 * speed


def test_the_walk_goes_on_without_a_jump_where_the_cycle_repeats():
    body, _, walk, _ = walker(3)
    around = np.array([-1e-4, 1e-4], np.float32) + np.float32(walk.motion.seconds)
    before, after = walk.at(around, body)
    assert np.abs(after - before).max() < 0.01
    once, twice = walk.at(np.array([0.3, 0.3 + 2 * walk.motion.seconds], np.float32), body)
    assert np.allclose(twice - once, np.array([2 * walk.stride, 0, 0]), atol=2e-3)


def test_forward_kinematics_by_hand():
    directions = np.zeros((1, len(PARENTS), 3), np.float32)
    directions[0, :, 2] = -1
    directions[0, INDEX["left_hip"]] = (0, 1, 0)
    lengths = np.arange(len(PARENTS), dtype=np.float32)
    joints = joint_positions(directions, lengths)
    hip, knee, ankle = (INDEX[f"left_{name}"] for name in ("hip", "knee", "ankle"))
    assert joints[0, ankle].tolist() == [0, hip, -knee - ankle]


def test_splits_share_nobody_and_the_seed_decides():
    people = {(split, i): World(1).person(split, i) for split in SPLITS for i in range(6)}
    bodies = {key: tuple(person.body.lengths.tolist()) for key, person in people.items()}
    assert len(set(bodies.values())) == len(people)
    again, other = World(1).person("test", 4), World(2).person("test", 4)
    assert again.gait == people["test", 4].gait and again.outfit == people["test", 4].outfit
    assert other.gait != again.gait


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match=r"unknown split 'tets'; use one of train, test, prior"):
        World(1).person("tets", 0)
