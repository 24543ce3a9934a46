"""What searching needs is learned at the end of a training, on training people only."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny_datasets
from dinogrl.data.datasets import open_dataset
from dinogrl.embedding.prepare import prepare_search
from dinogrl.embedding.search_aids import aids_of
from dinogrl.errors import DataError
from dinogrl.models.archive import load_model, save_model
from dinogrl.recipes import load_recipe
from dinogrl.records import Embeddings
from dinogrl.training import run
from dinogrl.training.run import train
from tiny_models import tiny_model, tiny_recipe
from tiny_recipe import TINY

BASELINE = [override for override in TINY if "gait" not in override and "enhancement" not in override]


def test_a_trained_model_carries_its_aids(tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Embeddings] = []
    monkeypatch.setattr("dinogrl.embedding.prepare.learn_aids", _noting(seen))
    recipe = load_recipe("baseline", [*BASELINE, "training.selection=holdout", "training.holdout=0.5", "training.holdout_every=1"])
    trained = load_model(train(recipe, tiny_world, tmp_path / "run"))
    aids = aids_of(trained)
    assert aids is not None and aids.projection.shape == seen[0].parts.shape[1:]
    fit, held = seen
    assert {*fit.identities.tolist()}.isdisjoint(held.identities.tolist()) and len(held) > 0
    assert not (tmp_path / "run" / "best.safetensors").exists()


def test_it_can_be_left_out(tiny_world: Path, tmp_path: Path) -> None:
    recipe = load_recipe("baseline", [*BASELINE, "training.search_tracklets=0"])
    assert aids_of(load_model(train(recipe, tiny_world, tmp_path / "run"))) is None


def test_a_frame_lost_by_then_does_not_cost_the_model(
    tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def lost(*_: object, **__: object) -> None:
        raise DataError("frame x.jpg is missing")

    monkeypatch.setattr(run, "search_aids", lost)
    model = train(load_recipe("baseline", BASELINE), tiny_world, tmp_path / "run")
    assert aids_of(load_model(model)) is None and "dinogrl gallery learn" in caplog.text


def test_learning_afterwards_reads_what_training_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of RegDB the split that the model was trained on: the training people of another were tested."""
    data = tiny_datasets.regdb(tmp_path / "regdb", trials=2)
    recipe = tiny_recipe("baseline", "data.trial=2", "data.frames=1")
    save_model(tmp_path / "m.safetensors", tiny_model("baseline"), recipe, 5, {})
    seen: list[Embeddings] = []
    monkeypatch.setattr("dinogrl.embedding.prepare.learn_aids", _noting(seen))
    prepare_search(tmp_path / "m.safetensors", data, device="cpu")
    assert seen[0].tracklet_ids == [tracklet.id for tracklet in open_dataset(data, trial=2).train]
    assert seen[0].tracklet_ids != [tracklet.id for tracklet in open_dataset(data, trial=1).train]


def _noting(seen: list[Embeddings]):
    from dinogrl.embedding.search_aids import learn_aids

    def noted(embeddings: Embeddings, distance: str, *, held: Embeddings | None, seed: int):
        seen.extend([embeddings, *([] if held is None else [held])])
        return learn_aids(embeddings, distance, held=held, seed=seed)

    return noted
