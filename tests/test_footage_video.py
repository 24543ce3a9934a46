"""Pictures out of files, streams and folders: in order, upright, thinned; what is broken is told."""

from __future__ import annotations

import struct
from contextlib import suppress
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dinogrl.data.frames import write_image
from dinogrl.errors import DataError
from dinogrl.footage.cut import plain_stem
from dinogrl.footage.ledger import fingerprint
from dinogrl.footage.video import Thinning, load_av, open_source, without_password
from tiny_films import HEIGHT, RATE, TWO, WIDTH, draw, write_film


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(
        tmp_path_factory.mktemp("films") / "street.mp4", 40, lambda frame: draw(TWO, frame), created="2026-11-21T18:30:00Z"
    )


def looked_at(source: Path | str, thinning: Thinning | None = None) -> tuple[list[int], list[float], list[str]]:
    """Index and time of the pictures, and the warnings."""
    with open_source(source) as opened:
        pictures = [picture for picture in opened.pictures(thinning or Thinning()) if picture is not None]
        return [p.index for p in pictures], [p.time for p in pictures], opened.warnings


def test_a_film_gives_its_pictures_in_order_with_times(film: Path) -> None:
    with open_source(film) as source:
        assert source.frames == 40 and source.frame_rate == RATE and source.started == datetime(2026, 11, 21, 18, 30, tzinfo=UTC)
        for number, picture in enumerate(source.pictures(Thinning())):
            assert picture is not None and picture.index == number and picture.time == pytest.approx(number / RATE, abs=1e-3)
            assert picture.image.shape == (HEIGHT, WIDTH, 3) and picture.image.dtype == np.uint8
            assert np.abs(picture.image.astype(int) - draw(TWO, number)).mean() < 12
    assert number == 39 and not source.warnings


@given(rate=st.floats(2, 60), every=st.integers(1, 5), fps=st.none() | st.floats(0.5, 40))
def test_thinning_keeps_the_rate_that_it_tells(rate: float, every: int, fps: float | None) -> None:
    thinning = Thinning(every, fps)
    wanted = [index for index in range(400) if thinning.wants(index, index / rate)]
    assert wanted[0] == 0 and all(index % every == 0 for index in wanted)
    assert abs(len(wanted) - 400 / rate * Thinning(every, fps).rate(rate)) <= 2 + (0 if fps is None else 400 / every * 0.5)
    if fps is not None:
        assert len(wanted) <= 400 / rate * fps + 2, "never more than asked for"


def test_thinning_recovers_from_a_gap_in_the_times() -> None:
    thinning = Thinning(fps=5)
    times = [*np.arange(0, 2, 0.1), *np.arange(60, 62, 0.1)]
    assert sum(thinning.wants(index, time) for index, time in enumerate(times)) == 20


def test_a_lying_picture_is_turned_upright(film: Path, tmp_path: Path) -> None:
    """As phones write it: the track header's matrix asks for a quarter turn clockwise."""
    content = bytearray(film.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 4 + 20 + 16
    content[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, HEIGHT << 16, 0, 1 << 30)
    (tmp_path / "phone.mp4").write_bytes(bytes(content))
    with open_source(tmp_path / "phone.mp4") as source:
        picture = next(iter(source.pictures(Thinning())))
    assert picture is not None and picture.image.shape == (WIDTH, HEIGHT, 3)
    assert np.abs(picture.image.astype(int) - np.rot90(draw(TWO, 0), -1)).mean() < 12


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_truncated_film_gives_what_is_there_and_a_warning(tmp_path: Path, share: float) -> None:
    whole = write_film(tmp_path / "whole.avi", 60, lambda frame: draw(TWO, frame)).read_bytes()
    (tmp_path / "torn.avi").write_bytes(whole[: int(share * len(whole))])
    indices, _, warnings = looked_at(tmp_path / "torn.avi")
    assert 0.5 * share * 60 < len(indices) < 60 and indices == list(range(len(indices)))
    assert len(warnings) == 1 and "truncated" in warnings[0]


def test_frames_that_are_broken_in_the_middle_are_counted(tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.mp4", 30, lambda frame: draw(TWO, frame))
    content = bytearray(path.read_bytes())
    with load_av().open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    for start, size in packets[10:13]:
        content[start : start + size] = bytes(size)
    path.write_bytes(bytes(content))
    indices, _, warnings = looked_at(path)
    assert len(indices) == 27 and len(warnings) == 2
    assert warnings[0] == "3 broken packets were passed over" and warnings[1].startswith("27 of 30 frames could be decoded")


def test_the_clock_of_a_phone_knows_its_zone(tmp_path: Path) -> None:
    """Apple's key beside the usual one, which is rounded to UTC."""
    clocks = {"com.apple.quicktime.creationdate": "2026-03-01T14:00:00+0200", "creation_time": "2026-03-01T12:00:01Z"}
    with load_av().open(str(tmp_path / "phone.mov"), "w", options={"movflags": "use_metadata_tags"}) as container:
        container.metadata.update(clocks)
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height = WIDTH, HEIGHT
        container.mux([*stream.encode(load_av().VideoFrame.from_ndarray(draw(TWO, 0), format="rgb24")), *stream.encode()])
    with open_source(tmp_path / "phone.mov") as source:
        assert source.started is not None and source.started.isoformat() == "2026-03-01T14:00:00+02:00"


def test_a_film_of_changing_rate_is_not_taken_for_a_truncated_one(tmp_path: Path) -> None:
    """Matroska counts no frames: how many there should be is worked out from a mean rate, which says little here."""
    with load_av().open(str(tmp_path / "screen.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.codec_context.time_base = WIDTH, HEIGHT, Fraction(1, 1000)
        for number in range(41):
            frame = load_av().VideoFrame.from_ndarray(draw(TWO, number), format="rgb24")
            frame.pts, frame.time_base = number * 100 if number < 20 else 2000 + 400 * (number - 20), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with open_source(tmp_path / "screen.mkv") as source:
        assert source.frames == pytest.approx(101, abs=5), "more than the 41 there are"
        times = [picture.time for picture in source.pictures(Thinning()) if picture is not None]
    assert len(times) == 41 and times[-1] == pytest.approx(10, abs=0.01) and source.warnings == []


def test_a_film_whose_last_picture_is_held_long_is_not_taken_for_a_truncated_one(tmp_path: Path) -> None:
    """Three seconds of ten pictures each; the last picture is shown for six more."""
    with load_av().open(str(tmp_path / "talk.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.codec_context.time_base = WIDTH, HEIGHT, Fraction(1, 1000)
        packets = []
        for number in range(30):
            frame = load_av().VideoFrame.from_ndarray(draw(TWO, number), format="rgb24")
            frame.pts, frame.time_base = number * 100, Fraction(1, 1000)
            packets += stream.encode(frame)
        packets += stream.encode()
        for packet in packets:
            packet.duration = 6000 if packet.pts == 2900 else 100
            container.mux(packet)
    with open_source(tmp_path / "talk.mkv") as source:
        assert source.frames == pytest.approx(89, abs=5), "more than the 30 there are"
        assert sum(1 for _ in source.pictures(Thinning())) == 30 and source.warnings == []


@pytest.mark.parametrize(
    ("stamps", "expected"),
    [
        ([7.0, 7.1, 7.2, 7.3, 7.4], [0, 0.1, 0.2, 0.3, 0.4]),
        ([3.0, 3.1, 3.1, 1.0, 3.5], [0, 0.1, 0.2, 0.3, 0.5]),
        ([None, None, None], [0, 0.1, 0.2]),
    ],
)
def test_times_begin_at_zero_and_only_rise(
    film: Path, stamps: list[float | None], expected: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recordings cut out of longer ones begin anywhere; those of poor cameras stand still, or run backwards."""
    with open_source(film) as source:
        frame = next(source._decoded())
        stamped = [SimpleNamespace(time=stamp, time_base=None, rotation=0, to_ndarray=frame.to_ndarray) for stamp in stamps]
        monkeypatch.setattr(source, "_decoded", lambda: iter(stamped))
        assert [picture.time for picture in source.pictures(Thinning())] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.mp4", b""),
        ("text.mp4", b"hello\n" * 500),
        ("letter.txt", b"hello\n" * 500),
        ("archive.mp4", b"PK\x03\x04" + bytes(4000)),
        ("noise.avi", np.random.default_rng(1).bytes(20000)),
        ("words.srt", b"1\n00:00:01,000 --> 00:00:02,000\nhello\n"),
        ("list.m3u8", b"#EXTM3U\n#EXTINF:10,\nstreet.mp4\n#EXT-X-ENDLIST\n"),
        ("list.ffconcat", b"ffconcat version 1.0\nfile 'street.mp4'\n"),
    ],
)
def test_what_is_no_video_is_told_in_one_line(film: Path, tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / "street.mp4").write_bytes(film.read_bytes())  # what the lists would lead to
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name) as told:
        looked_at(tmp_path / name)
    assert "no video" in str(told.value) and len(str(told.value).splitlines()) == 1


@given(cut=st.integers(1, 3000), at=st.integers(0, 20000), junk=st.binary(min_size=1, max_size=400))
def test_damage_anywhere_never_escapes_as_another_error(film: Path, cut: int, at: int, junk: bytes) -> None:
    content = bytearray(film.read_bytes())
    content[at : at + len(junk)] = junk
    damaged = film.with_name("damaged.mp4")
    damaged.write_bytes(bytes(content[: len(content) - cut]))
    with suppress(DataError):
        assert len(looked_at(damaged)[0]) <= 200


@pytest.mark.parametrize("source", ["nowhere.mp4", "rtsp://127.0.0.1:9/live", "http://127.0.0.1:9/x.mp4", "gopher2://x/y"])
def test_what_cannot_be_reached_is_told(source: str) -> None:
    with pytest.raises(DataError, match=r"nowhere|127\.0\.0\.1|gopher2"):
        open_source(source)


def test_a_folder_of_pictures_is_a_film(tmp_path: Path) -> None:
    for number in (1, 2, 10, 9):
        write_image(tmp_path / f"frame{number}.png", np.full((20, 30, 3), number, np.uint8))
    (tmp_path / "frame3.jpg").write_bytes(b"\xff\xd8\xff broken")
    (tmp_path / "notes.txt").write_text("no picture")
    with open_source(tmp_path) as source:
        pictures = list(source.pictures(Thinning()))
    assert [None if p is None else int(p.image[0, 0, 0]) for p in pictures] == [1, 2, None, 9, 10]
    assert len(source.warnings) == 1 and "frame3.jpg" in source.warnings[0]
    with open_source(tmp_path) as source:
        thinned = list(source.pictures(Thinning(every=3)))
    assert [p and (p.index, p.time) for p in thinned] == [(0, 0.0), None, None, (3, pytest.approx(0.3)), None]
    assert source.warnings == [], "what is not looked at is not read"
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="no picture"):
        open_source(tmp_path / "none")


def test_a_fingerprint_is_of_the_content(film: Path, tmp_path: Path) -> None:
    copy = tmp_path / "other name.mp4"
    copy.write_bytes(film.read_bytes())
    assert fingerprint(copy, "now") == fingerprint(film, "later")
    copy.write_bytes(film.read_bytes()[:-1] + b"x")
    assert fingerprint(copy, "now") != fingerprint(film, "now")
    stream = "rtsp://camera/1"
    assert fingerprint(stream, "now") != fingerprint(stream, "later") == fingerprint(stream, "later")


def test_passwords_of_cameras_are_not_written_down() -> None:
    assert without_password("rtsp://guard:secret@camera.local:554/live?x=1") == "rtsp://camera.local:554/live?x=1"
    assert plain_stem("rtsp://guard:secret@camera.local:554/live/1") == "camera.local-live-1"
    assert without_password("rtsp://c/live?channel=2&User=a&password=secret#x") == "rtsp://c/live?channel=2&User=...&password=...#x"
    assert plain_stem("rtsp://c/user=admin&password=secret&channel=1/0.sdp") == "c-user-...-password-...-channel-1-0.sdp"
    for stream in ("rtsp://guard:secret@127.0.0.1:9/live", "rtsp://127.0.0.1:9/live?pwd=secret", "rtsp://guard:secret@[camera/1"):
        with pytest.raises(DataError) as told:
            open_source(stream)
        assert "secret" not in str(told.value)


def test_any_name_of_a_video_makes_a_folder(tmp_path: Path) -> None:
    assert plain_stem(tmp_path / "Halle 3: %d #ü.mp4") == "Halle-3-d-ü"
    assert plain_stem(tmp_path / "...") == "video" and len(plain_stem("x" * 300 + ".mp4")) == 40


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, film: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(DataError, match=r"dinogrl\[footage\]"):
        load_av()
