"""A catalog answers an unknown name with the nearest known one."""

from __future__ import annotations

import string

import hypothesis
import pytest
from hypothesis import strategies as st

from dinogrl.catalog import Catalog
from dinogrl.errors import DinogrlError, UnknownNameError, did_you_mean

LOSSES = Catalog("loss", {"triplet": 1, "identity": 2})


def test_it_is_a_mapping() -> None:
    assert dict(LOSSES) == {"triplet": 1, "identity": 2}
    assert len(LOSSES) == 2 and "triplet" in LOSSES and 3 not in LOSSES


def test_unknown_name_lists_all_and_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown loss 'triplett'; did you mean 'triplet'\?; known: identity, triplet"):
        LOSSES["triplett"]


def test_nothing_near_no_guess() -> None:
    with pytest.raises(UnknownNameError) as caught:
        LOSSES["xyz"]
    assert "did you mean" not in str(caught.value)


def test_later_changes_of_the_dictionary_do_not_reach_it() -> None:
    entries = {"a": 1}
    catalog = Catalog("thing", entries)
    entries["b"] = 2
    assert list(catalog) == ["a"]


@hypothesis.given(st.text(string.ascii_lowercase, min_size=4, max_size=12), st.data())
def test_one_slip_of_the_finger_finds_the_word(word: str, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(word) - 1))
    slipped = word[:position] + word[position + 1 :]
    hypothesis.assume(slipped != word)
    assert did_you_mean(slipped, [word, "0000"]) == f"; did you mean {word!r}?"


def test_every_error_of_ours_is_one_kind() -> None:
    import dinogrl.errors as module

    kinds = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(kinds) >= 5 and all(issubclass(kind, DinogrlError) for kind in kinds)
