"""What other libraries say, as it stands in messages of ours."""

from __future__ import annotations

import hypothesis
from hypothesis import strategies as st

from dinogrl.errors import in_one_line

WORDS = st.lists(st.text("abc.-", min_size=1, max_size=12), min_size=1, max_size=12)


@hypothesis.given(WORDS, st.integers(8, 60))
def test_what_is_too_long_ends_with_a_whole_word(words: list[str], most: int) -> None:
    said = in_one_line(" \n".join(words), most)
    assert len(said) <= most
    if len(" ".join(words)) <= most:
        assert said == " ".join(words)
    elif len(words[0]) <= most - 4:
        kept = said.removesuffix(" ...").split()
        assert said.endswith(" ...") and kept == words[: len(kept)]
        assert len(" ".join(words[: len(kept) + 1])) > most - 4, "one word more would have had room"


def test_a_word_that_is_too_long_is_cut() -> None:
    assert in_one_line("x" * 30 + " y", 12) == "x" * 8 + " ..."


def test_an_error_is_taken_as_its_text() -> None:
    assert in_one_line(ValueError("one\n  two"), 160) == "one two"
