"""Commands that make models: train one, and the recipes there are."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from dinogrl.cli.feature_cache import CacheFolder, CacheSize, open_cache, tell_cache
from dinogrl.cli.screen import Interrupted, Watcher, progress, say

if TYPE_CHECKING:
    from dinogrl.training.loop import Progress


def add_to(app: typer.Typer) -> None:
    """Hang these commands into the program."""
    app.command()(train)
    app.command()(recipes)


def train(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="Name of a shipped recipe (see: dinogrl recipes) or path of a YAML file.")
    ],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Changes, as in training.epochs=3.")] = None,
    *,
    data: Annotated[Path, typer.Option(metavar="DIR", envvar="DINOGRL_DATA", help="Root folder of the dataset.")],
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the run; runs/RECIPE where not given.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
    devices: Annotated[int, typer.Option(min=1, help="Processes or GPUs that share each batch.")] = 1,
    feature_cache: CacheFolder = None,
    feature_cache_size: CacheSize = None,
) -> None:
    """Train a recipe on a dataset. Interrupted, it says the command that goes on.

    A feature cache spares the looks at held-out people and what searches need at the end; no training step reads it.

    Example: dinogrl train dinogrl data.frames=10 --data /data/HITSZ-VCM --out runs/ten-frames
    """
    from dinogrl.recipes import load_recipe

    chosen = load_recipe(recipe, overrides or [])
    folder = out if out is not None else Path("runs", chosen.name)
    from dinogrl import distributed  # torch is imported only once the recipe is known to be right
    from dinogrl.training.run import train as fit

    cache = open_cache(feature_cache, feature_cache_size)
    try:
        with progress() as tell:
            model = fit(
                chosen,
                data,
                folder,
                resume=resume,
                devices=devices,
                feature_cache=cache,
                on_progress=lambda step: _show(tell, step),
            )
    except KeyboardInterrupt as stop:
        words = ["dinogrl", "train", recipe, *(overrides or []), "--data", str(data), "--out", str(folder)]
        words += ["--devices", str(devices)] if devices > 1 else []
        words += ["--feature-cache", str(feature_cache)] if feature_cache is not None else []
        words += ["--feature-cache-size", str(feature_cache_size)] if feature_cache_size is not None else []
        raise Interrupted(f"go on by: {shlex.join([*words, '--resume'])}") from stop
    if distributed.rank():  # the first process speaks for all
        return
    tell_cache(cache)
    say(f"[green]{escape(str(model))}[/green]")
    say(escape(f"next: dinogrl evaluate {model} --data {data}"))


def recipes() -> None:
    """List the recipes that come with the program.

    Example: dinogrl recipes
    """
    from dinogrl.recipes import recipe_names, recipe_summary

    table = Table(box=None, pad_edge=False)
    table.add_column("recipe", no_wrap=True)
    table.add_column("what it is")
    for name in recipe_names():
        table.add_row(name, recipe_summary(name))
    say(table)


def _show(tell: Watcher, step: Progress) -> None:
    loss = f", loss {step.losses['total']:.3f}" if "total" in step.losses else ""
    tell("train", step.done, step.total, f"steps, epoch {step.epoch + 1}/{step.epochs}{loss}")
