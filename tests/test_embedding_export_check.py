"""How far an exported file may be from its model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dinogrl.embedding.export import Check, Clips, Format, check_clips, compare, expect_same, export_model, reference, rounding
from dinogrl.embedding.export_graph import ExportGraph
from dinogrl.embedding.exported import Run
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


@pytest.fixture
def model() -> TrainedModel:
    return TrainedModel(tiny_model("baseline").eval(), tiny_recipe("baseline"), 3, "", {})


PICTURES = list(np.random.default_rng(1).integers(0, 256, (4, 50, 30, 3), np.uint8))


def batches_for(model: TrainedModel) -> list[Clips]:
    data = model.recipe.data
    return check_clips(PICTURES, (data.height, data.width), data.frames)


def test_rounding_is_what_float32_does_to_the_model_itself(model: TrainedModel) -> None:
    assert 0 < rounding(model, batches_for(model)) < 1e-5
    assert next(model.network.parameters()).dtype == torch.float32


def test_one_wrong_clip_among_right_ones_is_told(model: TrainedModel) -> None:
    batch = batches_for(model)[1]
    wrong = reference(model, *batch)
    wrong[1] *= -1
    (check,) = compare(lambda frames, modality: wrong, model, [batch])
    assert check.cosine == pytest.approx(-1)


def test_a_model_whose_embeddings_are_no_numbers_is_told(model: TrainedModel) -> None:
    with torch.no_grad():
        next(model.network.appearance_parts.parameters()).fill_(float("nan"))
    with pytest.raises(ExportError, match="not finite numbers; is it trained"):
        compare(lambda *clips: np.zeros_like(reference(model, *clips)), model, batches_for(model))


def a_format(model: TrainedModel, *, off: float) -> Format:
    """Two empty files; read again they give the model's embeddings, and run as they were written those and ``off``."""

    def write(graph: ExportGraph, path: Path, header: str, precision: str, clips: Sequence[Clips]) -> None:
        path.touch()
        path.with_suffix(".bin").touch()

    def run_with(more: float) -> Run:
        def run(pixels: NDArray[np.uint8], modality: NDArray[np.int64]) -> NDArray[np.float32]:
            return (reference(model, pixels, modality) + more).astype(np.float32)

        return run

    read = SimpleNamespace(network=SimpleNamespace(run=run_with(0)))
    return Format(".xml", ("float32",), write, lambda path: read, lambda path: run_with(off))  # type: ignore[arg-type, return-value]


def test_of_two_ways_to_run_a_file_the_worse_is_told(model: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dinogrl.embedding.export.FORMATS", {"pair": a_format(model, off=5e-5)})
    checks = export_model(model, tmp_path / "m.xml", format="pair", frames=PICTURES)
    assert len(checks) == 4 and all(check.difference == pytest.approx(5e-5, rel=0.1) for check in checks)
    monkeypatch.setattr("dinogrl.embedding.export.FORMATS", {"pair": a_format(model, off=1)})
    with pytest.raises(ExportError, match="not kept"):
        export_model(model, tmp_path / "n.xml", format="pair", frames=PICTURES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.bin", "m.xml"]


def test_who_sees_the_file_that_is_named_finds_the_other(
    model: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[str] = []
    monkeypatch.setattr("dinogrl.embedding.export.FORMATS", {"pair": a_format(model, off=0)})
    monkeypatch.setattr(Path, "replace", lambda path, to: moved.append(to.name))
    export_model(model, tmp_path / "m.xml", format="pair", frames=PICTURES)
    assert moved == ["m.bin", "m.xml"]
