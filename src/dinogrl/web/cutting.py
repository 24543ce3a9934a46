"""A stranger's video is decoded in a process of its own, with bounds on time, memory and disk: it can take down that one alone.

The two talk in lines of JSON: what has read hostile bytes must not hand objects to the server.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Event
from typing import Any

from dinogrl.errors import DataError, DinogrlError
from dinogrl.records import Modality
from dinogrl.web.limits import MB, Limits

Tell = Callable[[str, int, int], None]
"""Told the stage, how much of it is done, of how much."""
_DISK = 1024 * MB
_SECONDS_BETWEEN_LOOKS = 0.2


class Stopped(DinogrlError):
    """The server ends; the job goes on when it begins again."""


@dataclass(frozen=True)
class Found:
    """A tracklet of a video: its pictures in order."""

    modality: Modality
    frames: list[Path]


@dataclass(frozen=True)
class Cutter:
    """Cuts a video into tracklets. ``detector`` and ``device`` as ``dinogrl footage`` takes them."""

    limits: Limits
    detector: str = "hog"
    device: str = "auto"

    def __call__(self, video: Path, modality: str, out: Path, tell: Tell, stopping: Event) -> list[Found]:
        """Tracklets in the order of time; called again after an interruption it goes on.

        Raises :class:`DataError` for a video that cannot be used or takes too much, :class:`Stopped` when ``stopping`` is set.
        """
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe(duplex=False)
        child = context.Process(target=_cut, args=(there, str(video), modality, str(out), self), daemon=True)
        with _deaf():
            child.start()
        there.close()
        try:
            return _listen(here, self.limits, tell, stopping)
        finally:
            child.kill()
            child.join()
            here.close()


@contextmanager
def _deaf() -> Iterator[None]:
    """What is started in the block never hears Ctrl-C and SIGTERM, which may be sent to a whole group of processes.

    From its first moment: a decoder that they end would look like one that a hostile video has brought down. The server kills it.
    """
    resource_tracker.ensure_running()  # started later, by the other process's start, it would let the signals in again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _listen(here: Connection, limits: Limits, tell: Tell, stopping: Event) -> list[Found]:
    end = time.monotonic() + limits.job_seconds
    while True:
        if stopping.is_set():
            raise Stopped("the server ends")
        if time.monotonic() > end:
            raise DataError(f"the video took longer than {limits.job_seconds:g} seconds; send a shorter stretch of it")
        if not here.poll(_SECONDS_BETWEEN_LOOKS):
            continue
        try:
            message = json.loads(here.recv_bytes(16 * MB))
        except (EOFError, OSError) as error:
            raise DataError("the video brought its decoder down, or took too much memory; send another file") from error
        if "error" in message:
            raise DataError(message["error"])
        if "found" in message:
            return [Found(Modality[one["modality"]], [Path(frame) for frame in one["frames"]]) for one in message["found"]]
        tell("find people", message["frame"], message["frames"])


def _cut(there: Connection, video: str, modality: str, out: str, cutter: Cutter) -> None:
    """What the other process does."""
    os.nice(5)

    def say(**message: Any) -> None:
        there.send_bytes(json.dumps(message).encode())

    try:
        say(found=cut_here(Path(video), modality, Path(out), cutter, lambda frame, frames: say(frame=frame, frames=frames)))
    except DinogrlError as error:
        say(error=str(error).replace(video, "the video").replace(out, "the upload"))
    except MemoryError:
        say(error="the video took too much memory; send a smaller one")


def cut_here(video: Path, modality: str, out: Path, cutter: Cutter, tell: Callable[[int, int], None]) -> list[dict[str, Any]]:
    """The tracklets as plain values, made in this process, which is bounded from now on."""
    from dinogrl.footage import FootageProgress, FootageSettings, cut_tracklets
    from dinogrl.footage.detect import load_detector
    from dinogrl.footage.video import load_av, picture_paths

    detector = load_detector(cutter.detector, cutter.device)
    load_av()  # whatever is loaded counts as taken before
    _bound(cutter.limits)
    check_video(video, cutter.limits)
    settings = FootageSettings(camera="query", modality=modality, duration=cutter.limits.video_seconds, min_frames=4)

    def on_progress(at: FootageProgress) -> None:
        if at.frame > cutter.limits.video_frames:
            raise DataError(f"the video has more than {cutter.limits.video_frames} frames; send a shorter stretch of it")
        tell(at.frame, at.frames or at.frame)

    found = cut_tracklets(video, out, detector=detector, settings=settings, replace_earlier=True, on_progress=on_progress)
    return [
        {"modality": tracklet.modality.name, "frames": [str(path) for path in picture_paths(tracklet.folder)]} for tracklet in found
    ]


def check_video(video: Path, limits: Limits) -> None:
    """What the container declares, before a frame is decoded. Raises :class:`DataError` for what is too large."""
    from dinogrl.footage.video import load_av

    av = load_av()
    try:
        with av.open(f"file:{video}", options={"protocol_whitelist": "file"}, metadata_errors="replace") as container:
            sizes = [(stream.codec_context.width, stream.codec_context.height) for stream in container.streams.video]
            seconds = float(container.duration or 0) / av.time_base
    except MemoryError:  # which one of FFmpeg's own errors is
        raise
    except (av.FFmpegError, OSError, ValueError) as error:
        raise DataError("the video is broken, or of a kind that cannot be read; send another file") from error
    if not sizes:
        raise DataError("the file holds no moving pictures; send a video")
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    if width * height > limits.video_pixels:
        raise DataError(f"the video has {width} x {height} pixels a frame; at most {limits.video_pixels / 1e6:g} million are taken")
    if seconds > limits.video_seconds + 1:
        raise DataError(f"the video lasts {seconds:.0f} seconds; at most {limits.video_seconds:g} are taken, send a stretch of it")


def _bound(limits: Limits) -> None:
    """From now on this process may take so much more memory, so much time of a core, and write files of so many bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    bounds = {
        resource.RLIMIT_AS: pages * resource.getpagesize() + limits.job_memory if pages else resource.RLIM_INFINITY,
        resource.RLIMIT_CPU: int(limits.job_seconds * (os.cpu_count() or 1)),
        resource.RLIMIT_FSIZE: _DISK,
    }
    for what, most in bounds.items():
        _, hard = resource.getrlimit(what)
        resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
