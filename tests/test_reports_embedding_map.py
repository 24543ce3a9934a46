"""The map of embeddings: every projection lays people out by the ranked distance, the same each time, and says what it is."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from dinogrl.errors import DataError, UnknownNameError
from dinogrl.evaluation import evaluate
from dinogrl.evaluation.evaluate import Outcome
from dinogrl.records import Embeddings, Modality
from dinogrl.reports import figures
from dinogrl.reports.embedding_map import Flat, flatten
from dinogrl.reports.page import write_page
from tiny_runs import make_run


def people(modality: Modality, each: int, count: int = 12) -> Embeddings:
    """Tight groups far apart, the same in both modalities; the first people have more tracklets than the last."""
    random = np.random.default_rng(int(modality))
    ids = np.concatenate([np.full(each + (identity < 10), identity) for identity in range(count)])
    centres = np.random.default_rng(5).standard_normal((count, 2, 8))
    return Embeddings(
        parts=(centres[ids] + 0.05 * random.standard_normal((len(ids), 2, 8))).astype(np.float32),
        tracklet_ids=[f"{modality.name}-{i}" for i in range(len(ids))],
        identities=ids,
        cameras=np.full(len(ids), int(modality)),
        modalities=np.full(len(ids), int(modality)),
        fingerprint="f",
    )


def outcome(each: int = 4, count: int = 12) -> Outcome:
    sides = (people(modality, each, count) for modality in (Modality.INFRARED, Modality.VISIBLE))
    return evaluate(*sides, "hitsz-vcm").directions["infrared_to_visible"]


def nearest_is_the_same_person(flat: Flat) -> float:
    apart = np.linalg.norm(flat.points[:, None] - flat.points[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    return float((flat.identities[apart.argmin(1)] == flat.identities).mean())


@pytest.mark.parametrize(
    ("name", "title"), [("pca", "principal components"), ("tsne", "t-SNE"), pytest.param("umap", "UMAP", marks=pytest.mark.slow)]
)
def test_each_projection_keeps_people_together_and_is_the_same_again(name: str, title: str) -> None:
    made = outcome()
    flat = flatten(made, "mean_part", name)
    assert flat.points.shape == (100, 2) and np.isfinite(flat.points).all() and flat.method == title
    assert set(flat.identities.tolist()) == set(range(10)), "the ten people with the most tracklets"
    assert set(flat.modalities.tolist()) == {0, 1}
    assert nearest_is_the_same_person(flat) > 0.9
    assert flat.note.startswith(title) and ("seed 0" in flat.note) == (name != "pca")
    np.testing.assert_array_equal(flat.points, flatten(made, "mean_part", name).points, "the same seed gives the same map")
    assert figures.themed_svg(figures.embedding_map(flat), "map").count("<use") >= 100
    if name == "tsne":
        assert not np.allclose(flat.points, flatten(made, "cosine", name).points), "it is the ranked distance that is drawn"


def test_many_tracklets_of_one_person_are_thinned() -> None:
    made = outcome(each=70, count=2)
    flat = flatten(made, "mean_part", "pca")
    counts = [((flat.identities == i) & (flat.modalities == m)).sum() for i in range(2) for m in range(2)]
    assert counts == [50, 50, 50, 50]


def test_auto_falls_back_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    made = outcome()
    assert flatten(made, "mean_part", "auto").method == "t-SNE"
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    flat = flatten(made, "mean_part", "auto")
    assert flat.method == "principal components" and "pip install 'dinogrl[projections]'" in flat.note
    with pytest.raises(DataError, match="t-SNE needs scikit-learn"):
        flatten(made, "mean_part", "tsne")
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(DataError, match="UMAP needs umap-learn"):
        flatten(made, "mean_part", "umap")


def test_few_tracklets_and_equal_ones() -> None:
    flat = flatten(outcome(each=0, count=2), "mean_part", "tsne")
    assert flat.method == "principal components" and "4 tracklets are too few for t-SNE" in flat.note
    assert flat.points.shape == (4, 2)
    same = outcome()
    for side in (same.query, same.gallery):
        side.parts = np.ones_like(side.parts)
    for name in ("pca", "tsne"):
        assert np.isfinite(flatten(same, "mean_part", name).points).all()


def test_the_page_names_the_projection(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "dinogrl", 1.0, None, False, steps=20)
    page = {name: write_page(tmp_path / f"{name}.html", [run], projection=name).read_text() for name in ("auto", "pca")}
    assert "t-SNE, seed 0" in page["auto"] and "principal components; distances" in page["pca"]
    with pytest.raises(UnknownNameError, match="did you mean 'tsne'"):
        write_page(tmp_path / "wrong.html", [run], projection="tsn")
    assert not (tmp_path / "wrong.html").exists()
