"""Files that mean harm, or are merely broken: cut off, renamed, huge, unfolding to more than any memory. None stops the server."""

from __future__ import annotations

import io
import resource
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import ANY

import numpy as np
import PIL.Image
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dinogrl.data.frames import encode_jpeg, encode_png
from dinogrl.web.limits import MB, Limits
from dinogrl.web.service import Settings
from tiny_server import finished, left_of_uploads, make_home, pictures, send, served, walker

JPEG, PNG = encode_jpeg(walker(0, 0)), encode_png(walker(0, 0))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("uploads"), people=2)


@pytest.fixture(scope="module")
def client(home: Path) -> Iterator[TestClient]:
    limits = Limits(image_bytes=MB, image_pixels=1_000_000, images=12, waiting_jobs=10_000)
    with served(home, Settings(home / "state", limits=limits)) as (client, _):
        yield client


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """400 MB of zeros in 400 kB."""
    packer = zlib.compressobj(9)
    return b"".join([packer.compress(bytes(4 * MB)) for _ in range(100)] + [packer.flush()])


def posted(client: TestClient, *files: tuple[str, bytes], **fields: str) -> tuple[int, str]:
    """Status and message: of the refusal, or of what became of it."""
    answer = client.post("/api/queries", files=[("files", file) for file in files], data=fields)
    if answer.status_code != 202:
        return answer.status_code, answer.json()["detail"]
    job = finished(client, answer.json())
    return answer.status_code, job["error"]


def png(width: int, height: int, content: bytes = b"", more: bytes = b"") -> bytes:
    """A PNG whose header says this size and whose pixels unfold from ``content``."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def test_a_bomb_is_refused_by_its_header(client: TestClient, bomb: bytes) -> None:
    assert posted(client, ("a.png", png(12_000, 11_000, bomb))) == (
        413,
        "a.png has 12000 x 11000 pixels; at most 1 million are taken",
    )


def test_a_bomb_that_lies_about_its_size(client: TestClient, bomb: bytes) -> None:
    """Small by its header, 400 MB in its pixels, in one chunk or in many."""
    many = b"".join(
        struct.pack(">I", len(piece)) + b"IDAT" + piece + bytes(4)
        for piece in (bomb[i : i + 999] for i in range(0, len(bomb), 999))
    )
    for picture in (png(64, 128, bomb), png(64, 128, b"", many)):
        assert posted(client, ("a.png", picture)) == (422, "a.png unfolds to more than it declares; save it anew")


def test_a_bomb_in_the_text_of_a_picture(client: TestClient) -> None:
    text = b"Comment\0\0" + zlib.compress(bytes(200 * MB), 9)
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert posted(client, ("a.png", png(64, 128, zlib.compress(bytes(128 * 193)), chunk)))[0] == 202
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 100


@pytest.mark.parametrize("name", ["a.zip", "a.jpg", "a.mp4"])
def test_a_zip_by_any_name(client: TestClient, name: str) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as files:
        files.writestr("bomb.jpg", bytes(20 * MB))
    status, message = posted(client, (name, archive.getvalue()))
    assert status == 415 and message.startswith(f"{name} is nothing that is taken")


def test_names_mean_nothing(client: TestClient) -> None:
    assert posted(client, ("a.mp4", JPEG)) == (202, "")
    assert posted(client, ("..%2f..%2f../../evil/../.ssh/authorized_keys", PNG)) == (202, "")
    assert posted(client, ("a\r\nX-Evil: 1\0.jpg", JPEG))[0] in (202, 400)
    assert posted(client, ("x" * 500 + ".jpg", JPEG)) == (202, "")
    status, message = posted(client, ("../../../<img src=x>.jpg", b"GIF89a"))
    assert status == 415 and "../" not in message


def test_truncated(client: TestClient) -> None:
    assert posted(client, ("a.jpg", b"")) == (422, "a.jpg is empty")
    assert posted(client, ("a.jpg", JPEG[:40]))[0] == 422
    assert posted(client, ("a.png", PNG[:20]))[0] == 422
    for name, content in (("a.jpg", JPEG), ("a.png", PNG)):
        status, error = posted(client, ("ok.jpg", JPEG), (name, content[: len(content) * 2 // 3]))
        assert status == 202 and error.startswith(f"{name} is truncated or broken"), error


def test_too_much(client: TestClient) -> None:
    assert posted(client, ("a.jpg", JPEG + bytes(MB)))[0] == 413
    assert posted(client, *pictures(0, 13)) == (413, "13 pictures were sent; at most 12 are taken, send fewer")
    assert posted(client, ("a.jpg", encode_jpeg(np.zeros((1001, 1000, 3), np.uint8))))[0] == 413


def test_mixed(client: TestClient) -> None:
    video = ("a.mp4", b"\0\0\0\x20ftypisom" + bytes(100))
    assert posted(client, ("a.jpg", JPEG), video) == (422, "send either pictures of one person, or one video alone")
    assert posted(client, video, video)[0] == 422
    assert client.post("/api/queries", data={"modality": "auto"}).status_code == 422
    assert posted(client, ("a.jpg", JPEG), modality="purple")[0] == 422
    assert client.post(
        "/api/queries", content=b"--x\r\ngarbage", headers={"Content-Type": "multipart/form-data; boundary=x"}
    ).status_code in (
        400,
        422,
    )


def test_a_full_disk_keeps_no_half_of_an_upload(client: TestClient, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dinogrl.web.intake.shutil.copyfileobj", full)
    assert posted(client, *pictures(0, 2)) == (507, "the upload cannot be kept (No space left on device)")
    assert left_of_uploads(home / "state") == []


def test_what_cannot_be_written_down_is_not_kept(client: TestClient, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("database or disk is full")

    for place in ("journal.Journal.add_job", "audit.AuditLog.write"):
        with monkeypatch.context() as now:
            now.setattr(f"dinogrl.web.{place}", full if "Journal" in place else lambda *_, **__: full())
            assert posted(client, *pictures(0, 2))[0] == 503
        assert left_of_uploads(home / "state") == []


def test_a_label_is_no_path(client: TestClient) -> None:
    assert send(client, pictures(0, 1), label="22/11 gate\r\n 3\u202e\\north")["label"] == "22/11 gate 3\\north"
    assert send(client, pictures(0, 1), label="x" * 200)["label"] == "x" * 200
    assert send(client, pictures(0, 1), label="\n")["label"] == "walk1.jpg"


def test_scans_without_end(client: TestClient) -> None:
    """Twenty megabytes of them would keep a core busy for half an hour."""
    content = io.BytesIO()
    PIL.Image.fromarray(walker(0, 1)).save(content, "JPEG", progressive=True, exif=b"Exif\0\0" + b"\xff\xda" * 300)
    whole = content.getvalue()
    assert posted(client, ("a.jpg", whole)) == (202, ""), "what looks like scans beside the picture counts for nothing"
    assert posted(client, ("a.jpg", whole + b"\xff\xda" * 300)) == (202, "")
    scan = whole[whole.rindex(b"\xff\xda") : -2]
    refused = (422, "a.jpg unfolds to more than it declares; save it anew")
    assert posted(client, ("a.jpg", whole[:-2] + scan * 120 + whole[-2:])) == refused
    assert posted(client, ("a.jpg", whole[:2] + b"\xff\xfe\x00\x02" * 12_000 + whole[2:])) == refused


def test_order_is_that_of_the_names(client: TestClient) -> None:
    frames = dict(pictures(0, 11))
    shuffled = [(name, frames[name]) for name in sorted(frames)]  # walk1, walk10, walk11, walk2 ...
    job = send(client, shuffled)
    strip = client.get(f"/api/queries/{job['queries'][0]['id']}/strip").content
    again = send(client, pictures(0, 11))
    assert strip == client.get(f"/api/queries/{again['queries'][0]['id']}/strip").content


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([JPEG, PNG]),
    st.lists(st.tuples(st.integers(0, 2**16), st.binary(max_size=8)), max_size=6),
    st.integers(0, 2**16),
)
def test_damaged_pictures(client: TestClient, content: bytes, wounds: list[tuple[int, bytes]], end: int) -> None:
    """Whatever is done to a picture: it is taken, or it is refused in a line."""
    damaged = bytearray(content)
    for at, patch in wounds:
        damaged[at % len(damaged) : at % len(damaged) + len(patch)] = patch
    status, message = posted(client, ("walk.jpg", bytes(damaged[: len(damaged) - end % 400])))
    assert (status, message) in [(202, ""), (202, ANY), (413, ANY), (415, ANY), (422, ANY)]
    assert "something went wrong" not in message and "\n" not in message and "uploads" not in message


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.text(max_size=30), st.binary(max_size=60)), min_size=1, max_size=4))
def test_anything_at_all(client: TestClient, files: list[tuple[str, bytes]]) -> None:
    status, message = posted(client, *[(name.encode("utf-8", "replace").decode(), content) for name, content in files])
    assert status in (202, 400, 413, 415, 422) and "something went wrong" not in message


def test_the_server_still_stands(client: TestClient, home: Path) -> None:
    assert send(client, pictures(0, 2))["state"] == "done"
    assert left_of_uploads(home / "state") == []
