"""Both sides of two records that should be equal."""

from typing import Any

import pytest

from mesh.core.verification.record_diff import CHARS_MAX, SHOWN_MAX, Difference, record_differences

Side = tuple[bytes | None, bytes | None, tuple[tuple[str, bytes], ...]]
GOOD: Side = (b"k", b'{"a":{"b":[1,2]}}', (("ce_id", b"x"), ("ce_type", b"t")))


def side(**changes: Any) -> Side:
    given = dict(zip(("key", "value", "headers"), GOOD, strict=True))
    return tuple({**given, **changes}.values())


def test_equal_records_do_not_differ() -> None:
    assert record_differences(GOOD, GOOD) == []


@pytest.mark.parametrize(
    ("changes", "place", "expected", "got"),
    [
        ({"key": None}, "key", "k", "(none)"),
        ({"key": b"\xff"}, "key", "k", "\\xff"),
        ({"headers": (("ce_id", b"y"), ("ce_type", b"t"))}, "header ce_id", "x", "y"),
        ({"headers": (("ce_id", b"x"),)}, "header ce_type", "t", "(nothing)"),
        ({"headers": (*GOOD[2], ("more", b""))}, "header more", "(nothing)", ""),
        ({"headers": GOOD[2][::-1]}, "order of headers", "ce_id, ce_type", "ce_type, ce_id"),
        ({"value": None}, "value", '{"a":{"b":[1,2]}}', "(none)"),
        ({"value": b"{"}, "value", '{"a":{"b":[1,2]}}', "{"),
        ({"value": b'{"a":{"b":[1,3]}}'}, "value.a.b[1]", "2", "3"),
        ({"value": b'{"a":{"b":[1]}}'}, "value.a.b[1]", "2", "(nothing)"),
        ({"value": b'{"a":{"b":[1,2]},"c":null}'}, "value.c", "(nothing)", "null"),
        ({"value": b'{"a":{"b":[1,2.0]}}'}, "value.a.b[1]", "2", "2.0"),
        ({"value": b'{"a": {"b":[1,2]}}'}, "value (as bytes)", '{"a":{"b":[1,2]}}', '{"a": {"b":[1,2]}}'),
    ],
)
def test_each_difference_is_reported_with_both_sides(
    changes: dict[str, Any], place: str, expected: str, got: str
) -> None:
    found = record_differences(GOOD, side(**changes))
    assert Difference(place, expected, got) in found


def test_no_more_is_reported_than_people_read() -> None:
    many = side(headers=tuple((f"h{n}", b"x" * 1_000) for n in range(50)))
    found = record_differences(GOOD, many)
    assert len(found) == SHOWN_MAX
    assert max(len(difference.got) for difference in found) == CHARS_MAX


def test_long_values_are_shown_from_shortly_before_their_first_difference() -> None:
    """Also where they differ behind the characters that are shown."""
    both = [b'{"text":"%sX%s"}' % (b"long " * 1_000, end) for end in (b"one" * 200, b"two")]
    (found,) = record_differences((None, both[0], []), (None, both[1], []))
    assert found.place == "value.text"
    assert (len(found.expected), found.expected[:20]) == (CHARS_MAX, "…long long long Xone")
    assert found.got == '…long long long Xtwo"'
    (raw,) = record_differences((None, b"\xff" * 900 + b"1", []), (None, b"\xff" * 900 + b"2", []))
    assert (raw.expected[-1], raw.got[-1]) == ("1", "2")
