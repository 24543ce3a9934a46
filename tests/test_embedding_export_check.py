"""How far an exported file may be from its model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dinogrl.embedding.export import Check, check_clips, expect_same, rounding
from dinogrl.errors import ExportError
from dinogrl.models.archive import TrainedModel
from tiny_models import tiny_model, tiny_recipe

SIZE = (64, 32)


def test_tolerance_is_a_share_of_large_embeddings_and_no_answer_passes() -> None:
    expect_same([Check(1, 1, SIZE, 9e-3, 100.0, 1.0)], "float32", own=lambda: pytest.fail("not asked for where all is well"))
    good = Check(1, 1, SIZE, 0.0, 1.0, 1.0)
    for bad in (Check(1, 1, SIZE, 2e-4, 0.5, 1.0), Check(1, 1, SIZE, float("nan"), 1.0, float("nan"))):
        with pytest.raises(ExportError):
            expect_same([good, bad, good], "float32", own=lambda: 1e-6)
    with pytest.raises(ExportError, match="a cosine of"):
        expect_same([Check(1, 1, SIZE, 1.0, 1.0, 0.5)], "int8", own=lambda: 0.0)


def test_a_model_that_enlarges_rounding_is_measured_by_that() -> None:
    """An untrained network may be 1e-4 from itself in float64: no file in float32 can be nearer."""
    expect_same([Check(1, 1, SIZE, 3e-4, 1.0, 1.0)], "float32", own=lambda: 1e-4)
    with pytest.raises(ExportError, match=r"above 4\.0e-04"):
        expect_same([Check(1, 1, SIZE, 5e-4, 1.0, 1.0)], "float32", own=lambda: 1e-4)
    with pytest.raises(ExportError, match=r"above 1\.0e-04"):
        expect_same([Check(1, 1, SIZE, 5e-4, 1.0, 1.0)], "float32", own=lambda: float("nan"))


def test_rounding_is_what_float32_does_to_the_model_itself() -> None:
    recipe = tiny_recipe("baseline")
    model = TrainedModel(tiny_model("baseline").eval(), recipe, 3, "", {})
    pictures = list(np.random.default_rng(1).integers(0, 256, (4, 50, 30, 3), np.uint8))
    batches = check_clips(pictures, (recipe.data.height, recipe.data.width), recipe.data.frames)
    assert 0 < rounding(model, batches) < 1e-5
    assert next(model.network.parameters()).dtype == torch.float32
