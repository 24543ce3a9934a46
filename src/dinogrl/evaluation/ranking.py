"""Where in its ranking does each query find its matches? Everything that is scored or drawn is read from that.

Only the positions of the matches matter, so no ranking of the whole gallery is made: a match stands behind the gallery items that
are nearer, and, among equally near ones, behind those that come earlier in the gallery (a stable order, the same on every machine).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from dinogrl.errors import DataError

MANY_TIES = 24  # tied matches of one query from which a full stable sort is the quicker way


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

    def by_identity(self) -> tuple[np.ndarray, np.ndarray]:
        """(M,) gallery columns ordered by identity, and where among them each identity begins."""
        return self._order, np.flatnonzero(np.r_[True, np.diff(self._sorted_ids) != 0])

    def strike(self, distances: np.ndarray, start: int) -> np.ndarray:
        """A copy of the distances (n,M) of queries ``start`` onwards, in a floating type, NaN where two do not meet."""
        kind = distances.dtype if distances.dtype in (np.float32, np.float64) else np.float64
        struck = np.array(distances, dtype=kind, order="C")
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
    """A block of queries, ranked: its distances (n,M) with NaN where two do not meet, the same sorted, and its matches."""

    struck: np.ndarray
    ascending: np.ndarray
    matches: MatchRanks


def rank_block(distances: np.ndarray, start: int, meeting: Meeting) -> Ranked:
    """Rank the gallery for the queries ``start`` onwards, from their distances (n,M). Raises :class:`DataError` for a NaN."""
    struck = meeting.strike(distances, start)
    ascending = np.sort(struck, axis=1)  # NaN goes last
    _refuse_nan(distances, struck, ascending, start)
    row, column, meets = meeting.same_identity(start, start + len(struck))
    row, column = row[meets], column[meets]
    values = struck[row, column]
    position = np.empty(len(row), dtype=np.int64)
    behind = np.empty(len(row), dtype=np.int64)
    bounds = np.searchsorted(row, np.arange(len(struck) + 1))
    for i in range(len(struck)):
        mine = slice(bounds[i], bounds[i + 1])
        position[mine] = ascending[i].searchsorted(values[mine], "left")
        behind[mine] = ascending[i].searchsorted(values[mine], "right")
    tied = np.flatnonzero(behind - position > 1)
    position[tied] = _break_ties(struck, row[tied], column[tied], position[tied])
    order = np.lexsort((position, row))
    return Ranked(struck, ascending, MatchRanks(row[order], column[order], position[order], values[order]))


def _break_ties(struck: np.ndarray, row: np.ndarray, column: np.ndarray, nearer: np.ndarray) -> np.ndarray:
    """Positions of matches that share their distance with others: add the equals that come earlier in the gallery."""
    position = nearer.copy()
    for i in np.unique(row):
        mine = np.flatnonzero(row == i)
        if len(mine) > MANY_TIES:
            place = np.empty(struck.shape[1], dtype=np.int64)
            place[np.argsort(struck[i], kind="stable")] = np.arange(struck.shape[1])
            position[mine] = place[column[mine]]
        else:
            for match in mine:
                position[match] += np.count_nonzero(struck[i, : column[match]] == struck[i, column[match]])
    return position


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
    found = np.full((len(ranked.struck), k), -1, dtype=np.int64)
    last = min(k, ranked.struck.shape[1]) - 1
    for i, (row, threshold) in enumerate(zip(ranked.struck, ranked.ascending[:, last], strict=True)):
        near = np.flatnonzero(~np.isnan(row) if np.isnan(threshold) else row <= threshold)
        best = near[np.argsort(row[near], kind="stable")][:k]
        found[i, : len(best)] = best
    return found


def _refuse_nan(distances: np.ndarray, struck: np.ndarray, ascending: np.ndarray, start: int) -> None:
    """A NaN among the distances shows as a NaN more than was struck out; only then is it looked for."""
    if not np.isnan(ascending[:, -1]).any():
        return
    bad = np.argwhere(np.isnan(distances))
    if len(bad):
        row, column = bad[0]
        raise DataError(
            f"the distance of query {start + row} to gallery item {column} is not a number ({len(bad)} such in this block);"
            " the model made broken embeddings"
        )
