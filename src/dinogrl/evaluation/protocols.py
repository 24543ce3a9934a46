"""Named protocols, as data: who is query, who is gallery, what is struck out, how frames are sampled.

Numbers are comparable only under one protocol, so each result carries the name of its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dinogrl.catalog import Catalog
from dinogrl.errors import DataError
from dinogrl.evaluation.ranking import Meeting
from dinogrl.records import Embeddings, Modality

Sides = tuple[Embeddings, Embeddings]


@dataclass(frozen=True)
class Direction:
    """Which modality asks, and which is searched."""

    name: str
    query: Modality
    gallery: Modality


INFRARED_TO_VISIBLE = Direction("infrared_to_visible", Modality.INFRARED, Modality.VISIBLE)
VISIBLE_TO_INFRARED = Direction("visible_to_infrared", Modality.VISIBLE, Modality.INFRARED)
BOTH = (INFRARED_TO_VISIBLE, VISIBLE_TO_INFRARED)


def by_modality(query: Embeddings, gallery: Embeddings, direction: Direction) -> Sides:
    """Both lists hold both modalities; of each, those of the direction's modality."""
    return query.take(query.modalities == direction.query), gallery.take(gallery.modalities == direction.gallery)


def swapped(query: Embeddings, gallery: Embeddings, direction: Direction) -> Sides:
    """The query list is infrared, the gallery list visible; the other direction swaps the two lists."""
    return (query, gallery) if direction.query is Modality.INFRARED else (gallery, query)


def pooled(query: Embeddings, gallery: Embeddings, direction: Direction) -> Sides:
    """The two lists are one pool of test tracklets: all of one modality ask, all of the other are searched."""
    known = set(query.tracklet_ids)
    rest = gallery.take(np.array([name not in known for name in gallery.tracklet_ids], dtype=bool))
    sides = []
    for modality in (direction.query, direction.gallery):
        sides.append(_joined(*(side.take(side.modalities == modality) for side in (query, rest))))
    return sides[0], sides[1]


def by_modality_or_pooled(query: Embeddings, gallery: Embeddings, direction: Direction) -> Sides:
    """Each list's tracklets of the direction's modality; where one of the lists has none, both lists are one pool."""
    sides = by_modality(query, gallery, direction)
    return sides if len(sides[0]) and len(sides[1]) else pooled(query, gallery, direction)


LISTS: Catalog[Callable[[Embeddings, Embeddings, Direction], Sides]] = Catalog(
    "way to read the test lists",
    {"by_modality": by_modality, "swapped": swapped, "pooled": pooled, "by_modality_or_pooled": by_modality_or_pooled},
)


@dataclass(frozen=True)
class Draw:
    """``trials`` times, ``shots`` images of each identity in each camera are drawn from the gallery; scores are means over that.

    ``cameras``: those of the gallery, empty for all. The draw is that of the datasets' public PyTorch code: Python's generator,
    seeded with the number of the trial, goes through identities and cameras in ascending order and takes one of the sorted file
    names (``random.choice``), or several (``random.sample``).
    """

    trials: int = 10
    cameras: tuple[int, ...] = ()
    shots: int = 1

    def rows(self, gallery: Embeddings, trial: int) -> np.ndarray:
        """Rows of the gallery that one trial draws."""
        generator = random.Random(trial)
        cells: dict[tuple[int, int], list[int]] = {}
        for row in sorted(range(len(gallery)), key=lambda row: gallery.tracklet_ids[row]):
            cells.setdefault((int(gallery.identities[row]), int(gallery.cameras[row])), []).append(row)
        drawn: list[int] = []
        for cell in sorted(cell for cell in cells if not self.cameras or cell[1] in self.cameras):
            rows = cells[cell]
            drawn += [generator.choice(rows)] if self.shots == 1 else generator.sample(rows, min(self.shots, len(rows)))
        return np.array(drawn, dtype=np.int64)


@dataclass(frozen=True)
class Protocol:
    """Everything that must agree before two results may stand in one table.

    ``lists`` names how the dataset's two test lists become query and gallery (:data:`LISTS`). ``drop_same_camera`` strikes the
    query's own identity in its own camera out of the gallery. ``visible_batch``: the last incomplete batch of visible tracklets
    of this size is left out of each list, 0 for none. ``sampling`` and ``frames``: how the frames of a clip are chosen, and T.
    ``blind``: (query camera, gallery camera) pairs that never meet. ``unique_identities``: rank-k counts each identity once.
    ``draw``: the gallery is drawn anew in several trials. ``layout``: the only layout whose cameras and images the rules fit, empty
    for rules that fit any.
    """

    name: str
    summary: str
    lists: str
    drop_same_camera: bool
    sampling: Literal["segments", "uniform"]
    frames: int
    visible_batch: int = 0
    directions: tuple[Direction, ...] = BOTH
    blind: tuple[tuple[int, int], ...] = ()
    unique_identities: bool = False
    draw: Draw | None = None
    layout: str = ""

    def sides(self, query: Embeddings, gallery: Embeddings, direction: Direction) -> Sides:
        """Query and gallery of one direction, from the dataset's two test lists.

        Raises :class:`DataError` where one of them is empty.
        """
        lists = [_whole_batches(side, self.visible_batch) for side in (query, gallery)]
        sides = LISTS[self.lists](lists[0], lists[1], direction)
        for title, side, modality in zip(("query", "gallery"), sides, (direction.query, direction.gallery), strict=True):
            if not len(side):
                left_out = f" (it leaves out incomplete batches of {self.visible_batch})" if self.visible_batch else ""
                raise DataError(
                    f"protocol {self.name}, {direction.name}: the {title} has no {modality.name.lower()} tracklet{left_out};"
                    " check the test lists or choose another protocol"
                )
        return sides

    def meeting(self, query: Embeddings, gallery: Embeddings) -> Meeting:
        """Who meets whom on the two sides."""
        return Meeting(
            query.identities,
            gallery.identities,
            query.cameras,
            gallery.cameras,
            self.drop_same_camera,
            self.blind,
            self.unique_identities,
        )

    def galleries(self, gallery: Embeddings) -> Iterator[Embeddings]:
        """The gallery of each trial: the whole one, or as it is drawn."""
        if self.draw is None:
            yield gallery
        else:
            for trial in range(self.draw.trials):
                yield gallery.take(self.draw.rows(gallery, trial))


def _sysu_mm01(name: str, gallery: str, cameras: tuple[int, ...], shots: int) -> Protocol:
    return Protocol(
        name,
        f"SYSU-MM01, {gallery} of every person, drawn ten times, searched by every infrared image; camera 3 never meets camera 2,"
        " which is the same room; rank-k counts each person once.",
        lists="by_modality",
        drop_same_camera=False,
        sampling="segments",
        frames=1,
        directions=(INFRARED_TO_VISIBLE,),
        blind=((3, 2),),
        unique_identities=True,
        draw=Draw(cameras=cameras, shots=shots),
        layout="sysu-mm01",
    )


PROTOCOLS: Catalog[Protocol] = Catalog(
    "protocol",
    {
        protocol.name: protocol
        for protocol in (
            Protocol(
                "hitsz-vcm",
                "HITSZ-VCM: the listed infrared tracklets search the visible rest, then the two lists swap; a query never meets its"
                " own identity in its own camera.",
                lists="swapped",
                drop_same_camera=True,
                sampling="segments",
                frames=6,
            ),
            Protocol(
                "buptcampus-legacy",
                "BUPTCampus as its authors' code scores it, and as most tables report it: no camera is struck out; the"
                " last visible tracklets (count mod 64) of both lists are left out (1,048 queries, 4,790 gallery tracklets).",
                lists="by_modality",
                drop_same_camera=False,
                sampling="uniform",
                frames=10,
                visible_batch=64,
            ),
            Protocol(
                "buptcampus-full",
                "BUPTCampus with every listed tracklet (1,076 queries, 4,844 gallery tracklets); no camera is struck out.",
                lists="by_modality",
                drop_same_camera=False,
                sampling="uniform",
                frames=10,
            ),
            Protocol(
                "buptcampus-camera",
                "BUPTCampus with every listed tracklet; a query never meets its own identity in its own camera.",
                lists="by_modality",
                drop_same_camera=True,
                sampling="uniform",
                frames=10,
            ),
            _sysu_mm01("sysu-mm01", "all search, single shot: one image in each of cameras 1, 2, 4 and 5", (1, 2, 4, 5), 1),
            _sysu_mm01("sysu-mm01-multi", "all search, multi shot: ten images in each of cameras 1, 2, 4 and 5", (1, 2, 4, 5), 10),
            _sysu_mm01("sysu-mm01-indoor", "indoor search, single shot: one image in each of cameras 1 and 2", (1, 2), 1),
            _sysu_mm01("sysu-mm01-indoor-multi", "indoor search, multi shot: ten images in each of cameras 1 and 2", (1, 2), 10),
            Protocol(
                "regdb",
                "RegDB: all test images of one modality search all of the other; one of the dataset's ten splits at a time.",
                lists="pooled",
                drop_same_camera=False,
                sampling="segments",
                frames=1,
            ),
            Protocol(
                "llcm",
                "LLCM: one image of each person in each camera of the searched modality, drawn ten times; a query never meets its"
                " own identity in its own camera; rank-k counts each person once.",
                lists="pooled",
                drop_same_camera=True,
                sampling="segments",
                frames=1,
                unique_identities=True,
                draw=Draw(),
                layout="llcm",
            ),
            Protocol(
                "folder",
                "Your own footage: query tracklets of one modality search the gallery's of the other; where there are no two"
                " lists, all test tracklets of one modality search all of the other. A query never meets its own identity in its"
                " own camera.",
                lists="by_modality_or_pooled",
                drop_same_camera=True,
                sampling="segments",
                frames=6,
            ),
        )
    },
)

# By the name of a dataset. The full BUPTCampus lists, since the legacy protocol leaves nothing of a small dataset.
DEFAULTS: Catalog[str] = Catalog(
    "dataset",
    {
        "hitsz-vcm": "hitsz-vcm",
        "buptcampus": "buptcampus-full",
        "sysu-mm01": "sysu-mm01",
        "regdb": "regdb",
        "llcm": "llcm",
        "folder": "folder",
    },
)


def default_protocol(dataset: str) -> Protocol:
    """The protocol that a dataset of this name is scored under unless another is asked for. Raises :class:`UnknownNameError`."""
    return PROTOCOLS[DEFAULTS[dataset]]


def choose_protocol(name: str, dataset: str) -> Protocol:
    """The protocol of this name; ``auto`` takes the dataset's own.

    Raises :class:`UnknownNameError`, and :class:`DataError` for a protocol whose rules are about another layout.
    """
    chosen = default_protocol(dataset) if name == "auto" else PROTOCOLS[name]
    if chosen.layout not in ("", dataset):
        own = DEFAULTS[dataset]
        raise DataError(f"protocol {name} is about the cameras of {chosen.layout}, this dataset is {dataset}; choose {own} or auto")
    return chosen


def _whole_batches(side: Embeddings, batch: int) -> Embeddings:
    """Without the last (visible count mod batch) visible rows: what the BUPTCampus authors' sampler loses."""
    visible = np.flatnonzero(side.modalities == Modality.VISIBLE)
    surplus = len(visible) % batch if batch else 0
    kept = np.ones(len(side), dtype=bool)
    kept[visible[len(visible) - surplus :]] = False
    return side.take(kept) if surplus else side


def _joined(a: Embeddings, b: Embeddings) -> Embeddings:
    if not len(a) or not len(b):
        return a if len(a) else b
    return Embeddings(
        parts=np.concatenate([a.parts, b.parts]),
        tracklet_ids=a.tracklet_ids + b.tracklet_ids,
        identities=np.concatenate([a.identities, b.identities]),
        cameras=np.concatenate([a.cameras, b.cameras]),
        modalities=np.concatenate([a.modalities, b.modalities]),
        fingerprint=a.fingerprint,
        frames=a.frames + b.frames if a.frames and b.frames else [],
    )
