"""Decoding and resizing against Pillow, and every way in which a file can be broken."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from dinogrl.data.frames import decode, encode_jpeg, encode_png, fault, read_clip, read_frame, resize, write_image
from dinogrl.data.tiff_orientation import as_stored
from dinogrl.errors import DataError
from dinogrl.records import Modality, Tracklet


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth shapes with some noise, as a photograph has."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (max(height // 8, 2), max(width // 8, 2), 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)


def test_jpeg_equals_pillow() -> None:
    content = encode_jpeg(picture(97, 61), quality=85)
    assert np.array_equal(decode(content), np.asarray(Pillow.open(io.BytesIO(content))))


@pytest.mark.parametrize("kind", ["png", "bmp", "webp", "tiff"])
def test_other_formats_equal_pillow(kind: str) -> None:
    buffer = io.BytesIO()
    Pillow.fromarray(picture(40, 30)).save(buffer, kind, **({"lossless": True} if kind == "webp" else {}))
    assert np.array_equal(decode(buffer.getvalue()), picture(40, 30))


@pytest.mark.parametrize(
    ("mode", "kind"), [("L", "jpeg"), ("L", "png"), ("CMYK", "jpeg"), ("RGBA", "png"), ("P", "png"), ("1", "png")]
)
def test_every_colour_mode_becomes_rgb(mode: str, kind: str) -> None:
    buffer = io.BytesIO()
    Pillow.fromarray(picture(40, 30)).convert(mode).save(buffer, kind)
    image = decode(buffer.getvalue())
    assert image.shape == (40, 30, 3) and image.dtype == np.uint8


@pytest.mark.parametrize(("mode", "kind"), [("RGB", "jpeg"), ("CMYK", "jpeg"), ("RGB", "png"), ("RGB", "webp")])
def test_orientation_tag_is_ignored(mode: str, kind: str) -> None:
    """Datasets' networks were trained on pixels as stored."""
    buffer, tags = io.BytesIO(), Pillow.Exif()
    tags[274] = 6
    Pillow.fromarray(picture(40, 30)).convert(mode).save(buffer, kind, exif=tags)
    assert decode(buffer.getvalue()).shape == (40, 30, 3)


def tiff(image: np.ndarray, orientation: int, order: str, large: bool) -> bytes:
    """An uncompressed TIFF, written entry by entry: Pillow writes one of the four kinds only."""
    height, width = image.shape[:2]
    wide, head = ("Q", 16) if large else ("I", 8)
    start = head + image.size
    entries = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, head)]
    entries += [(274, 3, 1, orientation), (277, 3, 1, 3), (278, 3, 1, height), (279, 4, 1, image.size)]
    first = (b"II" if order == "<" else b"MM") + struct.pack(
        order + ("HHHQ" if large else "HI"), *([43, 8, 0] if large else [42]), start
    )
    out = first + image.tobytes() + struct.pack(order + ("Q" if large else "H"), len(entries))
    for tag, kind, count, value in entries:
        content = struct.pack(order + ("H" if kind == 3 else "I"), value)
        out += struct.pack(order + "HH" + wide, tag, kind, count) + content.ljust(8 if large else 4, b"\0")
    return out + struct.pack(order + wide, 0)


@pytest.mark.parametrize(("order", "large"), [("<", False), (">", False), ("<", True), (">", True)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_taken_as_stored_too(orientation: int, order: str, large: bool) -> None:
    """OpenCV turns a TIFF even when told not to."""
    assert np.array_equal(decode(tiff(picture(40, 30), orientation, order, large)), picture(40, 30))


@given(st.sampled_from([b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"]), st.binary(max_size=80))
def test_bytes_that_only_begin_like_a_tiff_change_their_length_never(head: bytes, junk: bytes) -> None:
    assert len(as_stored(head + junk)) == len(head + junk)


@pytest.mark.parametrize("source", [(300, 140), (512, 256), (90, 200), (128, 64), (257, 129), (31, 17)])
def test_resizing_is_pillows_bilinear_within_one_level(source: tuple[int, int]) -> None:
    image = picture(*source)
    expected = np.asarray(Pillow.fromarray(image).resize((128, 256), Pillow.Resampling.BILINEAR)).astype(int)
    assert np.abs(resize(image, (256, 128)).astype(int) - expected).max() <= 1


def test_resizing_to_the_same_size_copies_nothing() -> None:
    image = picture(64, 32)
    assert resize(image, (64, 32)) is image


@settings(max_examples=30)
@given(st.floats(0, 0.999))
def test_a_truncated_file_is_an_error(share: float) -> None:
    for content in (encode_jpeg(picture(48, 32)), encode_png(picture(48, 32))):
        with pytest.raises(DataError):
            decode(content[: int(len(content) * share)])


@settings(max_examples=60)
@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"\xff\xd8\xff", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF", b"GIF89a"]),
)
def test_garbage_is_an_error_and_nothing_else(garbage: bytes, start: bytes) -> None:
    with pytest.raises(DataError):
        decode(start + garbage)


def tracklet(folder: Path, frames: int = 6) -> Tracklet:
    for number in range(frames):
        write_image(folder / f"{number}.jpg", np.full((16, 8, 3), 20 * number, np.uint8))
    return Tracklet("walk", 0, 0, Modality.VISIBLE, str(folder), tuple(f"{number}.jpg" for number in range(frames)))


BREAK = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "no image": lambda path: path.write_bytes(b"hello, this is no image at all"),
    "cannot be read": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("kind", BREAK)
def test_a_broken_frame_is_named_in_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "1.jpg"
    write_image(path, picture(64, 32))
    assert fault(path) is None and fault(path, full=True) is None
    BREAK[kind](path)
    with pytest.raises(DataError, match=kind) as caught:
        read_frame(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert fault(path) is not None and fault(path, full=True) is not None


def test_a_name_that_no_file_system_takes() -> None:
    for name in ("a\0b.jpg", "x" * 5000, "\ud800.jpg"):
        with pytest.raises(DataError):
            read_frame(name)
        assert fault(name) is not None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_fault_does_not_wait_for_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert fault(tmp_path / "pipe.jpg") == "is no file"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_reading_does_not_wait_for_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(DataError, match=r"pipe\.jpg cannot be read .it is no file"):
        read_frame(tmp_path / "pipe.jpg")


def test_a_jpeg_that_would_fill_the_memory_is_not_unfolded() -> None:
    content = bytearray(encode_jpeg(picture(40, 30)))
    at = content.index(b"\xff\xc0") + 5  # of the frame's header: height and width
    content[at : at + 4] = (65500).to_bytes(2) * 2
    with pytest.raises(DataError, match="65500x65500 pixels"):
        decode(bytes(content))


def test_bytes_broken_inside_are_found_by_the_full_look(tmp_path: Path) -> None:
    """First and last bytes are right, so only decoding can tell."""
    content = encode_jpeg(picture(64, 32))
    path = tmp_path / "1.jpg"
    path.write_bytes(content[:200] + b"\xff\xd9")
    assert fault(path, full=True) is not None


def test_padding_after_the_end_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "1.jpg"
    path.write_bytes(encode_jpeg(picture(64, 32)) + b"\0" * 5000)
    assert fault(path) is None and read_frame(path).shape == (64, 32, 3)


def test_clip_reads_the_frames_that_were_asked_for(tmp_path: Path) -> None:
    clip, replaced = read_clip(tracklet(tmp_path), np.array([0, 3, 5, 5]), (16, 8))
    assert replaced == 0 and clip.shape == (4, 16, 8, 3)
    assert np.abs(clip.mean((1, 2, 3)) - [0, 60, 100, 100]).max() < 2


def test_neighbour_replaces_a_broken_frame_and_counts(tmp_path: Path) -> None:
    walk = tracklet(tmp_path)
    for number in (3, 4):
        (tmp_path / f"{number}.jpg").write_bytes(b"")
    indices = np.array([0, 3, 4, 4])
    with pytest.raises(DataError, match=r"3\.jpg"):
        read_clip(walk, indices, (16, 8))
    clip, replaced = read_clip(walk, indices, (16, 8), "neighbour")
    assert replaced == 3
    assert np.abs(clip.mean((1, 2, 3)) - [0, 40, 100, 100]).max() < 2
    write_image(tmp_path / "3.jpg", np.full((16, 8, 3), 60, np.uint8))
    between, _ = read_clip(walk, np.array([4]), (16, 8), "neighbour")
    assert abs(between.mean() - 60) < 2, "of 3 and 5, equally near, the earlier"


def test_a_wholly_broken_tracklet_stops_either_way(tmp_path: Path) -> None:
    walk = tracklet(tmp_path, 3)
    for number in range(3):
        (tmp_path / f"{number}.jpg").unlink()
    with pytest.raises(DataError, match="no frame of tracklet 'walk'"):
        read_clip(walk, np.array([0, 1]), (16, 8), "neighbour")


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.jpg"])
def test_written_images_come_back(tmp_path: Path, name: str) -> None:
    for image in (picture(40, 30), picture(40, 30)[..., 0]):
        write_image(tmp_path / name, image)
        back = read_frame(tmp_path / name).astype(int)
        expected = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
        assert np.abs(back - expected).mean() <= (6 if name == "a.jpg" else 0)
        assert name != "a.jpg" or (tmp_path / name).read_bytes() == encode_jpeg(image, quality=95)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_advice_fits_the_place(tmp_path: Path) -> None:
    """A picture by itself has no neighbour and no recipe; a dataset's frame must not be removed, an index names it."""
    (tmp_path / "1.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1\.jpg is no image.*; restore the file, or remove it$"):
        read_frame(tmp_path / "1.jpg")
    walk = Tracklet("walk", 0, 0, Modality.VISIBLE, str(tmp_path), ("1.jpg",))
    with pytest.raises(DataError, match=r"1\.jpg is no image.*--broken-frames neighbour$"):
        read_clip(walk, np.array([0]), (16, 8))
