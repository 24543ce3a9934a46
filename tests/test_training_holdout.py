"""The score of held-out identities, worked out by hand, and the model that is kept for it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dinogrl.errors import DataError
from dinogrl.recipes import load_recipe
from dinogrl.records import Embeddings, Modality
from dinogrl.training import run
from dinogrl.training.holdout import holdout_score
from dinogrl.training.state import Position

# place on a line, identity, camera, modality
INFRARED = [(0.0, 0, 5, Modality.INFRARED), (1.2, 1, 6, Modality.INFRARED)]
VISIBLE = [(0.1, 0, 5, Modality.VISIBLE), (3.0, 0, 1, Modality.VISIBLE), (1.0, 1, 2, Modality.VISIBLE)]


def embeddings(rows: list[tuple[float, int, int, Modality]]) -> Embeddings:
    places, identities, cameras, modalities = zip(*rows, strict=True)
    return Embeddings(
        parts=np.array(places, np.float32).reshape(-1, 1, 1),
        tracklet_ids=[str(row) for row in range(len(rows))],
        identities=np.array(identities),
        cameras=np.array(cameras),
        modalities=np.array([int(modality) for modality in modalities]),
        fingerprint="",
    )


def test_both_directions_without_the_querys_own_camera() -> None:
    scores = holdout_score(embeddings([*VISIBLE, *INFRARED]), "mean_part")
    # Infrared person 0 is not looked for in camera 5, its own: person 1 at 1.0 comes before person 0 at 3.0. Person 1 is found.
    # Of the visible ones the first has nobody left to find, the second finds person 1 first, the third is right.
    for direction in ("infrared_to_visible", "visible_to_infrared"):
        assert scores[f"{direction}_rank1"] == pytest.approx(0.5)
        assert scores[f"{direction}_mAP"] == pytest.approx((1 / 2 + 1) / 2)
    assert scores["score"] == pytest.approx((0.5 + 0.75) / 2)


@pytest.mark.parametrize("rows", [VISIBLE, INFRARED])
def test_held_out_people_of_one_modality_cannot_be_scored(rows: list[tuple[float, int, int, Modality]]) -> None:
    with pytest.raises(DataError, match=r"lack one modality; raise training\.holdout"):
        holdout_score(embeddings(rows), "mean_part")


def keeper(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes the epoch of a model for the model, and draws nothing."""
    monkeypatch.setattr(run._Keeper, "_write", lambda self, name, facts: (self.out / name).write_text(str(facts["epoch"])))
    monkeypatch.setattr(run, "evaluation_loader", lambda *_, **__: None)
    monkeypatch.setattr(run, "extract", lambda *_, **__: None)
    recipe = load_recipe("demo_dinogrl", ["training.search_tracklets=0"])
    network: Any = SimpleNamespace(train=lambda: None)
    return run._Keeper(network, recipe, 5, {}, folder, device="cpu", feature_cache=None)


@pytest.mark.parametrize(
    ("best", "score", "kept"),
    [({}, 0.0, True), ({"score": 0.4}, 0.3, False), ({"score": 0.4}, 0.4, False), ({"score": 0.4}, 0.5, True)],
)
def test_a_model_is_kept_where_it_is_better_than_the_best_so_far(
    best: dict[str, float], score: float, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "holdout_score", lambda *_: {"score": score})
    drawn: Any = SimpleNamespace(score=lambda *_: None)
    told = keeper(tmp_path, monkeypatch).look([], drawn, epoch=6, total=60, position=Position(best=best))
    assert told == {"score": score} and (tmp_path / run.BEST).exists() == kept


@pytest.mark.parametrize("best", ["4", None])
def test_the_best_model_is_the_runs_and_the_last_where_none_was_chosen(
    best: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if best is not None:
        (tmp_path / run.BEST).write_text(best)
    keeper(tmp_path, monkeypatch).finish(Position(epoch=9), split=None)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {run.MODEL: best or "9"}
