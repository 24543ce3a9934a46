"""Where in its ranking does each query find its matches? Everything that is scored or drawn is read from that.

A match stands behind the gallery items that are nearer, and, among equally near ones, behind those that come earlier in the
gallery: a stable order, the same on every machine. A stable sort is slow. So distance and column are packed into one whole number,
the distance in front: no two are equal, and any sort, the quickest, gives that order.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from dinogrl.errors import DataError

COLUMN = np.int64(0xFFFFFFFF)  # the low half of a key: the gallery's column


@dataclass
class Meeting:
    """Who meets whom: identities and cameras of N queries and M gallery items, and what is struck out.

    With ``drop_same_camera`` a query never meets the gallery items of its own identity in its own camera (they are as good as the
    same picture). ``blind`` holds pairs (query camera, gallery camera) that never meet at all, whoever is seen.
    ``unique_identities``: for rank-k each identity counts once, at its nearest gallery item.
    Raises :class:`DataError` for arrays that do not fit each other, or are empty.
    """

    query_ids: np.ndarray
    gallery_ids: np.ndarray
    query_cameras: np.ndarray
    gallery_cameras: np.ndarray
    drop_same_camera: bool = True
    blind: tuple[tuple[int, int], ...] = ()
    unique_identities: bool = False
    _order: np.ndarray = field(init=False, repr=False)  # gallery by identity
    _sorted_ids: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for side in ("query", "gallery"):
            ids, cameras = getattr(self, f"{side}_ids"), getattr(self, f"{side}_cameras")
            if ids.ndim != 1 or ids.shape != cameras.shape:
                raise DataError(f"{side}_ids {ids.shape} and {side}_cameras {cameras.shape} must be two lists of the same length")
            if not len(ids):
                raise DataError(f"there is nothing to rank: the {side} is empty; check the test lists and the protocol")
        self._order = np.argsort(self.gallery_ids, kind="stable")
        self._sorted_ids = self.gallery_ids[self._order]

    @property
    def shape(self) -> tuple[int, int]:
        """(N, M)."""
        return len(self.query_ids), len(self.gallery_ids)

    def same_identity(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of queries ``start`` to ``stop``: (row, column, meets) of every pair of one identity, ascending, rows counted from 0.

        ``meets`` is False for the pairs that are struck out.
        """
        ids, cameras = self.query_ids[start:stop], self.query_cameras[start:stop]
        first = np.searchsorted(self._sorted_ids, ids, "left")
        counts = np.searchsorted(self._sorted_ids, ids, "right") - first
        row = np.repeat(np.arange(len(ids)), counts)
        within = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        column = self._order[np.repeat(first, counts) + within]
        gallery_cameras = self.gallery_cameras[column]
        meets = np.ones(len(row), dtype=bool)
        if self.drop_same_camera:
            meets &= gallery_cameras != cameras[row]
        for query_camera, gallery_camera in self.blind:
            meets &= (cameras[row] != query_camera) | (gallery_cameras != gallery_camera)
        return row, column, meets

    def met(self) -> np.ndarray:
        """(N,) how many gallery items each query meets."""
        few, which = self._alike()
        n, m = few.shape
        row, column, meets = few.same_identity(0, n)
        met = m - np.bincount(row[~meets], minlength=n)
        for query_camera, gallery_camera in self.blind:
            asking, unseen = few.query_cameras == query_camera, self.gallery_cameras == gallery_camera
            counted = np.bincount(row[asking[row] & unseen[column]], minlength=n)  # of the query's own identity
            met -= asking * unseen.sum() - counted
        return np.asarray(met[which])

    def any_match(self) -> bool:
        """Does any query meet its own identity?"""
        few, _ = self._alike()
        return bool(few.same_identity(0, few.shape[0])[2].any())

    def _alike(self) -> tuple[Meeting, np.ndarray]:
        """One query of each identity in each camera, for they all meet the same; and which of them each of the N is.

        The pairs of one identity among all N and M may be as many as N M.
        """
        identity, camera = (np.unique(labels, return_inverse=True)[1] for labels in (self.query_ids, self.query_cameras))
        _, first, which = np.unique(identity * (camera.max() + 1) + camera, return_index=True, return_inverse=True)
        return replace(self, query_ids=self.query_ids[first], query_cameras=self.query_cameras[first]), which

    def by_identity(self) -> tuple[np.ndarray, np.ndarray]:
        """(M,) gallery columns ordered by identity, and where among them each identity begins."""
        return self._order, np.flatnonzero(np.r_[True, self._sorted_ids[1:] != self._sorted_ids[:-1]])

    def strike(self, distances: np.ndarray, start: int) -> np.ndarray:
        """A copy of the distances (n,M) of queries ``start`` onwards, float32 or float64, NaN where two do not meet."""
        kind = distances.dtype if distances.dtype in (np.float32, np.float64) else np.float64
        struck = np.add(distances, 0, dtype=kind)  # -0 becomes 0: their bits differ
        row, column, meets = self.same_identity(start, start + len(struck))
        struck[row[~meets], column[~meets]] = np.nan
        for query_camera, gallery_camera in self.blind:
            rows = np.flatnonzero(self.query_cameras[start : start + len(struck)] == query_camera)
            columns = np.flatnonzero(self.gallery_cameras == gallery_camera)
            struck[np.ix_(rows, columns)] = np.nan
        return struck


@dataclass(frozen=True)
class MatchRanks:
    """Positions of the matches in the rankings of n queries, one entry a match, ascending by query, then by position.

    ``query`` counts from 0 within the block; ``column`` is the gallery item; ``position`` 0 is the nearest.
    """

    query: np.ndarray
    column: np.ndarray
    position: np.ndarray
    distance: np.ndarray


@dataclass(frozen=True)
class Ranked:
    """A block of queries, ranked: its distances (n,M) with NaN where two do not meet, the gallery's columns (n,M), nearest first
    (those that do not meet come last), and its matches."""

    struck: np.ndarray
    order: np.ndarray
    matches: MatchRanks


def rank_block(distances: np.ndarray, start: int, meeting: Meeting) -> Ranked:
    """Rank the gallery for the queries ``start`` onwards, from their distances (n,M).

    Raises :class:`DataError` for a distance that is not finite.
    """
    _refuse_broken(distances, start)
    struck = meeting.strike(distances, start)
    keys = _keys(struck)
    row, column, meets = meeting.same_identity(start, start + len(struck))
    row, column = row[meets], column[meets]
    wanted = keys[row, column]
    keys.sort(axis=1)
    position = np.empty(len(row), dtype=np.int64)
    bounds = np.searchsorted(row, np.arange(len(struck) + 1))
    for i in range(len(struck)):
        mine = slice(bounds[i], bounds[i + 1])
        position[mine] = keys[i].searchsorted(wanted[mine])
    order = np.bitwise_and(keys, COLUMN, out=keys)
    if struck.dtype == np.float64:
        place = np.empty(struck.shape[1], dtype=np.int64)
        for i in _sorted_too_coarsely(struck, order):
            mine = slice(bounds[i], bounds[i + 1])
            order[i] = order[i][np.argsort(struck[i, order[i]], kind="stable")]
            place[order[i]] = np.arange(len(place))
            position[mine] = place[column[mine]]
    by_position = np.argsort(row * struck.shape[1] + position)
    row, column, position = row[by_position], column[by_position], position[by_position]
    return Ranked(struck, order, MatchRanks(row, column, position, struck[row, column]))


def _keys(struck: np.ndarray) -> np.ndarray:
    """(n,M) int64 that sort as (float32 distance, column): a float's bits, those of the size turned over where it is negative, are
    ordered as it is, with NaN last."""
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite
        bits = struck.astype(np.float32).view(np.int32)
    turn = bits >> 31
    turn &= 0x7FFFFFFF
    bits ^= turn
    keys = np.left_shift(bits, 32, dtype=np.int64)
    keys |= np.arange(struck.shape[1])
    return keys


def _sorted_too_coarsely(struck: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Rows in which two float64 distances, equal in float32, stand the wrong way round."""
    ascending = np.take_along_axis(struck, order, axis=1)
    return np.flatnonzero((ascending[:, 1:] < ascending[:, :-1]).any(axis=1))


def identities_before(ranked: Ranked, first: np.ndarray, meeting: Meeting) -> np.ndarray:
    """How many other identities are met before the first match; ``first``: index into ``ranked.matches`` of each query's."""
    matches = ranked.matches
    order, begins = meeting.by_identity()
    struck = ranked.struck[matches.query[first]]
    closest = np.fmin.reduceat(struck[:, order], begins, axis=1)  # (n,K); NaN where nothing of an identity is met
    limit, column = matches.distance[first], matches.column[first]
    before = (closest < limit[:, None]).sum(axis=1)
    tied = closest == limit[:, None]  # the match's own identity always is
    for row in np.flatnonzero(tied.sum(axis=1) > 1):
        equals = np.flatnonzero(struck[row, : column[row]] == limit[row])
        before[row] += len(np.intersect1d(meeting.gallery_ids[equals], meeting.gallery_ids[order[begins[tied[row]]]]))
    return np.asarray(before)


def nearest(ranked: Ranked, k: int) -> np.ndarray:
    """(n,k) columns of the k nearest gallery items of each query, nearest first; -1 where fewer than k meet it."""
    found = np.full((len(ranked.order), k), -1, dtype=np.int64)
    best = ranked.order[:, :k]
    found[:, : best.shape[1]] = np.where(np.isnan(np.take_along_axis(ranked.struck, best, axis=1)), -1, best)
    return found


def _refuse_broken(distances: np.ndarray, start: int) -> None:
    finite = np.isfinite(distances)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise DataError(
            f"the distance of query {start + row} to gallery item {column} is {distances[row, column]}"
            f" ({np.count_nonzero(~finite)} such in this block); distances must be finite: the model made broken embeddings"
        )
