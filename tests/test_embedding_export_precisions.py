"""Exported files that compute in, or are stored in, less than float32."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import openvino
import pytest

from dinogrl.embedding import export_openvino, export_torch
from dinogrl.embedding.embedder import Embedder
from dinogrl.embedding.export import FORMATS, Check, check_clips, export_model, reference
from dinogrl.embedding.exported import Run
from dinogrl.models.archive import TrainedModel, load_model, save_model
from tiny_exports import PICTURES, SETTINGS
from tiny_models import tiny_model, tiny_recipe

Exported = Callable[[str, str], tuple[Path, list[Check]]]
OTHERS = [(format, precision) for format, form in FORMATS.items() for precision in form.precisions[1:]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("precisions")


@pytest.fixture(scope="module")
def model(folder: Path) -> TrainedModel:
    path = folder / "m.safetensors"
    save_model(path, tiny_model("baseline", *SETTINGS), tiny_recipe("baseline", *SETTINGS), 5, {})
    return load_model(path)


@pytest.fixture(scope="module")
def exported(folder: Path, model: TrainedModel) -> Exported:
    """A file and what its check found; made when it is first asked for."""

    @cache
    def make(format: str, precision: str) -> tuple[Path, list[Check]]:
        path = folder / f"{precision}{FORMATS[format].suffix}"
        return path, export_model(model, path, format=format, precision=precision, frames=PICTURES)

    return make


@pytest.mark.parametrize(("format", "precision"), OTHERS)
def test_a_file_says_what_it_costs(format: str, precision: str, model: TrainedModel, exported: Exported) -> None:
    path, checks = exported(format, precision)
    assert min(check.cosine for check in checks) > 0.98 and max(check.difference for check in checks) > 0
    opened = Embedder.load(path)
    assert opened.fingerprint == f"{model.fingerprint}-{precision}"
    exact = Embedder(model, "cpu").embed(PICTURES, "visible")
    assert error(opened.embed(PICTURES, "visible"), exact) < 0.1


def error(rounded: np.ndarray, exact: np.ndarray) -> float:
    return float(np.linalg.norm(rounded - exact) / np.linalg.norm(exact))


def error_of(run: Run, model: TrainedModel) -> float:
    clips = check_clips(PICTURES, (64, 32), 2)[1]
    return error(run(*clips), reference(model, *clips))


def test_bfloat16_of_torch_is_computed_so(model: TrainedModel, exported: Exported) -> None:
    """... by the graph inside for who trusts it, and by the network that is made of the file."""
    path, _ = exported("torch", "bfloat16")
    for run in (export_torch.run_own(path), FORMATS["torch"].read(path).network.run):
        assert 1e-4 < error_of(run, model) < 5e-2, "more than float32's rounding"


@pytest.mark.parametrize(("precision", "hint"), [("float16", "f32"), ("bfloat16", "bf16"), ("int8", "f32")])
def test_openvino_is_told_what_to_compute_in(
    precision: str, hint: str, exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A processor with bfloat16 arithmetic takes that unless told, and one without cannot show it."""
    path, _ = exported("openvino", precision)
    told = []

    def compile_model(model: Any, device: str, settings: dict[str, Any]) -> Any:
        told.append(settings["INFERENCE_PRECISION_HINT"])
        return core.compile_model(model, device, settings)

    core = openvino.Core()
    stand_in = SimpleNamespace(read_model=core.read_model, compile_model=compile_model)
    monkeypatch.setattr(export_openvino, "_library", lambda: SimpleNamespace(Core=lambda: stand_in))
    export_openvino.read(path)
    assert told == [hint]


def test_the_resize_stays_in_float32(exported: Exported) -> None:
    """Whole numbers up to 2^24 are no matter for bfloat16's 8 digits."""
    nodes = openvino.Core().read_model(exported("openvino", "bfloat16")[0]).get_ordered_ops()
    kinds = [node.get_type_name() for node in nodes]
    first = kinds.index("Convolution")
    assert "MatMul" in kinds[:first], "the resize"
    kept = [any("precis" in mark.lower() for mark in node.get_rt_info()) for node in nodes]
    assert all(kept[:first]) and not any(kept[first:])


def test_how_large_files_are(folder: Path, exported: Exported) -> None:
    whole = (folder / "m.safetensors").stat().st_size
    for precision, share in (("float16", 0.6), ("bfloat16", 1.1), ("int8", 0.5)):
        assert exported("openvino", precision)[0].with_suffix(".bin").stat().st_size < share * whole, precision


def test_stacks_of_matrices_stay_in_float32(exported: Exported) -> None:
    graph = onnx.load(exported("onnx", "int8")[0]).graph
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    sizes = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    assert all(made_by.get(node.input[1]) == "DequantizeLinear" for node in graph.node if node.op_type == "Conv")
    stacks = [node.input[1] for node in graph.node if node.op_type == "MatMul" and sizes.get(node.input[1]) == 3]
    assert stacks, "the parts' own matrices"
