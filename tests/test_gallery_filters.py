"""Filters mean the same to Milvus, to the arrays, and to a loop; no name can break out of its quotes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from dinogrl.errors import GalleryError
from dinogrl.gallery import Entry, Filters, Gallery
from dinogrl.gallery.entries import milliseconds
from dinogrl.records import Modality
from tiny_galleries import CAMERAS, MODEL, NOON, embeddings, entries

ENTRIES = entries(70)
TIMES = st.none() | st.integers(-5, 80).map(lambda minutes: NOON + timedelta(minutes=minutes))
FILTERS = st.builds(
    Filters,
    cameras=st.lists(st.sampled_from([*CAMERAS, "nowhere", '" or 1 == 1 or "'])),
    modalities=st.lists(st.sampled_from(Modality)),
    collections=st.lists(st.sampled_from(["default", "march", 'it\'s "mine"', "x"])),
    after=TIMES,
    before=TIMES,
    added_before=st.none() | st.sampled_from([datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)]),
    exclude=st.lists(st.sampled_from(["t1", "t2", "t69", 't"1', "nobody"]), unique=True),
)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    with Gallery(tmp_path_factory.mktemp("filters") / "g", writable=True) as gallery:
        gallery.add(ENTRIES, embeddings()[:70], fingerprint=MODEL)
        yield gallery


def passes(filters: Filters, entry: Entry) -> bool:
    """Said once more, the slow way."""
    return (
        (not filters.cameras or entry.camera in filters.cameras)
        and (not filters.modalities or entry.modality in filters.modalities)
        and (not filters.collections or entry.collection in filters.collections)
        and (filters.after is None or (entry.end is not None and entry.end >= filters.after))
        and (filters.before is None or (entry.start is not None and entry.start <= filters.before))
        and (filters.added_before is None or filters.added_before.year == 2100)
        and entry.id not in filters.exclude
    )


@hypothesis.given(filters=FILTERS)
@hypothesis.settings(max_examples=60, deadline=None)
def test_three_ways_agree(gallery: Gallery, filters: Filters) -> None:
    expected = sorted(entry.id for entry in ENTRIES if passes(filters, entry))
    assert sorted(gallery.ids(filters)) == expected, "Milvus's expression"
    hits = gallery.search(np.zeros((4, 8)), top=100, filters=filters)
    assert sorted(hit.id for hit in hits) == expected, "the arrays' mask"


def test_times_without_a_zone_are_utc_wherever_the_machine_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert milliseconds(NOON.replace(tzinfo=None)) == milliseconds(NOON) == 1_772_366_400_000
    finally:
        monkeypatch.undo()
        time.tzset()


NASTY = [
    *('"', "'", "\\", '\\"', '" or id != "', "a' or 'a' == 'a", "{x}", "%s", "$meta", " ", "[1]", "--", "\\u0041", "\\n"),
    *("naïve café 東門 🚪", "a" * 256),
]


@pytest.mark.parametrize("name", NASTY)
def test_any_printable_name_is_just_a_name(gallery: Gallery, name: str) -> None:
    entry = replace(ENTRIES[0], id=f"id {name}", camera=name, collection=name)
    assert gallery.add([entry], embeddings()[99:100]).added == 1
    try:
        for filters in (Filters(cameras=[name]), Filters(collections=[name]), Filters(cameras=[name], exclude=["t1"])):
            assert gallery.ids(filters) == [entry.id]
            assert [hit.camera for hit in gallery.search(np.zeros((4, 8)), filters=filters)] == [name]
        assert gallery.entries([entry.id])[0].camera == name
        assert len(gallery.ids(Filters(exclude=[entry.id]))) == 70
    finally:
        assert gallery.remove([entry.id]) == 1
    assert len(gallery) == 70


@pytest.mark.parametrize("filters", [Filters(), Filters(cameras=[]), Filters(modalities=[], collections=[]), Filters(exclude=[])])
def test_conditions_that_everything_meets_remove_nothing(gallery: Gallery, filters: Filters) -> None:
    with pytest.raises(GalleryError, match="say what to remove"):
        gallery.remove(filters=filters)
    assert not filters and len(gallery) == 70


def test_an_id_that_is_no_text_is_nobodys(gallery: Gallery) -> None:
    assert gallery.strip("\udcff") is None and len(gallery.ids(Filters(exclude=["\udcff"]))) == 70 and "\udcff" not in gallery


def test_removing_by_a_name_that_looks_like_code_removes_nothing(gallery: Gallery) -> None:
    assert gallery.remove(filters=Filters(cameras=['gate" or camera != "'])) == 0 and len(gallery) == 70
