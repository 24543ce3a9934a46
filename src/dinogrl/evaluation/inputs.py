"""What evaluation is given by hand: matrices and labels of any sort, as arrays, or an error that says what they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral

import numpy as np
from torch import Tensor

from dinogrl.distances import Array
from dinogrl.errors import DataError
from dinogrl.evaluation.ranking import Meeting

APART = 2**53
"""From here on two whole numbers may be one and the same float64."""
Labels = np.ndarray | Tensor | Iterable[int] | Iterable[str]
Matrix = Array | Sequence[Sequence[float]]


def meeting_of(
    query_ids: Labels, gallery_ids: Labels, query_cameras: Labels, gallery_cameras: Labels, drop: bool, max_rank: int
) -> Meeting:
    """Who meets whom. Raises :class:`DataError` for labels that do not fit, and for a ``max_rank`` that is no whole number >= 1."""
    expect_rank(max_rank)
    ids = _comparable(query_ids, gallery_ids, "ids")
    cameras = _comparable(query_cameras, gallery_cameras, "cameras")
    return Meeting(ids[0], ids[1], cameras[0], cameras[1], drop)


def _comparable(query: Labels, gallery: Labels, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels of both sides, both numbers or both strings."""
    sides = as_labels(query), as_labels(gallery)
    kinds = [side.dtype.kind for side in sides if side.size]
    if not all(kind in "biufU" for kind in kinds) or len({kind == "U" for kind in kinds}) > 1:
        given = " and ".join(str(side.dtype) for side in sides)
        raise DataError(f"query_{what} and gallery_{what} must be numbers, or both strings; given {given}")
    if any(side.dtype.kind == "f" and not np.isfinite(side).all() for side in sides):
        raise DataError(f"query_{what} and gallery_{what} must not hold NaN or infinity: no label equals NaN")
    numbers = [side for side in sides if side.size and side.dtype.kind != "U"]
    # NumPy compares uint64 with int64 as floats, and makes floats of a list that has both sorts of numbers
    if numbers and np.result_type(*numbers).kind == "f" and any(np.abs(side.astype(np.float64)).max() >= APART for side in numbers):
        given = " and ".join(str(side.dtype) for side in sides)
        raise DataError(
            f"query_{what} and gallery_{what} are {given}: numbers from 2^53 on would run together; give them as strings"
        )
    return sides


def as_labels(values: Labels) -> np.ndarray:
    """A list of numbers or of strings as an array. Raises :class:`DataError` for what is no list."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    try:
        array = np.asarray(values if isinstance(values, np.ndarray) else list(values))
    except (TypeError, ValueError) as error:
        raise DataError(f"identities and cameras must be lists of numbers or of strings, given {type(values).__name__}") from error
    return array.astype(str) if array.dtype == object and all(isinstance(value, str) for value in array.flat) else array


def as_matrix(distances: Matrix) -> Array:
    """An array or tensor of real numbers, whatever its shape. Raises :class:`DataError` for anything else."""
    matrix: Array
    try:
        matrix = distances if isinstance(distances, Tensor) else np.asarray(distances)
    except ValueError as error:
        raise DataError("the distances are no matrix: rows differ in length; give N rows of M numbers") from error
    real = not matrix.is_complex() if isinstance(matrix, Tensor) else matrix.dtype.kind in "biuf"
    if not real:
        raise DataError(f"the distances are {matrix.dtype}, expected real numbers; give a matrix of floats (N,M)")
    return matrix


def expect_rank(max_rank: int) -> None:
    """Raise :class:`DataError` for a ``max_rank`` that is no whole number >= 1."""
    if not isinstance(max_rank, Integral) or max_rank < 1:
        raise DataError(f"max_rank must be at least 1 and a whole number, given {max_rank!r}")
