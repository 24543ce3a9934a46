"""Adding, finding, removing: what a gallery promises, in a folder and on a server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from dinogrl.distances import mean_part_distance
from dinogrl.errors import GalleryError
from dinogrl.gallery import Added, Entry, Filters, Gallery, named_query
from dinogrl.records import Modality
from tiny_galleries import MODEL, NOON, embeddings, entries

PARTS = embeddings()
ENTRIES = entries(len(PARTS))
PLACES = ["folder", "server"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Milvus server as far as there can be one here: milvus-lite's, spoken to by its address."""
    from milvus_lite.adapter.grpc.server import start_server_in_thread

    running, database, port = start_server_in_thread(str(tmp_path_factory.mktemp("milvus") / "data"))
    yield f"http://127.0.0.1:{port}"
    running.stop(grace=1)
    database.close()


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path, server: str) -> dict[str, str]:
    """Where a new gallery lies: arguments of :class:`Gallery`."""
    if request.param == "folder":
        return {"address": str(tmp_path / "people.gallery")}
    return {"address": server, "name": f"g{abs(hash(request.node.name))}"}


def filled(place: dict[str, str], count: int = len(PARTS)) -> Gallery:
    gallery = Gallery(**place, writable=True)
    gallery.add(ENTRIES[:count], PARTS[:count], fingerprint=MODEL)
    return gallery


def test_only_a_server_is_pinged_while_nothing_is_asked(
    place: dict[str, str], server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """milvus-lite, in this very process, hangs up on who pings too often, and gRPC says so on the screen."""
    every_ms, connect = [], grpc.insecure_channel

    def watched(target: str, options: Sequence[tuple[str, Any]] = ()) -> grpc.Channel:
        if server.endswith(target) == ("name" in place):  # pymilvus may just be seeing to a connection of an earlier test
            every_ms.append(dict(options)["grpc.keepalive_time_ms"])
        return connect(target, options=options)

    monkeypatch.setattr(grpc, "insecure_channel", watched)
    with filled(place, 2) as gallery:
        assert len(gallery) == 2
    if "name" in place:
        assert not every_ms or max(every_ms) < 60_000, "pymilvus may share a connection that is open already"
    else:
        assert min(every_ms) > 24 * 3_600_000


def test_search_equals_exhaustive_search(place: dict[str, str]) -> None:
    queries = embeddings(seed=0)[::9] + 0.1
    stored = PARTS.astype(np.float16).astype(np.float32)
    truth = np.argsort(mean_part_distance(queries, stored), axis=1)[:, :10]
    with filled(place) as gallery:
        for query, expected in zip(queries, truth, strict=True):
            hits = gallery.search(query, top=10)
            assert [hit.id for hit in hits] == [f"t{i}" for i in expected]
            distances = mean_part_distance(query[None], stored[expected])[0]
            np.testing.assert_allclose([hit.distance for hit in hits], distances, rtol=1e-5)


def test_adding_twice_changes_nothing(place: dict[str, str]) -> None:
    with Gallery(**place, writable=True) as gallery:
        assert gallery.add(ENTRIES[:30], PARTS[:30], fingerprint=MODEL) == Added(added=30)
        before = gallery.search(PARTS[3])
        assert gallery.add(ENTRIES[:40], PARTS[:40], fingerprint=MODEL) == Added(added=10, unchanged=30)
        assert gallery.add(ENTRIES[:40], PARTS[:40] * (1 + 1e-5), fingerprint=MODEL) == Added(
            unchanged=40
        )  # another machine's sums
        assert len(gallery) == 40 and gallery.search(PARTS[3], top=1)[0] == before[0]


def test_other_content_under_the_same_id(place: dict[str, str]) -> None:
    with filled(place, 10) as gallery:
        elsewhere, moved = replace(ENTRIES[1], collection="april"), replace(ENTRIES[1], camera="moon", end=None)
        for changed, parts, what in (
            (ENTRIES[1], PARTS[50], "vectors"),
            (elsewhere, PARTS[1], "collection"),
            (moved, PARTS[50], "camera and its end"),
        ):
            with pytest.raises(GalleryError, match=rf"'t1' is in the gallery with other content \(its {what}\).*--replace"):
                gallery.add([ENTRIES[10], changed], np.stack([PARTS[10], parts]), fingerprint=MODEL)
        assert len(gallery) == 10  # nor was the new one added
        assert gallery.add([moved], PARTS[50:51], fingerprint=MODEL, replace=True) == Added(replaced=1)
        assert len(gallery) == 10 and gallery.entries(["t1"])[0].camera == "moon"
        assert gallery.search(PARTS[50], top=1)[0].id == "t1"


def test_a_replaced_tracklet_leaves_no_picture(place: dict[str, str]) -> None:
    with Gallery(**place, writable=True) as gallery:
        gallery.add(ENTRIES[:2], PARTS[:2], fingerprint=MODEL, strips=[b"of before", b"of another"])
        gallery.add(ENTRIES[:1], PARTS[50:51], replace=True)
        assert gallery.strip("t0") is None and gallery.strip("t1") == b"of another"


def test_a_gallery_keeps_to_its_model(place: dict[str, str]) -> None:
    with pytest.raises(GalleryError, match="must know the model"), Gallery(**place, writable=True) as gallery:
        gallery.add(ENTRIES[:1], PARTS[:1])
    with filled(place, 10) as gallery:
        with pytest.raises(GalleryError, match=f"holds vectors of model {MODEL}, given one of {'f' * 16}"):
            gallery.add(ENTRIES[20:21], PARTS[20:21], fingerprint="f" * 16)
        with pytest.raises(GalleryError, match="given one of"):
            gallery.search(PARTS[0], fingerprint="f" * 16)
        for shape in (PARTS[:1, :2], PARTS[:1, :, :3]):
            with pytest.raises(GalleryError, match="holds embeddings of 4x8"):
                gallery.add(ENTRIES[20:21], shape, fingerprint=MODEL)
        assert len(gallery) == 10
    with Gallery(**place) as gallery:
        assert gallery.fingerprint == MODEL


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (np.full((1, 4, 8), np.nan), "not all finite"),
        (np.full((1, 4, 8), 1e6), "float16"),
        (np.zeros((2, 4, 8)), "1 tracklets need"),
    ],
)
def test_vectors_that_nobody_can_keep(tmp_path: Path, parts: np.ndarray, message: str) -> None:
    with filled({"address": str(tmp_path / "g")}, 3) as gallery, pytest.raises(GalleryError, match=message):
        gallery.add(ENTRIES[5:6], parts, fingerprint=MODEL)


@pytest.mark.parametrize(
    "facts", [{"id": ""}, {"camera": "a\nb"}, {"camera": "x" * 300}, {"collection": ""}, {"id": "\udcff"}, {"end": NOON}]
)
def test_facts_that_nobody_can_keep(facts: dict[str, object]) -> None:
    with pytest.raises(GalleryError):
        replace(ENTRIES[5], **facts)


def test_one_id_twice_in_a_batch(tmp_path: Path) -> None:
    with filled({"address": str(tmp_path / "g")}, 3) as gallery, pytest.raises(GalleryError, match="'t5' is given twice"):
        gallery.add([ENTRIES[5], ENTRIES[6], ENTRIES[5]], PARTS[5:8], fingerprint=MODEL)


def test_a_name_that_is_not_there_is_answered_with_those_that_are(tmp_path: Path) -> None:
    with filled({"address": str(tmp_path / "g")}, 2) as gallery:
        with pytest.raises(GalleryError, match=r"no tracklet 'nobody' in .*; it has t0, t1$"):
            named_query(gallery, "nobody")
        gallery.remove(["t0", "t1"])
        with pytest.raises(GalleryError, match=r"; it has none at all$"):
            named_query(gallery, "t0")


def test_removing(place: dict[str, str]) -> None:
    with filled(place) as gallery:
        assert gallery.remove(["t3", "t4"]) == 2
        assert {"t3", "t4"}.isdisjoint(gallery.ids()) and "t3" not in gallery and "t5" in gallery
        assert {"t3", "t4"}.isdisjoint(hit.id for hit in gallery.search(PARTS[3], top=100))
        with pytest.raises(GalleryError, match="no tracklet 't3'"):
            gallery.remove(["t5", "t3"])
        with pytest.raises(GalleryError, match="say what to remove"):
            gallery.remove()
        left = len(gallery)
        march = gallery.ids(Filters(collections=["march"]))
        assert gallery.remove(march[:5], Filters(collections=["march"])) == len(march) > 20, "none counts twice"
        assert len(gallery) == left - len(march) == len(gallery.ids())
        assert gallery.add(ENTRIES, PARTS, fingerprint=MODEL).added == len(march) + 2
        assert gallery.search(PARTS[3], top=1)[0].id == "t3"


def test_expiry(place: dict[str, str]) -> None:
    old = [replace(entry, added=datetime.now(UTC) - timedelta(days=40)) for entry in ENTRIES[:10]]
    with Gallery(**place, writable=True) as gallery:
        gallery.add(old, PARTS[:10], fingerprint=MODEL)
        gallery.add(ENTRIES[10:15], PARTS[10:15], fingerprint=MODEL)
        assert gallery.expire(timedelta(days=30)) == 10 and gallery.expire(timedelta(days=30)) == 0
        assert sorted(gallery.ids()) == [f"t{i}" for i in range(10, 15)]


def test_what_is_kept_of_a_tracklet(place: dict[str, str]) -> None:
    with Gallery(**place, writable=True) as gallery:
        long = replace(ENTRIES[0], frames=tuple(f"{i}.jpg" for i in range(100)))
        gallery.add([long, ENTRIES[1]], PARTS[:2], fingerprint=MODEL, strips=[b"\xff\xd8picture", None])
        assert gallery.strip("t0") == b"\xff\xd8picture" and gallery.strip("t1") is None and gallery.strip("t9") is None
    with Gallery(**place) as gallery:
        first, second = gallery.entries(["t0", "t1"])
        assert first.frames == tuple(f"{100 * i // 24}.jpg" for i in range(24)) and first.start == NOON, "evenly over it"
        assert replace(second, added=None) == ENTRIES[1]
        np.testing.assert_allclose(gallery.parts(["t1", "t0"]), PARTS[[1, 0]], rtol=1e-3)
        with pytest.raises(GalleryError, match="no tracklet 't9'"):
            gallery.parts(["t0", "t9"])
        info = gallery.info()
        assert (info.tracklets, info.parts, info.depth, info.fingerprint) == (2, 4, 8, MODEL)
        assert info.by_camera == {"gate": 1, "yard": 1} and info.by_modality == {"visible": 1, "infrared": 1}
        assert info.first == NOON and info.last == ENTRIES[1].end
        with pytest.raises(GalleryError, match="open for reading"):
            gallery.remove(["t0"])
        with pytest.raises(GalleryError, match="open for reading"):
            gallery.add(ENTRIES[2:3], PARTS[2:3])


def test_many_are_told_page_by_page(place: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dinogrl.gallery.milvus.AT_ONCE", 7)
    ids = [entry.id for entry in ENTRIES[:20]]
    with filled(place, 20) as gallery:
        assert [entry.id for entry in gallery.entries(ids)] == ids and set(gallery.digests(ids)) == set(ids)
        assert gallery.add(ENTRIES[:20], PARTS[:20]) == Added(unchanged=20)


def test_a_picture_too_large_for_a_server_is_refused(server: str) -> None:
    with Gallery(server, name="pictures", writable=True) as gallery, pytest.raises(GalleryError, match="'t0' is too large"):
        gallery.add(ENTRIES[:1], PARTS[:1], fingerprint=MODEL, strips=[bytes(60_000)])


def test_answers_from_the_back_of_the_proposals_make_it_look_further(tmp_path: Path) -> None:
    """The index of two numbers is a poor guide to 32; the exact comparison tells, and asks for more."""
    stored = PARTS.astype(np.float16).astype(np.float32)
    truth = np.argsort(mean_part_distance(PARTS, stored), axis=1)[:, :3]
    with Gallery(tmp_path / "g", writable=True, width=2) as gallery:
        gallery.add(ENTRIES, PARTS, fingerprint=MODEL)
        found = [[hit.id for hit in gallery.search(query, top=3, candidates=12)] for query in PARTS]
    assert sum(ids == [f"t{i}" for i in row] for ids, row in zip(found, truth, strict=True)) > 0.9 * len(PARTS)


def test_what_it_takes_is_counted(tmp_path: Path) -> None:
    with filled({"address": str(tmp_path / "g")}) as gallery:
        info, count = gallery.info(), len(PARTS)
    compact, stored = 4 * info.width, 2 * info.parts * info.depth
    assert count * compact < info.memory_bytes < 3 * count * compact
    assert info.disk_bytes > count * (compact + stored)


def test_several_queries_of_one_person(tmp_path: Path) -> None:
    queries = PARTS[[0, 40]]
    distances = mean_part_distance(queries, PARTS.astype(np.float16).astype(np.float32))
    with filled({"address": str(tmp_path / "g")}) as gallery:
        for fusion, fused in (("mean", distances.mean(0)), ("min", distances.min(0))):
            hits = gallery.search(queries, top=5, fusion=fusion)
            assert [hit.id for hit in hits] == [f"t{i}" for i in np.argsort(fused)[:5]]
        with pytest.raises(ValueError, match="unknown fusion"):
            gallery.search(queries, fusion="men")
        with pytest.raises(GalleryError, match="ask for 1"):
            gallery.search(queries, top=0)


def test_where_there_is_no_gallery(tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match="no gallery at"):
        Gallery(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "beach.jpg").write_bytes(b"")
    with pytest.raises(GalleryError, match="is no gallery, and not empty"):
        Gallery(tmp_path / "holiday", writable=True)
    with pytest.raises(GalleryError, match="unknown precision"):
        Gallery(tmp_path / "new", writable=True, precision="float8")


def test_an_empty_gallery_answers_nothing(tmp_path: Path) -> None:
    with Gallery(tmp_path / "g", writable=True) as gallery:
        assert len(gallery) == 0 and gallery.search(PARTS[0]) == [] and gallery.ids() == [] and gallery.fingerprint is None
        with pytest.raises(GalleryError, match="empty"):
            gallery.info()
    assert not (tmp_path / "g").exists(), "nothing was added, nothing is left"
    (tmp_path / "h").mkdir()
    Gallery(tmp_path / "h", writable=True).close()
    filled({"address": str(tmp_path / "h")}, 5).close()
    with Gallery(tmp_path / "h") as gallery:
        assert len(gallery) == 5


def test_nobody_answers() -> None:
    with pytest.raises(GalleryError, match=r"127\.0\.0\.1:9"):
        Gallery("http://127.0.0.1:9")


def test_a_long_embedding_on_a_server(server: str) -> None:
    """140 parts of 128 in float32 do not fit into one text field."""
    parts = np.random.default_rng(0).standard_normal((3, 140, 128)).astype(np.float32)
    with Gallery(server, name="long", writable=True, precision="float32") as gallery:
        gallery.add(ENTRIES[:3], parts, fingerprint=MODEL)
        np.testing.assert_array_equal(gallery.parts(["t2", "t0"]), parts[[2, 0]])


def test_hits_as_json() -> None:
    from dinogrl.gallery import Hit

    entry = Entry("a", "gate", Modality.INFRARED, NOON, None, frames=("x",))
    assert Hit.of(entry, 1.5, None).as_dict() == {
        "id": "a",
        "distance": 1.5,
        "probability": None,
        "camera": "gate",
        "modality": "infrared",
        "start": "2026-03-01T12:00:00+00:00",
        "end": None,
        "collection": "default",
        "frames": ["x"],
    }


def test_many_search_while_one_adds_and_removes(tmp_path: Path) -> None:
    """Whoever is always there is always found; nobody sees half of a change."""
    from concurrent.futures import ThreadPoolExecutor

    parts, facts = embeddings(identities=80), entries(400)
    with Gallery(tmp_path / "g", writable=True) as gallery:
        gallery.add(facts[:50], parts[:50], fingerprint=MODEL)

        def look(i: int) -> bool:
            hits = gallery.search(parts[i % 50], top=3)
            return hits[0].id == f"t{i % 50}" and hits[0].distance < 0.01

        with ThreadPoolExecutor(8) as pool:
            looks = [pool.submit(look, i) for i in range(300)]
            for first in range(50, 400, 25):
                gallery.add(facts[first : first + 25], parts[first : first + 25])
                gallery.remove([f"t{i}" for i in range(first, first + 20)])
            assert all(found.result() for found in looks)
        assert len(gallery) == 50 + 14 * 5
