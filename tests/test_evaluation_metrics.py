"""CMC, mAP and mINP against a literal evaluator, stored reference numbers and an example worked by hand."""

from __future__ import annotations

import doctest
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dinogrl.distances import DISTANCES
from dinogrl.errors import DataError
from dinogrl.evaluation import evaluate_distances, evaluate_streamed, metrics
from dinogrl.evaluation.metrics import bootstrap, matrix_blocks, score_queries, streamed_blocks
from dinogrl.evaluation.ranking import Meeting, nearest, rank_block
from dinogrl.records import Scores
from dinogrl.runtime import derived_seed


@dataclass
class Case:
    distances: np.ndarray
    query_ids: np.ndarray
    gallery_ids: np.ndarray
    query_cameras: np.ndarray
    gallery_cameras: np.ndarray

    @property
    def labels(self) -> tuple[np.ndarray, ...]:
        return self.query_ids, self.gallery_ids, self.query_cameras, self.gallery_cameras


def literal(case: Case, drop_same_camera: bool, max_rank: int) -> Scores:
    """One query after the other, the whole ranking written out."""
    hits, precisions, penalties, skipped = [], [], [], 0
    for q in range(len(case.query_ids)):
        order = sorted(range(len(case.gallery_ids)), key=lambda g: (case.distances[q, g], g))
        kept = []
        for g in order:
            same_id = case.gallery_ids[g] == case.query_ids[q]
            if drop_same_camera and same_id and case.gallery_cameras[g] == case.query_cameras[q]:
                continue
            kept.append(same_id)
        if not any(kept):
            skipped += 1
            continue
        places = [i for i, right in enumerate(kept) if right]
        hits.append([places[0] < k for k in range(1, max_rank + 1)])
        precisions.append(np.mean([(i + 1) / (place + 1) for i, place in enumerate(places)]))
        penalties.append(len(places) / (places[-1] + 1))
    count = len(hits)
    cmc = np.mean(hits, axis=0) if count else np.zeros(max_rank)
    mAP, mINP = (float(np.mean(v)) if count else 0.0 for v in (precisions, penalties))
    return Scores(cmc, mAP, mINP, count, skipped, len(case.gallery_ids))


def assert_same(a: Scores, b: Scores) -> None:
    np.testing.assert_allclose(a.cmc, b.cmc, atol=1e-12)
    assert (a.queries, a.skipped, a.gallery) == (b.queries, b.skipped, b.gallery)
    assert a.mAP == pytest.approx(b.mAP, abs=1e-12)
    assert a.mINP == pytest.approx(b.mINP, abs=1e-12)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Few identities, few cameras, coarse distances: ties, queries without a match, galleries of one. Distances and zeros of either
    sign, and float64 that float32 cannot tell apart or hold."""
    n, m = draw(st.integers(1, 12)), draw(st.integers(1, 25))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    identities, cameras = draw(st.integers(1, 8)), draw(st.integers(1, 3))
    levels = draw(st.sampled_from([1, 3, 10, 10**6]))
    kind = draw(st.sampled_from([np.float32, np.float64]))
    distances = ((random.integers(0, levels, (n, m)) - draw(st.sampled_from([0, levels // 2]))) / levels).astype(kind)
    distances[(distances == 0) & (random.random((n, m)) < 0.5)] *= -1
    if kind == np.float64:
        distances = distances * draw(st.sampled_from([1.0, 1e-300, 1e300])) + draw(st.sampled_from([0.0, 1e9]))
    if draw(st.booleans()):
        distances[random.random((n, m)) < 0.1] = np.finfo(kind).max
    labels = (random.integers(0, k, size) for k, size in ((identities, n), (identities, m), (cameras, n), (cameras, m)))
    return Case(distances, *labels)


@settings(max_examples=500)
@given(cases(), st.booleans(), st.integers(1, 30), st.sampled_from([1, 60, 2**17]))
def test_agrees_with_the_literal_evaluator(case: Case, drop: bool, max_rank: int, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "BLOCK", block)
        assert_same(evaluate_distances(case.distances, *case.labels, drop, max_rank), literal(case, drop, max_rank))


@settings(max_examples=150)
@given(cases(), st.booleans(), st.booleans())
def test_rank_counts_each_identity_once_where_it_should(case: Case, drop: bool, blind: bool) -> None:
    meeting = Meeting(*case.labels, drop, ((0, 1),) if blind else (), unique_identities=True)
    scores = score_queries(matrix_blocks(case.distances, meeting), meeting)
    for q in range(len(case.query_ids)):
        met = []
        for g in sorted(range(len(case.gallery_ids)), key=lambda g: (case.distances[q, g], g)):
            cameras = case.query_cameras[q], case.gallery_cameras[g]
            same = case.gallery_ids[g] == case.query_ids[q]
            if (drop and same and cameras[0] == cameras[1]) or (blind and cameras == (0, 1)):
                continue
            if case.gallery_ids[g] not in met:
                met.append(case.gallery_ids[g])
        assert scores.valid[q] == (case.query_ids[q] in met)
        if scores.valid[q]:
            assert scores.first[q] == met.index(case.query_ids[q])


@settings(max_examples=60)
@given(cases(), st.booleans())
def test_nearest_is_the_top_of_the_literal_ranking(case: Case, drop: bool) -> None:
    meeting = Meeting(*case.labels, drop)
    found = nearest(rank_block(case.distances, 0, meeting), 4)
    for q in range(len(case.query_ids)):
        struck = drop & (case.gallery_ids == case.query_ids[q]) & (case.gallery_cameras == case.query_cameras[q])
        kept = sorted(np.flatnonzero(~struck), key=lambda g: (case.distances[q, g], g))[:4]
        assert found[q].tolist() == kept + [-1] * (4 - len(kept))


@settings(max_examples=60)
@given(cases(), st.booleans(), st.randoms(use_true_random=False))
def test_order_of_gallery_and_queries_is_irrelevant(case: Case, drop: bool, random: object) -> None:
    n, m = case.distances.shape
    untied = np.random.default_rng(n * m).permutation(n * m).reshape(n, m).astype(np.float32)
    rows, columns = list(range(n)), list(range(m))
    random.shuffle(rows)  # type: ignore[attr-defined]
    random.shuffle(columns)  # type: ignore[attr-defined]
    mixed = Case(
        untied[np.ix_(rows, columns)],
        case.query_ids[rows],
        case.gallery_ids[columns],
        case.query_cameras[rows],
        case.gallery_cameras[columns],
    )
    assert_same(evaluate_distances(untied, *case.labels, drop), evaluate_distances(mixed.distances, *mixed.labels, drop))


def test_worked_by_hand() -> None:
    """Query 0 (person 1): gallery in order of distance is 2, 1, 3, 1 -> matches at places 2 and 4: AP (1/2 + 2/4) / 2, INP 2/4.
    Query 1 (person 2): its only match is first: AP 1, INP 1. Query 2 (person 9) has none."""
    distances = np.array([[0.2, 0.1, 0.4, 0.3], [0.9, 0.1, 0.5, 0.6], [1, 2, 3, 4.0]])
    scores = evaluate_distances(distances, [1, 2, 9], [1, 2, 1, 3], [0, 0, 0], [1, 1, 1, 1], max_rank=5)
    np.testing.assert_allclose(scores.cmc, [0.5, 1, 1, 1, 1])
    assert (scores.queries, scores.skipped, scores.gallery) == (2, 1, 4)
    assert scores.mAP == pytest.approx(0.75) and scores.mINP == pytest.approx(0.75)
    struck = evaluate_distances(distances, [1, 2, 9], [1, 2, 1, 3], [0, 0, 0], [0, 1, 1, 1], max_rank=1)
    assert struck.mAP == pytest.approx((1 / 3 + 1) / 2)  # the first match shares the camera, the other now stands third


def test_agrees_with_the_stored_reference(shared: Path) -> None:
    stored = np.load(shared / "reference" / "golden" / "eval_metrics.npz")
    names = sorted({key.split("/")[0] for key in stored})
    assert len(names) == 9
    for name in names:
        case = Case(*(stored[f"{name}/{key}"] for key in ("dist", "q_pids", "g_pids", "q_cams", "g_cams")))
        for protocol, drop in (("vcm", True), ("bupt", False)):
            if f"{name}/{protocol}_mAP_stable" not in stored:
                continue
            cmc = stored[f"{name}/{protocol}_cmc_stable"]
            scores = evaluate_distances(case.distances, *case.labels, drop)
            np.testing.assert_allclose(scores.cmc[: len(cmc)], cmc, atol=1e-6, err_msg=f"{name} {protocol}")
            assert scores.mAP == pytest.approx(float(stored[f"{name}/{protocol}_mAP_stable"]), abs=1e-9), (name, protocol)
            if drop:
                assert scores.queries == int(stored[f"{name}/vcm_valid_queries"])


def some_case(n: int = 60, m: int = 80, seed: int = 0) -> Case:
    random = np.random.default_rng(seed)
    labels = (random.integers(0, k, size) for k, size in ((12, n), (12, m), (4, n), (4, m)))
    return Case(random.random((n, m), dtype=np.float32), *labels)


def test_any_floating_type_torch_or_numpy() -> None:
    case = some_case()
    reference = evaluate_distances(case.distances, *case.labels)
    tensors = [torch.from_numpy(v) for v in case.labels]
    assert_same(evaluate_distances(torch.from_numpy(case.distances), *tensors), reference)
    assert_same(evaluate_distances(case.distances.astype(np.float64), *case.labels), reference)
    coarse = torch.from_numpy(case.distances).bfloat16()
    assert_same(evaluate_distances(coarse, *case.labels), literal(Case(coarse.float().numpy(), *case.labels), True, 20))
    half = case.distances.astype(np.float16)
    assert_same(evaluate_distances(half, *case.labels), literal(Case(half, *case.labels), True, 20))


def test_labels_may_be_strings() -> None:
    case = some_case()
    reference = evaluate_distances(case.distances, *case.labels)
    named = [np.array([f"label {value}" for value in labels]) for labels in case.labels]
    assert_same(evaluate_distances(case.distances, *named), reference)
    assert_same(evaluate_distances(case.distances, *(labels.tolist() for labels in named)), reference)
    assert_same(evaluate_distances(case.distances, *(labels.astype(object) for labels in named)), reference)
    assert_same(evaluate_distances(case.distances.tolist(), *named[:2], *case.labels[2:]), reference)


def test_integer_distances_and_a_gradient_are_fine() -> None:
    case = some_case()
    whole = np.round(case.distances * 50).astype(np.int64)
    assert_same(evaluate_distances(whole, *case.labels), literal(Case(whole, *case.labels), True, 20))
    evaluate_distances(torch.from_numpy(case.distances).requires_grad_(), *case.labels)


@pytest.mark.parametrize("name", list(DISTANCES))
def test_streamed_is_the_same_as_the_matrix(name: str) -> None:
    case = some_case(90, 70)
    random = np.random.default_rng(3)
    query, gallery = (random.standard_normal((n, 4, 8), dtype=np.float32) for n in (90, 70))
    matrix = DISTANCES[name](query, gallery)
    whole = evaluate_distances(matrix, *case.labels)
    assert_same(evaluate_streamed(query, gallery, *case.labels, distance=DISTANCES[name]), whole)
    meeting = Meeting(*case.labels)
    strips = streamed_blocks(query, gallery, DISTANCES[name], meeting, strip=7 * 70 * 4)
    assert_same(score_queries(strips, meeting).scores(70), whole)


@pytest.mark.parametrize(("kind", "device"), [("numpy", "cpu"), ("torch", "cpu"), ("torch", "cuda")])
def test_streamed_from_tensors_on_a_device(kind: str, device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    case, random = some_case(20, 30), np.random.default_rng(3)
    sides = [random.standard_normal((n, 4, 8), dtype=np.float32) for n in (20, 30)]
    given = sides if kind == "numpy" else [torch.from_numpy(side).to(device).bfloat16() for side in sides]
    rounded = sides if kind == "numpy" else [side.float().cpu().numpy() for side in given]
    matrix = DISTANCES["mean_part"](*(side.astype(np.float64) for side in rounded))
    assert_same(evaluate_streamed(*given, *case.labels), evaluate_distances(matrix, *case.labels))


STREAM = """
import resource, sys
import numpy as np
from dinogrl.evaluation import evaluate_streamed

rows, folder = int(sys.argv[1]), sys.argv[2]
random = np.random.default_rng(0)
sides = []
for name in ("query", "gallery"):
    np.lib.format.open_memmap(f"{folder}/{name}.npy", "w+", np.float32, (rows, 2, 8))[:] = random.standard_normal((rows, 2, 8))
    sides.append(np.load(f"{folder}/{name}.npy", mmap_mode="r"))
ids, cameras = np.arange(rows) // 10, np.arange(rows) % 7

def evaluate(n):
    return evaluate_streamed(*(side[:n] for side in sides), *[ids[:n]] * 2, *[cameras[:n]] * 2, strip=8 * 2**20)

evaluate(2000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(evaluate(rows).queries, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_streamed_memory_does_not_grow_with_the_matrix(tmp_path: Path) -> None:
    """A matrix of 256 MB is scored by strips of 8 MB: no quarter of it is ever there at once."""
    rows = 8_000
    done = subprocess.run(
        [sys.executable, "-c", STREAM, str(rows), str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    queries, growth = map(int, done.stdout.split())
    assert queries == rows
    assert growth < rows**2, f"{growth / 1e6:.0f} MB"


def test_bootstrap_interval_holds_the_estimate_and_narrows() -> None:
    widths = []
    for n in (100, 1600):
        random = np.random.default_rng(1)
        ids, gallery_ids = np.arange(n) // 4, np.arange(n // 4)
        distances = random.random((n, n // 4), dtype=np.float32)
        distances[np.arange(n), ids] -= 0.9 * (random.random(n) < 0.6)
        meeting = Meeting(ids, gallery_ids, np.zeros(n, int), np.ones(n // 4, int))
        scores = score_queries(matrix_blocks(distances, meeting), meeting)
        intervals = bootstrap(scores, ids, draws=500)
        whole = scores.scores(n // 4)
        for name, value in (("rank1", whole.rank(1)), ("mAP", whole.mAP), ("mINP", whole.mINP)):
            assert 0 <= intervals[name].low < value < intervals[name].high <= 1
        assert intervals == bootstrap(scores, ids, draws=500), "the same seed draws the same"
        widths.append(intervals["rank1"].high - intervals["rank1"].low)
    assert widths[1] < widths[0] / 2


@settings(max_examples=40)
@given(cases(), st.integers(0, 9), st.integers(1, 30), st.sampled_from([1, 7, 2**22]), st.sampled_from([0.5, 0.95]))
def test_bootstrap_is_the_literal_one(case: Case, seed: int, draws: int, at_once: int, level: float) -> None:
    """Every redraw written out: the queries of each identity as often as it was drawn, then the means over them."""
    meeting = Meeting(*case.labels, drop_same_camera=False)
    scores = score_queries(matrix_blocks(case.distances, meeting), meeting)
    if not scores.valid.any():
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "DRAWN", at_once)
        found = bootstrap(scores, case.query_ids, level=level, draws=draws, seed=seed)
    people = sorted(set(case.query_ids[scores.valid].tolist()))
    counts = np.random.default_rng(derived_seed("bootstrap", seed)).multinomial(
        len(people), np.full(len(people), 1 / len(people)), size=draws
    )
    rates = []
    for times in counts:
        rows = []
        for person, often in zip(people, times, strict=True):
            rows += often * np.flatnonzero(scores.valid & (case.query_ids == person)).tolist()
        rates.append([(scores.first[rows] == 0).mean(), scores.precision[rows].mean(), scores.penalty[rows].mean()])
    for i, name in enumerate(("rank1", "mAP", "mINP")):
        low, high = np.quantile(np.array(rates)[:, i], [(1 - level) / 2, (1 + level) / 2])
        assert (found[name].low, found[name].high) == pytest.approx((low, high), abs=1e-12)


def test_bootstrap_agrees_with_drawing_one_person_after_the_other() -> None:
    case, random = some_case(200, 80), np.random.default_rng(0)
    meeting = Meeting(*case.labels)
    scores = score_queries(matrix_blocks(case.distances, meeting), meeting)
    people = np.unique(case.query_ids)
    rates = []
    for _ in range(2000):
        rows = np.concatenate([np.flatnonzero(case.query_ids == person) for person in random.choice(people, len(people))])
        rates.append(scores.precision[rows[scores.valid[rows]]].mean())
    found = bootstrap(scores, case.query_ids)["mAP"]
    low, high = np.quantile(rates, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.15 * (high - low))


def test_bootstrap_draws_identities_not_queries() -> None:
    """Of two identities one is always found and one never: rank-1 of a redraw is 0, 1/2 or 1, however many queries they have."""
    ids = np.repeat([0, 1], 500)
    distances = np.where(ids[:, None] == 0, [[0.0, 1.0]], [[0.0, 1.0]])
    meeting = Meeting(ids, np.array([0, 1]), np.zeros(1000, int), np.ones(2, int))
    interval = bootstrap(score_queries(matrix_blocks(distances, meeting), meeting), ids)["rank1"]
    assert (interval.low, interval.high) == (0.0, 1.0)


def test_wrong_input_gives_one_clear_line() -> None:
    case = some_case(6, 5)
    with pytest.raises(DataError, match=r"the distances are .* 5 gallery items"):
        evaluate_distances(case.distances[:, :4], *case.labels)
    with pytest.raises(DataError, match="query_cameras"):
        evaluate_distances(case.distances, case.query_ids, case.gallery_ids, case.query_cameras[:3], case.gallery_cameras)
    with pytest.raises(DataError, match="gallery is empty"):
        evaluate_distances(case.distances[:, :0], case.query_ids, [], case.query_cameras, [])
    with pytest.raises(DataError, match="query is empty"):
        evaluate_distances(case.distances[:0], [], case.gallery_ids, [], case.gallery_cameras)
    with pytest.raises(DataError, match="max_rank must be at least 1"):
        evaluate_distances(case.distances, *case.labels, max_rank=0)
    with pytest.raises(DataError, match=r"max_rank must be .* a whole number, given 5\.0"):
        evaluate_distances(case.distances, *case.labels, max_rank=5.0)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="ids must be numbers, or both strings; given <U1 and int64"):
        evaluate_distances(case.distances, list("abcdef"), *case.labels[1:])
    with pytest.raises(DataError, match="cameras must not hold NaN"):
        evaluate_distances(case.distances, *case.labels[:2], np.full(6, np.nan), case.gallery_cameras)
    whole = evaluate_distances(case.distances, *case.labels)
    assert evaluate_distances(case.distances, *(np.asarray(labels, dtype=float) for labels in case.labels)).mAP == whole.mAP
    for value in (np.nan, np.inf, -np.inf):
        broken = case.distances.copy()
        broken[3, 2] = value
        for matrix in (broken, broken.astype(np.float64), torch.from_numpy(broken).bfloat16()):
            with pytest.raises(DataError, match=f"query 3 to gallery item 2 is {value} .* must be finite") as caught:
                evaluate_distances(matrix, *case.labels)
            assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="nothing to draw"):
        meeting = Meeting(np.zeros(2, int), np.ones(2, int), np.zeros(2, int), np.zeros(2, int))
        bootstrap(score_queries(matrix_blocks(np.zeros((2, 2)), meeting), meeting), np.zeros(2, int))
    with pytest.raises(DataError, match=r"2 queries were scored, but there are identities \(3,\)"):
        bootstrap(score_queries(matrix_blocks(np.zeros((2, 2)), meeting), meeting), np.zeros(3, int))


def test_blind_cameras_never_meet() -> None:
    case = some_case()
    meeting = Meeting(*case.labels, blind=((2, 1),))
    found = nearest(rank_block(case.distances, 0, meeting), 80)
    for q in np.flatnonzero(case.query_cameras == 2):
        assert (case.gallery_cameras[found[q][found[q] >= 0]] != 1).all()
    scores = score_queries(matrix_blocks(case.distances, meeting), meeting)
    same_id = case.query_ids[:, None] == case.gallery_ids
    same_camera = case.query_cameras[:, None] == case.gallery_cameras
    blind = (case.query_cameras[:, None] == 2) & (case.gallery_cameras == 1)
    np.testing.assert_array_equal(scores.matches, (same_id & ~same_camera & ~blind).sum(1))
    np.testing.assert_array_equal(meeting.met(), (~(same_id & same_camera) & ~blind).sum(1))


def test_examples_in_the_docs_hold(repository: Path) -> None:
    assert doctest.testmod(metrics, extraglobs={"np": np}).failed == 0
    page = doctest.testfile(str(repository / "docs" / "evaluation.md"), module_relative=False)
    assert page.failed == 0 and page.attempted >= 9
