"""Distances against a float64 loop, on ordinary, near-duplicate and far-off-centre embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
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


def test_a_vector_is_at_no_distance_from_itself() -> None:
    a = embeddings(30, 4, width=256)
    for name, distance in DISTANCES.items():
        assert np.abs(np.diag(distance(a, a))).max() < 1e-5, name


def test_tiles_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = embeddings(33, 5), embeddings(29, 6)
    whole = mean_part_distance(a, b)
    monkeypatch.setattr(distances, "ROWS", 7)
    monkeypatch.setattr(distances, "COLUMNS", 5)
    np.testing.assert_allclose(mean_part_distance(a, b), whole, rtol=2e-6)


@pytest.mark.parametrize("name", list(DISTANCES))
def test_torch_and_numpy_agree_and_keep_their_kind(name: str) -> None:
    a, b = embeddings(9, 7), embeddings(8, 8)
    plain = DISTANCES[name](a, b)
    made = DISTANCES[name](torch.from_numpy(a), torch.from_numpy(b))
    assert isinstance(made, torch.Tensor) and made.dtype == torch.float32
    np.testing.assert_array_equal(made.numpy(), plain)
    doubled = DISTANCES[name](a.astype(np.float64), b.astype(np.float64))
    assert doubled.dtype == np.float64
    np.testing.assert_allclose(doubled, truth(name, a, b), atol=1e-12)
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


def test_no_rows_give_an_empty_matrix() -> None:
    assert mean_part_distance(embeddings(3, 0), embeddings(3, 0)[:0]).shape == (3, 0)
