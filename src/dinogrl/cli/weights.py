"""Commands about weights that come from elsewhere, or ship with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from dinogrl.cli.screen import progress, say


def add_to(app: typer.Typer) -> None:
    """Hang these commands into the program."""
    app.command()(convert)
    app.command(name="convert-back")(convert_back)
    app.command(name="pretrain-prior")(pretrain_prior)


def convert(
    best_model: Annotated[Path, typer.Argument(metavar="BEST_MODEL", help="The authors' best_model.pth (appearance stream).")],
    best_model2: Annotated[Path, typer.Argument(metavar="BEST_MODEL2", help="The authors' best_model2.pth (enhancement).")],
    best_shape: Annotated[Path, typer.Argument(metavar="BEST_SHAPE", help="The authors' best_shape.pth (gait stream).")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Model file to write (.safetensors).")],
) -> None:
    """Turn the authors' three checkpoint files into one model file.

    Example: dinogrl convert best_model.pth best_model2.pth best_shape.pth --out released.safetensors
    """
    from dinogrl.models.released_files import convert_released

    unused = convert_released(best_model, best_model2, best_shape, out)
    say(f"[green]{escape(str(out))}[/green]: recipe dinogrl-released; {len(unused)} tensors are never used and left out")


def convert_back(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model file: converted, or trained with dinogrl-released.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for best_model.pth, best_model2.pth and best_shape.pth.")],
) -> None:
    """Write a model file as the three checkpoint files that the authors' code loads: the reverse of convert.

    Example: dinogrl convert-back released.safetensors --out theirs
    """
    from dinogrl.models.archive import load_model
    from dinogrl.models.released_files import write_released

    trained = load_model(model)
    for path in write_released(trained.network, trained.identities, out):
        say(f"[green]{escape(str(path))}[/green]")


def pretrain_prior(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write: config.json, model.safetensors and a card.")],
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps; fewer for a try.")] = None,
    moments: Annotated[int | None, typer.Option(min=64, help="Moments to draw, each by day and by night.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the people and of the training.")] = None,
) -> None:
    """Train the tiny DINOv2-architecture prior that ships with the package, on simulated people of no other split.

    Example: dinogrl pretrain-prior --out priors/tiny
    """
    from dinogrl.training.prior import PriorTraining
    from dinogrl.training.prior import pretrain_prior as pretrain

    chosen = {"steps": steps, "moments": moments, "seed": seed}
    given = {name: value for name, value in chosen.items() if value is not None}
    with progress() as tell:
        figures = pretrain(out, PriorTraining(**given), on_progress=lambda p: tell(p.stage, p.done, p.total, f"loss {p.loss:.3f}"))
    say(f"[green]{escape(str(out))}[/green]: " + ", ".join(f"{name} {value:.3f}" for name, value in figures.items()))
