"""The whole path works the same from every layout on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from dinogrl.data.checks import check_dataset
from dinogrl.embedding.embedder import Embedder
from dinogrl.errors import DataError
from dinogrl.evaluation.results import read_metrics
from dinogrl.recipes import load_recipe
from dinogrl.simulation.simulate import Settings, simulate
from dinogrl.training.evaluation_run import evaluate_checkpoint
from dinogrl.training.run import train
from tiny_recipe import TINY

PROTOCOLS = {"buptcampus": "buptcampus-full", "folder": "folder"}


@pytest.mark.parametrize("layout", sorted(PROTOCOLS))
def test_simulate_check_train_evaluate_embed(layout: str, tmp_path: Path) -> None:
    settings = Settings(layout=layout, identities=10, cameras=3, tracklets=2, frames=13, height=64, width=32, silhouettes=False)
    world = simulate(tmp_path / "world", settings, workers=1).root
    report = check_dataset(world)
    assert report.usable and report.layout == layout
    model = train(load_recipe("demo_dinogrl", [*TINY, "data.layout=auto"]), world, tmp_path / "run")
    evaluate_checkpoint(model, world)
    metrics = read_metrics(tmp_path / "run" / "metrics.json")
    assert metrics.dataset == layout and metrics.protocol == PROTOCOLS[layout] and metrics.model == "dinogrl"
    assert set(metrics.directions) == {"infrared_to_visible", "visible_to_infrared"}
    assert all(direction.queries > 0 for direction in metrics.directions.values())


def test_the_wrong_layout_is_one_clear_error(tiny_world: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        train(load_recipe("demo_dinogrl", [*TINY, "data.layout=buptcampus"]), tiny_world, tmp_path / "run")
    assert "\n" not in str(error.value) and str(tiny_world) in str(error.value)


def test_embedder_takes_paths_and_arrays_alike(tiny_world: Path, tmp_path: Path) -> None:
    from dinogrl.data.frames import read_frame

    model = train(load_recipe("demo_dinogrl", TINY), tiny_world, tmp_path / "run")
    embedder = Embedder.load(model)
    frames = sorted(next((tiny_world / "Test").glob("*/rgb/D*")).glob("*.jpg"))
    by_path = embedder.embed(frames, "visible")
    by_array = embedder.embed([read_frame(path) for path in frames], "visible")
    assert by_path.shape == by_array.shape and embedder.distance(by_path, by_array) == pytest.approx(0, abs=1e-5)
    with pytest.raises(DataError, match="visible or infrared"):
        embedder.embed(frames, "thermal")
    with pytest.raises(DataError, match="without frames"):
        embedder.embed([], "visible")
