"""One ONNX file: the traced graph, in float32 or with 8-bit weights and activations, run by ONNX Runtime."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dinogrl.embedding.export_graph import ExportGraph, dynamic_shapes
from dinogrl.embedding.exported import HEADER, ExportedModel, exported_model, read_header
from dinogrl.embedding.seal import expect_sealed, onnx_entry, seal
from dinogrl.errors import CheckpointError, DinogrlError, ExportError, in_one_line
from dinogrl.onnx_sessions import failures, onnx_session

Clips = tuple[NDArray[np.uint8], NDArray[np.int64]]
OPSET = 18
INPUTS, OUTPUT = ("frames", "modality"), "embedding"
LARGEST = 2**31 - 2**24
"""Bytes of weights; the format's one message, graph and all, ends at 2 GiB."""


def write(graph: ExportGraph, path: Path, header: str, precision: str, clips: Sequence[Clips]) -> None:
    """Write ``path``. ``clips`` are real ones: from them the ranges of 8-bit numbers are read.

    Raises :class:`ExportError` for weights that one file cannot hold.
    """
    onnx = _library()
    size = sum(tensor.nbytes for tensor in graph.state_dict().values())
    if size > LARGEST:
        raise ExportError(
            f"the weights take {size / 2**30:.1f} GiB, and one ONNX file (OpenVINO's starts as one) holds 2; use torch"
        )
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            graph,
            graph.example(),
            dynamo=True,
            dynamic_shapes=dynamic_shapes(),
            input_names=INPUTS,
            output_names=(OUTPUT,),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None, "the exporter gives a program where no file is named"
    program.save(path)
    if precision == "int8":
        _quantise(path, clips)
    model = onnx.load(path)
    for node in model.graph.node:
        del node.metadata_props[:]  # where the source lay on this machine is nobody's business
    onnx.helper.set_model_props(model, {HEADER: header})
    onnx.save(model, path)
    seal(path, onnx_entry)


def read(path: Path) -> ExportedModel:
    """Open a file that :func:`write` wrote. Raises :class:`CheckpointError` for any other, and for one that has changed since."""
    expect_sealed(path, onnx_entry)
    session = onnx_session(path)
    text = session.get_modelmeta().custom_metadata_map.get(HEADER)

    def run(frames: NDArray[np.uint8], modality: NDArray[np.int64]) -> NDArray[np.float32]:
        try:
            vectors: NDArray[np.float32] = session.run([OUTPUT], dict(zip(INPUTS, (frames, modality), strict=True)))[0]
        except failures() as error:
            raise CheckpointError(f"{path} fails on {len(frames)} clips: {in_one_line(error, 160)}") from error
        return vectors

    return exported_model(run, read_header(text, path), path)


@contextmanager
def quiet() -> Iterator[None]:
    """Within the block exporters keep their remarks, on libraries that are not there and calls that will change, to themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _quantise(path: Path, clips: Sequence[Clips]) -> None:
    """Weights and activations of convolutions and of layers with one constant matrix in 8 bits; ranges from ``clips``.

    Stacks of matrices, one a part, stay: ONNX Runtime cannot scale their channels apart.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.feeds = iter([dict(zip(INPUTS, clip, strict=True)) for clip in clips])

        def get_next(self) -> dict[str, Any] | None:
            return next(self.feeds, None)

    graph = onnx.load(path).graph
    matrices = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2}
    left = [node.name for node in graph.node if node.op_type == "MatMul" and node.input[1] not in matrices]
    with quiet():
        quantize_static(
            path,
            path,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "MatMul", "Gemm"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=left,
        )


def _library() -> Any:
    try:
        import onnx
        import onnxscript  # noqa: F401 (torch's exporter needs it)
    except ImportError as error:
        raise DinogrlError("ONNX files need onnx, onnxscript and onnxruntime: pip install 'dinogrl[export]'") from error
    return onnx
