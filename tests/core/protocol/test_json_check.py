"""Strict JSON: accepted bodies, and the flaw of every other one."""

import json
import time
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mesh.core.protocol.json_check import DEPTH_MAX, Flaw, has_long_digits, parse_strict

DEEP = 100_000

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), inner)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "empty_value"),
        (b" \n", "empty_value"),
        (b"\xff", "unparseable"),
        (b'"\xed\xa0\x80"', "unparseable"),
        (b"\xef\xbb\xbf{}", "unparseable"),
        ('{"a": 1}'.encode("utf-16"), "unparseable"),
        ('{"a": 1}'.encode("utf-32-le"), "unparseable"),
        (b"{", "unparseable"),
        (b'{"a": 1', "unparseable"),
        (b"{} x", "unparseable"),
        (b"{}{}", "unparseable"),
        (b"{'a': 1}", "unparseable"),
        (b"01", "unparseable"),
        (b'"\x00"', "unparseable"),
        (b"\x00", "unparseable"),
        (b"hello", "unparseable"),
        (b'"\\ud800"', "bad_string"),
        (b'{"a": "\\udc00x"}', "bad_string"),
        (b'{"\\ud800": 1}', "bad_string"),
        (b"NaN", "bad_number"),
        (b"[Infinity]", "bad_number"),
        (b'{"a": -Infinity}', "bad_number"),
        (b"1e999", "bad_number"),
        (b"-1.0e400", "bad_number"),
        (b"1" * 5_000, "bad_number"),
        (b"18446744073709551616", "bad_number"),
        (b"[-9223372036854775809]", "bad_number"),
        (b'{"depth":1,"depth":0}', "duplicate_key"),
        (b'{"depth" : 1, "depth":0}', "duplicate_key"),
        (b'{"a":1,"\\u0061":0}', "duplicate_key"),
        (b'{"a":"b\\\\","a":0}', "duplicate_key"),
        (b'{"\\\\":1,"a":1,"a":2}', "duplicate_key"),
        (b'{"a":[{"b":{"c":1,"c":1}}]}', "duplicate_key"),
        (b'{"":1,"":1}', "duplicate_key"),
        (b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1), "too_deep"),
        (b'{"a":' * (DEPTH_MAX + 1) + b"1" + b"}" * (DEPTH_MAX + 1), "too_deep"),
        (b"[" * 1_000 + b"]" * 1_000, "too_deep"),
    ],
)
def test_a_bad_body_is_named_for_what_is_wrong_with_it(body: bytes, code: str) -> None:
    flaw = parse_strict(body)
    assert isinstance(flaw, Flaw)
    assert flaw.code == code
    assert flaw.message.isprintable()


@pytest.mark.parametrize("body", [b"[" * DEEP, b"[" * DEEP + b"]" * DEEP, b'{"a":' * DEEP + b"1" + b"}" * DEEP])
def test_nesting_a_hundred_thousand_deep_is_refused_within_five_milliseconds(body: bytes) -> None:
    best = 1.0
    for _ in range(5):  # the best of five: another process may hold the core in one of them
        start = time.thread_time()
        flaw = parse_strict(body)
        best = min(best, time.thread_time() - start)
        assert flaw.code == "too_deep"
    assert best < 0.005


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b" {} ",
        b"18446744073709551615",
        b"-9223372036854775808",
        b"1e-5000",
        b'"12345678901234567890123"',
        b"0.12345678901234567890123",
        b'{"a":"x\\":y","b":"c\\\\"}',
        b'{"text":"a key\\": is \\" : quoted","a b":" :"}',
        b'[{"a":1},{"a":2}]',
        b'{"\\\\":1,"\\"":2}',
        b"[" * DEPTH_MAX + b"]" * DEPTH_MAX,
    ],
)
def test_a_good_body_is_answered_parsed(body: bytes) -> None:
    assert parse_strict(body) == json.loads(body)


@given(st.binary(max_size=60) | st.text('{}[]",:\\u0a1.eNI- \n').map(str.encode))
@example(b'{"\\\\":1,"\\\\":2}')
def test_any_bytes_get_an_answer(body: bytes) -> None:
    found = parse_strict(body)
    if not isinstance(found, Flaw):
        assert found == orjson.loads(body)


@given(VALUES, st.sampled_from([None, 1, 2]), st.booleans())
def test_what_json_writes_is_taken_in_any_layout(value: Any, indent: int | None, ascii_only: bool) -> None:
    assert parse_strict(json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()) == value


@given(
    st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1, max_size=4), st.integers(0, 9), min_size=1),
    st.sampled_from([":", " : ", ":\n", "\t:"]),
    st.data(),
)
def test_a_repeated_key_is_found_in_any_layout(members: dict[str, int], colon: str, data: st.DataObject) -> None:
    pairs = [*members.items(), (data.draw(st.sampled_from(sorted(members))), 0)]
    pairs = data.draw(st.permutations(pairs))
    body = "{" + ",".join(f"{json.dumps(key)}{colon}{value}" for key, value in pairs) + "}"
    flaw = parse_strict(body.encode())
    assert isinstance(flaw, Flaw)
    assert flaw.code == "duplicate_key"


def test_the_limit_is_thirty_two_and_the_message_names_what_was_found() -> None:
    assert DEPTH_MAX == 32
    assert parse_strict(b"[" * 33 + b"]" * 33).message == "the document is nested 33 deep; at most 32"
    assert parse_strict(b'{"a":{"b":1,"b":2}}').message == "key 'b' stands twice in one object"
    assert "byte order mark" in parse_strict(b"\xef\xbb\xbf{}").message


def test_nineteen_digits_in_a_row_are_worth_a_second_look() -> None:
    assert has_long_digits(b"[1234567890123456789]")
    assert not has_long_digits(b"[123456789012345678,9]")


LONG = st.integers(2**64, 10**40) | st.integers(-(10**40), -(2**63) - 1)


@given(LONG, VALUES, st.sampled_from([None, 1, "\t"]), st.sampled_from([":", " : ", ":\n", ":\r\t"]))
@example(2**64, {}, None, ":")
def test_an_integer_beyond_64_bits_is_found_wherever_it_stands(
    number: int, beside: Any, indent: int | str | None, colon: str
) -> None:
    for value in (number, [number], [beside, number], {"id": f"{number}", "n": number}, {"a": beside, "b": [number]}):
        flaw = parse_strict(json.dumps(value, indent=indent, separators=(",", colon)).encode())
        assert isinstance(flaw, Flaw)
        assert flaw.code == "bad_number"


@given(st.integers(10**18, 10**40), st.text("abc-:, {}[]", max_size=4), VALUES)
def test_any_digits_inside_a_text_are_good(number: int, before: str, beside: Any) -> None:
    value = {"id": f"{before}{number}", "beside": beside, f"{before}{number}": f"{number}"}
    assert parse_strict(orjson.dumps(value)) == value
