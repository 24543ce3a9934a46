"""The motion-capture reader: joints worked out by hand, real recordings, and files that are broken in every way."""

from __future__ import annotations

import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dinogrl.errors import DataError, DinogrlError
from dinogrl.records import Modality
from dinogrl.simulation.acclaim import bone_ends, read_amc, read_asf
from dinogrl.simulation.body import INDEX, PARENTS, Body, draw_body
from dinogrl.simulation.gait import set_on_feet
from dinogrl.simulation.motion_capture import load_motions, our_joints, walking_part
from dinogrl.simulation.settings import PUBLIC_RATE, Settings
from dinogrl.simulation.simulate import read_settings, simulate
from dinogrl.simulation.world import World

ASF = """# a leg of two bones
:version 1.10
:units
  mass 1.0
  length 0.5
  angle deg
:root
  order TX TY TZ RX RY RZ
  axis XYZ
  position 0 0 0
  orientation 0 0 0
:bonedata
  begin
    id 1
    name thigh
    direction 0 -1 0
    length 4
    axis 0 0 90 XYZ
    dof rx rz
  end
  begin
    id 2
    name shin
    direction 0 -2 0
    length 3
    axis 0 0 0 XYZ
    dof rx
  end
:hierarchy
  begin
    root thigh
    thigh shin
  end
"""
AMC = """#!OML:ASF
:FULLY-SPECIFIED
:DEGREES
1
root 1 2 3 0 0 0
thigh 0 0
shin 0
2
root 0 0 0 0 90 0
thigh 90 0
shin 90
"""
UNIT = 2 * 0.0254


def write(tmp_path, asf: str = ASF, amc: str = AMC):
    (tmp_path / "leg.asf").write_text(asf)
    (tmp_path / "leg_01.amc").write_text(amc)
    return tmp_path / "leg.asf", tmp_path / "leg_01.amc"


def test_joints_by_hand(tmp_path):
    asf, amc = write(tmp_path)
    skeleton = read_asf(asf)
    ends = bone_ends(skeleton, read_amc(amc, skeleton))
    # Frame 1: nothing turns; the leg hangs 4 and then 3 units below the root.
    assert np.allclose(ends["thigh"][0], np.array([1, -2, 3]) * UNIT)
    assert np.allclose(ends["shin"][0], np.array([1, -5, 3]) * UNIT)
    # Frame 2: the thigh turns by 90 degrees about its own x axis, which stands along y: the bone lies along y and stays.
    # The root then turns by 90 degrees about y, which leaves it too. The knee bends by 90 degrees about x of the thigh's frame.
    turn_y = np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]])  # x -> -z, z -> x
    turn_x = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])  # y -> z, z -> -y
    assert np.allclose(ends["thigh"][1], np.array([0, -4, 0]) * UNIT)
    assert np.allclose(ends["shin"][1], ends["thigh"][1] + turn_y @ turn_y @ turn_x @ np.array([0, -3, 0]) * UNIT)


angles = st.lists(st.floats(-360, 360, allow_nan=False), min_size=6, max_size=6)


@settings(max_examples=40)
@given(angles)
def test_bones_keep_their_length_whatever_the_angles(tmp_path_factory, values):
    root, thigh, shin = values[:3], values[3:5], values[5:]
    text = "1\nroot 0 0 0 " + " ".join(f"{v:.6f}" for v in root) + f"\nthigh {thigh[0]:.6f} {thigh[1]:.6f}\nshin {shin[0]:.6f}\n"
    asf, amc = write(tmp_path_factory.mktemp("leg"), amc=text)
    skeleton = read_asf(asf)
    ends = bone_ends(skeleton, read_amc(amc, skeleton))
    assert np.isclose(np.linalg.norm(ends["thigh"][0]), 4 * UNIT)
    assert np.isclose(np.linalg.norm(ends["shin"][0] - ends["thigh"][0]), 3 * UNIT)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("shin 90\n", "", "line 10: the frame that ends here lacks shin"),
        ("shin 90", "shin ninety", "line 11: 'shin ninety' is not a bone"),
        ("shin 90", "shin 90 3", "line 11: 'shin' has 2 values, expected 1"),
        ("shin 90", "shin nan", "line 11: 'shin' has 1 values, expected 1 finite"),
        ("shin 90", "arm 90", "line 11: bone 'arm' is not in the skeleton"),
        ("shin 90", "thigh 1 2", "line 11: 'thigh' stands twice"),
        ("DEGREES\n1\n", "DEGREES\n", "line 4: 'root' stands before the first frame"),
        (AMC, "", "no frames"),
    ],
)
def test_broken_recordings_name_file_and_line(tmp_path, old, new, message):
    asf, amc = write(tmp_path, amc=AMC.replace(old, new))
    with pytest.raises(DataError, match=message) as error:
        read_amc(amc, read_asf(asf))
    assert "leg_01.amc" in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("length 4", "length four", "leg.asf, line 17: cannot read 'length four' in section :bonedata"),
        ("    direction 0 -2 0\n", "", "line 27: cannot read 'end' .*the bone has no direction"),
        ("direction 0 -2 0", "direction 0 0 0", "line 28: cannot read 'end' .*not 0"),
        ("direction 0 -2 0", "direction 0 inf 0", "line 24: .*inf is not finite"),
        ("axis 0 0 90 XYZ", "axis 0 90", "line 20: .*must be three numbers"),
        ("orientation 0 0 0", "orientation 0 90 0", "line 11: a root with an orientation"),
        ("thigh shin\n", "thigh foot\n", "line 32: the hierarchy names a bone 'foot'"),
        ("root thigh\n", "", "does not lead"),
        (":hierarchy", ":other", "no :bonedata or no :hierarchy"),
        (ASF, "\x00\x01", "no :bonedata"),
    ],
)
def test_broken_skeletons_name_file_and_line(tmp_path, old, new, message):
    asf, _ = write(tmp_path, asf=ASF.replace(old, new))
    with pytest.raises(DataError, match=message):
        read_asf(asf)


@settings(max_examples=60)
@given(st.integers(0, len(AMC) - 1), st.text(max_size=6))
def test_any_damage_gives_a_data_error_or_nothing_worse_than_other_numbers(tmp_path_factory, place, junk):
    folder = tmp_path_factory.mktemp("leg")
    asf, amc = write(folder)
    amc.write_bytes((AMC[:place] + junk + AMC[place + 1 :]).encode("utf-8", "replace"))
    skeleton = read_asf(asf)
    try:
        moved = read_amc(amc, skeleton)
    except DataError as error:
        assert "leg_01.amc" in str(error)
    else:
        assert all(np.isfinite(end).all() for end in bone_ends(skeleton, moved).values())


def test_a_skeleton_with_other_names_is_refused_by_name(tmp_path):
    write(tmp_path)
    with pytest.raises(DataError, match=r"leg\.asf: .*has no bones .*lfemur.*expected the bone names"):
        load_motions(tmp_path)


def test_a_folder_without_walks_is_refused_with_what_there_is(tmp_path):
    (tmp_path / "walk.bvh").write_text("HIERARCHY")
    with pytest.raises(DataError, match=r"no walk found below .*: no \.asf skeleton .*BVH"):
        load_motions(tmp_path)
    with pytest.raises(DataError, match="it is no folder"):
        load_motions(tmp_path / "walk.bvh")
    (tmp_path / "leg.asf").write_text(ASF)
    with pytest.raises(DataError, match=r"no \.amc recording lies beside .*leg\.asf"):
        load_motions(tmp_path)


def thinned(folder: Path, shared: Path, factor: int) -> Path:
    """A real recording of 120 frames a second, every ``factor``-th frame of it."""
    head, frames = (shared / "data/cmu_walk/02/02_01.amc").read_text().split("\n1\n", 1)
    kept = [f"{number}\n{frame}" for number, frame in enumerate(re.split(r"\n\d+\n", frames)[::factor], 1)]
    (folder / "02_01.amc").write_text("\n".join([head, *kept]))
    (folder / "02.asf").write_bytes((shared / "data/cmu_walk/02/02.asf").read_bytes())
    return folder


def test_a_recording_at_another_rate_is_refused_with_its_speed(tmp_path, shared):
    with pytest.raises(DataError, match=r"nobody walks .*\(1, (8|9|1\d)\S* to .*120 frames a second.*--motion-rate"):
        load_motions(thinned(tmp_path, shared, 8))


@pytest.mark.parametrize("factor", [2, 4])
def test_the_same_walk_at_another_rate_is_the_same_walk(tmp_path, shared, factor):
    [[whole]] = load_motions(thinned(tmp_path, shared, 1))
    [[fewer]] = load_motions(thinned(tmp_path, shared, factor), rate=120 / factor)
    assert fewer.seconds == pytest.approx(whole.seconds, abs=0.1)
    assert len(fewer.directions) == pytest.approx(len(whole.directions), abs=5)  # samples a second of the loop, not of the file


def test_the_rate_of_the_recordings_is_written_down(tmp_path, shared):
    (tmp_path / "walks").mkdir()
    walks = thinned(tmp_path / "walks", shared, 4)
    small = {"layout": "folder", "identities": 2, "cameras": 2, "tracklets": 1, "frames": 2, "height": 32, "width": 16}
    for rate, name in ((30, "right"), (40, "other")):
        simulate(tmp_path / name, motion=walks, motion_rate=rate, **small, workers=1)
        assert read_settings(tmp_path / name).motion_rate == rate
    pictures = [sorted(path.read_bytes() for path in (tmp_path / name).rglob("*.jpg")) for name in ("right", "other")]
    assert pictures[0] != pictures[1]  # another tempo
    with pytest.raises(DinogrlError, match=r"motion_rate is nan .*from 10 to 1000"):
        Settings(motion_rate=float("nan"))


def test_of_two_skeletons_the_recordings_own_is_the_one_it_is_named_after(tmp_path, shared):
    for subject, name in (("02", "2"), ("35", "20")):
        for suffix in (".asf", "_01.amc"):
            # capitals are no other format: they come from systems that do not tell them apart
            target = tmp_path / f"{name}{suffix.upper()}"
            target.write_bytes((shared / "data/cmu_walk" / subject / f"{subject}{suffix}").read_bytes())
    assert [len(group) for group in load_motions(tmp_path)] == [1, 1]


@pytest.fixture(scope="module")
def recorded(shared):
    """Skeleton, joints and loop of some real recordings."""
    found = []
    for number in ("02/02_01", "35/35_01", "39/39_01"):
        amc = shared / "data/cmu_walk" / f"{number}.amc"
        skeleton = read_asf(amc.parent / f"{amc.parent.name}.asf")
        moved = read_amc(amc, skeleton)
        found.append((our_joints(bone_ends(skeleton, moved)), walking_part(skeleton, moved, PUBLIC_RATE)))
    return found


def test_real_recordings_stand_upright_and_keep_their_bones(recorded):
    for joints, _ in recorded:
        assert 1.4 < np.ptp(joints[:, :, 2], axis=1).max() < 1.9
        for child, parent in (("left_knee", "left_hip"), ("right_ankle", "right_knee"), ("left_elbow", "left_shoulder")):
            length = np.linalg.norm(joints[:, INDEX[child]] - joints[:, INDEX[parent]], axis=1)
            assert np.ptp(length) < 1e-9 and 0.2 < length[0] < 0.6
        across = joints[:, INDEX["left_hip"], :2] - joints[:, INDEX["right_hip"], :2]
        ahead = joints[-1, 0, :2] - joints[0, 0, :2]
        assert (ahead[0] * across[:, 1] - ahead[1] * across[:, 0]).mean() > 0  # left is on the left of the way


def test_loops_close_face_ahead_and_keep_the_recorded_speed(recorded):
    for joints, motion in recorded:
        assert motion is not None and 0.8 <= motion.seconds <= 4.5
        assert np.allclose(np.linalg.norm(motion.directions[:, 1:], axis=2), 1, atol=1e-4)
        steps = np.linalg.norm(np.diff(motion.directions, axis=0), axis=2).max()
        assert np.linalg.norm(motion.directions[0] - motion.directions[-1], axis=1).max() < 1.5 * steps
        toes = motion.directions[:, [INDEX["left_toe"], INDEX["right_toe"]]].mean(axis=(0, 1))
        assert toes[0] > 0.7
        lengths = [0.0 if p < 0 else np.linalg.norm(joints[0, j] - joints[0, p]) for j, p in enumerate(PARENTS)]
        any_body = draw_body(np.random.default_rng(0))
        own = Body(**{**vars(any_body), "lengths": np.array(lengths, np.float32), "ankle_height": 0.08})
        walk = set_on_feet(motion, own)
        speed = np.linalg.norm(joints[-1, 0, :2] - joints[0, 0, :2]) / len(joints) * 120
        assert walk.stride / motion.seconds == pytest.approx(speed, rel=0.2)  # feet that stand give the speed back


def test_a_long_recording_takes_memory_by_its_length_not_by_its_square(shared):
    skeleton = read_asf(shared / "data/cmu_walk/02/02.asf")
    moved = read_amc(shared / "data/cmu_walk/02/02_01.amc", skeleton)
    times = 3600 // len(moved["root"])
    again = {name: np.tile(values, (times, 1)) for name, values in moved.items()}
    length = moved["root"][-1, :3] - moved["root"][0, :3]
    again["root"][:, :3] += np.repeat(np.arange(times), len(moved["root"]))[:, None] * length
    tracemalloc.start()
    walk = walking_part(skeleton, again, PUBLIC_RATE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert walk is not None and walk.seconds <= 4.5
    assert peak < 100e6, f"{peak / 1e6:.0f} MB for half a minute"


def test_a_world_walks_by_recordings(recorded):
    motions = [(motion,) for _, motion in recorded]
    world, modelled = World(1, motions=motions), World(1)
    a = world.tracklet("test", 0, 0, Modality.VISIBLE, 0, 6, 64, 32)
    b = modelled.tracklet("test", 0, 0, Modality.VISIBLE, 0, 6, 64, 32)
    assert a.silhouettes.any(axis=(1, 2)).all() and not np.array_equal(a.silhouettes, b.silhouettes)
