"""Small pictures of tracklets: a few frames side by side, and a sheet of a query above what was found."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dinogrl.data.frames import Image, decode, encode_jpeg
from dinogrl.embedding.calibration import in_per_cent
from dinogrl.embedding.pictures import Frame, pixels
from dinogrl.errors import DataError
from dinogrl.gallery.entries import Hit

if TYPE_CHECKING:
    from matplotlib.backend_bases import RendererBase
    from matplotlib.text import Text

FRAMES, HEIGHT, WIDTH = 6, 96, 48
"""Of a strip: frames, and the pixels of each."""
_QUALITY = 78
_INK, _FAINT = "#1c2330", "#6b7483"


def make_strip(frames: Sequence[Frame]) -> bytes | None:
    """JPEG of up to six frames, evenly over the tracklet, side by side; None where no frame can be read."""
    chosen = [frames[i] for i in np.linspace(0, len(frames), min(FRAMES, len(frames)), endpoint=False).astype(int)]
    pictures = [picture for frame in chosen if (picture := _small(frame)) is not None]
    return encode_jpeg(np.concatenate(pictures, axis=1), _QUALITY) if pictures else None


def _small(frame: Frame) -> Image | None:
    """A frame at the size of a strip; None where its file is gone or broken, for a picture must not stop a search."""
    try:
        return pixels(frame, (HEIGHT, WIDTH))
    except DataError:
        return None


def strip_image(strip: bytes | None, frames: Sequence[Frame]) -> Image:
    """(96,288,3) a strip as kept, or made of the frames; grey where there is neither."""
    blank = np.full((HEIGHT, FRAMES * WIDTH, 3), 208, np.uint8)
    content = strip or (make_strip(frames) if len(frames) else None)
    if content is not None:
        picture = decode(content)[:HEIGHT, : FRAMES * WIDTH]
        blank[: picture.shape[0], : picture.shape[1]] = picture
    return blank


def draw_sheet(query: Image, title: str, hits: Sequence[Hit], strips: Sequence[Image]) -> bytes:
    """PNG: the query's strip above the strips of the hits, each with camera, time, distance and probability."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [query, *strips]
    gap, margin, text = 10, 16, 470
    height, width = margin + sum(len(row) + gap for row in rows) + gap, 2 * margin + FRAMES * WIDTH + text
    dots = 100
    figure = Figure(figsize=(width / dots, height / dots), dpi=dots, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    top = margin
    for row, picture in enumerate(rows):
        axes.imshow(picture, extent=(margin, margin + picture.shape[1], top + picture.shape[0], top), aspect="auto")
        first, *others = (title, "query") if row == 0 else _labels(row, hits[row - 1])
        left = margin + FRAMES * WIDTH + 14
        for number, line in enumerate((first, *others)):
            colour, size = (_FAINT, 9) if number else (_INK, 11)
            written = axes.text(left, top + 24 + 25 * number, line, color=colour, fontsize=size, va="center", parse_math=False)
            _shorten(written, line, width - margin, canvas.get_renderer())
        top += len(picture) + gap
        if row == 0:
            axes.plot([margin, width - margin], [top, top], color=_FAINT, linewidth=0.8)
            top += gap
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dots, metadata={"Software": "dinogrl"})
    return content.getvalue()


def _labels(rank: int, hit: Hit) -> tuple[str, str, str]:
    chance = "" if hit.probability is None else f"   same person {in_per_cent(hit.probability)}"
    when = "" if hit.start is None else f"   {hit.start:%Y-%m-%d %H:%M:%S %Z}"
    return f"{rank}.  {hit.camera}, {hit.modality.name.lower()}{when}", f"distance {hit.distance:.3f}{chance}", hit.id


def _shorten(written: Text, line: str, right: float, renderer: RendererBase) -> None:
    """Leave out of the middle of a line what would go over the picture's edge: names differ at their ends."""
    kept = len(line)
    while written.get_window_extent(renderer).x1 > right and kept > 2:
        kept = int(kept * 0.95)
        written.set_text(f"{line[: kept // 2]}…{line[len(line) - (kept - kept // 2) :]}")
