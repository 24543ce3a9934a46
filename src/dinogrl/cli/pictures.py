"""Commands that show what the network sees."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from dinogrl.cli.screen import say


def add_to(app: typer.Typer) -> None:
    """Hang these commands into the program."""
    app.command()(silhouettes)


def silhouettes(
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE...", help="People cut out, one a file, or folders of them; visible and infrared may mix."),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Picture to write, .png or .jpg.")] = Path("silhouettes.png"),
    dinov2: Annotated[
        str | None, typer.Option(metavar="FILE", envvar="DINOGRL_DINOV2", help="DINOv2 ViT-S/14 weights; else the hub's.")
    ] = None,
) -> None:
    """Draw the silhouettes that DINOv2 gives for your own pictures before any training: a look at whether it sees the people.

    Example: dinogrl silhouettes people/*.jpg --dinov2 dinov2_vits14_pretrain.pth --out silhouettes.png
    """
    from dinogrl.checkpoints import expect_writable_file
    from dinogrl.errors import DataError
    from dinogrl.reproduce.silhouette_sheet import silhouette_sheet

    expect_writable_file(out)
    if out.suffix.lower() not in {".png", ".jpg", ".jpeg"}:
        raise DataError(f"the sheet is drawn as PNG or JPEG, given --out {out}; give it a name that ends in .png or .jpg")
    silhouette_sheet(images, out, dinov2=dinov2)
    say(f"[green]{escape(str(out))}[/green]: each picture, and below it the probability of the person")
