"""The whole story on simulated people: simulate, check, train the baseline and DinoGRL, score both, write one page."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from dinogrl.data.checks import check_dataset
from dinogrl.errors import DataError, DinogrlError
from dinogrl.evaluation.results import Metrics
from dinogrl.recipes import Recipe, load_recipe
from dinogrl.reports.page import write_page
from dinogrl.reproduce.watching import Watcher, training_steps
from dinogrl.simulation.simulate import Settings, read_settings, simulate
from dinogrl.training.evaluation_run import evaluate_checkpoint
from dinogrl.training.run import train

DEMO_WORLD = Settings(
    identities=210,
    test_identities=50,
    cameras=4,
    tracklets=2,
    frames=12,
    height=96,
    width=48,
    occlusion=0.1,
    looseness=0.5,
    silhouettes=False,
)
"""160 people to train on and 50 others for the test, small frames, and rather well-fitting boxes."""


@dataclass(frozen=True)
class DemoSettings:
    """What the demo simulates and trains. ``overrides`` are laid upon both recipes, as on the command line."""

    world: Settings = DEMO_WORLD
    recipes: tuple[str, ...] = ("demo_baseline", "demo_dinogrl")
    overrides: tuple[str, ...] = ()
    workers: int = 2
    dinov2: Path | None = None
    """Weights of the real DINOv2 ViT-S/14, in place of the tiny prior."""


@dataclass
class DemoResult:
    """Scores by recipe name, seconds by stage, and the page."""

    page: Path
    scores: dict[str, Metrics] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def run_demo(out: Path, settings: DemoSettings, *, on_progress: Watcher | None = None) -> DemoResult:
    """Run the demo into ``out``: ``world/`` (the dataset), one run folder a recipe, ``report.html``.

    Stopped at any moment and called again with the same settings, it goes on where it was. Raises :class:`DinogrlError` where
    ``out`` holds a world of other settings.
    """
    tell = on_progress or (lambda stage, done, total, word: None)
    result = DemoResult(page=out / "report.html")
    recipes = [_recipe(name, settings) for name in settings.recipes]
    world = out / "world"
    with _timed(result, "simulate"):
        make_world(world, settings, tell)
    with _timed(result, "check"):
        tell("check", 0, 1, "")
        report = check_dataset(world)
        if not report.usable:
            raise DataError(f"the simulated world at {world} is not usable: {'; '.join(map(str, report.problems[:3]))}")
        tell("check", 1, 1, f"{sum(report.counts.values())} entries, {len(report.problems)} problems")
    for recipe in recipes:
        folder = out / recipe.name
        with _timed(result, f"train {recipe.name}"):
            model = _train(recipe, world, folder, tell)
        stage = f"evaluate {recipe.name}"
        with _timed(result, stage):
            result.scores[recipe.name] = evaluate_checkpoint(model, world, on_progress=partial(_tell_clips, tell, stage))
    with _timed(result, "report"):
        tell("report", 0, 1, "")
        write_page(
            result.page, [out / recipe.name for recipe in recipes], title="DinoGRL demo: simulated people by day and by night"
        )
        tell("report", 1, 1, str(result.page))
    return result


def _recipe(name: str, settings: DemoSettings) -> Recipe:
    recipe = load_recipe(name, settings.overrides)
    if settings.dinov2 is None or recipe.model.gait is None:
        return recipe
    real = {"name": "dinov2_vits14", "weights": settings.dinov2.resolve(), "blocks": "[2, 5, 8, 11]"}
    return load_recipe(name, [*settings.overrides, *(f"model.gait.prior.{key}={value}" for key, value in real.items())])


def make_world(world: Path, settings: DemoSettings, tell: Watcher) -> None:
    """Simulate the dataset, unless a finished one of the same settings is there."""
    if world.exists():
        if read_settings(world) != settings.world:
            raise DinogrlError(f"{world} holds a simulated world of other settings; choose another --out, or remove it")
        return
    simulate(
        world, settings.world, workers=settings.workers, on_progress=lambda done, total: tell("simulate", done, total, "tracklets")
    )


def _train(recipe: Recipe, world: Path, folder: Path, tell: Watcher) -> Path:
    return train(recipe, world, folder, resume=True, on_progress=training_steps(tell, f"train {recipe.name}"))


def _tell_clips(tell: Watcher, stage: str, done: int, total: int) -> None:
    tell(stage, done, total, "clips")


@contextmanager
def _timed(result: DemoResult, stage: str) -> Iterator[None]:
    """Adds the seconds that a block takes to a result."""
    started = time.monotonic()
    yield
    result.seconds[stage] = time.monotonic() - started
