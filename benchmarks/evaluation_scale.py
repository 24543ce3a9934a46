"""Evaluate very many tracklets, their part vectors lying on disk, within a fixed amount of memory.

    python benchmarks/evaluation_scale.py --queries 100000 --gallery 100000 --parts 10 --width 256 --memory 4

Both sides are made up (people in cameras, vectors around each person's own) and written to ``--folder``. Then the process forbids
itself more than ``--memory`` GiB and scores the queries strip by strip. The last line is the result, as JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from dinogrl.distances import DISTANCES, Array
from dinogrl.evaluation import evaluate_streamed

CAMERAS, TRACKLETS_A_PERSON, NOISE = 12, 10, 3.0
GIB = 2**30


@dataclass
class Result:
    """What was done, and what it took. ``own_memory_gib`` leaves out pages of the mapped files, which the system may drop."""

    queries: int
    gallery: int
    parts: int
    width: int
    distance: str
    threads: int
    wall_s: float
    cpu_s: float
    matrix_gib: float
    own_memory_gib: float
    peak_rss_gib: float
    rank1: float
    mAP: float
    machine: str
    date: str


class Watched:
    """A distance that tells how far it has come, and looks at how much memory is held."""

    def __init__(self, name: str, total: int) -> None:
        self.distance, self.total, self.done, self.start, self.own, self.said = DISTANCES[name], total, 0, time.perf_counter(), 0, 0

    def __call__(self, a: Array, b: Array) -> Array:
        made = self.distance(a, b)
        self.done += len(a) * len(b)
        self.own = max(self.own, own_memory())
        if self.done * 100 // self.total > self.said:
            self.said = self.done * 100 // self.total
            spent = time.perf_counter() - self.start
            print(f"{self.said:3d} %  {spent:.0f} s, cpu {time.process_time():.0f} s", file=sys.stderr, flush=True)
        return made


def own_memory() -> int:
    """Bytes that this process holds for itself (Linux; 0 elsewhere)."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def made_up(path: Path, rows: int, parts: int, width: int, seed: int) -> np.ndarray:
    """Write the vectors of ``rows`` tracklets, ten of each person, and map them read-only."""
    out = np.lib.format.open_memmap(path, "w+", np.float32, (rows, parts, width))
    for start in range(0, rows, 1000):
        people = range(start // TRACKLETS_A_PERSON, -(-min(start + 1000, rows) // TRACKLETS_A_PERSON))
        own = np.stack([np.random.default_rng([7, person]).standard_normal((parts, width), np.float32) for person in people])
        chunk = own.repeat(TRACKLETS_A_PERSON, axis=0)[: rows - start]
        noise = np.random.default_rng([seed, start]).standard_normal(chunk.shape, np.float32)
        out[start : start + len(chunk)] = chunk + NOISE * noise
    out.flush()
    del out
    return np.load(path, mmap_mode="r")


def measure(options: argparse.Namespace, folder: Path) -> Result:
    """Make the two sides, score them, say what it took."""
    counts = {"query": options.queries, "gallery": options.gallery}
    sides = [
        made_up(folder / f"{name}.npy", rows, options.parts, options.width, seed)
        for seed, (name, rows) in enumerate(counts.items())
    ]
    ids = [np.arange(rows) // TRACKLETS_A_PERSON for rows in counts.values()]
    cameras = [np.random.default_rng(seed).integers(0, CAMERAS, rows) for seed, rows in enumerate(counts.values())]
    if options.memory and sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_DATA, (int(options.memory * GIB),) * 2)  # beyond it, a MemoryError
    watched = Watched(options.distance, options.queries * options.gallery)
    wall, cpu = time.perf_counter(), time.process_time()
    scores = evaluate_streamed(*sides, *ids, *cameras, distance=watched)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Result(
        options.queries,
        options.gallery,
        options.parts,
        options.width,
        options.distance,
        torch.get_num_threads(),
        round(time.perf_counter() - wall, 1),
        round(time.process_time() - cpu, 1),
        round(4 * options.queries * options.gallery / GIB, 1),
        round(watched.own / GIB, 2),
        round(peak / GIB, 2),
        scores.rank(1),
        scores.mAP,
        f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        datetime.now(UTC).date().isoformat(),
    )


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=2_000)
    parser.add_argument("--gallery", type=int, default=100_000)
    parser.add_argument("--parts", type=int, default=10)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--distance", choices=list(DISTANCES), default="mean_part")
    parser.add_argument("--memory", type=float, default=4, help="GiB that the process may hold for itself; 0: no bound (Linux)")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the vectors are written")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        print(json.dumps(asdict(measure(options, Path(folder)))))


if __name__ == "__main__":
    main()
