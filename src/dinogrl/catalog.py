"""A catalog: name -> thing, written out as an explicit dictionary. Nothing registers itself by being imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from dinogrl.errors import UnknownNameError

T = TypeVar("T")


class Catalog(Mapping[str, T], Generic[T]):
    """A read-only dictionary whose missing key names the kind of thing, every known name and the nearest one.

    >>> losses = Catalog("loss", {"triplet": 1, "identity": 2})
    >>> losses["triplett"]
    Traceback (most recent call last):
    dinogrl.errors.UnknownNameError: unknown loss 'triplett'; did you mean 'triplet'?; known: identity, triplet
    """

    def __init__(self, kind: str, entries: Mapping[str, T]) -> None:
        self.kind = kind
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            raise UnknownNameError(self.kind, name, self._entries)
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries
