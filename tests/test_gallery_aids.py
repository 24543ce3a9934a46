"""The compact vector ranks as the part distances do; the probability rises as the distance falls, and means what it says."""

from __future__ import annotations

import json
from itertools import combinations, pairwise
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from dinogrl.distances import mean_part_distance
from dinogrl.embedding import search_aids
from dinogrl.embedding.calibration import CROSS, LEAST_PEOPLE, WITHIN, Calibration, Curve, in_per_cent, learn_curve
from dinogrl.embedding.compact import learn_projection
from dinogrl.embedding.prepare import spread
from dinogrl.embedding.search_aids import SearchAids, aids_of, learn_aids, store_aids
from dinogrl.errors import CheckpointError, DataError
from dinogrl.models.archive import load_model, save_model
from dinogrl.records import Embeddings, Modality, Tracklet
from tiny_models import tiny_model, tiny_recipe


def correlated(count: int, parts: int = 6, depth: int = 16, latent: int = 12, seed: int = 0) -> np.ndarray:
    """(count,P,D): all parts are seen through one latent, and a part of its own size each."""
    random = np.random.default_rng(seed)
    seen = np.random.default_rng(99).standard_normal((latent, parts, depth)) * np.geomspace(0.2, 5, parts)[:, None]
    return np.einsum("nl,lpd->npd", random.standard_normal((count, latent)), seen).astype(np.float32)


def recall(parts: np.ndarray, queries: np.ndarray, width: int, training: np.ndarray, kept: int = 20) -> float:
    """Share of the true ten that stand among the first ``kept`` by compact vectors."""
    projection = learn_projection(training, width)
    compact = np.linalg.norm(projection(queries)[:, None] - projection(parts)[None], axis=2)
    truth = np.argsort(mean_part_distance(queries, parts), axis=1)[:, :10]
    found = np.argsort(compact, axis=1)[:, :kept]
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(truth, found, strict=True)]))


def test_what_lies_in_few_directions_is_kept() -> None:
    gallery, queries = correlated(1000, seed=1), correlated(20, seed=2)
    assert recall(gallery, queries, 16, correlated(200, seed=3)) == 1.0


def test_few_training_tracklets_leave_a_sketch() -> None:
    """Five tracklets say next to nothing; random directions still keep the neighbours together."""
    gallery, queries = correlated(1000, seed=1), correlated(20, seed=2)
    assert recall(gallery, queries, 64, correlated(5, seed=3), kept=60) > 0.9
    assert recall(gallery, queries, 64, correlated(1, seed=3), kept=60) > 0.9


def test_the_sketch_keeps_lengths_on_average() -> None:
    rows = np.random.default_rng(0).standard_normal((400, 4, 32)).astype(np.float32)
    projection = learn_projection(rows[:40], 48)  # ten principal directions, the rest a sketch
    apart = projection(rows[100:200]) - projection(rows[200:300])
    scale = projection.matrix.max(axis=1)  # not used but for its shape: the parts' scales are close to 1 here
    true = (rows[100:200] - rows[200:300]).reshape(100, -1)
    ratio = np.square(apart).sum(1).mean() / np.square(true).sum(1).mean()
    assert scale.shape == (128,) and 0.85 < ratio < 1.15


def test_all_directions_are_an_isometry() -> None:
    """With as many numbers as there are, nothing is lost: distances of one part are exact."""
    rows = np.random.default_rng(0).standard_normal((300, 1, 20)).astype(np.float32)
    projection = learn_projection(rows, 20)
    apart = np.linalg.norm(projection(rows[:10])[:, None] - projection(rows[10:20])[None], axis=2)
    np.testing.assert_allclose(apart, mean_part_distance(rows[:10], rows[10:20]), rtol=1e-4)


def test_parts_are_scaled_so_that_squares_rank_as_norms() -> None:
    """A part three times as large as the others weighs three times in a mean of norms, but nine times in a sum of squares."""
    parts = np.random.default_rng(0).standard_normal((800, 5, 8)).astype(np.float32)
    parts[:, 0] *= 3
    plain = parts.reshape(800, -1)
    truth = np.argsort(mean_part_distance(parts[:200], parts), axis=1)[:, :10]
    unscaled = np.argsort(np.linalg.norm(plain[:200, None] - plain[None], axis=2), axis=1)[:, :20]
    without = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(truth, unscaled, strict=True)])
    assert recall(parts, parts[:200], 40, parts) > without + 0.02


def test_a_dead_part_and_equal_tracklets_do_no_harm() -> None:
    parts = correlated(50)
    parts[:, 2] = 3.0
    assert np.isfinite(learn_projection(parts, 8)(parts)).all()
    assert np.isfinite(learn_projection(np.ones((30, 2, 3), np.float32), 8)(parts[:, :2, :3])).all()


def test_projection_of_another_shape_is_refused() -> None:
    projection = learn_projection(correlated(20), 8)
    with pytest.raises(DataError, match="6x16 a row, given"):
        projection(correlated(3, parts=5))
    with pytest.raises(DataError, match="no tracklet"):
        learn_projection(correlated(0), 8)


# -- calibration ------------------------------------------------------------------------------------------------------------------


@hypothesis.given(st.integers(0, 10_000), st.floats(-3, 3), st.floats(0.05, 5))
@hypothesis.settings(max_examples=25, deadline=None)
def test_probability_falls_with_distance(seed: int, shift: float, scale: float) -> None:
    """Whatever the scores, even where people are nearer to others than to themselves."""
    random = np.random.default_rng(seed)
    curve = learn_curve(random.normal(2 - shift, scale, 60), random.normal(2, scale, 90))
    assert curve is not None and curve.slope >= 0
    values = [curve(distance) for distance in np.linspace(-50, 50, 60)]
    assert all(0 <= later <= earlier <= 1 for earlier, later in pairwise(values))


def test_probabilities_mean_what_they_say() -> None:
    """Distances drawn so that the truth is logistic: of the pairs said to be 70 % likely, 70 % are the same person."""
    random = np.random.default_rng(4)

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        distances = random.uniform(0, 4, 4 * count)
        same = random.random(4 * count) < 1 / (1 + np.exp(-(4 - 2.5 * distances)))
        half = min(same.sum(), (~same).sum())
        return distances[same][:half], distances[~same][:half]

    same, different = draw(20_000)
    curve = learn_curve(same, different)
    assert curve is not None
    new_same, new_different = draw(20_000)
    for low, high in ((0.1, 0.3), (0.3, 0.5), (0.5, 0.7), (0.7, 0.9)):
        counts = [
            sum(low <= curve(float(distance)) < high for distance in kind) / len(kind)
            for kind in (new_same[:6000], new_different[:6000])
        ]
        observed = counts[0] / sum(counts)
        assert low - 0.03 <= observed <= high + 0.03, (low, high, observed)


def test_a_prior_shifts_the_odds() -> None:
    curve = Curve(offset=2.0, slope=1.0)
    assert curve(2.0) == pytest.approx(0.5)
    assert curve(2.0, prior=0.01) == pytest.approx(0.01)
    odds = curve(1.0, prior=0.2) / (1 - curve(1.0, prior=0.2))
    assert odds == pytest.approx(np.exp(1.0) * 0.25)


def test_too_few_pairs_make_no_curve() -> None:
    assert learn_curve(np.ones(5), np.ones(500)) is None
    separate = learn_curve(np.linspace(0, 1, 50), np.linspace(2, 3, 50))
    assert separate is not None and np.isfinite([separate.offset, separate.slope]).all()
    told_apart = learn_curve(np.zeros(50), np.ones(30))
    assert told_apart is not None
    assert (told_apart(0.0), told_apart(1.0)) == (pytest.approx(51 / 52, abs=1e-3), pytest.approx(1 / 32, abs=1e-3)), "Platt's"
    alike = np.linspace(0, 1, 20)
    many_others = learn_curve(alike, np.tile(alike, 10))
    assert many_others is not None and many_others(0.5) == pytest.approx(0.5, abs=0.03), "both kinds weigh the same"
    equal = learn_curve(np.ones(50), np.ones(50))
    assert equal is not None and [equal(distance) for distance in (0.0, 1.0, 1.0001, 2.0)] == [0.5] * 4, "nothing to tell by"


def people(identities: int = 12, each: int = 6, seed: int = 0) -> Embeddings:
    """Two modalities, three cameras; infrared lies a step away from visible."""
    random = np.random.default_rng(seed)
    ids, turn = np.repeat(np.arange(identities), each), np.tile(np.arange(each), identities)
    parts = random.standard_normal((identities, 3, 8))[ids] + 0.3 * random.standard_normal((len(ids), 3, 8))
    parts += 0.4 * (turn % 2)[:, None, None]
    return Embeddings(parts.astype(np.float32), [f"t{i}" for i in range(len(ids))], ids, turn % 3, turn % 2, "f" * 16)


def test_aids_lie_with_the_model_and_leave_its_fingerprint(tmp_path: Path) -> None:
    recipe = tiny_recipe("baseline")
    save_model(tmp_path / "m.safetensors", tiny_model("baseline"), recipe, 5, {"epoch": 3})
    before = load_model(tmp_path / "m.safetensors")
    assert aids_of(before) is None
    for seed in (0, 1):  # the second replaces the first
        aids = learn_aids(people(seed=seed), width=12)
        store_aids(tmp_path / "m.safetensors", aids)
    after = load_model(tmp_path / "m.safetensors")
    assert (after.fingerprint, after.facts, after.recipe) == (before.fingerprint, before.facts, before.recipe)
    assert all(
        torch.equal(a, b) for a, b in zip(before.network.state_dict().values(), after.network.state_dict().values(), strict=True)
    )
    stored = aids_of(after)
    assert stored is not None and stored.calibration == aids.calibration and stored.calibration is not None
    np.testing.assert_allclose(stored.projection(people().parts), aids.projection(people().parts), rtol=0.02, atol=0.02)
    again = SearchAids.from_bytes(stored.to_bytes())
    np.testing.assert_array_equal(again.projection.matrix, stored.projection.matrix)
    assert again.calibration == stored.calibration
    with pytest.raises(CheckpointError, match="search aids cannot be read"):
        SearchAids.from_bytes(stored.to_bytes()[:50])


def test_each_kind_of_pair_has_its_own_curve() -> None:
    calibration = learn_aids(people()).calibration
    assert calibration is not None and set(calibration.curves) == {CROSS, WITHIN}
    assert "12 training identities" in calibration.source
    held = learn_aids(people(), held=people(11, seed=5)).calibration
    assert held is not None and "11 held-out training identities" in held.source
    lonely = Calibration({CROSS: Curve(1, 1)})
    assert lonely.probability(1.0, same_modality=True) is None and lonely.probability(1.0, same_modality=False) == pytest.approx(
        0.5
    )
    assert Calibration.from_dict(json.loads(json.dumps(calibration.as_dict()))) == calibration
    assert learn_aids(people(2, 2)).calibration is None


def test_the_recipes_distance_decides_what_is_learned() -> None:
    """By the cosine a tracklet's length says nothing: neither to the compact vectors nor to the curves."""
    longer = people()
    longer.parts = longer.parts * np.random.default_rng(1).uniform(1, 9, len(longer))[:, None, None].astype(np.float32)
    plain, scaled = (learn_aids(embeddings, "cosine", width=12) for embeddings in (people(), longer))
    compact = plain.projection(people().parts), scaled.projection(longer.parts)
    apart = [np.linalg.norm(rows[:, None] - rows[None], axis=2) for rows in compact]
    np.testing.assert_allclose(apart[1], apart[0], atol=1e-4)
    assert plain.calibration is not None and scaled.calibration is not None
    for kind, curve in plain.calibration.curves.items():
        assert scaled.calibration.curves[kind].slope == pytest.approx(curve.slope, rel=0.01)


def test_held_out_people_are_for_the_curves_alone() -> None:
    fit, held = people(), people(11, seed=5)
    np.testing.assert_array_equal(
        learn_aids(fit, held=held, width=12).projection.matrix, learn_aids(fit, width=12).projection.matrix
    )
    assert learn_aids(fit, held=held, width=12).calibration != learn_aids(fit, width=12).calibration


def test_curves_are_learned_from_pairs_of_different_cameras(monkeypatch: pytest.MonkeyPatch) -> None:
    some, seen = people(10, each=12), []
    monkeypatch.setattr(search_aids, "learn_curve", lambda same, different, people: seen.append((same, different)))
    learn_aids(some)
    between = mean_part_distance(some.parts, some.parts)
    for across, (same, different) in zip((True, False), seen, strict=True):
        pairs = [
            (i, j)
            for i, j in combinations(range(len(some)), 2)
            if (some.modalities[i] != some.modalities[j]) == across and (across or some.cameras[i] != some.cameras[j])
        ]
        for found, alike in ((same, True), (different, False)):
            expected = [between[i, j] for i, j in pairs if (some.identities[i] == some.identities[j]) == alike]
            np.testing.assert_array_equal(found, expected)


def test_few_people_give_no_percentage_however_many_their_pairs() -> None:
    assert learn_aids(people(9, each=12)).calibration is None
    enough = learn_aids(people(10, each=12)).calibration
    assert enough is not None and {curve.people for curve in enough.curves.values()} == {10}
    alone = people(10, each=12)
    alone.modalities[alone.identities >= 6] = 0  # four of the ten were seen in one modality only
    half = learn_aids(alone).calibration
    assert half is not None and set(half.curves) == {WITHIN}, "each kind of pair counts its own people"


def test_a_curve_is_no_surer_than_its_people_allow() -> None:
    """Far apart, two people have never been one in 18 people: that it holds for the next is known with 19 in 20."""
    curve = Curve(offset=50.0, slope=10.0, people=18)
    assert (curve(0.0), curve(50.0)) == (pytest.approx(0.95), pytest.approx(0.05))
    assert curve(4.9) == pytest.approx(1 / (1 + np.exp(-1))), "what lies between is as it was"
    assert curve(0.0, prior=0.1) == pytest.approx(19 / (19 + 9)), "the bound is on what was learned, not on what is expected"
    earlier = Calibration.from_dict({"source": "an earlier version", "curves": {CROSS: [2, 1]}}).curves[CROSS]
    assert earlier == Curve(2.0, 1.0, LEAST_PEOPLE), "who does not say how many people it saw is taken to have seen few"


@pytest.mark.parametrize(
    ("probability", "said"),
    [
        (0.0, "under 1 %"),
        (0.0099, "under 1 %"),
        (0.01, "1 %"),
        (0.125, "13 %"),
        (0.5, "50 %"),
        (0.99, "99 %"),
        (0.991, "over 99 %"),
        (1.0, "over 99 %"),
    ],
)
def test_nothing_is_said_to_be_sure(probability: float, said: str) -> None:
    assert in_per_cent(probability) == said


def test_the_chosen_tracklets_are_of_as_many_people_as_possible() -> None:
    tracklets = [Tracklet(f"{i}", i % 40, 0, Modality(i // 40 % 2), ".", ("a",)) for i in range(800)]
    chosen = spread(tracklets, 100)
    assert len(chosen) == 100 and chosen == spread(tracklets, 100)
    assert {(t.identity, t.modality) for t in chosen} == {(i, m) for i in range(40) for m in Modality}
    assert spread(tracklets, 800) == tracklets
