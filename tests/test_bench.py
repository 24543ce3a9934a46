"""The benchmark measures what it says: both sides compute the same."""

from __future__ import annotations

import numpy as np
import torch

from dinogrl.distances import mean_part_distance
from dinogrl.models.enhancement.local_to_global import LocalToGlobal
from dinogrl.reproduce import bench


def test_literal_distances_are_the_same() -> None:
    query, gallery = np.random.default_rng(0).standard_normal((2, 5, 3, 8)).astype(np.float32)
    np.testing.assert_allclose(mean_part_distance(query, gallery), bench._distance_literally(query, gallery), rtol=1e-4)


def test_both_enhancements_start_as_the_identity() -> None:
    parts = torch.randn(2, 3, sum(bench.STRIPES), 16).unbind(0)
    literal = bench.LiteralEnhancement(16, channels=8)
    for side in (literal.plus, literal.minus):
        torch.nn.init.zeros_(side[1].weight)  # as the published network starts
    ours = LocalToGlobal(bench.STRIPES, bench.STRIPES[1:], channels=8, shared=True, latent=False)
    gait, appearance = ours(*parts)
    torch.testing.assert_close(torch.stack([gait, appearance]).transpose(1, 2).transpose(0, 1).flatten(0, 1), literal(*parts))


def test_a_row_has_a_rate_and_a_gain() -> None:
    row = bench.comparing(1)
    assert row.rate > 0 and row.literal is not None and row.gain == row.rate / row.literal
    assert bench.decoding(1).gain is None and bench.peak_memory() > 2**20
