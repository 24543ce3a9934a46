"""A difference between two methods: judged on the same redrawn people, coloured in a report only where it is more than chance."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from dinogrl.embedding.archive import save_embeddings
from dinogrl.errors import DataError
from dinogrl.evaluation import evaluate, write_metrics
from dinogrl.evaluation.evaluate import Outcome, difference_intervals
from dinogrl.evaluation.metrics import QueryScores, bootstrap, bootstrap_difference
from dinogrl.records import Embeddings
from dinogrl.reports.page import write_page
from dinogrl.runtime import derived_seed


def some_scores(people: np.ndarray, seed: int, ease: np.ndarray) -> QueryScores:
    """Queries of people who are easy or hard for every method."""
    random = np.random.default_rng(seed)
    precision = np.clip(ease[people] + 0.05 * random.standard_normal(len(people)), 0.01, 1)
    matches = np.ones(len(people), np.int64)
    matches[::7] = 0
    return QueryScores((precision < 0.5).astype(np.int64), precision, precision / 2, matches)


def test_the_interval_of_a_difference_is_the_literal_one() -> None:
    people = np.repeat(np.arange(9), 5)
    ease = np.random.default_rng(3).random(9)
    first, last = some_scores(people, 1, ease), some_scores(people, 2, ease)
    found = bootstrap_difference(first, last, people, draws=300, seed=4)
    counts = np.random.default_rng(derived_seed("bootstrap", 4)).multinomial(9, np.full(9, 1 / 9), size=300)
    changes = []
    for times in counts:
        rows = np.concatenate([np.flatnonzero(first.valid & (people == one)).repeat(often) for one, often in enumerate(times)])
        means = [[(s.first[rows] == 0).mean(), s.precision[rows].mean(), s.penalty[rows].mean()] for s in (first, last)]
        changes.append(np.subtract(means[1], means[0]))
    for i, name in enumerate(("rank1", "mAP", "mINP")):
        assert (found[name].low, found[name].high) == pytest.approx(tuple(np.quantile(np.array(changes)[:, i], [0.025, 0.975])))


def test_methods_that_were_not_asked_the_same_are_not_compared() -> None:
    every, fewer = (
        QueryScores(np.zeros(3, np.int64), np.ones(3), np.ones(3), np.array(matches)) for matches in ([1, 1, 1], [1, 0, 1])
    )
    with pytest.raises(DataError, match="not asked the same queries"):
        bootstrap_difference(every, fewer, [1, 2, 3])


def test_people_who_are_hard_for_both_widen_no_difference() -> None:
    people = np.repeat(np.arange(40), 5)
    ease = np.random.default_rng(0).uniform(0.2, 0.9, 40)
    first, last = some_scores(people, 1, ease), some_scores(people, 2, ease)
    alone, together = bootstrap(first, people)["mAP"], bootstrap_difference(first, last, people)["mAP"]
    assert together.high - together.low < (alone.high - alone.low) / 4
    nothing = bootstrap_difference(first, first, people)["mAP"]
    assert (nothing.low, nothing.high) == (0, 0)
    with pytest.raises(DataError, match="not asked the same queries"):
        bootstrap_difference(first, last.take(np.arange(10)), people)


def run_of(folder: Path, noise: float, people: int, seed: int = 7) -> Path:
    """A run whose embeddings are a person's own vector and ``noise``."""
    sides = []
    for modality in (1, 0):
        random = np.random.default_rng([modality, seed])
        ids, cameras = np.repeat(np.arange(people), 4), np.tile(np.arange(4), people)
        parts = np.random.default_rng(3).standard_normal((people, 2, 8))[ids] + noise * random.standard_normal((len(ids), 2, 8))
        names, modalities = [f"{modality}-{row}" for row in range(len(ids))], np.full(len(ids), modality)
        sides.append(Embeddings(parts.astype(np.float32), names, ids, cameras, modalities, f"{int(noise * 1e6):016x}"))
    folder.mkdir()
    save_embeddings(folder / "query.safetensors", sides[0])
    save_embeddings(folder / "gallery.safetensors", sides[1])
    found = evaluate(*sides, "hitsz-vcm")
    write_metrics(folder / "metrics.json", found, dataset="hitsz-vcm", model=folder.name, frames_per_clip=6)
    return folder


def page_of(folder: Path, *runs: Path) -> str:
    return write_page(folder / "report.html", runs, projection="pca").read_text()


def test_only_what_is_more_than_chance_is_coloured(tmp_path: Path) -> None:
    poor, good = run_of(tmp_path / "poor", 3.0, 30), run_of(tmp_path / "good", 0.8, 30)
    alike = run_of(tmp_path / "alike", 3.0, 30, seed=11)
    better, back, same = page_of(tmp_path, poor, good), page_of(tmp_path, good, poor), page_of(tmp_path, poor, alike)
    assert '<span class="better">+' in better and '<span class="worse">' not in better and "may be chance:" not in better
    assert '<span class="worse">-' in back and '<span class="better">' not in back
    assert '<span class="better">' not in same and '<span class="worse">' not in same and "may be chance: Rank-1 and mAP" in same
    assert re.search(r"<small>[+-]\d+\.\d to [+-]\d+\.\d</small>", same), "the interval of the difference stands below it"


def test_few_people_tell_nothing_however_large_the_difference(tmp_path: Path) -> None:
    page = page_of(tmp_path, run_of(tmp_path / "poor", 4.0, 5), run_of(tmp_path / "good", 0.1, 5))
    assert '<span class="better">' not in page and "may be chance: Rank-1 and mAP" in page


def test_without_embeddings_no_difference_is_judged(tmp_path: Path) -> None:
    poor, good = run_of(tmp_path / "poor", 3.0, 30), run_of(tmp_path / "good", 0.8, 30)
    (poor / "query.safetensors").unlink()
    page = page_of(tmp_path, poor, good)
    assert "difference</th>" in page and '<span class="better">' not in page and "may be chance:" not in page


def test_trials_are_all_redrawn() -> None:
    """Where the gallery is drawn several times, the difference is one over all drawings, as the scores are."""
    ids = np.repeat(np.arange(8), 6)

    def outcome(noise: float, seed: int) -> Outcome:
        own = np.random.default_rng(1).standard_normal((8, 2, 8))
        parts = own[ids] + noise * np.random.default_rng(seed).standard_normal((48, 2, 8))
        cameras = np.tile([1, 2, 3, 4, 5, 6], 8)
        modalities = np.isin(cameras, [3, 6]).astype(int)
        whole = Embeddings(parts.astype(np.float32), [f"t{i}" for i in range(48)], ids, cameras, modalities, "f" * 16)
        found = evaluate(whole.take(modalities == 1), whole.take(modalities == 0), "sysu-mm01")
        return next(iter(found.directions.values()))

    first, last = outcome(2.0, 5), outcome(1.0, 6)
    assert len(first.trials) == 10 and len(first.all_queries[1]) == 160
    change, whole = last.scores.mAP - first.scores.mAP, difference_intervals(first, last)["mAP"]
    assert whole.low < change < whole.high
    last.query.tracklet_ids[0] = "another"
    assert difference_intervals(first, last) == {}
