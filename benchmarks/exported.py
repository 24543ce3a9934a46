"""Speed, size and error of exported files beside the model itself, on this machine.

    python benchmarks/exported.py --model runs/dinogrl/model.safetensors --folder /tmp/exported

Without ``--model``, the full-size network of the recipe ``dinogrl`` with random weights: its speed is a trained one's, its errors
in 8 bits are not. Every format and precision (or those named) is exported and checked as ``dinogrl export`` does, read again, and
timed on the same clips, uint8 from memory; the model itself is timed in float32 and bfloat16. The last line is the result, as JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dinogrl import memory, runtime
from dinogrl.data.frames import read_frame, resize
from dinogrl.data.transforms import normalise
from dinogrl.embedding.export import FORMATS, export_model, reference
from dinogrl.errors import ExportError
from dinogrl.models.archive import TrainedModel, load_model, save_model
from dinogrl.models.build import build_model
from dinogrl.recipes import load_recipe
from dinogrl.reproduce.ceilings import measure_ceilings
from dinogrl.simulation.simulate import Settings, simulate

Run = Callable[[NDArray[np.uint8], NDArray[np.int64]], NDArray[np.float32]]
CLIPS, TIMES = 4, 6


def random_model(folder: Path, frames: list[NDArray[np.uint8]]) -> Path:
    """The recipe ``dinogrl`` at full size, from random weights.

    Batch norms get the statistics of ``frames``: without, features grow from layer to layer, and the enhancement's products of
    them leave the range of float32.
    """
    path = folder / "model.safetensors"
    if not path.is_file():
        runtime.seed_everything(1)
        recipe = load_recipe("dinogrl", ["model.gait.prior.random_init=true"])
        network, size = build_model(recipe, 500).train(), (recipe.data.height, recipe.data.width)
        for part in network.modules():
            if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
                part.momentum = 1.0
        clips = torch.from_numpy(normalise(np.stack([resize(frame, size) for frame in frames]))).unflatten(0, (CLIPS, TIMES))
        with torch.no_grad():
            network(clips, torch.arange(CLIPS) % 2)
        save_model(path, network, recipe, 500, {"selection": "random"})
    return path


def pictures(folder: Path) -> list[NDArray[np.uint8]]:
    """Simulated people."""
    root = folder / "people"
    if not root.is_dir():
        simulate(root, Settings(identities=4, cameras=2, tracklets=1, frames=6, silhouettes=False))
    return [read_frame(path) for path in sorted(root.rglob("*.jpg"))[:24]]


def seconds(run: Run, clips: NDArray[np.uint8], repetitions: int) -> float:
    """The quickest of some calls, after one to warm up."""
    modality = np.arange(len(clips)) % 2
    run(clips, modality)
    best = float("inf")
    for _ in range(repetitions):
        start = time.perf_counter()
        run(clips, modality)
        best = min(best, time.perf_counter() - start)
    return best


def own(trained: TrainedModel, bfloat16: bool) -> Run:
    """The model, as ``dinogrl embed`` runs it."""

    def run(pixels: NDArray[np.uint8], modality: NDArray[np.int64]) -> NDArray[np.float32]:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            return reference(trained, pixels, modality)

    return run


def exported(
    trained: TrainedModel, folder: Path, form: str, precision: str, frames: list[NDArray[np.uint8]]
) -> tuple[Run, dict[str, Any]]:
    """Write, check and read again."""
    path = folder / f"{precision}{FORMATS[form].suffix}"
    start = time.perf_counter()
    checks = export_model(trained, path, format=form, frames=frames, precision=precision)
    took = time.perf_counter() - start
    weights = path.with_suffix(".bin") if form == "openvino" else path
    facts = {
        "MiB": round(weights.stat().st_size / 2**20, 1),
        "seconds to export and check": round(took, 1),
        "largest difference, share": max(check.share for check in checks),
        "least cosine": min(check.cosine for check in checks),
    }
    return FORMATS[form].read(path).network.run, facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a trained model; random weights where not given")
    parser.add_argument("--folder", type=Path, required=True, help="everything is written here")
    parser.add_argument("--only", nargs="*", default=[], metavar="FORMAT-PRECISION", help="such as onnx-int8; all where not given")
    parser.add_argument("--repetitions", type=int, default=3)
    given = parser.parse_args()

    memory.keep_freed_memory()  # as every command does
    given.folder.mkdir(parents=True, exist_ok=True)
    frames = pictures(given.folder)
    trained = load_model(given.model or random_model(given.folder, frames))
    clips = np.stack(frames[:24]).reshape(CLIPS, TIMES, *frames[0].shape)
    result: dict[str, Any] = {"model": str(given.model or "random weights"), "rows": {}}
    rows = result["rows"]
    for precision in ("float32", "bfloat16"):
        rows[f"model-{precision}"] = {
            "frames/s": CLIPS * TIMES / seconds(own(trained, precision == "bfloat16"), clips, given.repetitions)
        }
    for form, entry in FORMATS.items():
        for precision in entry.precisions:
            name = f"{form}-{precision}"
            if given.only and name not in given.only:
                continue
            try:
                run, facts = exported(trained, given.folder, form, precision, frames)
            except ExportError as error:
                rows[name] = {"refused": str(error)}
            else:
                rows[name] = {"frames/s": CLIPS * TIMES / seconds(run, clips, given.repetitions), **facts}
            print(name, rows[name], flush=True)
    result |= {
        "ceilings": measure_ceilings(torch.device("cpu")),
        "machine": runtime.device_name(torch.device("cpu")),
        "date": datetime.now(UTC).date().isoformat(),
    }
    print(json.dumps(result, default=vars))


if __name__ == "__main__":
    main()
