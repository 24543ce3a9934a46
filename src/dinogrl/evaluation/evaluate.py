"""The whole test: embeddings in; scores, rankings and distances of every direction out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from dinogrl.distances import DISTANCES, Distance
from dinogrl.errors import DataError
from dinogrl.evaluation.inputs import expect_rank
from dinogrl.evaluation.metrics import (
    Interval,
    QueryScores,
    bootstrap,
    bootstrap_difference,
    matrix_blocks,
    score_queries,
    streamed_blocks,
)
from dinogrl.evaluation.protocols import PROTOCOLS, Direction, Protocol
from dinogrl.evaluation.ranking import Meeting, Ranked, nearest
from dinogrl.evaluation.rerank import Reranker
from dinogrl.records import Embeddings, Scores
from dinogrl.runtime import derived_seed

SAMPLES = 20_000  # distances of each sort that are kept for a picture


@dataclass
class DistanceSamples:
    """Distances between tracklets of one person (positive) and of two (negative): some of them, and the means of all."""

    positive: np.ndarray
    negative: np.ndarray
    positive_mean: float
    negative_mean: float

    @property
    def gap(self) -> float:
        """How much farther two people are than one, on average (figure 6 of the paper)."""
        return self.negative_mean - self.positive_mean


@dataclass
class Outcome:
    """One direction of an evaluation. ``nearest`` (N,k) gallery rows, nearest first, -1 where there are fewer; ``right`` (N,k).

    ``trials``: how the queries did in each drawing of the gallery, the first of which is ``queries``.
    """

    direction: Direction
    query: Embeddings
    gallery: Embeddings
    scores: Scores
    queries: QueryScores
    nearest: np.ndarray
    right: np.ndarray
    distances: DistanceSamples
    intervals: dict[str, Interval] = field(default_factory=dict)
    trials: list[QueryScores] = field(default_factory=list)

    @property
    def all_queries(self) -> tuple[QueryScores, np.ndarray]:
        """The queries of all trials, and their identities."""
        trials = self.trials or [self.queries]
        return QueryScores.joined(trials), np.tile(self.query.identities, len(trials))

    def hardest(self, count: int) -> np.ndarray:
        """Rows of the queries whose nearest match stands last, the worst first."""
        valid = np.flatnonzero(self.queries.valid)
        order = np.lexsort((self.queries.precision[valid], -self.queries.first[valid]))
        return valid[order[:count]]


@dataclass
class Evaluation:
    """What :func:`evaluate` found, by the direction's name."""

    protocol: Protocol
    distance: str
    directions: dict[str, Outcome]
    options: dict[str, str | int | float | bool] = field(default_factory=dict)

    @property
    def people(self) -> set[int]:
        """Identities of all queries and gallery items."""
        sides = [side for outcome in self.directions.values() for side in (outcome.query, outcome.gallery)]
        return set().union(*(side.identities.tolist() for side in sides))


def evaluate(
    query: Embeddings,
    gallery: Embeddings,
    protocol: Protocol | str,
    distance: str = "mean_part",
    max_rank: int = 20,
    *,
    top: int = 20,
    confidence: bool = True,
    rerank: Reranker | None = None,
) -> Evaluation:
    """Score the dataset's two test lists in every direction of the protocol; no whole matrix of distances is held.

    Where the protocol draws its gallery in several trials, scores are means over them, and pictures are of the first.
    ``top``: how many of the nearest gallery items are kept for pictures. ``rerank`` re-ranks (and holds the matrix); it is named in
    ``Evaluation.options``. Raises :class:`DataError` for embeddings of different
    models, NaN, an empty side or a ``max_rank`` below 1; :class:`UnknownNameError` for an unknown protocol or distance.
    """
    expect_rank(max_rank)
    if query.fingerprint != gallery.fingerprint:
        raise DataError(
            f"the query was embedded by model {query.fingerprint}, the gallery by {gallery.fingerprint}; embed both with one model"
        )
    chosen = PROTOCOLS[protocol] if isinstance(protocol, str) else protocol
    measure = DISTANCES[distance]
    directions = {}
    for direction in chosen.directions:
        asking, whole = chosen.sides(query, gallery, direction)
        trials = [
            _one_direction(asking, drawn, direction, chosen, measure, max_rank, top, rerank) for drawn in chosen.galleries(whole)
        ]
        directions[direction.name] = _over_trials(trials, confidence)
    return Evaluation(chosen, distance, directions, rerank.options if rerank is not None else {})


def _over_trials(trials: list[Outcome], confidence: bool) -> Outcome:
    """The first trial's outcome with the mean scores of all, and intervals over the queries of all."""
    outcome, scores = trials[0], [trial.scores for trial in trials]
    outcome.scores = replace(
        scores[0],
        cmc=np.mean([s.cmc for s in scores], axis=0),
        mAP=float(np.mean([s.mAP for s in scores])),
        mINP=float(np.mean([s.mINP for s in scores])),
    )
    outcome.trials = [trial.queries for trial in trials]
    if confidence and outcome.scores.queries:
        outcome.intervals = bootstrap(*outcome.all_queries)
    return outcome


def difference_intervals(first: Outcome, last: Outcome) -> dict[str, Interval]:
    """By how much the ``last`` is above the ``first`` in rank-1, mAP and mINP: 95 % intervals over the same redrawn people.

    None of them where the two did not answer the same queries, or no query has a match.
    """
    (before, ids), (after, _) = first.all_queries, last.all_queries
    same = first.query.tracklet_ids == last.query.tracklet_ids and np.array_equal(before.valid, after.valid)
    return bootstrap_difference(before, after, ids) if same and before.valid.any() else {}


def camera_pairs(outcome: Outcome, protocol: Protocol, distance: str = "mean_part") -> dict[tuple[int, int], Scores]:
    """(query camera, gallery camera) -> scores of the queries of one camera against the gallery items of one other alone.

    Pairs in which no query has a match are left out.
    """
    pairs = {}
    for camera in np.unique(outcome.gallery.cameras):
        seen = outcome.gallery.take(outcome.gallery.cameras == camera)
        meeting = protocol.meeting(outcome.query, seen)
        queries = score_queries(streamed_blocks(outcome.query.parts, seen.parts, DISTANCES[distance], meeting), meeting)
        for asking in np.unique(outcome.query.cameras):
            rows = outcome.query.cameras == asking
            scores = queries.take(rows).scores(len(seen), protocol=protocol.name)
            if scores.queries:
                pairs[int(asking), int(camera)] = scores
    return pairs


def _one_direction(
    query: Embeddings,
    gallery: Embeddings,
    direction: Direction,
    protocol: Protocol,
    distance: Distance,
    max_rank: int,
    top: int,
    rerank: Reranker | None,
) -> Outcome:
    meeting = protocol.meeting(query, gallery)
    sampler = _Sampler(meeting)
    found: list[np.ndarray] = []

    def look(start: int, ranked: Ranked) -> None:
        found.append(nearest(ranked, top))
        sampler.look(start, ranked)

    if rerank is None:
        blocks = streamed_blocks(query.parts, gallery.parts, distance, meeting)
    else:
        blocks = matrix_blocks(rerank(query, gallery, distance), meeting)
    queries = score_queries(blocks, meeting, look)
    columns = np.concatenate(found)
    right = (gallery.identities[columns] == query.identities[:, None]) & (columns >= 0)
    scores = queries.scores(len(gallery), max_rank, protocol.name)
    return Outcome(direction, query, gallery, scores, queries, columns, right, sampler.samples())


class _Sampler:
    """Collects positive and negative distances while the blocks go by."""

    def __init__(self, meeting: Meeting) -> None:
        self.meeting = meeting
        self.per_query = -(-SAMPLES // meeting.shape[0])
        self.positive: list[np.ndarray] = []
        self.negative: list[np.ndarray] = []
        self.sums, self.counts = np.zeros(2), np.zeros(2, dtype=np.int64)

    def look(self, start: int, ranked: Ranked) -> None:
        struck, matches = ranked.struck, ranked.matches
        positive = matches.distance
        met = ~np.isnan(struck)
        self.sums += positive.sum(dtype=np.float64), struck.sum(dtype=np.float64, where=met) - positive.sum(dtype=np.float64)
        self.counts += len(positive), int(met.sum()) - len(positive)
        random = np.random.default_rng(derived_seed("distance samples", start))
        columns = random.integers(0, struck.shape[1], (len(struck), self.per_query))
        values = np.take_along_axis(struck, columns, axis=1)
        ids = self.meeting.query_ids[start : start + len(struck), None]
        self.negative.append(values[(self.meeting.gallery_ids[columns] != ids) & ~np.isnan(values)])
        share = min(len(positive), self.per_query * len(struck))
        self.positive.append(random.choice(positive, share, replace=False) if len(positive) else positive)

    def samples(self) -> DistanceSamples:
        means = self.sums / np.maximum(self.counts, 1)
        positive, negative = np.concatenate(self.positive), np.concatenate(self.negative)
        return DistanceSamples(positive.astype(np.float32), negative.astype(np.float32), float(means[0]), float(means[1]))
