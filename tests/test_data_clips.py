"""Frame sampling against literal, slow truths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dinogrl.data.clips import SAMPLINGS, random_sorted, segment_random, segment_starts, uniform
from dinogrl.errors import UnknownNameError

LENGTHS = st.integers(1, 400)
FRAMES = st.integers(1, 40)
SEEDS = st.integers(0, 2**32 - 1)


def chunks(length: int, frames: int) -> list[list[int]]:
    """T chunks of the list of frames, filled up with the last one."""
    step = int(np.ceil(length / frames))
    numbers = list(range(length))
    while len(numbers) < step * frames:
        numbers.append(length - 1)
    return [numbers[i * step : (i + 1) * step] for i in range(frames)]


@given(LENGTHS, FRAMES)
def test_segments_take_the_first_of_each_chunk(length: int, frames: int) -> None:
    assert segment_starts(length, frames).tolist() == [chunk[0] for chunk in chunks(length, frames)]


@given(LENGTHS, FRAMES, SEEDS)
def test_training_segments_take_one_of_each_chunk(length: int, frames: int, seed: int) -> None:
    drawn = segment_random(length, frames, np.random.default_rng(seed)).tolist()
    assert all(number in chunk for number, chunk in zip(drawn, chunks(length, frames), strict=True))


def test_every_frame_of_a_chunk_can_be_drawn() -> None:
    rng = np.random.default_rng(0)
    drawn = {tuple(segment_random(12, 6, rng).tolist()) for _ in range(2000)}
    assert len(drawn) == 2**6


@given(LENGTHS, FRAMES)
def test_uniform_is_linspace(length: int, frames: int) -> None:
    assert uniform(length, frames).tolist() == np.linspace(0, length, frames, endpoint=False, dtype=int).tolist()


@given(LENGTHS, FRAMES, SEEDS)
def test_random_is_sorted_and_repeats_only_in_need(length: int, frames: int, seed: int) -> None:
    drawn = random_sorted(length, frames, np.random.default_rng(seed)).tolist()
    assert drawn == sorted(drawn)
    if length >= frames:
        assert len(set(drawn)) == frames


@given(LENGTHS, FRAMES, SEEDS, st.sampled_from(sorted(SAMPLINGS)))
def test_every_index_is_valid(length: int, frames: int, seed: int, name: str) -> None:
    sampling = SAMPLINGS[name]
    for drawn in (sampling.test(length, frames), sampling.train(length, frames, np.random.default_rng(seed))):
        assert drawn.shape == (frames,) and drawn.dtype == np.int64
        assert drawn.min() >= 0 and drawn.max() < length
        assert (np.diff(drawn) >= 0).all()


def test_published_example() -> None:
    assert segment_starts(13, 6).tolist() == [0, 3, 6, 9, 12, 12]


def test_unknown_sampling() -> None:
    with pytest.raises(UnknownNameError, match="segments"):
        SAMPLINGS["segment"]
