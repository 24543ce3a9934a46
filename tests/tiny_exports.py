"""A small exported model, in any format."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dinogrl.embedding.export import FORMATS, export_model
from dinogrl.models.archive import load_model, save_model
from tiny_models import tiny_model, tiny_recipe

PICTURES = [np.random.default_rng(i).integers(0, 256, (64, 32, 3), dtype=np.uint8) for i in range(3)]
SETTINGS = ("data.height=64", "data.width=32", "model.pooling.stripes=[1]", "model.appearance.depths=[1,1,1,1]")


def tiny_export(folder: Path, format: str) -> Path:
    """A file of the baseline in ``folder``, beside its model.safetensors."""
    model = folder / "m.safetensors"
    save_model(model, tiny_model("baseline", *SETTINGS), tiny_recipe("baseline", *SETTINGS), 5, {})
    out = folder / f"m{FORMATS[format].suffix}"
    export_model(load_model(model), out, format=format, frames=PICTURES)
    return out
