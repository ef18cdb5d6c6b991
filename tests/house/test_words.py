"""The sources and the pages use the field's words. See what is left with: python tests/house/words.py."""

from __future__ import annotations

from words import uses, uses_in


def test_no_phrase_is_left_that_has_a_word_in_this_field() -> None:
    assert [f"{use.place}: {use.phrase!r}, write: {use.word}" for use in sorted(uses())] == []


def test_a_phrase_is_found_across_lines_and_in_comments() -> None:
    text = "# pixels that hang\n    # together\n"
    assert [(use.place, use.word) for use in uses_in("a.py", text)] == [("a.py:1", "4-connected")]
