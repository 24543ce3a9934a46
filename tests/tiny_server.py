"""A small gallery with a small model, served: in this process for the API, in a thread of its own for a browser."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

import cv2
import numpy as np
from fastapi.testclient import TestClient

from dinogrl.data.frames import encode_jpeg, write_image
from dinogrl.embedding.calibration import CROSS, WITHIN, Calibration, Curve
from dinogrl.embedding.compact import learn_projection
from dinogrl.embedding.embedder import Embedder
from dinogrl.embedding.search_aids import SearchAids, store_aids
from dinogrl.gallery import Entry, Gallery
from dinogrl.gallery.strips import make_strip
from dinogrl.models.archive import save_model
from dinogrl.records import Modality
from dinogrl.web.app import build_app
from dinogrl.web.cutting import Found, Tell
from dinogrl.web.service import Service, Settings
from tiny_models import tiny_model, tiny_recipe

SMALL = ("data.workers=0", "data.frames=2", "data.height=64", "data.width=32")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
CAMERAS = ("gate", "yard", "<b>north & south</b>")
COLOURS = ((200, 40, 40), (40, 70, 200), (40, 160, 70), (210, 170, 40), (120, 60, 160), (90, 90, 90))
STRANGE = 'it\'s "5" <img src=x onerror=alert(1)>/../../etc'
"""Id of a tracklet that would break what is careless."""


def walker(person: int, frame: int, infrared: bool = False, height: int = 128) -> np.ndarray:
    """A picture of a walking person, RGB (height,height/2,3): clothes tell who, legs swing."""
    picture = np.full((128, 64, 3), (150, 160, 150), np.uint8)
    picture[100:] = (110, 120, 110)
    cv2.circle(picture, (32, 18), 10, (215, 175, 150), -1)
    cv2.rectangle(picture, (19, 29), (45, 76), COLOURS[person % len(COLOURS)], -1)
    for side in (-1, 1):
        foot = 32 + side * round(15 * np.sin(frame * 0.8))
        cv2.line(picture, (32, 76), (foot, 122), COLOURS[(person + 2) % len(COLOURS)], 9)
    picture = picture if height == 128 else cv2.resize(picture, (height // 2, height))
    return np.repeat(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2) if infrared else picture


def pictures(person: int = 0, count: int = 6, infrared: bool = False) -> list[tuple[str, bytes]]:
    """(name, JPEG) of a person's frames."""
    return [(f"walk{i}.jpg", encode_jpeg(walker(person, i, infrared))) for i in range(1, count + 1)]


def make_home(home: Path, people: int = 6) -> Path:
    """A model with search aids, and a gallery of three tracklets a person; made once, then copied."""
    return Path(shutil.copytree(_master(people).name, home, dirs_exist_ok=True, ignore=shutil.ignore_patterns("lock")))


@cache
def _master(people: int) -> TemporaryDirectory[str]:
    folder = TemporaryDirectory()
    _make_home(Path(folder.name), people)
    return folder


def _make_home(home: Path, people: int) -> None:
    save_model(home / "model.safetensors", tiny_model("baseline"), tiny_recipe("baseline", *SMALL), 5, {})
    embedder = Embedder.load(home / "model.safetensors", "cpu")
    entries, parts, strips = [], [], []
    for number in range(people * 3):
        person, infrared = number // 3, number % 3 == 2
        frames = [walker(person, frame + number, infrared) for frame in range(6)]
        moment = NOON + timedelta(minutes=number)
        times = (None, None) if number == 4 else (moment, moment + timedelta(seconds=20))
        entries.append(
            Entry(
                STRANGE if number == 5 else f"person{person}/{number}",
                CAMERAS[number % 3],
                Modality(infrared),
                *times,
                collection=("default", "march")[person % 2],
            )
        )
        parts.append(embedder.embed(frames, Modality(infrared)))
        strips.append(None if number == 3 else make_strip(frames))
    vectors = np.stack(parts)
    spread = float(np.linalg.norm(vectors - vectors.mean(0), axis=2).mean())
    curve = Curve(3.0, 5.0 / spread)
    store_aids(
        home / "model.safetensors", SearchAids(learn_projection(vectors, 8), Calibration({CROSS: curve, WITHIN: curve}, "made up"))
    )
    with Gallery(home / "people.gallery", Embedder.load(home / "model.safetensors", "cpu"), writable=True) as gallery:
        gallery.add(entries, vectors, strips=strips)


def cut_slowly(video: Path, modality: str, out: Path, tell: Tell, stopping: Event) -> list[Found]:
    """Stands for the cutting of a video: finds persons 0 and 1 in any, the second more often."""
    found = []
    for person, count in ((0, 4), (1, 8)):
        folder = out / str(person)
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{i}.jpg" for i in range(count)]
        for i, path in enumerate(paths):
            write_image(path, walker(person, i))
        found.append(Found(Modality.VISIBLE if modality == "auto" else Modality[modality.upper()], paths))
        tell("find people", person + 1, 2)
    return found


@contextmanager
def served(home: Path, settings: Settings, cut=cut_slowly, writable: bool = False) -> Iterator[tuple[TestClient, Service]]:
    """A client of the application, in this process."""
    embedder = Embedder.load(home / "model.safetensors", "cpu")
    with Gallery(home / "people.gallery", embedder, writable=writable) as gallery:
        service = Service(gallery, settings, cut)
        with TestClient(build_app(service), base_url="http://127.0.0.1:8000") as client:
            yield client, service


@contextmanager
def listening(home: Path, settings: Settings, cut=cut_slowly) -> Iterator[str]:
    """The address of a server that a browser can reach."""
    import uvicorn

    embedder = Embedder.load(home / "model.safetensors", "cpu")
    with Gallery(home / "people.gallery", embedder) as gallery, socket.create_server(("127.0.0.1", 0)) as at:
        server = uvicorn.Server(uvicorn.Config(build_app(Service(gallery, settings, cut)), log_level="warning", lifespan="on"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [at]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{at.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def finished(client: TestClient, job: dict) -> dict:
    """The job when it is done or has failed."""
    while job["state"] in {"waiting", "running"}:
        time.sleep(0.02)
        job = client.get(f"/api/jobs/{job['id']}").json()
    return job


def left_of_uploads(state: Path) -> list[Path]:
    """Files of uploads that stay: those of a job are removed the moment after it is told to be done."""
    left = list((state / "uploads").iterdir())
    for _ in range(1000):
        if not left:
            break
        time.sleep(0.02)
        left = list((state / "uploads").iterdir())
    return left


def send(client: TestClient, files: list[tuple[str, bytes]], **fields: str) -> dict:
    """Upload, expecting that it is taken, and wait for the end."""
    answer = client.post("/api/queries", files=[("files", (name, content)) for name, content in files], data=fields)
    assert answer.status_code == 202, answer.text
    return finished(client, answer.json())
