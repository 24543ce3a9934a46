"""The simulated pictures: determined by the seed, true silhouettes, infrared that knows nothing of dyes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dinogrl.records import Modality
from dinogrl.simulation.cameras import draw_camera
from dinogrl.simulation.contact_sheet import contact_sheet, write_contact_sheet
from dinogrl.simulation.figure import Figure, Part
from dinogrl.simulation.render import Boxes, project, rasterise, touch
from dinogrl.simulation.wardrobe import Surface, draw_outfit
from dinogrl.simulation.world import World

SMALL = {"frames": 5, "height": 64, "width": 32}


def test_same_seed_same_bytes_whoever_asks_first():
    one, other = World(5), World(5)
    other.tracklet("train", 7, 2, Modality.INFRARED, **SMALL)  # what was drawn before must not matter
    a, b = (world.tracklet("test", 1, 0, Modality.VISIBLE, 1, **SMALL) for world in (one, other))
    assert np.array_equal(a.frames, b.frames) and np.array_equal(a.parts, b.parts)
    assert not np.array_equal(a.frames, World(6).tracklet("test", 1, 0, Modality.VISIBLE, 1, **SMALL).frames)
    assert not np.array_equal(a.frames, one.tracklet("test", 1, 0, Modality.VISIBLE, 2, **SMALL).frames)


def test_a_pair_shows_the_same_moment_and_equals_its_single_tracklets():
    world = World(5)
    visible, infrared = world.pair("train", 0, 1, 0, **SMALL)
    assert np.array_equal(visible.silhouettes, infrared.silhouettes) and np.array_equal(visible.parts, infrared.parts)
    assert np.array_equal(visible.frames, world.tracklet("train", 0, 1, Modality.VISIBLE, **SMALL).frames)
    assert np.array_equal(infrared.frames, world.tracklet("train", 0, 1, Modality.INFRARED, **SMALL).frames)
    assert (np.ptp(infrared.frames, axis=3) == 0).all() and np.ptp(visible.frames, axis=3).max() > 20


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 16, 8), (40, 48, 24), (2, 96, 96)])
def test_any_size_and_length(frames, height, width):
    drawn = World(1).tracklet("test", 0, 3, Modality.INFRARED, 0, frames, height, width)
    assert drawn.frames.shape == (frames, height, width, 3) and drawn.frames.dtype == np.uint8
    assert drawn.silhouettes.shape == drawn.parts.shape == (frames, height, width)
    assert np.array_equal(drawn.silhouettes, drawn.parts != Part.BACKGROUND)


def test_the_person_fills_a_likely_share_of_the_box_and_all_parts_are_there():
    world = World(1, occlusion=0)
    for person in range(6):
        drawn = world.tracklet("train", person, person % 4, Modality.VISIBLE, 0, 12, 128, 64)
        assert 0.1 < drawn.silhouettes.mean() < 0.6
        assert drawn.silhouettes[:, 40:90, 22:42].mean() > 0.5  # the middle of the box
        assert set(Part) - set(np.unique(drawn.parts)) <= {Part.CARRIED}
        rows = np.flatnonzero(drawn.silhouettes.any(axis=(0, 2)))
        assert rows[-1] - rows[0] > 0.75 * 128


def test_the_silhouette_is_where_the_person_was_drawn():
    """Paint the person's clothes, and nothing else, another colour: the pixels that change are the silhouette's."""
    plain = World(3, occlusion=0)
    glowing = World(3, occlusion=0)
    person = plain.person("train", 1)
    light = Surface((1, 1, 1), (1, 1, 1), 1.0, 1.0, "cotton", fold=0)
    names = ("top", "bottom", "shoes", "skin", "head", "hat_surface", "bag_surface")
    changed = type(person)(person.body, person.gait, type(person.outfit)(**{**vars(person.outfit), **dict.fromkeys(names, light)}))
    dark = Surface((0, 0, 0), (0, 0, 0), 0.0, 0.0, "cotton", fold=0)
    black = type(person)(person.body, person.gait, type(person.outfit)(**{**vars(person.outfit), **dict.fromkeys(names, dark)}))
    pictures = []
    for world, who in ((plain, black), (glowing, changed)):
        world._person = lambda split, identity, who=who: who
        pictures.append(world.tracklet("train", 1, 0, Modality.INFRARED, 0, 6, 128, 64))
    difference = pictures[1].frames[..., 0].astype(int) - pictures[0].frames[..., 0]
    touched = difference > 25
    agree = (touched & pictures[0].silhouettes).sum() / (touched | pictures[0].silhouettes).sum()
    assert agree > 0.85
    assert np.abs(difference[~pictures[0].silhouettes]).mean() < 6


def test_the_rasteriser_against_a_loop_over_pixels_and_limbs():
    rng = np.random.default_rng(4)
    limbs, height, width = 5, 40, 20
    camera = draw_camera(rng, 0)
    start = (np.array([camera.distance, 0, 1]) + rng.normal(0, 0.5, (2, limbs, 3))).astype(np.float32)
    end = (start + rng.normal(0, 0.4, (2, limbs, 3))).astype(np.float32)
    axes = [np.broadcast_to(np.array(a, np.float32), start.shape) for a in ((1, 0, 0), (0, 1, 0))]
    figure = Figure(
        start=start,
        end=end,
        wide_start=rng.uniform(0.05, 0.3, (2, limbs)).astype(np.float32),
        wide_end=rng.uniform(0.05, 0.3, (2, limbs)).astype(np.float32),
        forward=axes[0],
        left=axes[1],
        depth=np.full(limbs, 0.7, np.float32),
        flat=np.array([False, True, False, True, False]),
        part=np.arange(1, limbs + 1, dtype=np.uint8),
        surface=np.zeros(limbs, int),
        owner=np.array([0, 0, 1, 0, 0], np.uint8),
        surfaces=(),
    )
    x, y, _ = camera.project(np.array([camera.distance, 0, 1], np.float32))
    scale = 10 / camera.focal * camera.distance
    boxes = Boxes(*(np.full(2, v, np.float32) for v in (x - width / 2 / scale, y - height / 2 / scale, scale, scale)))
    seen = project(figure, camera, boxes)
    drawn = rasterise(figure, seen, height, width)
    expected = np.full((2, height, width), -1)
    for t in range(2):
        for row in range(height):
            for column in range(width):
                nearest = np.inf
                for limb in range(limbs):
                    fact = {k: float(v[t, limb]) for k, v in vars(seen).items()}
                    px, py = column + 0.5 - fact["x"], row + 0.5 - fact["y"]
                    length = np.hypot(fact["dx"], fact["dy"])
                    along = (px * fact["dx"] + py * fact["dy"]) / length**2
                    at = min(max(along, 0), 1)
                    distance = np.hypot(px - at * fact["dx"], py - at * fact["dy"])
                    radius = fact["radius"] + at * fact["d_radius"]
                    inside = radius - distance + 0.5
                    if figure.flat[limb]:
                        inside = min(inside, along * length + 0.5, (1 - along) * length + 0.5)
                    if inside > 0:
                        bulge = np.sqrt(1 - min(distance / radius, 1) ** 2)
                        depth = fact["depth"] + at * fact["d_depth"] - bulge * fact["thick"]
                        if depth < nearest:
                            nearest, expected[t, row, column] = depth, limb
    assert (expected >= 0).mean() > 0.1
    assert (drawn.limb != expected).mean() < 0.002  # rounding at a rim
    assert not (drawn.parts == 3).any()  # limb 2 is somebody else
    where = touch(seen, drawn, np.full(2, camera.distance, np.float32))
    assert np.allclose(where.normal_right**2 + where.normal_down**2 + where.normal_near**2, 1, atol=1e-4)
    assert len(where.index) == (drawn.limb >= 0).sum()


def test_infrared_grey_is_no_function_of_visible_colour():
    """Over many garments neither brightness nor any channel tells the infrared reflectance, and the other way round."""
    outfits = [draw_outfit(np.random.default_rng(seed)) for seed in range(1500)]
    cloth = [s for o in outfits for s in (o.top, o.bottom, o.shoes, o.bag_surface)]
    colour, infrared = np.array([s.colour for s in cloth]), np.array([s.infrared for s in cloth])
    for channel in (*colour.T, colour.mean(axis=1), np.ptp(colour, axis=1)):
        assert abs(np.corrcoef(channel, infrared)[0, 1]) < 0.05
    black, bright = infrared[colour.max(axis=1) < 0.25], infrared[colour.min(axis=1) > 0.4]
    assert black.std() > 0.15 and bright.std() > 0.15 and abs(black.mean() - bright.mean()) < 0.05
    material = {s.material: [c.infrared for c in cloth if c.material == s.material] for s in cloth}
    assert np.mean(material["leather"]) + 0.2 < np.mean(material["cotton"])  # materials do tell


def test_drawn_infrared_does_not_follow_drawn_colour():
    world = World(9, occlusion=0)
    day, night = [], []
    for person in range(40):
        visible, infrared = world.pair("train", person, 0, 0, 1, 64, 32)
        torso = visible.parts[0] == Part.TORSO
        day.append(visible.frames[0][torso].mean())
        night.append(infrared.frames[0][torso].mean())
    assert abs(np.corrcoef(day, night)[0, 1]) < 0.35  # 40 people: chance alone gives 0.16


def test_occlusion_hides_part_of_the_silhouette():
    free, hidden = World(1, occlusion=0), World(1, occlusion=1)
    shares = []
    for person in range(6):
        whole, part = (w.tracklet("test", person, 0, Modality.VISIBLE, 0, 10, 64, 32) for w in (free, hidden))
        assert not (part.silhouettes & ~whole.silhouettes).any()
        shares.append(part.silhouettes.sum() / whole.silhouettes.sum())
    assert min(shares) < 0.95 and max(shares) <= 1


def test_a_passer_by_hides_the_person_for_a_while_only():
    world, alone = World(2, occlusion=1), World(2, occlusion=0)
    met: list[int] = []
    draw = world._passer_by
    world._passer_by = lambda *of: met.append(person) or draw(*of)
    for person in range(24):
        whole, part = (
            w.tracklet("train", person, 0, Modality.VISIBLE, 0, 24, 64, 32).silhouettes.sum(axis=(1, 2)) for w in (alone, world)
        )
        if person in met:
            assert (part > 0.9 * whole).mean() > 0.3 and (part / whole).min() < 0.9
    assert len(met) > 2


def test_every_camera_has_scenery_of_its_own():
    world = World(1)
    day, night = world.scenery(0)
    assert day.shape == (720, 1280, 3) and night.shape == (720, 1280)
    assert np.abs(day.astype(int) - world.scenery(1)[0]).mean() > 10
    assert night.mean() < day.mean()


def test_a_camera_projects_as_by_hand():
    """Level at 2 metres, 1000 pixels of focal length: a metre at a distance of 10 is 100 pixels."""
    camera = replace(World(seed=1).camera(0), height=2.0, pitch=0.0, focal=1000.0)
    x, y, depth = camera.project(np.array([[10, 0, 2], [10, 1, 2], [10, 0, 1], [20, -1, 3]], np.float32))
    assert x.tolist() == pytest.approx([640, 540, 640, 690]), "what is on the left (+y) is on the left"
    assert y.tolist() == pytest.approx([360, 360, 460, 310]), "what is lower is lower"
    assert depth.tolist() == pytest.approx([10, 10, 10, 20]) and camera.ground_row(10) == pytest.approx(560)
    down = replace(camera, pitch=0.3)
    assert down.horizon == pytest.approx(360 - 1000 * np.tan(0.3))
    assert down.project(np.array([[10, 0, 2 - 10 * np.tan(0.3)]], np.float32))[1][0] == pytest.approx(360, abs=1e-3)


def test_each_modality_has_the_noise_of_its_sensor():
    world, grain = World(seed=1, occlusion=0), []
    quiet = replace(world.camera(0), noise_visible=0.0, noise_infrared=0.2)
    world.camera = lambda _: quiet
    for tracklet in world.pair("train", 0, 0, frames=1, height=64, width=32):
        picture = tracklet.frames[0, ..., 0].astype(float)
        grain.append(np.abs(np.diff(picture[:12], axis=1)).mean())  # above the person
    assert grain[1] > 3 * grain[0]


def test_contact_sheet(tmp_path):
    world = World(1)
    sheet = contact_sheet(world, [0, 1], [2], moments=3, height=32, width=16)
    assert sheet.shape == (2 * 2 * 32, 3 * 16, 3)
    visible, infrared = world.pair("test", 1, 2, 0, 3, 32, 16)
    assert np.array_equal(sheet[64:96, 16:32], visible.frames[1]) and np.array_equal(sheet[96:, 32:], infrared.frames[2])
    write_contact_sheet(tmp_path / "a" / "sheet.jpg", world, [0], [1])
    assert (tmp_path / "a" / "sheet.jpg").read_bytes()[:2] == b"\xff\xd8"
