"""How long it takes to score a matrix of distances, from plain ones to matrices that are almost nothing but ties.

    python benchmarks/ranking_speed.py --queries 5000 --gallery 5500

One line a case: the best of a few repetitions, wall clock and CPU time. On a machine that others use, look at the CPU time.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from dinogrl.evaluation import evaluate_distances

CAMERAS = 12
IDENTITIES = {"sparse": 500, "dense": 20}  # matches of a query: about one in so many gallery items
LEVELS = {"no ties": None, "ties": 1000, "heavy ties": 10, "all equal": 1}


def seconds(queries: int, gallery: int, identities: int, levels: int | None, kind: type, repetitions: int) -> tuple[float, float]:
    """Wall clock and CPU time of one matrix."""
    random = np.random.default_rng(0)
    shape = queries, gallery
    distances = (random.random(shape) if levels is None else random.integers(0, levels, shape) / levels).astype(kind)
    ids = [random.integers(0, identities, rows) for rows in shape]
    cameras = [random.integers(0, CAMERAS, rows) for rows in shape]
    walls, cpus = [], []
    for _ in range(repetitions):
        wall, cpu = time.perf_counter(), time.process_time()
        evaluate_distances(distances, *ids, *cameras)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return min(walls), min(cpus)


def main() -> None:
    """Read the command line, measure every case, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=5000)
    parser.add_argument("--gallery", type=int, default=5500)
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    for matches, identities in IDENTITIES.items():
        for ties, levels in LEVELS.items():
            for kind in (np.float32, np.float64):
                wall, cpu = seconds(options.queries, options.gallery, identities, levels, kind, options.repetitions)
                print(f"{matches:6s}  {ties:10s}  {kind.__name__}  wall {wall:.3f} s  cpu {cpu:.3f} s", flush=True)


if __name__ == "__main__":
    main()
