"""The command that takes a trained model to other runtimes."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from dinogrl.cli.results import Checkpoint
from dinogrl.cli.screen import note, say

if TYPE_CHECKING:
    from dinogrl.data.frames import Image
    from dinogrl.embedding.export import Check
    from dinogrl.recipes import Recipe

MOST_PICTURES = 24


class FormatName(StrEnum):
    """Runtime that the file is for."""

    onnx = "onnx"
    openvino = "openvino"
    torch = "torch"


class Precision(StrEnum):
    """How the file computes."""

    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"
    int8 = "int8"


def add_to(app: typer.Typer) -> None:
    """Hang this command into the program."""
    app.command()(export)


def export(
    checkpoint: Checkpoint,
    format: Annotated[FormatName, typer.Option(help="onnx: .onnx; openvino: .xml and .bin; torch: .pt2.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="File to write.")],
    precision: Annotated[
        Precision, typer.Option(help="float32; int8 (onnx, openvino), bfloat16 (openvino, torch), float16 (openvino: its weights).")
    ] = Precision.float32,
    check: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Pictures of people to check on, and for int8's ranges; simulated ones if not given."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Dataset to score the model and the file on, side by side.")
    ] = None,
) -> None:
    """Write a model as one file for another runtime: frames in 8 bits and a modality in, embedding out.

    The file is compared with the model on clips of several lengths and sizes; one that differs too much is not kept. Every command
    that takes a model takes an exported one too.

    Example: dinogrl export runs/dinogrl/model.safetensors --format onnx --out dinogrl.onnx
    """
    from dinogrl.data.datasets import open_dataset
    from dinogrl.embedding.export import FORMATS, export_model
    from dinogrl.embedding.opening import model_file
    from dinogrl.errors import ExportError
    from dinogrl.models.archive import load_model

    checkpoint = model_file(checkpoint)
    if checkpoint.suffix in {form.suffix for form in FORMATS.values()}:
        raise ExportError(f"{checkpoint} is exported already; give the model.safetensors that it was made of")
    trained = load_model(checkpoint)
    if data is not None:
        open_dataset(data)  # a wrong folder is said before the work
    frames = _pictures(check) if check is not None else _simulated(trained.recipe)
    checks = export_model(trained, out, format=format.value, frames=frames, precision=precision.value, on_stage=note)
    say(_check_table(checks))
    written = [out, out.with_suffix(".bin")] if format is FormatName.openvino else [out]
    size = sum(file.stat().st_size for file in written)
    say(f"[green]{escape(str(out))}[/green]: {format.value}, {precision.value}, {size / 2**20:.1f} MiB")
    if data is not None:
        _compare_scores(checkpoint, out, data)


def _pictures(folder: Path) -> list[Image]:
    """Up to ``MOST_PICTURES`` of a folder, evenly over all that lie in it."""
    from dinogrl.data.datasets.directories import IMAGE_SUFFIXES
    from dinogrl.data.frames import read_frame
    from dinogrl.errors import DataError

    if not folder.is_dir():
        raise DataError(f"no folder {folder}; give one with frames of people, or leave --check out")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise DataError(f"no picture in {folder}; give a folder with frames of people, or leave --check out")
    step = -(-len(files) // MOST_PICTURES)
    return [read_frame(path) for path in files[::step]]


def _simulated(recipe: Recipe) -> list[Image]:
    """Frames of the package's own world, of another size than the recipe's."""
    from dinogrl.simulation.simulate import simulate

    with TemporaryDirectory() as scratch:
        world = simulate(
            Path(scratch, "world"),
            workers=1,
            layout="folder",
            identities=2,
            cameras=2,
            tracklets=1,
            frames=3,
            height=recipe.data.height + 32,
            width=recipe.data.width + 16,
            silhouettes=False,
        )
        return _pictures(world.root)


def _check_table(checks: list[Check]) -> Table:
    table = Table(title="the file beside the model", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("clips", "frames", "pixels", "largest difference", "largest number", "lowest cosine"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in checks:
        pixels = f"{row.size[0]}x{row.size[1]}"
        table.add_row(str(row.clips), str(row.frames), pixels, f"{row.difference:.1e}", f"{row.scale:.3g}", f"{row.cosine:.7f}")
    return table


def _compare_scores(checkpoint: Path, exported: Path, data: Path) -> None:
    """Rank-1 and mAP of both, and what the file costs, in per cent points."""
    from dinogrl.training.evaluation_run import evaluate_checkpoint

    with TemporaryDirectory() as scratch:
        note("scoring the model, then the file")
        before, after = (
            evaluate_checkpoint(path, data, out=Path(scratch, name), device="cpu").directions
            for name, path in (("model", checkpoint), ("file", exported))
        )
    for direction, scores in before.items():
        for name in ("rank1", "mAP"):
            old, new = 100 * getattr(scores, name), 100 * getattr(after[direction], name)
            say(f"{direction.replace('_to_', ' -> ')}: {name} {old:.2f} -> {new:.2f} ({new - old:+.2f})")
