"""The whole path works the same from every layout on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from dinogrl.data.checks import check_dataset
from dinogrl.embedding.archive import load_embeddings
from dinogrl.embedding.embedder import Embedder
from dinogrl.errors import DataError, DinogrlError
from dinogrl.evaluation.protocols import PROTOCOLS as PROTOCOL_ENTRIES
from dinogrl.evaluation.results import read_metrics
from dinogrl.recipes import load_recipe
from dinogrl.simulation.simulate import Settings, simulate
from dinogrl.training.evaluation_run import evaluate_checkpoint
from dinogrl.training.run import train
from tiny_recipe import TINY

BASELINE = [o for o in TINY if not o.startswith(("model.gait", "model.enhancement"))] + ["data.frames=1"]

PROTOCOLS = {"buptcampus": "buptcampus-full", "sysu-mm01": "sysu-mm01", "regdb": "regdb", "llcm": "llcm", "folder": "folder"}
IMAGES = ("sysu-mm01", "regdb", "llcm")


@pytest.mark.parametrize("layout", sorted(PROTOCOLS))
def test_simulate_check_train_evaluate_embed(layout: str, tmp_path: Path) -> None:
    frames = 2 if layout in IMAGES else 13
    settings = Settings(layout=layout, identities=8, cameras=3, tracklets=2, frames=frames, height=64, width=32, silhouettes=False)
    world = simulate(tmp_path / "world", settings, workers=1).root
    report = check_dataset(world)
    assert report.usable and report.layout == layout
    length = 1 if layout in IMAGES else 2
    if layout in IMAGES:
        recipe = load_recipe("dinogrl_image", [override for override in TINY if override != "data.frames=2"])
    else:
        recipe = load_recipe("demo_dinogrl", TINY)
    model = train(recipe, world, tmp_path / "run")
    evaluate_checkpoint(model, world)
    metrics = read_metrics(tmp_path / "run" / "metrics.json")
    assert metrics.dataset == f"simulated ({layout} layout)", "drawn people do not present themselves as the real dataset"
    assert metrics.protocol == PROTOCOLS[layout] and metrics.model == recipe.name and metrics.frames_per_clip == length
    assert list(metrics.directions) == [direction.name for direction in PROTOCOL_ENTRIES[metrics.protocol].directions]
    assert all(direction.queries > 0 for direction in metrics.directions.values())


def test_regdb_is_trained_and_scored_on_the_trial_that_is_asked_for(tmp_path: Path) -> None:
    settings = Settings(layout="regdb", identities=8, tracklets=1, frames=2, height=64, width=32, silhouettes=False)
    world = simulate(tmp_path / "world", settings, workers=1).root
    model = train(load_recipe("demo_baseline", [*BASELINE, "data.trial=3"]), world, tmp_path / "run")
    metrics = evaluate_checkpoint(model, world)
    assert metrics.options == {"trial": 3}
    query = load_embeddings(tmp_path / "run/query.safetensors")
    assert query.tracklet_ids == [row.split()[0] for row in (world / "idx/test_thermal_3.txt").read_text().splitlines()]
    assert query.tracklet_ids != [row.split()[0] for row in (world / "idx/test_thermal_1.txt").read_text().splitlines()]


def test_single_images_and_long_clips_do_not_go_together(tmp_path: Path) -> None:
    """To train on, six times the same image is a waste; a model of video still looks at images, each once."""
    settings = Settings(layout="llcm", identities=6, tracklets=1, frames=2, height=64, width=32, silhouettes=False)
    world = simulate(tmp_path / "world", settings, workers=1).root
    with pytest.raises(DataError, match=r"holds single images, the recipe's clips have 2 frames; use the recipe dinogrl_image"):
        train(load_recipe("demo_baseline", [*BASELINE, "data.frames=2"]), world, tmp_path / "long")
    model = train(load_recipe("demo_baseline", BASELINE), world, tmp_path / "run")
    assert evaluate_checkpoint(model, world).frames_per_clip == 1


def test_the_wrong_layout_is_one_clear_error(tiny_world: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        train(load_recipe("demo_dinogrl", [*TINY, "data.layout=buptcampus"]), tiny_world, tmp_path / "run")
    assert "\n" not in str(error.value) and str(tiny_world) in str(error.value)


def test_a_protocol_that_does_not_exist_is_said_before_the_training(tiny_world: Path, tmp_path: Path) -> None:
    with pytest.raises(DinogrlError, match=r"unknown protocol 'hitsz'.*did you mean 'hitsz-vcm'"):
        train(load_recipe("demo_dinogrl", [*TINY, "evaluation.protocol=hitsz"]), tiny_world, tmp_path / "run")
    assert not (tmp_path / "run").exists()


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
    with pytest.raises(DataError, match="expected the frames of one tracklet, a list"):
        embedder.embed(str(tiny_world), "visible")
    with pytest.raises(DataError, match="without frames"):
        embedder.embed([], "visible")
