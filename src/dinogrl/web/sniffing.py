"""What a file is, told from its first bytes and from nothing else: no name, no declared type, no decoder.

Only what is told here is ever handed to a decoder, and pictures only after their size was read from their header: a PNG of a few
kilobytes can unfold to gigabytes.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

HEAD = 512
"""First bytes of a file that :func:`kind_of` looks at."""
KINDS = "JPEG, PNG or WebP pictures, or one MP4, MOV, MKV, WebM, AVI or MPEG-TS video"

Size = tuple[int, int]
_BLOCK = 1 << 16
_MOST_SCANS, _MOST_SEGMENTS = 100, 10_000
_JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # but for those that stand between the bytes of a scan


@dataclass(frozen=True)
class Kind:
    """``suffix`` of the files that we write; ``size`` reads (height, width) of a picture from its bytes, None for videos.

    ``overflows``: does a picture unfold to more than it declares, or take more work? None for kinds that cannot.
    """

    suffix: str
    size: Callable[[bytes], Size | None] | None = None
    overflows: Callable[[bytes, Size], bool] | None = None


def kind_of(head: bytes) -> Kind | None:
    """What begins with these bytes, or None for anything that is not taken."""
    return next((kind for recognises, kind in _KINDS if recognises(head)), None)


def _png_size(content: bytes) -> Size | None:
    if len(content) < 24 or content[12:16] != b"IHDR":
        return None
    width, height = struct.unpack(">II", content[16:24])
    return height, width


def _png_overflows(content: bytes, size: Size) -> bool:
    """Unfolds the pixels and throws them away, up to what 16-bit RGBA of this size would take."""
    left, unfolding, at = 8 * size[0] * (size[1] + 1) + _BLOCK, zlib.decompressobj(), 8
    while at + 12 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        waiting = content[at + 8 : at + 8 + length] if content[at + 4 : at + 8] == b"IDAT" else b""
        while waiting and not unfolding.eof:
            try:
                left -= len(unfolding.decompress(waiting, _BLOCK))
            except zlib.error:
                return False  # broken; the decoder says how
            waiting = unfolding.unconsumed_tail
            if left < 0:
                return True
        at += 12 + length
    return False


def _jpeg_size(content: bytes) -> Size | None:
    """From the first start-of-frame marker; a second one is refused by the decoder."""
    at = 2
    while at + 9 <= len(content):
        if content[at] != 0xFF:
            return None
        marker = content[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", content[at + 5 : at + 9])
            return height, width
        if marker in (0xD9, 0xDA):
            return None
        bare = marker == 0x01 or 0xD0 <= marker <= 0xD8  # markers without a length
        at += 2 if bare else 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return None


def _jpeg_overflows(content: bytes, _: Size) -> bool:
    """Are there more scans than anybody writes? Each is a walk over all pixels, for as little as sixty bytes."""
    at, scans = 2, 0
    for _segment in range(_MOST_SEGMENTS):
        found = _JPEG_MARKER.search(content, at)
        if found is None or found[0] == b"\xff\xd9":
            return False
        scans += found[0] == b"\xff\xda"
        if scans > _MOST_SCANS:
            return True
        bare = found[0] in (b"\xff\x01", b"\xff\xd8")
        at = found.end() + (0 if bare else max(int.from_bytes(content[found.end() : found.end() + 2], "big"), 2))
    return True


def _webp_size(content: bytes) -> Size | None:
    kind, body = content[12:16], content[20:30]
    if len(body) < 10:
        return None
    if kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack("<HH", body[6:10])
        return height & 0x3FFF, width & 0x3FFF
    if kind == b"VP8L" and body[:1] == b"\x2f":
        bits = int.from_bytes(body[1:5], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8X":
        return int.from_bytes(body[7:10], "little") + 1, int.from_bytes(body[4:7], "little") + 1
    return None


def _is_transport_stream(head: bytes) -> bool:
    return len(head) > 376 and head[0] == head[188] == head[376] == 0x47


_KINDS: list[tuple[Callable[[bytes], bool], Kind]] = [
    (lambda head: head.startswith(b"\xff\xd8\xff"), Kind(".jpg", _jpeg_size, _jpeg_overflows)),
    (lambda head: head.startswith(b"\x89PNG\r\n\x1a\n"), Kind(".png", _png_size, _png_overflows)),
    (lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP", Kind(".webp", _webp_size)),
    (lambda head: head[:4] == b"RIFF" and head[8:12] == b"AVI ", Kind(".avi")),
    (lambda head: head[4:8] == b"ftyp", Kind(".mp4")),
    (lambda head: head.startswith(b"\x1a\x45\xdf\xa3"), Kind(".mkv")),
    (_is_transport_stream, Kind(".ts")),
]
VIDEOS = frozenset(kind.suffix for _, kind in _KINDS if kind.size is None)
"""Suffixes of our own that videos are kept under."""
