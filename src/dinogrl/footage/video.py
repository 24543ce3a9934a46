"""Pictures out of a video file, a stream or a folder of pictures, one at a time: nothing but the picture at hand is kept."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

import numpy as np

from dinogrl.data.datasets.directories import IMAGE_SUFFIXES, images_in
from dinogrl.data.frames import Image, read_frame
from dinogrl.data.natural_order import natural_sorted
from dinogrl.errors import DataError

PICTURES_A_SECOND = 10.0
"""Frame rate that a folder of pictures is taken to have."""

_USUAL_RATE = 25.0  # where a container does not tell its rate
# What FFmpeg may open on behalf of a source: a file that names others must not lead it to the network, nor a stream to the disk.
_FROM_DISK = "file,crypto,data"
_FROM_NETWORK = "http,https,tcp,tls,udp,rtp,rtsp,rtmp,rtmps,srt,crypto,data"
_SECRET = re.compile(r"\b(user(?:name)?|login|pass(?:word|wd)?|pwd|auth|token|key|secret)=[^&;/?#]*", re.IGNORECASE)
# Text that FFmpeg would draw as a film, and lists of other files
_NO_VIDEO = frozenset({"tty", "bin", "xbin", "idf", "adf", "concat", "hls", "dash", "sdp", "lrc", "srt", "webvtt", "ass"})


@dataclass(frozen=True, slots=True)
class Picture:
    """``index`` of the frame in its source from 0, ``time`` in seconds from the start, ``image`` RGB (H,W,3) uint8."""

    index: int
    time: float
    image: Image


@dataclass
class Thinning:
    """Which frames are looked at: each ``every``-th, and of those at most ``fps`` a second (None: all)."""

    every: int = 1
    fps: float | None = None
    _due: float = field(default=-math.inf, repr=False)

    def wants(self, index: int, time: float) -> bool:
        """To be asked once for each frame, in order."""
        if index % self.every:
            return False
        if self.fps is None:
            return True
        if time < self._due - 1e-6:
            return False
        self._due = time + 1 / self.fps if time - self._due > 1 / self.fps else self._due + 1 / self.fps
        return True

    def rate(self, frame_rate: float) -> float:
        """Frames a second that are left of ``frame_rate``."""
        kept = frame_rate / self.every
        return kept if self.fps is None else min(kept, self.fps)


class Source(Protocol):
    """Where pictures come from. ``frames`` is the expected number, None where nobody knows; ``warnings`` grows on the way."""

    name: str
    frame_rate: float
    frames: int | None
    started: datetime | None
    warnings: list[str]

    def pictures(self, thinning: Thinning) -> Iterator[Picture | None]:
        """Every frame in order: the picture where it is wanted, None where it is passed over."""
        ...

    def close(self) -> None:
        """Let go of the file or the connection."""
        ...

    def __enter__(self) -> Source: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


def is_stream(source: str | Path) -> bool:
    """Is this an address such as rtsp://camera/1, not a path?"""
    scheme, mark, _ = str(source).partition("://")
    return bool(mark) and scheme.isalnum() and len(scheme) > 1


def without_password(address: str) -> str:
    """A stream's address, fit to be written down: user and password that may stand in it are left out.

    Many cameras take them behind the host, as in ``/live?user=admin&password=...``. Raises :class:`DataError` for no address.
    """
    try:
        parts = urlsplit(address)
    except ValueError as error:
        raise DataError(
            f"{address.partition('://')[0]}://... is no address ({error}); give one such as rtsp://host/stream"
        ) from error
    plain = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return _SECRET.sub(r"\1=...", plain)


def open_source(source: str | Path, timeout: float = 10.0) -> Source:
    """Open a video file, a stream's address or a folder of pictures.

    ``timeout``: seconds after which a silent stream is given up. Raises :class:`DataError` for what is missing or no video.
    """
    if is_stream(source):
        return Video(str(source), timeout)
    path = Path(source).expanduser()
    if path.is_dir():
        return PictureFolder(path)
    if not path.is_file() and "%" not in path.name:
        raise DataError(f"no video at {path}; give a file, a folder of pictures or an address such as rtsp://host/stream")
    return Video(path, timeout)


class _Closing:
    """``with`` closes the source."""

    def close(self) -> None:
        """Nothing to let go of."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Video(_Closing):
    """A file or stream that PyAV opens."""

    def __init__(self, source: str | Path, timeout: float) -> None:
        self._av = av = load_av()
        stream = is_stream(source)
        self.name = without_password(str(source)) if stream else str(source)
        options = {"protocol_whitelist": _FROM_NETWORK if stream else _FROM_DISK}
        if self.name.startswith("rtsp"):
            options["rtsp_transport"] = "tcp"
        try:
            self._container = av.open(
                str(source) if stream else f"file:{source}",
                options=options,
                timeout=timeout if stream else None,
                metadata_errors="replace",
            )
        except (av.FFmpegError, OSError, ValueError) as error:
            what = "stream cannot be opened" if stream else "is no video, or a broken one"
            raise DataError(f"{self.name} {what} ({_reason(error)})") from error
        kind = self._container.format.name
        if not self._container.streams.video or (not stream and _NO_VIDEO & set(kind.split(","))):
            self._container.close()
            raise DataError(f"{self.name} is no video: it holds {kind} without moving pictures; give a video file")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        self.frame_rate = float(self._stream.average_rate or self._stream.guessed_rate or _USUAL_RATE)
        self.frames = None if stream else self._stream.frames or (round(self._duration() * self.frame_rate) or None)
        self.started = _creation(dict(self._container.metadata) | dict(self._stream.metadata))
        self.warnings: list[str] = []

    def close(self) -> None:
        """Close the file or the connection."""
        self._container.close()

    def pictures(self, thinning: Thinning) -> Iterator[Picture | None]:
        """See :class:`Source`. Raises :class:`DataError` where not one frame can be decoded."""
        time, held, index = -1 / self.frame_rate, 0.0, -1
        first: float | None = None
        for index, frame in enumerate(self._decoded()):
            stamp = frame.time
            first = stamp if first is None else first
            told = None if stamp is None or first is None else stamp - first
            time = (
                told if told is not None and told > time else time + 1 / self.frame_rate
            )  # stamps that run backwards tell nothing
            held = float(getattr(frame, "duration", 0) * (frame.time_base or 0))  # an older PyAV does not tell it
            yield Picture(index, time, _upright(frame)) if thinning.wants(index, time) else None
        if index < 0:
            raise DataError(f"not one frame of {self.name} can be decoded; it is truncated, or of a format that PyAV does not know")
        if self.frames and index + 1 < 0.98 * self.frames - 2 and (self._stream.frames or not self._reached(time + held)):
            self.warnings.append(
                f"{index + 1} of {self.frames} frames could be decoded: it is truncated or broken; these were used"
            )

    def _decoded(self) -> Iterator[Any]:
        """Frames in order. A packet that cannot be decoded is passed over; where the container itself breaks off, the film ends."""
        packets, broken = self._container.demux(self._stream), 0
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except self._av.FFmpegError as error:
                self.warnings.append(f"breaks off ({_reason(error)}); what came before was used")
                break
            try:
                frames = packet.decode()
            except self._av.FFmpegError:
                broken += 1
                continue
            yield from frames
        if broken:
            self.warnings.append(f"{broken} broken packet{'s were' if broken > 1 else ' was'} passed over")

    def _reached(self, time: float) -> bool:
        """Does the film end where it should? Where frames are not counted but worked out, one of changing rate has others."""
        return time > 0.98 * self._duration() - 2 / self.frame_rate

    def _duration(self) -> float:
        """Seconds that the container declares; 0 where it declares none."""
        if self._stream.duration and self._stream.time_base:
            return float(self._stream.duration * self._stream.time_base)
        return (self._container.duration or 0) / self._av.time_base


class PictureFolder(_Closing):
    """The pictures of a folder in natural order of their names, as a film of ``PICTURES_A_SECOND``."""

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self._paths = picture_paths(folder)
        if not self._paths:
            raise DataError(
                f"no picture in the folder {folder}; give a video file, or a folder of {', '.join(sorted(IMAGE_SUFFIXES))}"
            )
        self.frame_rate = PICTURES_A_SECOND
        self.frames: int | None = len(self._paths)
        self.started: datetime | None = None
        self.warnings: list[str] = []

    def pictures(self, thinning: Thinning) -> Iterator[Picture | None]:
        """See :class:`Source`. A picture that cannot be read is passed over with a warning."""
        read = 0
        for index, path in enumerate(self._paths):
            time = index / self.frame_rate
            if not thinning.wants(index, time):
                yield None
                continue
            try:
                image = read_frame(path)
            except DataError as error:
                self.warnings.append(str(error).partition(";")[0])
                yield None
                continue
            read += 1
            yield Picture(index, time, image)
        if not read:
            raise DataError(f"not one picture of {self.name} can be read")


def picture_paths(folder: Path) -> list[Path]:
    """The pictures that lie in a folder, in natural order of their names."""
    return [folder / name for name in natural_sorted(images_in(folder))]


def load_av() -> Any:
    """PyAV, quiet. Raises :class:`DataError` that names the extra to install where it is missing."""
    try:
        import av
        import av.logging
    except ImportError as error:
        raise DataError("videos need PyAV, which is not installed: pip install 'dinogrl[footage]'") from error
    av.logging.set_level(None)  # FFmpeg's own complaints would tear the progress bar; what matters becomes a warning of ours
    return av


def _upright(frame: Any) -> Image:
    """The picture as it is meant to be seen: phones write lying pictures and a note on how to turn them."""
    image: Image = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def _creation(metadata: dict[str, str]) -> datetime | None:
    """Wall clock at the start, where the container tells one that can be true."""
    for key in ("com.apple.quicktime.creationdate", "creation_time"):
        try:
            moment = datetime.fromisoformat(metadata.get(key, "").strip())
        except ValueError:
            continue
        if moment.year >= 1990:  # clocks that were never set stand at 1904 or 1970
            return moment
    return None


def _reason(error: BaseException) -> str:
    """FFmpeg's own words, without the number and the path."""
    return str(getattr(error, "strerror", None) or error).split(": '")[0]
