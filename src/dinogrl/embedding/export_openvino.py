"""OpenVINO's pair of files, .xml and .bin, made from the ONNX graph."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dinogrl.embedding import export_onnx
from dinogrl.embedding.export_graph import ExportGraph
from dinogrl.embedding.exported import HEADER, ExportedModel, exported_model, read_header
from dinogrl.embedding.seal import expect_sealed, seal, xml_entry
from dinogrl.errors import CheckpointError, DinogrlError, in_one_line

DIGEST = "dinogrl_bin"
"""Under this name the .xml keeps the SHA-256 of its .bin: another model's .bin of the same sizes would be taken without a word."""
HINTS = {"bfloat16": "bf16"}
"""How to compute, where not in float32. A processor with bfloat16 arithmetic would take that unless told."""


def write(graph: ExportGraph, path: Path, header: str, precision: str, clips: Sequence[export_onnx.Clips]) -> None:
    """Write ``path`` (.xml) and the .bin beside it. ``float16`` halves the weights on disk and still computes in float32."""
    openvino = _library()
    with TemporaryDirectory() as scratch:
        source = Path(scratch, "graph.onnx")
        export_onnx.write(graph, source, header, "int8" if precision == "int8" else "float32", clips)
        model = openvino.convert_model(source)
        model.set_rt_info(header, [HEADER])
        _keep_pixels_exact(model)
        save = partial(openvino.save_model, model, path, compress_to_fp16=precision == "float16")
        save()
        model.set_rt_info(_digest(path), [DIGEST])  # only a .bin that is written can be described in the .xml beside it
        save()
    seal(path, xml_entry)


def read(path: Path) -> ExportedModel:
    """Open a file that :func:`write` wrote.

    Raises :class:`CheckpointError` for any other, for one that has changed since, and where its own .bin is not beside it.
    """
    core = _library().Core()
    if not path.with_suffix(".bin").is_file():
        raise CheckpointError(f"{path} needs {path.with_suffix('.bin').name} beside it; copy both files")
    expect_sealed(path, xml_entry)
    try:
        model = core.read_model(path)
        text, digest = (model.get_rt_info([name]).astype(str) if model.has_rt_info([name]) else None for name in (HEADER, DIGEST))
        header = read_header(text, path)
        if digest != _digest(path):
            raise CheckpointError(f"{path.with_suffix('.bin')} is not what was written with {path.name}; copy both files again")
        hint = HINTS.get(header.precision, "f32")
        threads = torch.get_num_threads()
        compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads})
    except RuntimeError as error:
        raise CheckpointError(f"cannot read {path}: {in_one_line(error, 160)}; it, or its .bin, is broken") from error

    one_at_a_time = Lock()  # two threads would share one request, and each be given what the other asked

    def run(frames: NDArray[np.uint8], modality: NDArray[np.int64]) -> NDArray[np.float32]:
        try:
            with one_at_a_time:
                vectors: NDArray[np.float32] = compiled([frames, modality], share_outputs=False)[0]
        except RuntimeError as error:
            raise CheckpointError(f"{path} fails on {len(frames)} clips: {in_one_line(error, 160)}") from error
        return vectors

    return exported_model(run, header, path)


def _digest(path: Path) -> str:
    """SHA-256 of the .bin that lies beside ``path``."""
    with path.with_suffix(".bin").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _keep_pixels_exact(model: Any) -> None:
    """What comes before the first convolution, the resize, stays in float32 even where the rest is computed in bfloat16."""
    for node in model.get_ordered_ops():
        if node.get_type_name() in {"Convolution", "FakeQuantize"}:
            return
        node.get_rt_info()["precise_0"] = ""


def _library() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise DinogrlError("OpenVINO files need openvino: pip install 'dinogrl[export]'") from error
    return openvino
