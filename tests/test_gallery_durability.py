"""A process that is killed loses nothing it was promised, leaves nothing half, and lets the next one in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from dinogrl.errors import GalleryError
from dinogrl.gallery import Gallery
from dinogrl.gallery.slots import SlotFile
from tiny_galleries import MODEL, embeddings, entries

COUNT = 6000
INGEST = """
import sys
sys.path.insert(0, {tests!r})
import numpy as np
from tiny_galleries import MODEL, embeddings, entries
from dinogrl.gallery import Gallery
first, seed = int(sys.argv[2]), int(sys.argv[3])
parts, facts = embeddings(identities={count} // 5), entries({count})
random = np.random.default_rng(seed)
with Gallery(sys.argv[1], writable=True) as gallery:
    print("open", flush=True)
    while first < {count}:
        last = min(first + int(random.integers(1, 60)), {count})
        gallery.add(facts[first:last], parts[first:last], fingerprint=MODEL, strips=[b"picture"] * (last - first))
        print("added", first, last, flush=True)
        if random.random() < 0.3:
            gallery.remove([facts[first].id])
            print("removed", first, flush=True)
        first = last
"""


def ingest_and_kill(gallery: Path, first: int, seed: int, seconds: float) -> list[list[str]]:
    """What the process said before it was killed, this long after its first addition."""
    program = INGEST.format(tests=str(Path(__file__).parent), count=COUNT)
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(gallery), str(first), str(seed)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert child.stdout is not None
    lines = []
    for line in child.stdout:
        lines.append(line)
        if line.startswith("added"):
            break
    time.sleep(seconds)
    child.send_signal(signal.SIGKILL)
    lines += child.stdout.readlines()
    assert child.wait() == -signal.SIGKILL, "it was to be killed while it worked"
    return [line.split() for line in lines if line.endswith("\n")]


def test_killed_while_adding(tmp_path: Path) -> None:
    """Two processes after each other, each killed at another moment of its work."""
    parts, facts = embeddings(identities=COUNT // 5), entries(COUNT)
    there: set[int] = set()
    first = 0
    for seed, seconds in enumerate((0.03, 0.5)):
        said = ingest_and_kill(tmp_path / "g", first, seed, seconds)
        under_way: set[int] = set()  # removed, it may be, but not yet said to be
        for what, *numbers in said:
            if what == "added":
                there |= set(range(int(numbers[0]), int(numbers[1])))
                first, under_way = int(numbers[1]), {int(numbers[0])}
            elif what == "removed":
                there.discard(int(numbers[0]))
        with Gallery(tmp_path / "g", writable=True) as gallery:
            kept = {int(id[1:]) for id in gallery.ids()}
            assert there - kept <= under_way, "what was acknowledged is there"
            assert len(kept - there) < 60, "beside it, at most the batch that was under way"
            assert len(gallery) == len(kept)
            rows = sorted(kept)
            np.testing.assert_array_equal(  # of every tracklet that is there all of it is there
                gallery.parts([f"t{row}" for row in rows]), parts[rows].astype(np.float16).astype(np.float32)
            )
            assert all(gallery.strip(f"t{row}") == b"picture" for row in rows)
            assert [entry.digest() for entry in gallery.entries([f"t{row}" for row in rows])] == [
                facts[row].digest() for row in rows
            ]
            for row in rows[:: max(1, len(rows) // 5)]:
                assert gallery.search(parts[row], top=1)[0].id == f"t{row}"
            there, first = kept, max(first, max(kept) + 1)
    with Gallery(tmp_path / "g", writable=True) as gallery:
        before = len(gallery)
        done = gallery.add(facts[:first], parts[:first], fingerprint=MODEL)
        assert (done.unchanged, done.added) == (before, first - before) and done.replaced == 0


def test_vectors_nobody_points_to_are_cut_off(tmp_path: Path) -> None:
    """What a process leaves that dies between writing vectors and writing their facts."""
    parts, facts = embeddings(), entries(100)
    with Gallery(tmp_path / "g", writable=True) as gallery:
        gallery.add(facts[:50], parts[:50], fingerprint=MODEL)
    size = (tmp_path / "g" / "parts.bin").stat().st_size
    with (tmp_path / "g" / "parts.bin").open("ab") as file:
        file.write(b"half a vector")
    with Gallery(tmp_path / "g", writable=True) as gallery:
        assert (tmp_path / "g" / "parts.bin").stat().st_size == size
        gallery.add(facts[50:], parts[50:], fingerprint=MODEL)
        assert [gallery.search(parts[i], top=1)[0].id for i in (3, 60)] == ["t3", "t60"]


def test_lost_vectors_are_said(tmp_path: Path) -> None:
    with Gallery(tmp_path / "g", writable=True) as gallery:
        gallery.add(entries(50), embeddings()[:50], fingerprint=MODEL)
    os.truncate(tmp_path / "g" / "parts.bin", 100)
    with pytest.raises(GalleryError, match="restore the gallery from a backup"):
        Gallery(tmp_path / "g")


def test_one_process_at_a_time(tmp_path: Path) -> None:
    program = "import sys; from dinogrl.gallery import Gallery; Gallery(sys.argv[1], writable=True)"
    with Gallery(tmp_path / "g", writable=True) as gallery:
        gallery.add(entries(5), embeddings()[:5], fingerprint=MODEL)
        done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "g")], capture_output=True, text=True)
        assert f"is in use by process {os.getpid()}; wait until it is done" in done.stderr.splitlines()[-1]
        with pytest.raises(GalleryError, match=f"in use by process {os.getpid()}"):
            Gallery(tmp_path / "g")
        assert len(gallery) == 5
    with Gallery(tmp_path / "g") as gallery:
        assert len(gallery) == 5


def test_a_gallery_that_cannot_be_opened_is_let_go_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise GalleryError("not today")

    with Gallery(tmp_path / "g", writable=True) as gallery:
        gallery.add(entries(5), embeddings()[:5], fingerprint=MODEL)
    with monkeypatch.context() as patched, pytest.raises(GalleryError, match="not today"):
        patched.setattr("dinogrl.gallery.folder.MilvusTable", refuse)
        Gallery(tmp_path / "g")
    with Gallery(tmp_path / "g") as gallery:
        assert len(gallery) == 5


def test_removed_vectors_are_gone_from_the_files(tmp_path: Path) -> None:
    with Gallery(tmp_path / "g", writable=True) as gallery:
        gallery.add(entries(10), embeddings()[:10], fingerprint=MODEL, strips=[b"picture"] * 10)
        gallery.remove(["t3", "t4", "t7"])
    for name, width, kind in (("parts.bin", 32, np.float16), ("compact.bin", 32, np.float32)):
        file = SlotFile(tmp_path / "g" / name, width, kind)
        assert [row for row in range(10) if not file.rows[row].any()] == [3, 4, 7]
        file.close()
    assert len(list((tmp_path / "g" / "strips").rglob("*.jpg"))) == 7


def test_a_process_that_forks_while_a_gallery_is_open_says_nothing_about_it(tmp_path: Path) -> None:
    """Decoding forks workers; gRPC would say on the screen that it does not look after them."""
    program = "import os, sys\nfrom dinogrl.gallery import Gallery\nwith Gallery(sys.argv[1], writable=True):\n"
    program += "    child = os.fork()\n    child or os._exit(0)\n    os.waitpid(child, 0)"
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "people")], capture_output=True, text=True, check=True)
    assert done.stderr == ""
