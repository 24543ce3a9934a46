"""Order of frame names where no list gives one: 1, 2, 10 and not 1, 10, 2."""

from __future__ import annotations

import re
from collections.abc import Iterable

_DIGITS = re.compile(r"([0-9]+)")
_EVERY_DIGIT_ZERO = str.maketrans("123456789", "000000000")


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key: runs of digits compare as numbers, everything else as text; equal numbers (1, 01) by their writing."""
    parts = [part for part in _DIGITS.split(name) if part]
    return tuple((0, int(part[:4000]), part) if part[0] in "0123456789" else (1, 0, part) for part in parts)


def natural_sorted(names: Iterable[str]) -> list[str]:
    """Names in natural order."""
    names = list(names)
    if len({name.translate(_EVERY_DIGIT_ZERO) for name in names}) <= 1:
        return sorted(names)  # same form throughout (0001.jpg, 0002.jpg): plain order is natural order, and ten times as fast
    return sorted(names, key=natural_key)
