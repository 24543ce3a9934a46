"""CMC, mAP and mINP of a ranking, per query and over all of them, with confidence intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from dinogrl.distances import Array, Distance, mean_part_distance
from dinogrl.errors import DataError
from dinogrl.evaluation.inputs import Labels, Matrix, as_labels, as_matrix, meeting_of
from dinogrl.evaluation.ranking import Meeting, Ranked, identities_before, rank_block
from dinogrl.records import Scores
from dinogrl.runtime import derived_seed, threads

BLOCK = 2**18  # distances ranked at once: they stay in the cache
STRIP = 512 * 2**20  # bytes of distances that the streamed evaluation holds at once
PARTS = 64 * 2**20  # bytes of gallery embeddings that it holds at once
DRAWN = 2**22  # numbers of a bootstrap that are held at once


@dataclass(frozen=True)
class QueryScores:
    """Each of the N queries for itself. ``matches`` 0: it has none, and its other entries mean nothing.

    ``first`` position of its nearest match (0 is the top); ``precision`` its average precision; ``penalty`` its inverse negative
    penalty, matches / (position of the hardest match + 1).
    """

    first: np.ndarray
    precision: np.ndarray
    penalty: np.ndarray
    matches: np.ndarray

    @property
    def valid(self) -> np.ndarray:
        """(N,) bool: has the query any match?"""
        return self.matches > 0

    def take(self, rows: np.ndarray) -> QueryScores:
        """The queries named by an index or boolean array."""
        return QueryScores(self.first[rows], self.precision[rows], self.penalty[rows], self.matches[rows])

    @staticmethod
    def joined(parts: Sequence[QueryScores]) -> QueryScores:
        """Several lists of queries as one."""
        names = ("first", "precision", "penalty", "matches")
        return QueryScores(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def scores(self, gallery: int, max_rank: int = 20, protocol: str = "") -> Scores:
        """The means over the queries that have a match."""
        valid = self.valid
        count = int(valid.sum())
        if not count:
            return Scores(np.zeros(max_rank), 0.0, 0.0, 0, len(valid), gallery, protocol)
        found = np.bincount(np.minimum(self.first[valid], max_rank), minlength=max_rank + 1)[:max_rank]
        cmc = np.cumsum(found) / count
        mAP, mINP = float(self.precision[valid].mean()), float(self.penalty[valid].mean())
        return Scores(cmc, mAP, mINP, count, len(valid) - count, gallery, protocol)


def evaluate_distances(
    distances: Matrix,
    query_ids: Labels,
    gallery_ids: Labels,
    query_cameras: Labels,
    gallery_cameras: Labels,
    drop_same_camera: bool = True,
    max_rank: int = 20,
) -> Scores:
    """Score a matrix of distances (N,M), smaller is nearer, of any real type, on any device.

    Identities and cameras are numbers or strings. With ``drop_same_camera`` the gallery items of the query's identity and
    camera are struck out. Ties keep the gallery's order. Queries without a match are counted (``Scores.skipped``) and left out of
    the means; a gallery smaller than ``max_rank`` is fine.
    Raises :class:`DataError` for shapes and labels that do not fit, empty lists, and distances that are not finite.

    Two queries of person 7 and 8, three gallery items; the first finds its only match second, the other first and third:

    >>> s = evaluate_distances(np.array([[.1, .2, .3], [.1, .3, .2]]), [7, 8], [8, 7, 8], [0, 0], [1, 1, 1])
    >>> s.rank(1), round(s.mAP, 4), round(s.mINP, 4)
    (0.5, 0.75, 0.75)
    """
    meeting = meeting_of(query_ids, gallery_ids, query_cameras, gallery_cameras, drop_same_camera, max_rank)
    return score_queries(matrix_blocks(as_matrix(distances), meeting), meeting).scores(meeting.shape[1], max_rank)


def evaluate_streamed(
    query_parts: Array,
    gallery_parts: Array,
    query_ids: Labels,
    gallery_ids: Labels,
    query_cameras: Labels,
    gallery_cameras: Labels,
    distance: Distance = mean_part_distance,
    drop_same_camera: bool = True,
    max_rank: int = 20,
    strip: int = STRIP,
) -> Scores:
    """As :func:`evaluate_distances`, from the embeddings (N,P,D) and (M,P,D): the matrix is made and ranked strip by strip.

    Memory holds ``strip`` bytes of the matrix and a block of each side, so both may lie on disk (``numpy.memmap``) and be far
    larger than memory: 100,000 x 100,000 needs less than 4 GiB.
    """
    meeting = meeting_of(query_ids, gallery_ids, query_cameras, gallery_cameras, drop_same_camera, max_rank)
    blocks = streamed_blocks(query_parts, gallery_parts, distance, meeting, strip)
    return score_queries(blocks, meeting).scores(meeting.shape[1], max_rank)


Block = tuple[int, np.ndarray]


def matrix_blocks(distances: Array, meeting: Meeting) -> Iterator[Block]:
    """Rows of a matrix (N,M) that is there already, as (first row, distances (n,M))."""
    if tuple(distances.shape) != meeting.shape:
        n, m = meeting.shape
        raise DataError(f"the distances are {tuple(distances.shape)}, but there are {n} queries and {m} gallery items")
    rows = _rows_at_once(meeting)
    for start in range(0, meeting.shape[0], rows):
        yield start, _numpy(distances[start : start + rows])


def streamed_blocks(query: Array, gallery: Array, distance: Distance, meeting: Meeting, strip: int = STRIP) -> Iterator[Block]:
    """Rows of the matrix, made when they are asked for; ``strip`` bytes of it exist at once."""
    if (len(query), len(gallery)) != meeting.shape:
        n, m = meeting.shape
        raise DataError(f"{len(query)} query and {len(gallery)} gallery embeddings, but labels of {n} and {m}")
    rows = max(1, strip // (4 * len(gallery)))
    for start in range(0, len(query), rows):
        mine = _loaded(query[start : start + rows])
        distances = np.empty((len(mine), len(gallery)), dtype=np.float32)
        columns = max(1, PARTS // max(1, 4 * int(np.prod(gallery.shape[1:]))))
        for column in range(0, len(gallery), columns):
            distances[:, column : column + columns] = _numpy(distance(mine, _loaded(gallery[column : column + columns])))
        for row in range(0, len(mine), _rows_at_once(meeting)):
            yield start + row, distances[row : row + _rows_at_once(meeting)]


def _rows_at_once(meeting: Meeting) -> int:
    return max(1, BLOCK // meeting.shape[1])


def _loaded(rows: Array) -> Array:
    """A slice of a file comes into memory once, not once a tile."""
    return np.array(rows) if isinstance(rows, np.memmap) else rows


def score_queries(blocks: Iterable[Block], meeting: Meeting, look: Callable[[int, Ranked], None] | None = None) -> QueryScores:
    """Rank block after block, on all cores, and score every query. ``look(first row, ranked block)`` may watch, in order."""
    n = meeting.shape[0]
    scores = QueryScores(np.zeros(n, dtype=np.int64), np.zeros(n), np.zeros(n), np.zeros(n, dtype=np.int64))
    for start, ranked in _ranked(blocks, meeting):
        _score_block(ranked, start, scores, meeting)
        if look is not None:
            look(start, ranked)
    return scores


def _ranked(blocks: Iterable[Block], meeting: Meeting) -> Iterator[tuple[int, Ranked]]:
    """Ranked blocks in order, a few ahead at most."""
    workers = threads()
    waiting: list[tuple[int, Future[Ranked]]] = []
    with ThreadPoolExecutor(workers) as pool:
        for start, distances in blocks:
            waiting.append((start, pool.submit(rank_block, distances, start, meeting)))
            if len(waiting) > 2 * workers:
                first, future = waiting.pop(0)
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()


def _score_block(ranked: Ranked, start: int, scores: QueryScores, meeting: Meeting) -> None:
    matches = ranked.matches
    found = np.bincount(matches.query, minlength=len(ranked.struck))
    query = np.flatnonzero(found)
    if not len(query):
        return
    counts = found[query]
    first = np.cumsum(counts) - counts
    nth = np.arange(len(matches.query)) - np.repeat(first, counts) + 1
    rows, last = start + query, first + counts - 1
    scores.first[rows] = identities_before(ranked, first, meeting) if meeting.unique_identities else matches.position[first]
    scores.precision[rows] = np.add.reduceat(nth / (matches.position + 1), first) / counts
    scores.penalty[rows] = counts / (matches.position[last] + 1)
    scores.matches[rows] = counts


@dataclass(frozen=True)
class Interval:
    """A confidence interval of a rate."""

    low: float
    high: float


def bootstrap(
    scores: QueryScores, query_ids: Labels, *, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> dict[str, Interval]:
    """Percentile intervals of rank-1, mAP and mINP over redrawn query *identities* (their queries are not independent).

    ``level`` of the redraws lie within. Raises :class:`DataError` where no query has a match, or the identities do not fit.
    """
    return _intervals(_redrawn(scores, query_ids, draws, seed), level)


def bootstrap_difference(
    first: QueryScores, last: QueryScores, query_ids: Labels, *, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> dict[str, Interval]:
    """Percentile intervals of how much ``last`` is above ``first``, two methods that answered the same queries.

    Every redraw takes the same identities for both: what makes a person hard for either is no difference between them, so these
    are narrower than two intervals side by side suggest. Raises as :func:`bootstrap`, and where the queries cannot be the same.
    """
    if not np.array_equal(first.valid, last.valid):
        raise DataError("the two methods were not asked the same queries; score both on one test")
    return _intervals(_redrawn(last, query_ids, draws, seed) - _redrawn(first, query_ids, draws, seed), level)


def _intervals(rates: np.ndarray, level: float) -> dict[str, Interval]:
    low, high = np.quantile(rates, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return {name: Interval(float(low[i]), float(high[i])) for i, name in enumerate(("rank1", "mAP", "mINP"))}


def _redrawn(scores: QueryScores, query_ids: Labels, draws: int, seed: int) -> np.ndarray:
    """(draws,3) rank-1, mAP and mINP of each redraw; a seed draws the same identities whatever the scores are."""
    ids, valid = as_labels(query_ids), scores.valid
    if ids.shape != valid.shape:
        raise DataError(f"{len(valid)} queries were scored, but there are identities {ids.shape}")
    if not valid.any():
        raise DataError("no query has a match in the gallery: there is nothing to draw from; check the test lists and the protocol")
    _, identity = np.unique(ids[valid], return_inverse=True)
    values = [valid[valid], scores.first[valid] == 0, scores.precision[valid], scores.penalty[valid]]
    sums = np.stack([np.bincount(identity, weights=value) for value in values], axis=1)  # (K,4)
    random = np.random.default_rng(derived_seed("bootstrap", seed))
    share = np.full(len(sums), 1 / len(sums))
    at_once = max(1, DRAWN // len(sums))
    drawn = np.concatenate(
        [random.multinomial(len(sums), share, size=min(at_once, draws - done)) @ sums for done in range(0, draws, at_once)]
    )  # (draws,4)
    rates: np.ndarray = drawn[:, 1:] / drawn[:, :1]
    return rates


def _numpy(values: Array) -> np.ndarray:
    """NumPy has no bfloat16, and float16 gains nothing here."""
    if isinstance(values, Tensor):
        values = values.detach()
        short = values.dtype.is_floating_point and values.dtype.itemsize < 4
        values = (values.float() if short else values).cpu().numpy()
    return np.asarray(values, dtype=np.float32) if values.dtype == np.float16 else values
