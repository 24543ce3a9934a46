"""A gallery that changes while others ask it: what happens in between is made to happen there, whatever the time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from dinogrl.errors import GalleryError
from dinogrl.gallery import Filters, Gallery
from tiny_galleries import CAMERAS, MODEL, embeddings, entries

PARTS = embeddings()
ENTRIES = entries(len(PARTS))


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[Gallery]:
    """Twelve tracklets; t0, t4 and t8 were seen at the gate."""
    with Gallery(tmp_path / "people.gallery", writable=True) as gallery:
        gallery.add(ENTRIES[:12], PARTS[:12], fingerprint=MODEL, strips=[b"picture"] * 12)
        yield gallery


def happens_once(monkeypatch: pytest.MonkeyPatch, place: object, name: str, what: Callable[[], object]) -> None:
    """After the first call of a function, and before anybody has its answer, ``what`` happens."""
    real, left = getattr(place, name), [what]

    def interrupted(*arguments, **named):
        answer = real(*arguments, **named)
        if left:
            left.pop()()
        return answer

    monkeypatch.setattr(place, name, interrupted)


@pytest.mark.parametrize("at", ["mask", "nearest"])
def test_every_answer_passes_the_filters_though_tracklets_change_meanwhile(
    at: str, gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change() -> None:
        gallery.remove(["t0"])
        gallery.add([replace(ENTRIES[20], camera="moon")], PARTS[:1])  # takes the slot of t0
        gallery.add([replace(ENTRIES[4], camera="moon")], PARTS[4:5], replace=True)

    happens_once(monkeypatch, *{"mask": (Filters, "mask"), "nearest": (gallery.backend, "nearest")}[at], change)
    assert [hit.id for hit in gallery.search(PARTS[0], filters=Filters(cameras=CAMERAS[:1]))] == ["t8"]
    assert len(gallery) == 12


def test_what_is_marked_wrong_stays_out_though_it_moves_to_another_slot(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    def change() -> None:
        gallery.remove(["t0"])
        gallery.add(ENTRIES[4:5], PARTS[5:6], replace=True)  # into the slot of t0

    happens_once(monkeypatch, Filters, "mask", change)
    found = gallery.search(PARTS[4], filters=Filters(exclude=["t4"]))
    assert found and "t4" not in {hit.id for hit in found}


def test_vectors_of_a_tracklet_that_is_removed_in_this_moment(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    happens_once(monkeypatch, gallery.backend, "entries", lambda: gallery.remove(["t3"]))
    with pytest.raises(GalleryError, match="no tracklet 't3'"):
        gallery.parts(["t2", "t3"])
    np.testing.assert_allclose(gallery.parts(["t2"])[0], PARTS[2], rtol=1e-3, atol=1e-3)


def test_pictures_that_are_removed_in_this_moment(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gallery.strip("t3") == b"picture"
    for path in gallery.backend.folder.rglob("*.jpg"):
        path.unlink()
    monkeypatch.setattr(Path, "is_file", lambda path: True)  # it was a moment ago
    assert gallery.strip("t3") is None
    stat = Path.stat

    def gone(path: Path, **named: bool) -> object:
        if path.name == "parts.bin":
            raise FileNotFoundError(path)
        return stat(path, **named)

    whole = gallery.info().disk_bytes
    monkeypatch.setattr(Path, "stat", gone)
    assert 0 < gallery.info().disk_bytes < whole


def test_two_threads_that_add_one_tracklet_do_not_both_think_that_it_is_new(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []

    def add_another() -> None:
        try:
            told.append(gallery.add(ENTRIES[20:21], PARTS[50:51]))
        except GalleryError as error:
            told.append(str(error))

    other = Thread(target=add_another)

    def begin() -> None:
        other.start()
        other.join(0.3)  # it cannot end before the first has ended; were it let in, it would

    happens_once(monkeypatch, gallery.backend, "digests", begin)
    assert gallery.add(ENTRIES[20:21], PARTS[20:21]).added == 1
    other.join()
    assert "in the gallery with other content" in str(told)
    np.testing.assert_allclose(gallery.parts(["t20"])[0], PARTS[20], rtol=1e-3, atol=1e-3)
