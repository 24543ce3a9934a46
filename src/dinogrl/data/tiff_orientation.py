"""The orientation tag of a TIFF, set to "as stored": OpenCV turns a TIFF by it even when told not to, and no other format."""

from __future__ import annotations

from typing import Literal

TAG = 274
AS_STORED = 1
_KINDS: dict[bytes, tuple[Literal["little", "big"], bool]] = {
    b"II*\0": ("little", False),
    b"MM\0*": ("big", False),
    b"II+\0": ("little", True),
    b"MM\0+": ("big", True),
}
"""First bytes: the order of bytes, and whether it is a BigTIFF."""


def as_stored(content: bytes) -> bytes:
    """The bytes of an image file; of a TIFF whose first picture is to be turned or mirrored, a copy that says it is not.

    Only the tag's value changes. What is no TIFF, or a broken one, comes back as it is.
    """
    if content[:4] not in _KINDS:
        return content
    order, large = _KINDS[content[:4]]

    def number(place: int, width: int) -> int:
        return int.from_bytes(content[place : place + width], order)

    start = number(8, 8) if large else number(4, 4)
    first, entries = (start + 8, number(start, 8)) if large else (start + 2, number(start, 2))
    width, value = (20, 12) if large else (12, 8)  # bytes of an entry; where in it the value is
    for entry in range(first, min(first + entries * width, len(content) - width + 1), width):
        if number(entry, 2) == TAG:
            place = entry + value
            return content[:place] + AS_STORED.to_bytes(2, order) + content[place + 2 :]
    return content
