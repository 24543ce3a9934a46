"""How a gallery does at scale: recall against exhaustive search, time of a search, memory and disk a tracklet.

    python benchmarks/gallery_scale.py --tracklets 100000 --case clustered

The embeddings are made up. A tracklet is the sum of four Gaussian draws: its person (half of the variance), what nothing explains
(46 %), its camera (3 %) and its modality (1 %). Eight tracklets a person, half of them infrared, each from one of 20 cameras.
Queries are tracklets of people in the gallery that are not in it themselves. The projection is learned from 2,000 tracklets of
other people, as a training does. Truth is the ten nearest by mean part distance among all tracklets, as they are stored.

``clustered``: all parts are seen through one latent of 512 directions whose variances fall as k^-0.8 exp(-k/80). This is what the
demo's trained DinoGRL does on people it was not trained on: an effective dimension of 21 to 26 for all parts together (here 22),
95 % of the variance in 99 to 112 directions (110), 99 % in 220 (208), and the shares above. ``hard``: the parts know nothing of
each other and all directions count the same. Distances then concentrate, and whatever a projection leaves out is missing.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from dinogrl.distances import mean_part_distance
from dinogrl.embedding.compact import WIDTH, learn_projection
from dinogrl.embedding.search_aids import SearchAids
from dinogrl.gallery import Entry, Filters, Gallery, Settings
from dinogrl.gallery.backend import Form
from dinogrl.gallery.founding import write
from dinogrl.gallery.gallery import CANDIDATES
from dinogrl.records import Modality

EACH, CAMERAS, TRAINING, CHUNK = 8, 20, 2000, 2000
SHARES = {"person": 0.5, "rest": 0.46, "camera": 0.03, "modality": 0.01}


@dataclass
class World:
    """Draws tracklets; person by person, always the same."""

    parts: int
    depth: int
    clustered: bool

    def __post_init__(self) -> None:
        random = np.random.default_rng(7)
        self._width = 512 if self.clustered else self.parts * self.depth
        order = np.arange(1, self._width + 1)
        variances = order**-0.8 * np.exp(-order / 80) if self.clustered else np.ones(self._width)
        self._spread = np.sqrt(variances / variances.mean()).astype(np.float32)
        self._seen = np.linalg.qr(random.standard_normal((self.parts * self.depth, self._width)))[0].T.astype(np.float32)
        self._modality = self._draw(random, 2, "modality")
        self._camera = self._draw(random, CAMERAS, "camera")

    def _draw(self, random: np.random.Generator, count: int, what: str) -> np.ndarray:
        """(count,L)"""
        return float(np.sqrt(SHARES[what])) * self._spread * random.standard_normal((count, self._width), np.float32)

    def person(self, first: int, count: int, tracklets: int = EACH) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tracklets of people ``first`` ... : vectors (n,P,D), cameras (n,), modalities (n,)."""
        random = np.random.default_rng([first, 11])
        own = np.repeat(self._draw(random, count, "person"), tracklets, axis=0)
        modality = np.tile(np.arange(tracklets) % 2, count)
        camera = random.integers(0, CAMERAS, len(own))
        latent = own + self._modality[modality] + self._camera[camera] + self._draw(random, len(own), "rest")
        vectors = latent @ self._seen if self.clustered else latent
        return vectors.reshape(len(own), self.parts, self.depth), camera, modality


def chunks(world: World, tracklets: int) -> Iterator[tuple[list[Entry], np.ndarray]]:
    """The gallery: the first tracklets of each person; the last one is left for queries."""
    made, day = 0, datetime(2026, 3, 1, tzinfo=UTC)
    while made < tracklets:
        people = CHUNK // EACH
        vectors, cameras, modalities = world.person(made // (EACH - 1), people)
        kept = np.arange(len(vectors)) % EACH != EACH - 1
        rows = np.flatnonzero(kept)[: tracklets - made]
        entries = [
            Entry(
                id=f"person{made // (EACH - 1) + row // EACH}/tracklet{row % EACH}",
                camera=f"camera {cameras[row]}",
                modality=Modality(int(modalities[row])),
                start=day + timedelta(seconds=made + i),
                end=day + timedelta(seconds=made + i + 4),
                frames=tuple(f"footage/camera{cameras[row]}/{made + i}/{frame:04d}.jpg" for frame in range(6)),
            )
            for i, row in enumerate(rows)
        ]
        yield entries, vectors[rows]
        made += len(rows)


def queries(world: World, tracklets: int, count: int) -> tuple[np.ndarray, list[str]]:
    """The tracklets left out, of people evenly over the gallery, and the people."""
    people = CHUNK // EACH
    starts = [made // (EACH - 1) for made in range(0, tracklets, people * (EACH - 1))]
    starts = starts[:: max(1, len(starts) // 10)]
    every = np.concatenate([world.person(first, people)[0][EACH - 1 :: EACH] for first in starts])
    names = [f"person{first + i}/" for first in starts for i in range(people)]
    chosen = np.linspace(0, len(every), count, endpoint=False).astype(int)
    return every[chosen], [names[i] for i in chosen]


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def timed(gallery: Gallery, some: np.ndarray, filters: Filters, candidates: int) -> tuple[dict[str, float], list[list[str]]]:
    """Milliseconds of a search, by the clock and of the processors, and the ids found."""
    clock, work, found = [], [], []
    for query in some:
        began, worked = time.perf_counter(), time.process_time()
        found.append([hit.id for hit in gallery.search(query, top=10, filters=filters, candidates=candidates)])
        clock.append(1e3 * (time.perf_counter() - began))
        work.append(1e3 * (time.process_time() - worked))
    times = {
        "p50_ms": np.median(clock),
        "p95_ms": np.quantile(clock, 0.95),
        "cpu_p50_ms": np.median(work),
        "cpu_p95_ms": np.quantile(work, 0.95),
    }
    return {name: round(float(value), 1) for name, value in times.items()}, found


def measure(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    world = World(options.parts, options.depth, options.case == "clustered")
    training = world.person(10**8, TRAINING // EACH)[0]
    aids = SearchAids(learn_projection(training, options.width))
    ids: list[str] = []
    stored = np.empty((options.tracklets, options.parts, options.depth), np.float16)
    began, worked, start_memory = time.perf_counter(), 0.0, 0
    with Gallery(folder / "g", writable=True) as gallery:
        form = Form(options.parts, options.depth, aids.projection.width, "float16")
        write(gallery.backend, Settings("0" * 16, "made up", form, "mean_part", "learned from other people"), aids)
    with Gallery(folder / "g", writable=True) as gallery:
        for entries, vectors in chunks(world, options.tracklets):
            before = time.process_time()
            gallery.add(entries, vectors, fingerprint="0" * 16)
            worked += time.process_time() - before
            stored[len(ids) : len(ids) + len(entries)] = vectors
            ids += [entry.id for entry in entries]
    ingested = time.perf_counter() - began
    some, people = queries(world, options.tracklets, options.queries)
    truth = exhaustive(some, stored)
    del stored, vectors
    start_memory, began, before = resident(), time.perf_counter(), time.process_time()
    with Gallery(folder / "g") as gallery:
        opened, opened_cpu = time.perf_counter() - began, time.process_time() - before
        timed(gallery, some[:5], Filters(), options.candidates)
        times, found = timed(gallery, some, Filters(), options.candidates)
        grown = resident() - start_memory
        one_camera, _ = timed(gallery, some, Filters(cameras=["camera 3"]), options.candidates)
        visible, _ = timed(gallery, some, Filters(modalities=[Modality.VISIBLE]), options.candidates)
        recalls = {}
        for candidates in sorted({50, 100, 200, options.candidates, 800}):
            answers = timed(gallery, some, Filters(), candidates)[1]
            recalls[candidates] = round(recall(answers, truth, ids), 4)
        info = gallery.info()
    return {
        "case": options.case,
        "tracklets": options.tracklets,
        "parts": f"{options.parts}x{options.depth}",
        "width": info.width,
        "candidates": options.candidates,
        "recall@10": round(recall(found, truth, ids), 4),
        "recall@10 by candidates": recalls,
        "rank-1": round(float(np.mean([names[0].startswith(person) for names, person in zip(found, people, strict=True)])), 3),
        "search": times,
        "search of one camera in 20": one_camera,
        "search of visible ones": visible,
        "disk bytes a tracklet": round(info.disk_bytes / info.tracklets),
        "index bytes a tracklet": round(info.memory_bytes / info.tracklets),
        "process grew by bytes a tracklet": round(grown / info.tracklets),
        "open s": round(opened, 2),
        "open cpu s": round(opened_cpu, 2),
        "ingest s": round(ingested, 1),
        "ingest cpu s": round(worked, 1),
    }


def exhaustive(some: np.ndarray, stored: np.ndarray) -> np.ndarray:
    """(Q,10) rows nearest to each query, all compared."""
    between = np.concatenate(
        [mean_part_distance(some, stored[i : i + 5000].astype(np.float32)) for i in range(0, len(stored), 5000)], axis=1
    )
    return np.argsort(between, axis=1)[:, :10]


def recall(found: list[list[str]], truth: np.ndarray, ids: list[str]) -> float:
    """Share of the true ten that were found."""
    return float(np.mean([len(set(names) & {ids[row] for row in rows}) / 10 for names, rows in zip(found, truth, strict=True)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracklets", type=int, default=100_000)
    parser.add_argument("--case", choices=["clustered", "hard"], default="clustered")
    parser.add_argument("--parts", type=int, default=10)
    parser.add_argument("--depth", type=int, default=256)
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--candidates", type=int, default=CANDIDATES)
    parser.add_argument("--queries", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(options, Path(folder)), indent=1))


if __name__ == "__main__":
    main()
