"""The gallery as a person uses it: put tracklets in, ask who looks alike, take tracklets out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dinogrl.catalog import Catalog
from dinogrl.distances import DISTANCES
from dinogrl.embedding.compact import WIDTH
from dinogrl.embedding.search_aids import SearchAids
from dinogrl.errors import GalleryError
from dinogrl.gallery.backend import PRECISIONS, Backend, Batch, Form
from dinogrl.gallery.entries import Added, Entry, Hit, Info
from dinogrl.gallery.filters import Filters
from dinogrl.gallery.folder import FolderBackend
from dinogrl.gallery.founding import Settings, calibrated, found, remembered
from dinogrl.gallery.milvus import is_file
from dinogrl.gallery.resident import passing
from dinogrl.gallery.server import ServerBackend
from dinogrl.gallery.stock import take_stock
from dinogrl.records import Modality

if TYPE_CHECKING:
    from dinogrl.embedding.embedder import Embedder
    from dinogrl.embedding.pictures import Frame

CANDIDATES, MOST = 400, 12_800
"""Tracklets that the index proposes for a query, to be compared exactly: at first, and at most."""
FRONT = 4
"""All answers must come from this part (a fourth) of the proposals; or else so many times as many are asked for."""
SAME = 2e-3
"""Embeddings that differ by this share of their length count as the same: another machine, another batch may make as much."""
Fusion = Callable[[NDArray[np.floating]], NDArray[np.floating]]
FUSIONS: Catalog[Fusion] = Catalog("fusion", {"mean": lambda d: d.mean(0), "min": lambda d: d.min(0)})
"""(Q,N) distances of several queries of one person -> (N,)."""
EVERYTHING = Filters()


class Gallery:
    """Tracklets to search in, of one model, in a folder or on a Milvus server.

    ``address``: a folder, or ``http://host:19530`` (then ``token``, and ``name`` for one of several galleries there). Opened for
    reading unless ``writable``; a folder is made when the first tracklet is added, and is open in one process at a time. With an
    ``embedder`` frames can be searched for, and only its own model's gallery is opened. ``precision`` ("float16", "float32") and
    ``width`` (of the compact vectors) matter when a gallery is new.

    ``settings`` and ``aids``, what it knows of its model, are None while it is empty; ``backend`` is the place where it lies.
    Methods may be called from several threads. Raises :class:`GalleryError` where there is no gallery, it is in use by another
    process, or it is of another model.
    """

    def __init__(
        self,
        address: str | Path,
        embedder: Embedder | None = None,
        *,
        writable: bool = False,
        name: str = "gallery",
        token: str = "",
        precision: str = "float16",
        width: int = WIDTH,
    ) -> None:
        if precision not in PRECISIONS:
            raise GalleryError(f"unknown precision {precision!r}; use {' or '.join(PRECISIONS)}")
        self.address, self.embedder, self.writable = str(address), embedder, writable
        self._precision, self._width = precision, width
        self._changing = Lock()  # what is there is looked at before it is changed: one thread at a time
        self.backend: Backend
        if is_file(self.address):
            self.backend = FolderBackend(Path(address), name, create=writable)
        else:
            self.backend = ServerBackend(self.address, name, token)
        self.settings: Settings | None = None
        self.aids: SearchAids | None = None
        with ExitStack() as otherwise:
            otherwise.callback(self.backend.close)
            self._remember()
            if self.settings is None and not writable:
                raise GalleryError(f"no gallery {name!r} at {address}; make one by adding tracklets to it")
            if embedder is not None:
                self._expect(embedder.fingerprint)
                if self.aids is not None:
                    self.aids = calibrated(self.backend, self.aids, embedder, write_down=writable)
            otherwise.pop_all()

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let the next process in. Everything that was acknowledged is kept already."""
        self.backend.close()

    def __len__(self) -> int:
        return 0 if self.settings is None else self.backend.count()

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and bool(self.digests([id]))

    # -- changes ------------------------------------------------------------------------------------------------------------------

    def add(
        self,
        entries: Sequence[Entry],
        parts: NDArray[np.floating],
        *,
        fingerprint: str = "",
        strips: Sequence[bytes | None] | None = None,
        replace: bool = False,
    ) -> Added:
        """Keep n tracklets with their embeddings (n,P,D); when this returns they survive the end of the process.

        A tracklet that is there with the same content changes nothing. ``fingerprint`` names the model of the embeddings (the
        embedder's, where there is one). ``strips``: JPEG bytes to show. Raises :class:`GalleryError`, and adds nothing, for vectors
        of another model or shape, vectors that are not finite, an id given twice, and an id that is there with other content
        unless ``replace``.
        """
        self._expect_writable()
        vectors = self._checked(entries, parts)
        if not len(entries):
            return Added()
        with self._changing:
            self._establish(vectors, fingerprint or (self.embedder.fingerprint if self.embedder is not None else ""))
            known = self.backend.digests([entry.id for entry in entries])
            digests = [entry.digest() for entry in entries]
            stored = self._stored(vectors)
            there = {entry.id: row for row, entry in enumerate(entries) if entry.id in known}
            same = self._unchanged(there, digests, known, stored)
            changed = [id for id in there if id not in same]
            if changed and not replace:
                differing = entries[there[changed[0]]].differences(self.entries(changed[:1])[0]) or ["vectors"]
                raise GalleryError(
                    f"tracklet {changed[0]!r} is in the gallery with other content (its {' and its '.join(differing)})"
                    + (f", and so are {len(changed) - 1} more" if len(changed) > 1 else "")
                    + "; replace them (replace=True, --replace) or give the new ones other ids"
                )
            rows = [row for row, entry in enumerate(entries) if entry.id not in same]
            now = datetime.now(UTC)
            self.backend.put(
                Batch(
                    entries=[entries[row].stamped(entries[row].added or now) for row in rows],
                    digests=[digests[row] for row in rows],
                    parts=stored[rows],
                    compact=self._known_aids.projection(_folded(stored[rows], self._known.form)),
                    strips=[None if strips is None else strips[row] for row in rows],
                )
            )
            return Added(len(rows) - len(changed), len(same), len(changed))

    def remove(self, ids: Sequence[str] = (), filters: Filters = EVERYTHING) -> int:
        """Take out tracklets by id, or all that pass the filters; gives their number. One of the two must be said.

        Raises :class:`GalleryError`, and removes nothing, for ids that are not there and where nothing was ever added.
        """
        self._expect_writable()
        if not ids and not filters:
            raise GalleryError("say what to remove: ids, or filters that not everything passes")
        if self.settings is None:
            raise GalleryError(f"no gallery at {self.address}, or nothing was ever added to it; nothing was removed")
        with self._changing:
            missing = set(ids) - set(self.digests(ids))
            if missing:
                raise GalleryError(f"no tracklet {min(missing)!r} in the gallery; nothing was removed")
            chosen = [*ids, *(self.ids(filters) if filters else ())]
            self.backend.delete(list(dict.fromkeys(chosen)))
        return len(set(chosen))

    def expire(self, older_than: timedelta) -> int:
        """Take out all tracklets that were added longer ago than this; gives their number."""
        return self.remove(filters=Filters(added_before=datetime.now(UTC) - older_than))

    # -- questions ----------------------------------------------------------------------------------------------------------------

    def search(
        self,
        query: NDArray[np.floating],
        *,
        top: int = 20,
        filters: Filters = EVERYTHING,
        modality: Modality | None = None,
        fingerprint: str = "",
        fusion: str = "mean",
        prior: float = 0.5,
        candidates: int = CANDIDATES,
    ) -> list[Hit]:
        """The ``top`` nearest tracklets that pass the filters, nearest first.

        ``query``: an embedding (P,D), or several of one person (Q,P,D), whose distances are fused ("mean", "min").
        ``modality`` is the query's, by which the probability is chosen (None: the other one than the hit's). ``fingerprint``, where
        given, must be that of the gallery. ``prior``: share of hits expected to be the right person. The index proposes
        ``candidates`` tracklets a query, or more where it must, which are compared exactly; with as many as the gallery holds the
        search is exhaustive.
        """
        fuse = FUSIONS[fusion]
        if top < 1:
            raise GalleryError(f"cannot give the {top} nearest; ask for 1 at least")
        if self.settings is None:
            return []
        self._expect(fingerprint)
        queries = self._shaped(query[None] if query.ndim == 2 else query)
        ids, distances = self._compared(queries, filters, top, max(candidates, top), fuse)
        facts = passing(self.backend.entries(ids), filters)  # others may have changed the gallery since the index was asked
        return [
            Hit.of(entry, distance, self.probability(distance, entry.modality, modality, prior))
            for id, distance in zip(ids, distances.tolist(), strict=True)
            if (entry := facts.get(id)) is not None
        ]

    def _compared(
        self, queries: NDArray[np.float32], filters: Filters, top: int, count: int, fuse: Fusion
    ) -> tuple[list[str], NDArray[np.floating]]:
        """Ids of the ``top`` nearest and their distances, compared exactly among what the index proposes.

        Where an answer stood far back among the proposals, others may stand behind them: then more are asked for.
        """
        compact = self._known_aids.projection(queries)
        while True:
            proposals = self.backend.nearest(compact, count, filters)
            # sorted, for in one order rounding is the same wherever the gallery lies
            found = self.backend.vectors(sorted({id for proposal in proposals for id in proposal}))
            if not found.ids:
                return [], np.empty(0, np.float32)
            fused = fuse(np.asarray(DISTANCES[self._known.distance](queries, _folded(found.parts, self._known.form))))
            best = np.argsort(fused, kind="stable")[:top]
            ids = [found.ids[row] for row in best]
            front = {id for proposal in proposals for id in proposal[: max(count // FRONT, top)]}
            if len(found.ids) < count or count >= MOST or front.issuperset(ids):
                return ids, fused[best]
            count = min(count * FRONT, MOST)

    def search_frames(
        self,
        frames: Iterable[Frame],
        modality: Modality | str | int,
        *,
        top: int = 20,
        filters: Filters = EVERYTHING,
        prior: float = 0.5,
    ) -> list[Hit]:
        """Search for the person in these frames, given as to :meth:`Embedder.embed`, in this modality. Needs an embedder."""
        from dinogrl.embedding.embedder import modality_of

        if self.embedder is None:
            raise GalleryError("frames can be searched for by a gallery opened with an embedder: Gallery(address, embedder)")
        query = self.embedder.embed(frames, modality)
        return self.search(query, top=top, filters=filters, modality=modality_of(modality), prior=prior)

    def probability(self, distance: float, hit: Modality, query: Modality | None = None, prior: float = 0.5) -> float | None:
        """How likely a pair at this distance is the same person, or None where the model has no calibration."""
        calibration = None if self.aids is None else self.aids.calibration
        return None if calibration is None else calibration.probability(distance, query == hit, prior)

    def entries(self, ids: Sequence[str]) -> list[Entry]:
        """Facts of these tracklets. Raises :class:`GalleryError` for an id that is not there."""
        found = {} if self.settings is None else self.backend.entries(ids)
        return [found[id] if id in found else _missing(id) for id in ids]

    def parts(self, ids: Sequence[str]) -> NDArray[np.float32]:
        """(n,P,D) embeddings of these tracklets, as they are stored. Raises :class:`GalleryError` for an id that is not there."""
        self.entries(ids)
        found = self.backend.vectors(ids)
        if len(found.ids) < len(ids):  # removed in this very moment
            _missing(next(id for id in ids if id not in found.ids))
        return _folded(found.parts, self._known.form)

    def strip(self, id: str) -> bytes | None:
        """JPEG of a tracklet's small picture, or None."""
        return None if self.settings is None else self.backend.strip(id)

    def ids(self, filters: Filters = EVERYTHING) -> list[str]:
        """Ids of all tracklets that pass."""
        return [entry.id for entry in self.every(filters)]

    def every(self, filters: Filters = EVERYTHING) -> Iterator[Entry]:
        """Facts of all tracklets that pass."""
        if self.settings is not None:
            yield from self.backend.every(filters)

    def digests(self, ids: Sequence[str]) -> dict[str, str]:
        """id -> digest of the facts (:meth:`Entry.digest`), of those that are there."""
        return {} if self.settings is None else self.backend.digests(ids)

    def info(self) -> Info:
        """What the gallery holds and what it takes."""
        return take_stock(self.address, self._known, self._known_aids, list(self.every()), self.backend.sizes())

    @property
    def fingerprint(self) -> str | None:
        """Of the model whose vectors the gallery holds; None while it is empty."""
        return None if self.settings is None else self.settings.fingerprint

    # -- inside -------------------------------------------------------------------------------------------------------------------

    @property
    def _known(self) -> Settings:
        if self.settings is None:
            raise GalleryError(f"gallery {self.address} is empty; add tracklets first")
        return self.settings

    @property
    def _known_aids(self) -> SearchAids:
        assert self.aids is not None, "a gallery with settings has its projection"
        return self.aids

    def _remember(self) -> None:
        known = remembered(self.backend)
        if known is not None:
            self.settings, self.aids = known
            self.backend.open(self.settings.form)

    def _establish(self, vectors: NDArray[np.float32], fingerprint: str) -> None:
        """The first tracklets decide what the gallery is; later ones must fit."""
        if self.settings is None:
            found(self.backend, vectors, fingerprint, self.embedder, precision=self._precision, width=self._width)
            self._remember()
        self._expect(fingerprint)

    def _expect(self, fingerprint: str) -> None:
        if fingerprint and self.settings is not None and fingerprint != self.settings.fingerprint:
            raise GalleryError(
                f"gallery {self.address} holds vectors of model {self.settings.fingerprint}, given one of {fingerprint}: these"
                " cannot be compared; use the gallery's own model, or make another gallery"
            )

    def _expect_writable(self) -> None:
        if not self.writable:
            raise GalleryError("this gallery is open for reading; open it with writable=True")

    def _checked(self, entries: Sequence[Entry], parts: NDArray[np.floating]) -> NDArray[np.float32]:
        if parts.ndim != 3 or len(parts) != len(entries):
            raise GalleryError(f"{len(entries)} tracklets need embeddings ({len(entries)},P,D), given {parts.shape}")
        if len({entry.id for entry in entries}) < len(entries):
            twice = Counter(entry.id for entry in entries).most_common(1)[0][0]
            raise GalleryError(f"tracklet {twice!r} is given twice; ids name one tracklet each")
        return self._shaped(parts)

    def _shaped(self, parts: NDArray[np.floating]) -> NDArray[np.float32]:
        """(n,P,D) float32, if it has the gallery's shape and is finite."""
        if self.settings is not None and parts.shape[1:] != (self.settings.form.parts, self.settings.form.depth):
            form = self.settings.form
            raise GalleryError(f"the gallery holds embeddings of {form.parts}x{form.depth}, given {parts.shape}; use its own model")
        if not np.isfinite(parts).all():
            raise GalleryError("the vectors are not all finite; embed again")
        return np.asarray(parts, np.float32)

    def _stored(self, vectors: NDArray[np.float32]) -> NDArray[np.floating]:
        """(n,P*D) in the precision of the gallery."""
        rows = vectors.reshape(len(vectors), -1)
        if np.abs(rows).max(initial=0) > np.finfo(self._known.form.dtype).max:
            raise GalleryError(f"the vectors do not fit into {self._known.form.precision}; make a gallery with precision='float32'")
        return rows.astype(self._known.form.dtype)

    def _unchanged(
        self, there: dict[str, int], digests: Sequence[str], known: dict[str, str], stored: NDArray[np.floating]
    ) -> set[str]:
        """Ids whose facts are equal, and whose vectors agree but for what arithmetic does."""
        alike = [id for id, row in there.items() if known[id] == digests[row]]
        if not alike:
            return set()
        found = self.backend.vectors(alike)
        old = found.parts.astype(np.float32)
        new = stored[[there[id] for id in found.ids]].astype(np.float32)
        apart = np.linalg.norm(new - old, axis=1) <= SAME * np.linalg.norm(old, axis=1) + 1e-12
        return {id for id, same in zip(found.ids, apart, strict=True) if same}


def _folded(rows: NDArray[np.floating], form: Form) -> NDArray[np.float32]:
    """(n,P*D) as stored -> (n,P,D)."""
    return rows.astype(np.float32).reshape(len(rows), form.parts, form.depth)


def _missing(id: str) -> Entry:
    raise GalleryError(f"no tracklet {id!r} in the gallery")
