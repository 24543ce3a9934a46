"""Silhouettes by a human parser, written beside a dataset."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from dinogrl.cli.screen import complain, progress, say
from dinogrl.errors import DinogrlError


class ParserName(StrEnum):
    """Parsers, by the names of :data:`dinogrl.parsing.PARSERS`."""

    schp = "schp"
    grapy_ml = "grapy-ml"
    transformers = "transformers"
    onnx = "onnx"


class ValueRange(StrEnum):
    """How an ONNX file wants its pixels."""

    imagenet = "imagenet"
    unit = "unit"
    symmetric = "symmetric"
    bytes = "bytes"


_GRAPY, _ONNX = (ParserName.grapy_ml,), (ParserName.onnx,)
OWN_OPTIONS = {
    "labels": _GRAPY,
    "scales": _GRAPY,
    "background": (ParserName.transformers, ParserName.onnx),
    "size": _ONNX,
    "values": _ONNX,
    "bgr": _ONNX,
}
"""Options that some parsers alone understand."""


def add_to(app: typer.Typer) -> None:
    """Hang these commands into the program."""
    app.command()(parse)


def parse(
    context: typer.Context,
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Root of a dataset.")],
    parser: Annotated[ParserName, typer.Option(help="Which human parser.")],
    weights: Annotated[
        str, typer.Option(metavar="FILE", help="The authors' file, an .onnx file; for transformers a folder or owner/name.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the masks; DATA/masks/PARSER where not given.")
    ] = None,
    hard: Annotated[bool, typer.Option("--hard", help="Black and white, in place of the probability of a person.")] = False,
    layout: Annotated[str, typer.Option(help="On-disk layout of the dataset; auto looks what lies there.")] = "auto",
    batch: Annotated[int, typer.Option(min=1, help="Frames that go through the network together.")] = 8,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    labels: Annotated[
        str | None, typer.Option(metavar="NAME", help="grapy-ml: cihp, pascal or atr, of a file trained on all three.")
    ] = None,
    scales: Annotated[
        str, typer.Option(metavar="LIST", help="grapy-ml: sizes to average over; 1 alone is six times as fast.")
    ] = "1,0.5,0.75,1.25,1.5,1.75",
    background: Annotated[
        int | None, typer.Option(min=0, help="transformers, onnx: number of the class that is no person.")
    ] = None,
    size: Annotated[str, typer.Option(metavar="HxW", help="onnx: input of a file that takes any.")] = "512x512",
    values: Annotated[
        ValueRange, typer.Option(help="onnx: pixels normalised as for ImageNet, in 0..1, in -1..1, or bytes.")
    ] = ValueRange.imagenet,
    bgr: Annotated[bool, typer.Option("--bgr", help="onnx: the file wants blue first.")] = False,
) -> None:
    """Write a human parser's silhouettes of every frame, once, for a gait stream that reads them.

    Interrupted, it goes on when called again.

    Example: dinogrl parse /data/HITSZ-VCM --parser schp --weights exp-schp-201908261155-lip.pth
    """
    from dinogrl.cli.data import parse_size
    from dinogrl.data.datasets import open_dataset
    from dinogrl.parsing import ParserSettings, load_parser, write_masks
    from dinogrl.parsing.onnx_file import OnnxInput

    _refuse_options_of_others(context, parser)
    dataset = open_dataset(data, layout, min_frames=1)
    onnx = OnnxInput(parse_size(size), values.value, bgr, 0 if background is None else background)
    settings = ParserSettings(weights, device, labels, _numbers(scales), background, onnx)
    folder = out if out is not None else dataset.root / "masks" / parser.value
    network = load_parser(parser.value, settings)
    with progress() as tell:
        report = write_masks(
            dataset,
            folder,
            network,
            hard=hard,
            batch=batch,
            on_progress=lambda done, total: tell("parse", done, total, "masks"),
        )
    say(f"[green]{escape(str(folder))}[/green]: {report.written:,} masks written, {report.found:,} were there")
    for reason in list(report.broken.values())[:20]:
        complain(reason)
    if report.broken:
        complain(f"{len(report.broken)} frames have no mask; see dinogrl check {data}")
        raise typer.Exit(2)
    masks = folder.relative_to(dataset.root) if folder.is_relative_to(dataset.root) else folder.resolve()
    places = ["--data", str(data), "--out", f"runs/{parser.value}", f"data.masks={masks}"]
    say(escape(f"next: dinogrl train dinogrl {shlex.join(places)} model.gait.silhouette=masks"))


def _refuse_options_of_others(context: typer.Context, parser: ParserName) -> None:
    for option, parsers in OWN_OPTIONS.items():
        source = context.get_parameter_source(option)
        if parser not in parsers and source is not None and source.name != "DEFAULT":
            raise DinogrlError(f"--{option} is an option of {' and '.join(parsers)}; {parser} knows nothing of it, leave it out")


def _numbers(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(word) for word in text.split(","))
    except ValueError as error:
        raise DinogrlError(f"--scales {text!r} is no list of numbers; give some like 1,0.5") from error
    if not all(0.1 <= number <= 4 for number in numbers):
        raise DinogrlError(f"--scales {text!r}: each must lie in 0.1 to 4")
    return numbers
