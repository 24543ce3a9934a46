"""Augmentation against a literal pixel-by-pixel truth, its probabilities, and the promise of one draw a clip."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dinogrl.data.transforms import ERASE_FILL, GREY, IMAGENET_MEAN, IMAGENET_STD, Change, Rectangle, apply, draw, normalise
from dinogrl.recipes.schema import Augment
from dinogrl.records import Modality

SIZE = (24, 12)
COLOURS = ("keep", "red", "green", "blue", "grey")


def literal(frame: np.ndarray, change: Change) -> np.ndarray:
    """The same, one pixel at a time: shift with black, flip, normalise, erase, colour."""
    height, width, _ = frame.shape
    out = np.empty((3, height, width))
    for y in range(height):
        for x in range(width):
            from_x = width - 1 - x if change.flip else x
            source = (y - change.down, from_x - change.right)
            inside = 0 <= source[0] < height and 0 <= source[1] < width
            pixel = frame[source].astype(float) if inside else np.zeros(3)
            value = (pixel / 255 - IMAGENET_MEAN) / IMAGENET_STD
            box = change.erase
            if box is not None and box.top <= y < box.top + box.height and box.left <= x < box.left + box.width:
                value = ERASE_FILL.ravel().astype(float)
            if change.colour in ("red", "green", "blue"):
                value = np.repeat(value[("red", "green", "blue").index(change.colour)], 3)
            elif change.colour == "grey":
                value = np.repeat((value * GREY).sum(), 3)
            out[:, y, x] = value
    return out


CHANGES = st.builds(
    Change,
    down=st.integers(-30, 30),
    right=st.integers(-30, 30),
    flip=st.booleans(),
    erase=st.none() | st.builds(Rectangle, st.integers(0, 10), st.integers(0, 5), st.integers(1, 14), st.integers(1, 7)),
    colour=st.sampled_from(COLOURS),
)


@settings(max_examples=60)
@given(CHANGES, st.integers(0, 100))
def test_apply_equals_the_literal_truth(change: Change, seed: int) -> None:
    clip = np.random.default_rng(seed).integers(0, 256, (2, *SIZE, 3), dtype=np.uint8)
    expected = np.stack([literal(frame, change) for frame in clip])
    np.testing.assert_allclose(apply(clip, [change]), expected, atol=2e-6)
    each = np.stack([literal(clip[0], Change()), expected[1]])
    np.testing.assert_allclose(apply(clip, [Change(), change]), each, atol=2e-6)


def test_the_input_stays_as_it_was_and_out_is_written() -> None:
    clip = np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3), dtype=np.uint8)
    before, out = clip.copy(), np.full((3, 3, *SIZE), np.nan, np.float32)
    assert apply(clip, [Change(3, -2, True, Rectangle(1, 1, 5, 5), "grey")], out=out) is out
    assert np.array_equal(clip, before) and np.isfinite(out).all()


def test_normalise_is_imagenets() -> None:
    clip = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3), dtype=np.uint8)
    expected = (clip / 255 - IMAGENET_MEAN) / IMAGENET_STD
    np.testing.assert_allclose(normalise(clip), expected.transpose(0, 3, 1, 2), atol=2e-6)


def test_published_constants_red_first() -> None:
    """The literal truth above takes them from the module; here they stand as published."""
    red = np.zeros((1, *SIZE, 3), np.uint8)
    red[..., 0] = 255
    value = [(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225]
    grey = 0.2989 * value[0] + 0.5870 * value[1] + 0.1140 * value[2]
    for change, expected in (
        (Change(), value),
        (Change(colour="grey"), [grey] * 3),
        (Change(erase=Rectangle(0, 0, 4, 4)), [0.4914, 0.4822, 0.4465]),
    ):
        np.testing.assert_allclose(apply(red, [change])[0, :, 0, 0], expected, atol=2e-6)


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.sampled_from(list(Modality)))
def test_one_change_for_the_whole_clip_in_track_mode(seed: int, modality: Modality) -> None:
    frame = np.random.default_rng(1).integers(0, 256, (1, *SIZE, 3), dtype=np.uint8)
    clip = np.repeat(frame, 5, axis=0)
    out = apply(clip, draw(Augment(per="track"), modality, 5, SIZE, np.random.default_rng(seed)))
    assert (out == out[:1]).all()


def test_frame_mode_draws_for_every_frame() -> None:
    changes = draw(Augment(per="frame"), Modality.VISIBLE, 6, SIZE, np.random.default_rng(0))
    assert len(changes) == 6 and len(set(changes)) == 6


@settings(max_examples=200)
@given(st.integers(0, 2**32 - 1))
def test_draws_stay_in_their_ranges(seed: int) -> None:
    size = (256, 128)
    for change in draw(Augment(per="frame", erase=1.0), Modality.INFRARED, 3, size, np.random.default_rng(seed)):
        assert abs(change.down) <= 10 and abs(change.right) <= 10
        box = change.erase
        assert box is not None
        assert box.top >= 0 and box.left >= 0 and box.top + box.height <= size[0] and box.left + box.width <= size[1]
        assert 0.019 < box.height * box.width / (size[0] * size[1]) < 0.41
        assert 0.28 < box.height / box.width < 3.5


def many(augment: Augment, modality: Modality, number: int = 4000) -> list[Change]:
    rng = np.random.default_rng(0)
    return [draw(augment, modality, 1, (64, 32), rng)[0] for _ in range(number)]


def test_published_probabilities() -> None:
    changes = many(Augment(visible_channel="exchange", visible_channel_probability=0.5), Modality.INFRARED)
    share = {colour: np.mean([change.colour == colour for change in changes]) for colour in COLOURS}
    for colour, expected in (("red", 1 / 4), ("green", 1 / 4), ("blue", 1 / 4), ("grey", 1 / 8), ("keep", 1 / 8)):
        assert share[colour] == pytest.approx(expected, abs=0.03)
    assert np.mean([change.flip for change in changes]) == pytest.approx(0.5, abs=0.03)
    assert np.mean([change.erase is not None for change in changes]) == pytest.approx(0.5, abs=0.03)
    assert {change.down for change in changes} == {change.right for change in changes} == set(range(-10, 11))

    visible = many(Augment(visible_channel="exchange", visible_channel_probability=0.3), Modality.VISIBLE)
    assert np.mean([change.colour == "keep" for change in visible]) == pytest.approx(0.7, abs=0.03)
    assert {change.colour for change in visible} == {"keep", "red", "green", "blue"}


def test_the_last_position_of_the_rectangle_is_reached() -> None:
    boxes = [change.erase for change in many(Augment(erase=1.0), Modality.VISIBLE) if change.erase is not None]
    assert any(box.top + box.height == 64 for box in boxes) and any(box.left + box.width == 32 for box in boxes)
    assert any(box.top == 0 for box in boxes) and any(box.left == 0 for box in boxes)


def test_drawn_rectangles_have_every_size_and_the_published_aspect() -> None:
    """Height to width is even in 0.3..3.3, whose mean is 1.8; were it width to height, this would be 0.8."""
    rng = np.random.default_rng(0)
    boxes = [draw(Augment(erase=1.0), Modality.VISIBLE, 1, (128, 128), rng)[0].erase for _ in range(500)]
    assert 1.4 < np.mean([box.height / box.width for box in boxes if box is not None]) < 2
    areas = [box.height * box.width / 128**2 for box in boxes if box is not None]
    assert min(areas) < 0.05 and max(areas) > 0.35


def test_everything_off_is_plain_normalisation() -> None:
    off = Augment(crop_padding=0, flip=0, erase=0, visible_channel="none", infrared_channel="none")
    for modality in Modality:
        assert draw(off, modality, 4, SIZE, np.random.default_rng(0)) == [Change()]


def test_flipping_a_pair_as_a_whole_is_on_top_of_the_own_flip() -> None:
    for seed in range(20):
        plain, flipped = (
            draw(Augment(), Modality.VISIBLE, 1, SIZE, np.random.default_rng(seed), flip_all=f)[0] for f in (False, True)
        )
        assert plain.flip != flipped.flip


def test_a_picture_too_small_for_a_rectangle_is_left_alone() -> None:
    for _ in range(20):
        draw(Augment(erase=1.0), Modality.VISIBLE, 1, (2, 1), np.random.default_rng(0))
