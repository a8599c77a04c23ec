"""Suggestions for unknown words."""

import pytest

from mesh.core.suggest import WORD_CHARS_MAX, did_you_mean, nearest

KNOWN = ("order.placed", "order.priced", "stock.reserved", "timeout")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("order.plced", "order.placed"),
        ("order_placed", "order.placed"),
        ("ORDER.PLACED", "order.placed"),
        ("order.prcied", "order.priced"),
        ("time_out", "timeout"),
        ("order.placed", "order.placed"),
        ("payment", None),
        ("", None),
    ],
)
def test_the_nearest_known_word_is_suggested(word: str, expected: str | None) -> None:
    assert nearest(word, KNOWN) == expected


def test_nothing_is_known() -> None:
    assert nearest("a", ()) is None


def test_a_very_long_word_is_not_compared() -> None:
    long = "a" * (WORD_CHARS_MAX + 1)
    assert nearest(long, [long]) is None
    assert nearest(long[1:], [long[1:]]) == long[1:]


def test_the_answer_does_not_depend_on_the_order_of_what_is_known() -> None:
    assert nearest("order.pxxced", KNOWN) == nearest("order.pxxced", reversed(KNOWN))


def test_more_likeness_may_be_demanded() -> None:
    assert nearest("order.plac", ["order.placed"], similarity_min=0.99) is None


def test_a_remedy_names_the_nearest_word_or_says_something_else() -> None:
    assert did_you_mean("order.plac", KNOWN) == "Did you mean 'order.placed'?"
    assert (did_you_mean("x", KNOWN), did_you_mean("x", KNOWN, "Known: none")) == ("", "Known: none")
