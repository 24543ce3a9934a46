"""Many people search at once through ``dinogrl serve``: errors, times, and whether the server's memory grows.

    python benchmarks/serve_load.py --searchers 50 --seconds 60

A gallery of made-up embeddings (those of ``gallery_scale.py --case clustered``, in the shape of a small untrained model) is served
by a process of its own. Each searcher sends the next search when the last one is answered: by a tracklet of the gallery, every
fourth time with a mark, every tenth time with a filter, and looks at the picture of the first hit. Fails (exit code 1) where
anything is answered but 200, or the server's memory has grown by more than a tenth from a third of the time to the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np

from dinogrl.data.frames import encode_jpeg
from dinogrl.embedding.embedder import Embedder
from dinogrl.gallery import Gallery
from dinogrl.models.archive import save_model
from dinogrl.models.build import build_model
from dinogrl.recipes import load_recipe
from gallery_scale import CAMERAS, World, chunks


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracklets", type=int, default=10_000)
    parser.add_argument("--searchers", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    choices = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ids = make_gallery(Path(folder), choices.tracklets)
        server, address = start(Path(folder))
        try:
            figures = asyncio.run(load(address, server.pid, choices.searchers, choices.seconds, ids))
        finally:
            server.send_signal(signal.SIGINT)
            figures_of_end = {"exit code": server.wait(60)}
    figures |= figures_of_end
    print(json.dumps(figures, indent=1))
    if choices.json:
        choices.json.write_text(json.dumps(figures, indent=1))
    return int(set(figures["statuses"]) != {"200"} or figures["memory grows by"] > 0.1 or server.returncode != 0)


def make_gallery(folder: Path, tracklets: int) -> list[str]:
    """A small model, and so many tracklets with embeddings of its shape; gives their ids."""
    recipe = load_recipe("demo_baseline")
    save_model(folder / "model.safetensors", build_model(recipe, 8), recipe, 8, {})
    embedder = Embedder.load(folder / "model.safetensors", "cpu")
    parts, depth = embedder.embed([np.zeros((64, 32, 3), np.uint8)], "visible").shape
    strip = encode_jpeg(np.random.default_rng(0).integers(0, 255, (96, 288, 3)).astype(np.uint8), 60)
    with Gallery(folder / "people.gallery", embedder, writable=True) as gallery:
        for entries, vectors in chunks(World(parts, depth, clustered=True), tracklets):
            gallery.add(entries, vectors, strips=[strip] * len(entries))
        return gallery.ids()


def start(folder: Path) -> tuple[subprocess.Popen[str], str]:
    """The server's process, and its address."""
    line = [sys.executable, "-m", "dinogrl", "serve", "--gallery", "people.gallery", "--model", "model.safetensors", "--port", "0"]
    server = subprocess.Popen([*line, "--searches-a-minute", "100000000"], cwd=folder, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    told = re.search(r"http://\S+:\d+", server.stdout.readline())
    if told is None:
        raise SystemExit("the server did not start")
    return server, told[0]


async def load(address: str, process: int, searchers: int, seconds: float, ids: list[str]) -> dict[str, object]:
    """Let everybody search until the time is over."""
    times: list[float] = []
    statuses: Counter[str] = Counter()
    end = time.monotonic() + seconds
    memory: list[float] = []

    async def search(number: int, client: httpx.AsyncClient) -> None:
        random = np.random.default_rng(number)
        turn = 0
        while time.monotonic() < end:
            turn += 1
            body: dict[str, object] = {"tracklet": ids[random.integers(len(ids))], "case": "load"}
            if turn % 4 == 0:
                body["right"] = [ids[random.integers(len(ids))]]
            if turn % 10 == 0:
                body["conditions"] = {"cameras": [f"camera {random.integers(CAMERAS)}"]}
            began = time.monotonic()
            try:
                answer = await client.post("/api/search", json=body)
                times.append(time.monotonic() - began)
                statuses[str(answer.status_code)] += 1
                picture = await client.get("/api/tracklets/strip", params={"id": answer.json()["hits"][0]["id"]})
                statuses[str(picture.status_code)] += 1
            except (httpx.HTTPError, KeyError, ValueError) as error:
                statuses[type(error).__name__] += 1

    async def watch() -> None:
        while time.monotonic() < end:
            memory.append(resident_mb(process))
            await asyncio.sleep(seconds / 60)

    limits = httpx.Limits(max_connections=searchers)
    async with httpx.AsyncClient(base_url=address, timeout=60, limits=limits) as client:
        await asyncio.gather(watch(), *(search(number, client) for number in range(searchers)))
    settled, last = memory[len(memory) // 3], max(memory[-5:])
    return {
        "tracklets": len(ids),
        "searchers": searchers,
        "seconds": seconds,
        "statuses": dict(statuses),
        "searches a second": round(len(times) / seconds, 1),
        "median ms": round(1000 * float(np.median(times)), 1),
        "p95 ms": round(1000 * float(np.quantile(times, 0.95)), 1),
        "slowest ms": round(1000 * max(times), 1),
        "memory MB": [round(one) for one in memory[:: max(len(memory) // 6, 1)]],
        "memory grows by": round(last / settled - 1, 3),
        "load average": [round(one, 1) for one in os.getloadavg()],
    }


def resident_mb(process: int) -> float:
    """Of a process, as Linux says it; mapped files count where they are in memory."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    sys.exit(main())
