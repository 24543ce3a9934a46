"""Open a model file of any kind, by its ending."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dinogrl.embedding.export import FORMATS
from dinogrl.embedding.exported import ExportedModel
from dinogrl.errors import CheckpointError
from dinogrl.models.archive import TrainedModel, load_model

READERS: dict[str, Callable[[Path], TrainedModel | ExportedModel]] = {
    ".safetensors": load_model,
    **{form.suffix: form.read for form in FORMATS.values()},
}


def model_file(path: Path) -> Path:
    """A model file, given as such or as the folder of the run that wrote it."""
    inside = path / "model.safetensors"
    return inside if path.is_dir() and inside.is_file() else path


def open_model(path: Path) -> TrainedModel | ExportedModel:
    """A model that training wrote, or the folder of its run, or an exported one.

    Raises :class:`CheckpointError` for any other file.
    """
    path = model_file(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise CheckpointError(f"{path} is no model file; give a model.safetensors, or an export: {', '.join(list(READERS)[1:])}")
    if not path.is_file():
        raise CheckpointError(f"no model at {path}; give the path of a {path.suffix} file written by dinogrl")
    return reader(path)
