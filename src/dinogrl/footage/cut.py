"""A video goes in, tracklets come out: the line along which the parts of this package stand."""

from __future__ import annotations

import math
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from dinogrl.data.natural_order import natural_key
from dinogrl.data.sightings import UNKNOWN, Sighting, read_sighting, write_sighting
from dinogrl.errors import DataError
from dinogrl.footage.cutter import Cut, Cutter
from dinogrl.footage.detect import Detector, load_detector
from dinogrl.footage.ledger import BoxJournal, fingerprint, open_entry
from dinogrl.footage.modality import colourfulness, with_modality
from dinogrl.footage.movement import MovementGate
from dinogrl.footage.settings import MODALITIES, FootageSettings
from dinogrl.footage.track import Tracked, Tracker
from dinogrl.footage.video import Picture, Source, Thinning, is_stream, open_source, without_password
from dinogrl.records import Modality

_SECONDS_BETWEEN_REPORTS = 0.5


@dataclass(frozen=True, slots=True)
class CutTracklet:
    """A tracklet on disk: its folder, and its ``tracklet.json`` in short. Times in seconds from the start of the video."""

    folder: Path
    camera: str
    modality: Modality
    start: float
    end: float
    started_at: datetime | None
    frames: int


@dataclass(frozen=True, slots=True)
class FootageProgress:
    """How far a video is: ``frame`` of ``frames`` (None: nobody knows), at ``speed`` frames of the video a second."""

    source: str
    frame: int
    frames: int | None
    speed: float
    tracklets: int


@dataclass(frozen=True)
class CutResult:
    """``tracklets`` of one video in order; ``warnings``: what was wrong with it; ``skipped``: an earlier run had done it."""

    source: str
    tracklets: list[CutTracklet]
    warnings: list[str]
    skipped: bool


def cut_tracklets(
    video: str | Path,
    out: str | Path,
    *,
    detector: str | Detector = "hog",
    settings: FootageSettings | None = None,
    device: str = "auto",
    replace_earlier: bool = False,
    on_progress: Callable[[FootageProgress], None] | None = None,
) -> list[CutTracklet]:
    """Find the people in a video, follow them, and write a folder of frames for each stretch in which one is seen.

    ``video``: a file, a folder of pictures or a stream's address. ``out`` may hold tracklets of other videos already. See
    :func:`cut_video` for the rest, which gives the warnings besides.
    """
    result = cut_video(
        video, out, detector=detector, settings=settings, device=device, replace_earlier=replace_earlier, on_progress=on_progress
    )
    return result.tracklets


def cut_video(
    video: str | Path,
    out: str | Path,
    *,
    detector: str | Detector = "hog",
    settings: FootageSettings | None = None,
    device: str = "auto",
    replace_earlier: bool = False,
    on_progress: Callable[[FootageProgress], None] | None = None,
) -> CutResult:
    """As :func:`cut_tracklets`. Interrupted at any moment and called again, it goes on and ends with the same files.

    A video that was cut to its end before is passed over; with other settings it is an error, unless ``replace_earlier`` allows to
    take its tracklets away and cut it again. Raises :class:`DataError` for a video that cannot be opened or gives not one frame,
    and :class:`dinogrl.errors.DinogrlError` for a detector or settings that cannot be used.
    """
    settings, out = settings or FootageSettings(), Path(out)
    finder = load_detector(detector, device) if isinstance(detector, str) else detector
    moment = datetime.now(UTC)
    with open_source(video) as source:
        settings = replace(settings, camera=plain_name(settings.camera or plain_stem(video), "camera"))
        key = fingerprint(video, moment.isoformat())
        choices = settings.as_dict() | {"detector": finder.name}
        with open_entry(out, key, source.name, choices, replace_earlier, lambda: _remove_tracklets(out, key)) as entry:
            if entry.done:
                return CutResult(source.name, _tracklets_of(out, key), entry.warnings, skipped=True)
            started = settings.start or (moment if is_stream(video) else source.started)
            writer = _Writer(out, f"{UNKNOWN}{plain_stem(video)}-{key}", source.name, key, started, settings, finder.name)
            with closing(entry.journal()) as journal:
                report = _Report(source, settings.duration, writer, on_progress)
                _cut(source, finder, settings, journal, writer, report, endless=is_stream(video))
            entry.finish(source.warnings)
        return CutResult(source.name, _tracklets_of(out, key), source.warnings, skipped=False)


def _cut(
    source: Source,
    finder: Detector,
    settings: FootageSettings,
    journal: BoxJournal,
    writer: _Writer,
    report: _Report,
    endless: bool,
) -> None:
    """The line itself: pictures, boxes, tracks, modality, tracklets."""
    cutter = Cutter(settings)
    thinning = Thinning(settings.every, settings.fps)
    given = MODALITIES[settings.modality]
    followed = _follow(source, finder, thinning, settings, journal, report)
    try:
        for (picture, persons), modality in with_modality(followed):
            for cut in cutter.add(picture, modality if given is None else given, persons):
                writer.write(cut)
    except KeyboardInterrupt:
        if not endless:
            raise  # to be gone on with; a stream never ends by itself, so this is how its watching is ended
    for cut in cutter.flush():
        writer.write(cut)
    report.last()


def _follow(
    source: Source, finder: Detector, thinning: Thinning, settings: FootageSettings, journal: BoxJournal, report: _Report
) -> Iterator[tuple[tuple[Picture, list[Tracked]], float]]:
    """Each picture that is looked at, with the persons in it and its colourfulness."""
    rate = thinning.rate(source.frame_rate)
    tracker = Tracker(rate)
    gate = None if finder.sees_still else MovementGate(rate)
    for picture in source.pictures(thinning):
        report.next_frame()
        if picture is None:
            continue
        if settings.duration is not None and picture.time >= settings.duration:
            return
        found = journal.boxes(picture.index, lambda image=picture.image: finder(image))  # type: ignore[misc]
        if gate is not None:
            found = gate(picture.image, found)
        yield (picture, tracker.update(found)), colourfulness(picture.image)


class _Writer:
    """Puts tracklets into the folder layout. A tracklet that an earlier, interrupted run has written is the same, and stays."""

    def __init__(
        self, out: Path, prefix: str, source: str, key: str, started: datetime | None, settings: FootageSettings, detector: str
    ) -> None:
        self._out, self._prefix, self._source, self._key = out, prefix, source, key
        self._started, self._settings, self._detector = started, settings, detector
        self.count = 0

    def write(self, cut: Cut) -> None:
        """Write one tracklet beside its place, then move it there, so that nobody ever sees half of it."""
        camera = str(self._settings.camera)
        folder = self._out / f"{self._prefix}-{cut.person:04d}" / camera / cut.modality.name.lower() / f"{cut.part:02d}"
        self.count += 1
        if folder.is_dir():
            return
        beside = folder.with_name(f".{folder.name}.part")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        for frame, content in zip(cut.frames, cut.crops, strict=True):
            (beside / frame.file).write_bytes(content)
        write_sighting(
            beside,
            Sighting(
                source=self._source,
                fingerprint=self._key,
                camera=camera,
                modality=cut.modality,
                track=cut.person,
                detector=self._detector,
                started=self._started,
                frames=tuple(cut.frames),
            ),
        )
        beside.replace(folder)


class _Report:
    """Counts frames and tells how it goes, twice a second at most."""

    def __init__(
        self, source: Source, duration: float | None, writer: _Writer, on_progress: Callable[[FootageProgress], None] | None
    ) -> None:
        self._source, self._writer, self._tell = source, writer, on_progress
        wanted = None if duration is None else math.ceil(duration * source.frame_rate)
        self._frames = min((number for number in (source.frames, wanted) if number is not None), default=None)
        self._begin = self._told = time.monotonic()
        self._frame = 0

    def next_frame(self) -> None:
        """To be called once for each frame of the video."""
        self._frame += 1
        if time.monotonic() - self._told >= _SECONDS_BETWEEN_REPORTS:
            self._say(None if self._frames is None else max(self._frames, self._frame))

    def last(self) -> None:
        """The end, wherever it was expected."""
        self._say(self._frame)

    def _say(self, frames: int | None) -> None:
        self._told = time.monotonic()
        if self._tell is not None:
            speed = self._frame / max(self._told - self._begin, 1e-9)
            self._tell(FootageProgress(self._source.name, self._frame, frames, speed, self._writer.count))


def plain_name(name: str, otherwise: str) -> str:
    """A name that is safe as that of a folder: letters, digits, dot, dash and underline, 40 at most."""
    return re.sub(r"[^\w.-]+", "-", name).strip(".-_")[:40].rstrip(".-_") or otherwise


def plain_stem(source: str | Path) -> str:
    """What a video is called in the names of its folders: its file's name without the ending, or a stream's host and path."""
    if is_stream(source):
        address = urlsplit(without_password(str(source)))
        return plain_name(f"{address.hostname or ''}{address.path}", "stream")
    return plain_name(Path(source).expanduser().resolve().stem, "video")


def _tracklets_of(out: Path, key: str) -> list[CutTracklet]:
    """What was cut from a video and still bears its name, in the order of time."""
    found = []
    for folder in out.glob(f"{UNKNOWN}*-{key}-*/*/*/*"):
        seen = None if folder.name.startswith(".") else read_sighting(folder)
        if seen is not None:
            times = (seen.start, seen.end, seen.started_at)
            found.append(CutTracklet(folder, seen.camera, seen.modality, *times, len(seen.frames)))
    return sorted(found, key=lambda tracklet: (tracklet.start, natural_key(tracklet.folder.as_posix())))


def _remove_tracklets(out: Path, key: str) -> None:
    """Remove what was cut from a video. What has got another name since then stays: somebody has worked on it."""
    for folder in out.glob(f"{UNKNOWN}*-{key}-*"):
        try:
            shutil.rmtree(folder)
        except OSError as error:
            raise DataError(f"{folder} cannot be removed ({error.strerror}); remove it by hand") from error
