"""The rules of the board: what a key, a value, a version, a glob, an array and a counter may be."""

import json
import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.board import rules
from mesh.core.errors import InvalidInput

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
INDENTS = st.sampled_from([None, 0, 2])


def encoded(value: Any, indent: int | None = None) -> bytes:
    return json.dumps(value, indent=indent, ensure_ascii=False).encode()


@pytest.mark.parametrize("key", ["a", "risk/order-17", "a.b:c_d/E", "../../etc/passwd", "a//b", "x" * 256])
def test_a_key_of_plain_characters_is_taken_as_it_is(key: str) -> None:
    rules.check_key(key)


@pytest.mark.parametrize(
    "key", ["", " ", "a b", "a\n", "a\x00", "ä", "a*", "{mesh}", "x" * 257, "a'b", 'a"b', "a\\b", "\ud800"]
)
def test_a_key_of_other_characters_is_refused_by_name(key: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        rules.check_key(key)
    assert refused.value.code == "bad_key"
    assert "256" in str(refused.value)
    str(refused.value).encode()  # can be shown whatever the key was


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (b"", "empty_value"),
        (b"nope", "unparseable"),
        (b"{'a': 1}", "unparseable"),
        (b"[1] 2", "unparseable"),
        (b"\xff", "unparseable"),
        (b"NaN", "bad_number"),
        (b'{"a": -Infinity}', "bad_number"),
        (b"[" * 33 + b"]" * 33, "too_deep"),
        (b"[" * 30_000 + b"]" * 30_000, "too_deep"),
        (b'{"a":1,"a":2}', "duplicate_key"),
        (b'"' + b"x" * 65_535 + b'"', "too_large"),
    ],
)
def test_a_value_that_is_no_good_json_is_refused_with_its_reason(value: bytes, code: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        rules.check_value("k", value)
    assert refused.value.code == code
    assert refused.value.where == "k"


def test_a_value_may_be_as_large_and_as_deep_as_the_limits() -> None:
    rules.check_value("k", b'"' + b"x" * 65_534 + b'"')
    rules.check_value("k", b"[" * 32 + b"]" * 32)


def test_text_instead_of_bytes_is_refused_with_the_remedy() -> None:
    with pytest.raises(InvalidInput, match="Encode it"):
        rules.check_value("k", "{}")  # type: ignore[arg-type]


def test_an_item_that_no_array_could_hold_is_refused() -> None:
    rules.check_item("k", b"[" * 31 + b"]" * 31, 1)
    with pytest.raises(InvalidInput) as deep:
        rules.check_item("k", b"[" * 32 + b"]" * 32, 1)
    assert deep.value.code == "too_deep"
    with pytest.raises(InvalidInput) as large:
        rules.check_item("k", b'"' + b"x" * 65_533 + b'"', 1)
    assert large.value.code == "too_large"
    for items_max in (0, -1):
        with pytest.raises(InvalidInput) as none:
            rules.check_item("k", b"1", items_max)
        assert none.value.code == "bad_limit"


def test_an_item_cannot_smuggle_in_a_second_one() -> None:
    for item in (b"1,2", b"1],[2", b"1]"):
        with pytest.raises(InvalidInput):
            rules.check_item("k", item, 10)


@pytest.mark.parametrize("expect", ["*", "", "0a1b2c:17", "abc:0"])
def test_versions_and_wildcards_may_be_expected(expect: str) -> None:
    rules.check_expect(expect, wildcards=("*", ""))


@pytest.mark.parametrize("expect", ["17", "a:b", ":1", "a:", "a:1 ", "a:1\n", "a:-1", "a:b:1", "**", "x" * 70 + ":1"])
def test_what_is_no_version_is_refused_instead_of_compared(expect: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        rules.check_expect(expect, wildcards=("*", ""))
    assert refused.value.code == "bad_version"


def test_op_ids_are_spelled_like_keys_and_writers_are_printable() -> None:
    rules.check_write("k", "", "")
    rules.check_write("k", "task-1:3", "fraud desk, Ü")
    for op_id in (" ", "a b", "x" * 257, "é"):
        with pytest.raises(InvalidInput) as refused:
            rules.check_write("k", op_id)
        assert refused.value.code == "bad_op_id"
    for by in ("a\nb", "\x1b[31m", "x" * 257, "\ud800"):
        with pytest.raises(InvalidInput) as refused:
            rules.check_write("k", "", by)
        assert refused.value.code == "bad_by"
        str(refused.value).encode()


def test_counters_stay_where_every_reader_holds_them_exactly() -> None:
    most = 2**53 - 1
    assert rules.check_counter("k", most, None, None) == (-most, most)
    assert rules.check_counter("k", -1, 0, 9) == (0, 9)
    for amount, low, high in ((most + 1, None, None), (1, -most - 1, None), (1, None, 10**5000)):
        with pytest.raises(InvalidInput) as refused:
            rules.check_counter("k", amount, low, high)
        assert refused.value.code == "bad_number"


@pytest.mark.parametrize(
    ("value", "number"),
    [(None, 0), (b"0", 0), (b" -7\n", -7), (b"9007199254740991", 2**53 - 1)],
)
def test_a_counter_is_a_json_integer_within_the_bounds(value: bytes | None, number: int) -> None:
    assert rules.counter_of("k", value) == number


def test_what_is_no_integer_is_no_counter() -> None:
    for value in (b'"1"', b"null", b"[]", b"1e3", b"1.0", b"true", b"9007199254740992", b"1" * 60_000):
        with pytest.raises(InvalidInput) as refused:
            rules.counter_of("k", value)
        assert refused.value.code == "not_a_counter"


def test_history_answers_at_most_what_is_kept() -> None:
    assert rules.check_limit(1) == 1
    assert rules.check_limit(5_000) == rules.HISTORY_MAX
    with pytest.raises(InvalidInput):
        rules.check_limit(0)


@given(st.lists(JSON, max_size=6), JSON, st.integers(1, 8), INDENTS, INDENTS, st.booleans())
def test_pushing_equals_pushing_on_the_parsed_array(
    items: list[Any], item: Any, items_max: int, indent: int | None, item_indent: int | None, known: bool
) -> None:
    whole, length = b" " + encoded(items, indent) + b"\n", len(items) if known else None
    array, count = rules.pushed("k", whole, length, encoded(item, item_indent), items_max)
    expected = [*items, item][-items_max:]
    assert json.loads(array) == expected
    assert count == len(expected)


def test_pushing_keeps_every_item_as_it_was_written() -> None:
    array = b'[1.50, 12345678901234567890, "\\u00e9,]" , {"a" : [ 1,2 ]}]'
    assert rules.pushed("k", array, None, b"1e2", 3) == (b'["\\u00e9,]" , {"a" : [ 1,2 ]},1e2]', 3)


def test_pushing_begins_an_array_and_refuses_invalid_values() -> None:
    assert rules.pushed("k", None, None, b"1", 5) == (b"[1]", 1)
    assert rules.pushed("k", b" [ ] ", None, b"1", 5) == (b"[1]", 1)
    for value in (b"{}", b'"[]"', b"1", b"null"):
        with pytest.raises(InvalidInput) as refused:
            rules.pushed("k", value, None, b"1", 5)
        assert refused.value.code == "not_an_array"
    with pytest.raises(InvalidInput) as refused:
        rules.pushed("k", b'["' + b"x" * rules.VALUE_BYTES_MAX + b'"]', None, b"1", 5)
    assert refused.value.code == "too_large"


KEYS = st.text("ab./", min_size=1, max_size=8)
PATTERNS = st.text("ab./*?", min_size=1, max_size=8)


@given(PATTERNS, KEYS)
def test_a_glob_matches_what_the_plain_translation_matches(pattern: str, key: str) -> None:
    plain = "".join({"*": ".*", "?": "."}.get(char, re.escape(char)) for char in pattern)
    assert rules.glob(pattern)(key) == (re.fullmatch(plain, key) is not None)


@given(PATTERNS, KEYS)
def test_every_key_that_matches_begins_with_the_prefix(pattern: str, key: str) -> None:
    if rules.glob(pattern)(key):
        assert key.startswith(rules.glob_prefix(pattern))


@pytest.mark.parametrize("pattern", ["", "[ab]", "a b", "a\n", "{a,b}", "a" * 257])
def test_a_pattern_that_can_match_no_key_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        rules.glob(pattern)
    assert refused.value.code == "bad_pattern"


def test_a_hostile_glob_takes_no_time() -> None:
    matches = rules.glob("*a" * 100 + "*b?" * 10)
    begun = time.thread_time()
    assert not matches("a" * 256)
    assert time.thread_time() - begun < 0.1
