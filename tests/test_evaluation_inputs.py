"""What a stranger may hand to ``evaluate_distances``: it is scored, or refused by one line."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dinogrl.errors import DataError
from dinogrl.evaluation import evaluate_distances


@pytest.mark.parametrize(
    ("distances", "said"),
    [
        ([[0.1], [0.2, 0.3]], "rows differ in length"),
        ([["a", "b"], ["c", "d"]], "the distances are <U1, expected real numbers"),
        (None, "the distances are object, expected real numbers"),
        (np.zeros((2, 2), dtype=complex), "the distances are complex128"),
        (torch.zeros(2, 2, dtype=torch.complex64), r"the distances are torch\.complex64"),
    ],
)
def test_what_is_no_matrix_of_real_numbers_is_said(distances: object, said: str) -> None:
    with pytest.raises(DataError, match=said):
        evaluate_distances(distances, [0, 1], [0, 1], [0, 0], [1, 1])  # type: ignore[arg-type]


@pytest.mark.parametrize("labels", [None, 3, [[0], [1, 2]]])
def test_what_is_no_list_of_labels_is_said(labels: object) -> None:
    with pytest.raises(DataError, match="must be lists of numbers or of strings, given"):
        evaluate_distances([[0.1, 0.2], [0.3, 0.4]], labels, [0, 1], [0, 0], [1, 1])  # type: ignore[arg-type]


def test_whole_numbers_are_distances_too_and_keep_all_their_digits() -> None:
    distances = [[2**24 + 1, 2**24]]
    for matrix in (distances, np.array(distances), torch.tensor(distances)):
        scores = evaluate_distances(matrix, [1], [1, 0], [0], [1, 1])
        assert (scores.rank(1), scores.mAP) == (0.0, 0.5)


def test_a_rank_that_was_not_looked_at_is_not_made_up() -> None:
    distances = np.arange(6.0)[None]
    scores = evaluate_distances(distances, [1], [0, 0, 0, 0, 1, 0], [0], [1] * 6, max_rank=3)
    assert scores.rank(3) == 0.0
    for k in (0, -1, 4, 20):
        with pytest.raises(DataError, match=f"rank-{k} is not known, only rank-1 to rank-3"):
            scores.rank(k)
    assert evaluate_distances(distances[:, :2], [1], [0, 1], [0], [1, 1], max_rank=3).rank(20) == 1.0  # the gallery ends at 2


@pytest.mark.parametrize("low", [2**53, 2**60, 2**63])
def test_large_labels_are_told_apart_or_refused(low: int) -> None:
    """Two identities that would be one float: the nearest item is the other one."""
    gallery: list[object] = [[low, low + 1], np.array([low, low + 1], np.uint64), [str(low), str(low + 1)]]
    for given in gallery:
        one = type(given[0])(low + 1)  # type: ignore[index]
        assert evaluate_distances([[0.1, 0.2]], [one], given, [0], [1, 1]).mAP == 0.5  # type: ignore[arg-type]
    signed = np.array([-1, low + 1 if low < 2**63 else 0])
    with pytest.raises(DataError, match="int64 and uint64: numbers from 2\\^53 on would run together; give them as strings"):
        evaluate_distances([[0.1, 0.2]] * 2, signed, gallery[1], [0, 0], [1, 1])  # type: ignore[arg-type]
    with pytest.raises(DataError, match="float64 and "):  # NumPy makes floats of such a list
        evaluate_distances([[0.1, 0.2]] * 2, [-1.0, float(low)], gallery[0], [0, 0], [1, 1])  # type: ignore[arg-type]
