"""Learning from what was marked: a query moves towards the tracklets marked right, and away from those marked wrong.

Rocchio's rule (in: The SMART Retrieval System, 1971) with the usual weights 1, 0.75 and 0.15, part by part. Divided by their sum,
for here distances count, and not only directions: the result keeps the length of the vectors that it is made of.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

QUERY, RIGHT, WRONG = 1.0, 0.75, 0.15


def moved(query: NDArray[np.float32], right: NDArray[np.float32], wrong: NDArray[np.float32]) -> NDArray[np.float32]:
    """(P,D), right (R,P,D), wrong (W,P,D) -> (P,D). R or W may be 0; without any mark the query stays what it is."""
    total, weight = QUERY * query.astype(np.float64), QUERY
    for marked, share in ((right, RIGHT), (wrong, -WRONG)):
        if len(marked):
            total += share * marked.mean(axis=0, dtype=np.float64)
            weight += share
    return np.asarray(total / weight, np.float32)
