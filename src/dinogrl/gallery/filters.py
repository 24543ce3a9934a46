"""Which tracklets of a gallery are meant: one set of conditions, said to Milvus as an expression and to arrays as a mask."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dinogrl.gallery.entries import UNKNOWN_TIME, key_of, milliseconds
from dinogrl.records import Modality


@dataclass(frozen=True)
class Filters:
    """Conditions that a tracklet meets all of; an empty one lets everything pass.

    It was seen by one of ``cameras``, in one of ``modalities``, belongs to one of ``collections``, was still seen at ``after`` or
    later, and already at ``before`` or earlier (a tracklet without times then does not pass), was put into the gallery before
    ``added_before``, and is none of ``exclude`` (ids).
    """

    cameras: Sequence[str] = ()
    modalities: Sequence[Modality] = ()
    collections: Sequence[str] = ()
    after: datetime | None = None
    before: datetime | None = None
    added_before: datetime | None = None
    exclude: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self.expression())

    def expression(self) -> str:
        """For Milvus; empty where everything passes. Names are written as JSON text, so that a quote in them stays a letter."""
        conditions = [
            _one_of("camera", self.cameras),
            _one_of("modality", [int(modality) for modality in self.modalities]),
            _one_of("collection", self.collections),
            f"end_ms >= {milliseconds(self.after)} and end_ms != {UNKNOWN_TIME}" if self.after is not None else "",
            f"start_ms <= {milliseconds(self.before)} and start_ms != {UNKNOWN_TIME}" if self.before is not None else "",
            f"added_ms < {milliseconds(self.added_before)}" if self.added_before is not None else "",
            f"not ({_one_of('key', [key_of(id) for id in self.exclude])})" if self.exclude else "",
        ]
        return " and ".join(f"({condition})" for condition in conditions if condition)

    def mask(self, columns: Columns) -> NDArray[np.bool_]:
        """(N,) which rows pass."""
        passed = columns.present()
        if self.cameras:
            passed &= np.isin(columns.camera, columns.codes(self.cameras))
        if self.modalities:
            passed &= np.isin(columns.modality, [int(modality) for modality in self.modalities])
        if self.collections:
            passed &= np.isin(columns.collection, columns.codes(self.collections))
        if self.after is not None:
            passed &= (columns.end_ms >= milliseconds(self.after)) & (columns.end_ms != UNKNOWN_TIME)
        if self.before is not None:
            passed &= (columns.start_ms <= milliseconds(self.before)) & (columns.start_ms != UNKNOWN_TIME)
        if self.added_before is not None:
            passed &= columns.added_ms < milliseconds(self.added_before)
        if self.exclude:
            passed[columns.rows(self.exclude)] = False
        return passed


class Columns(Protocol):
    """The facts of N tracklets as arrays; names are numbers there, which :meth:`codes` gives."""

    @property
    def camera(self) -> NDArray[np.int32]: ...
    @property
    def collection(self) -> NDArray[np.int32]: ...
    @property
    def modality(self) -> NDArray[np.int8]: ...
    @property
    def start_ms(self) -> NDArray[np.int64]: ...
    @property
    def end_ms(self) -> NDArray[np.int64]: ...
    @property
    def added_ms(self) -> NDArray[np.int64]: ...

    def present(self) -> NDArray[np.bool_]:
        """(N,) a new array: which rows hold a tracklet."""

    def codes(self, names: Iterable[str]) -> list[int]:
        """Numbers of those of the names that are known."""

    def rows(self, ids: Iterable[str]) -> list[int]:
        """Rows of those of the ids that are there."""


def _one_of(field: str, values: Sequence[str] | Sequence[int]) -> str:
    return f"{field} in {json.dumps(list(values), ensure_ascii=False)}" if values else ""
