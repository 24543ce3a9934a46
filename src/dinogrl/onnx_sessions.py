"""Opening ONNX files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dinogrl.errors import CheckpointError, DinogrlError, in_one_line


def onnx_session(path: Path, device: str = "cpu") -> Any:
    """An ``onnxruntime.InferenceSession`` of a file, on as many threads as torch may use; on a GPU where ``device`` is one.

    Raises :class:`DinogrlError` where onnxruntime is not installed or cannot use that device, :class:`CheckpointError` for a file
    that is missing or broken.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise DinogrlError("ONNX files need onnxruntime: pip install 'dinogrl[export]'") from error
    if not path.is_file():
        raise CheckpointError(f"{path} is a folder, expected an ONNX file" if path.is_dir() else f"no ONNX file at {path}")
    providers = ["CPUExecutionProvider"]
    if device != "cpu":
        providers.insert(0, "CUDAExecutionProvider")
        if providers[0] not in onnxruntime.get_available_providers():
            raise DinogrlError(f"this onnxruntime cannot use {device}; install onnxruntime-gpu, or give cpu as the device")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # errors are raised too, and said once, by who catches them
    try:
        # without its fallback: that prints, and tries a broken file once more
        session = onnxruntime.InferenceSession(path, options, providers=providers, enable_fallback=0)
        session.get_modelmeta().custom_metadata_map  # noqa: B018 - read once: a broken one fails here
    except failures() as error:
        raise CheckpointError(f"cannot read {path}: {in_one_line(error, 160)}; it is broken or no ONNX file") from error
    return session


def failures() -> tuple[type[Exception], ...]:
    """What onnxruntime raises, for files that it cannot read or that fail when run; its errors have no parent in common."""
    from onnxruntime.capi import onnxruntime_pybind11_state as raised

    return (
        raised.Fail,
        raised.InvalidProtobuf,
        raised.InvalidGraph,
        raised.InvalidArgument,
        raised.NoModel,
        raised.NotImplemented,
        raised.RuntimeException,
        UnicodeDecodeError,  # of broken metadata
    )
