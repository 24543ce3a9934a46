"""Distances against a float64 loop, on ordinary, near-duplicate and far-off-centre embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from dinogrl import distances
from dinogrl.distances import DISTANCES, mean_part_distance
from dinogrl.errors import DataError, UnknownNameError


def truth(name: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a.astype(np.float64), b.astype(np.float64)
    if name == "mean_part":
        return np.mean([cdist(a[:, p], b[:, p]) for p in range(a.shape[1])], axis=0)
    return cdist(a.reshape(len(a), -1), b.reshape(len(b), -1), name)


def embeddings(rows: int, seed: int, offset: float = 0.0, parts: int = 5, width: int = 32) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((rows, parts, width))
    return (noise + offset).astype(np.float32)


@pytest.mark.parametrize("name", list(DISTANCES))
@pytest.mark.parametrize("offset", [0.0, 50.0])
def test_agrees_with_float64(name: str, offset: float) -> None:
    a, b = embeddings(37, 0, offset), embeddings(23, 1, offset)
    measured = DISTANCES[name](a, b)
    assert measured.dtype == np.float32 and measured.shape == (37, 23)
    np.testing.assert_allclose(measured, truth(name, a, b), atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("name", list(DISTANCES))
def test_near_duplicates_stay_exact(name: str) -> None:
    """|x|^2 + |y|^2 - 2xy in float32 would give errors of 1e-2 here."""
    a = embeddings(40, 2, width=256)
    b = a + 1e-3 * embeddings(40, 3, width=256)
    b[:5] = a[:5]
    np.testing.assert_allclose(DISTANCES[name](a, b), truth(name, a, b), atol=1e-5)


def clusters(random: np.random.Generator, rows: int, equal: int, far: float, near: float, parts: int, width: int) -> np.ndarray:
    """Vectors in a few tight crowds that lie far apart; the first ``equal`` are the same to the last bit."""
    centres = far * np.random.default_rng(1).standard_normal((3, parts, width))
    made = (centres[random.integers(0, 3, rows)] + near * random.standard_normal((rows, parts, width))).astype(np.float32)
    made[:equal] = centres[0].astype(np.float32)
    return made


@settings(max_examples=80)
@given(
    st.sampled_from(list(DISTANCES)),
    st.sampled_from([1e-6, 1.0, 1e3, 1e6]),
    st.sampled_from([0.0, 1e-6, 1e-3, 0.03, 0.1, 1.0]),
    st.sampled_from([(1, 3), (4, 16), (2, 300)]),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
    st.sampled_from([0, 1, 5]),
    st.integers(0, 99),
)
def test_no_input_is_too_close_or_too_far(
    name: str, far: float, near: float, shape: tuple[int, int], kind: torch.dtype, equal: int, seed: int
) -> None:
    """1e-5 of the distance itself, however small it is beside the vectors; equal vectors are at no distance at all."""
    random = np.random.default_rng(seed)
    a, b = (torch.from_numpy(clusters(random, rows, equal, far, near * far, *shape)).to(kind) for rows in (21, 34))
    measured, expected = DISTANCES[name](a, b), truth(name, a.double().numpy(), b.double().numpy())
    np.testing.assert_allclose(measured, expected, rtol=1e-5, atol=1e-12 if name != "cosine" else 1e-11)
    assert (measured[:equal, :equal] == 0).all()


@pytest.mark.parametrize("name", list(DISTANCES))
def test_few_close_pairs_and_many_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Close pairs are done one by one, or the whole tile in float64: the same either way."""
    a = embeddings(40, 2, width=64)
    b = np.concatenate([a[:3] + 1e-4 * embeddings(3, 3, width=64), embeddings(30, 4, width=64)])
    for many, chunk in ((1, 2**21), (10**9, 2**21), (1, 1)):  # the last: one close pair at a time
        monkeypatch.setattr(distances, "MANY", many)
        monkeypatch.setattr(distances, "CHUNK", chunk)
        np.testing.assert_allclose(DISTANCES[name](a, b), truth(name, a, b), rtol=1e-5)


def test_a_close_pair_of_large_vectors_stays_exact_beside_small_ones() -> None:
    """What is close is a share of the pair's own norms, not of the smallest in the tile."""
    a, b = embeddings(80, 0, parts=1), embeddings(80, 1, parts=1)
    a[0] *= 3e3
    b[0] = a[0] + 20 * embeddings(1, 2, parts=1)[0]
    np.testing.assert_allclose(mean_part_distance(a, b), truth("mean_part", a, b), rtol=1e-5)


def test_a_vector_is_at_no_distance_from_itself() -> None:
    a = embeddings(30, 4, width=256)
    for name, distance in DISTANCES.items():
        assert np.abs(np.diag(distance(a, a))).max() == 0, name


@pytest.mark.parametrize("threads", [1, 3])
def test_tiles_and_threads_do_not_show(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = embeddings(33, 5), embeddings(29, 6)
    whole = mean_part_distance(a, b)
    monkeypatch.setattr(distances, "TILE", {"cpu": (7, 5)})
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        np.testing.assert_allclose(mean_part_distance(a, b), whole, rtol=2e-6)
        assert torch.get_num_threads() == threads, "what the user set is left as it was"
    finally:
        torch.set_num_threads(before)


def test_broken_vectors_show_in_their_own_distances_only() -> None:
    a, b = embeddings(6, 0), embeddings(7, 1)
    sound = mean_part_distance(a, b)
    a[2, 1, 3] = np.nan
    broken = mean_part_distance(a, b)
    assert np.isnan(broken[2]).all()
    np.testing.assert_array_equal(np.delete(broken, 2, axis=0), np.delete(sound, 2, axis=0))


@pytest.mark.parametrize("name", list(DISTANCES))
def test_torch_and_numpy_agree_and_keep_their_kind(name: str) -> None:
    a, b = embeddings(9, 7), embeddings(8, 8)
    plain = DISTANCES[name](a, b)
    made = DISTANCES[name](torch.from_numpy(a), torch.from_numpy(b))
    assert isinstance(made, torch.Tensor) and made.dtype == torch.float32
    np.testing.assert_array_equal(made.numpy(), plain)
    doubled = DISTANCES[name](a.astype(np.float64), b.astype(np.float64))
    assert doubled.dtype == np.float64 and DISTANCES[name](a.astype(np.float64), b).dtype == np.float32
    np.testing.assert_allclose(doubled, truth(name, a, b), atol=1e-12)
    learned = DISTANCES[name](torch.from_numpy(a).requires_grad_(), torch.from_numpy(b))
    assert not learned.requires_grad, "as a network in training gives them"
    np.testing.assert_array_equal(learned.numpy(), plain)
    half = DISTANCES[name](torch.from_numpy(a).bfloat16(), torch.from_numpy(b).bfloat16())
    assert half.dtype == torch.float32
    np.testing.assert_allclose(half, plain, rtol=0.02, atol=0.01)


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(DataError, match=r"\(3, 5, 32\) with \(4, 6, 32\)"):
        mean_part_distance(np.zeros((3, 5, 32), np.float32), np.zeros((4, 6, 32), np.float32))
    with pytest.raises(DataError, match="same P and D"):
        mean_part_distance(np.zeros((3, 32), np.float32), np.zeros((4, 32), np.float32))
    with pytest.raises(UnknownNameError, match="mean_part"):
        DISTANCES["mean_parts"]
    with pytest.raises(DataError, match="must be numbers, given object"):
        mean_part_distance(np.full((3, 5, 32), None), embeddings(3, 0))


@pytest.mark.parametrize("name", list(DISTANCES))
def test_no_rows_give_an_empty_matrix(name: str) -> None:
    some, none = embeddings(3, 0), embeddings(3, 0)[:0]
    assert DISTANCES[name](some, none).shape == (3, 0) and DISTANCES[name](none, some).shape == (0, 3)


@pytest.mark.parametrize("name", list(DISTANCES))
def test_arrays_of_any_make_are_read(name: str) -> None:
    a, b = embeddings(6, 0), embeddings(5, 1)
    locked = a.copy()
    locked.setflags(write=False)
    for made in (
        a.tolist(),
        a.astype(">f4"),
        a.astype(np.longdouble),
        np.asfortranarray(a),
        np.repeat(a, 2, axis=2)[:, :, ::2],
        locked,
    ):
        np.testing.assert_allclose(DISTANCES[name](made, b), truth(name, a, b), atol=1e-5)
