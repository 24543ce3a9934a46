"""Trainings that keep frozen features: the same model to the last byte, and a prior that has nothing to do but in the steps."""

from __future__ import annotations

import shlex
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor

from dinogrl.cli import main as cli
from dinogrl.embedding.feature_cache import FeatureCache
from dinogrl.models.backbones.frozen import FrozenPrior, Tokens
from dinogrl.recipes import Recipe, load_recipe
from dinogrl.reproduce.plan import Settings
from dinogrl.reproduce.reproduce import prepare
from dinogrl.training.run import MODEL, train
from tiny_recipe import TINY

HELD = ["training.selection=holdout", "training.holdout=0.5", "training.holdout_every=1", "training.epochs=3"]


def recipe(*overrides: str) -> Recipe:
    return load_recipe("demo_dinogrl", [*TINY, *HELD, *overrides])


@pytest.fixture
def at_work(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What each call of a prior's transformer was for, "a step" or "a look", from now on."""
    seen: list[str] = []
    compute = FrozenPrior._compute

    def watched(prior: FrozenPrior, frames: Tensor) -> Tokens:
        seen.append("a step" if torch.is_grad_enabled() else "a look")
        return compute(prior, frames)

    monkeypatch.setattr(FrozenPrior, "_compute", watched)
    return seen


def test_the_same_model_to_the_last_byte_and_no_prior_in_looks(tiny_world: Path, tmp_path: Path, at_work: list[str]) -> None:
    caches = [None, FeatureCache(tmp_path / "cache"), FeatureCache(tmp_path / "cache")]
    files, calls = [], []
    for turn, cache in enumerate(caches):
        at_work.clear()
        files.append(train(recipe(), tiny_world, tmp_path / str(turn), feature_cache=cache).read_bytes())
        calls.append((at_work.count("a step"), at_work.count("a look")))
    assert files[0] == files[1] == files[2]
    (steps, looks), (of_first, filling), (of_second, reading) = calls
    assert steps == of_first == of_second == 6, "the steps compute all by themselves"
    assert looks > filling > reading == 1, "one call is before the first step, where the silhouette starts"
    _, first, second = caches
    assert first is not None and second is not None
    assert first.read > 0 and second.computed == 0 and second.read == first.read + first.computed


def test_a_training_that_was_stopped_goes_on_with_its_cache(tiny_world: Path, tmp_path: Path, at_work: list[str]) -> None:
    whole = train(recipe(), tiny_world, tmp_path / "whole").read_bytes()

    class Stop(Exception):
        pass

    def stop_in_the_second_epoch(progress: object) -> None:
        if progress.epoch == 1:  # type: ignore[attr-defined]
            raise Stop

    with pytest.raises(Stop):
        train(recipe(), tiny_world, tmp_path / "run", feature_cache=FeatureCache(tmp_path), on_progress=stop_in_the_second_epoch)
    at_work.clear()
    cache = FeatureCache(tmp_path)
    assert train(recipe(), tiny_world, tmp_path / "run", feature_cache=cache, resume=True).read_bytes() == whole
    assert cache.read > 0 and at_work.count("a step") == 4


def test_of_a_prior_that_learns_nothing_is_kept(tiny_world: Path, tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "cache")
    learning = recipe("model.gait.prior.lora={rank: 2, blocks: 1}", "training.epochs=1")
    train(learning, tiny_world, tmp_path / "run", feature_cache=cache)
    assert not list((tmp_path / "cache").iterdir()) and cache.read + cache.computed == 0


def test_the_command_keeps_reads_and_says_how_to_go_on(
    tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "demo_dinogrl", *TINY, *HELD, "--data", str(tiny_world), "--feature-cache", str(tmp_path / "cache")]
    with monkeypatch.context() as patch:
        patch.setattr("dinogrl.cli.training._show", Mock(side_effect=KeyboardInterrupt))
        assert cli.main([*words, "--feature-cache-size", "0.5", "--out", str(tmp_path / "stopped")]) == 130
    line = capsys.readouterr().err.strip().splitlines()[-1].partition("go on by: dinogrl ")[2]
    assert f"--feature-cache {tmp_path / 'cache'} --feature-cache-size 0.5 --resume" in line
    assert cli.main(shlex.split(line)) == 0
    assert ", of 0 computed" not in capsys.readouterr().err
    assert cli.main([*words, "--out", str(tmp_path / "another")]) == 0
    assert ", of 0 computed" in capsys.readouterr().err
    assert (tmp_path / "stopped" / MODEL).read_bytes() == (tmp_path / "another" / MODEL).read_bytes()


TABLE = """
title: two rows on one prior
recipe: demo_dinogrl
rows:
  - {label: "no triplets", overrides: [objective.triplet=0]}
  - {label: all}
"""


def test_rows_of_a_table_share_features_and_have_the_numbers_they_had(
    tiny_world: Path, tmp_path: Path, at_work: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "two.yaml").write_text(TABLE)
    words = ["reproduce", str(tmp_path / "two.yaml"), *TINY, "training.epochs=1", "--data", str(tiny_world)]
    assert cli.main([*words, "--out", str(tmp_path / "plain")]) == 0
    without = at_work.count("a look")
    capsys.readouterr()
    at_work.clear()
    cached = [*words, "--out", str(tmp_path / "cached"), "--feature-cache", str(tmp_path / "cache")]
    assert cli.main([*cached, "--dry-run"]) == 0 and not (tmp_path / "cache").exists()
    assert cli.main(cached) == 0
    assert "feature cache" in capsys.readouterr().err and at_work.count("a look") < without
    found = [{path.relative_to(tmp_path / out): path.read_bytes() for path in files(tmp_path / out)} for out in ("plain", "cached")]
    assert found[0] == found[1] and len(found[0]) == 5
    plan = prepare([str(tmp_path / "two.yaml")], tiny_world, Settings(tmp_path / "by hand", overrides=(*TINY, "training.epochs=1")))
    reading = FeatureCache(tmp_path / "cache")
    plan.carry_out(lambda *_: None, reading)
    assert reading.read > 0 and reading.computed == 0


def files(out: Path) -> list[Path]:
    """What must not depend on a cache: the table's numbers, models and scores."""
    return [*out.glob("two.csv"), *out.glob("*/model.safetensors"), *out.glob("*/metrics.json")]
