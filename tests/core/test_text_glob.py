"""Globs over any text."""

import pytest

from mesh.core.text_glob import glob_test


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("order-*", "order-17", True),
        ("order-*", "my order-17", False),
        ("*-1?", "order-17", True),
        ("*-1?", "order-1", False),
        ("a[b]*", "a[b]\nc", True),
        ("a.c", "abc", False),
        ("", "", True),
        ("", "x", False),
        ("größe *", "größe 7 €", True),
    ],
)
def test_a_star_is_any_text_and_a_question_mark_one_character(pattern: str, text: str, fits: bool) -> None:
    assert glob_test(pattern)(text) is fits
