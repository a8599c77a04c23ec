"""Paths: their forms, the values they find, and missing fields."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesh.core.errors import InvalidInput
from mesh.core.expression.field_path import (
    SEGMENTS_MAX,
    TEXT_CHARS_MAX,
    ConditionInvalid,
    Path,
    excerpt,
    parse_path,
)

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no mistake of ours."""

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
)
SEGMENTS = st.lists(st.text(st.characters(codec="utf-8"), max_size=6) | st.integers(0, 999), min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("text", "segments"),
    [
        ("order_id", ("order_id",)),
        ("order.id", ("order", "id")),
        ("items[0].sku", ("items", 0, "sku")),
        ("grid[1][22]", ("grid", 1, 22)),
        ('order."odd name".x', ("order", "odd name", "x")),
        ("'in'", ("in",)),
        ('"a\\"b\\n"', ('a"b\n',)),
        ("x-y.2b", ("x-y", "2b")),
        ("2fa", ("2fa",)),
    ],
)
def test_a_path_is_names_joined_by_dots_with_indexes_and_quotes(text: str, segments: tuple[str | int, ...]) -> None:
    assert parse_path(text).segments == segments


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("", 1),
        ("  ", 1),
        (".a", 1),
        ("a..b", 2),
        ("a.", 2),
        ("a b", 2),
        ("a[-1]", 2),
        ("a[x]", 2),
        ("$.a", 1),
        ('a."open', 2),
        ('a."\\q"', 4),
        ("a\ud800", 2),
        ("a" * (TEXT_CHARS_MAX + 1), TEXT_CHARS_MAX + 1),
        (".".join("a" * (SEGMENTS_MAX + 1)), 1),
    ],
)
def test_what_is_no_path_is_refused_with_its_column_and_a_remedy(text: str, column: int) -> None:
    with pytest.raises(ConditionInvalid) as caught:
        parse_path(text)
    assert caught.value.column == column
    assert caught.value.remedy
    assert isinstance(caught.value, InvalidInput)
    assert caught.value.code == "bad_condition"


def test_lookup_walks_objects_and_arrays() -> None:
    payload = {"items": [{"sku": "a"}, {"sku": "b"}]}
    assert parse_path("items[1].sku").lookup(payload) == "b"
    assert parse_path("items").lookup(payload) == payload["items"]


@pytest.mark.parametrize("text", ["items[2].sku", "items.sku", "nope", "items[0].sku.x", "items[0][0]"])
def test_a_path_that_leads_nowhere_is_null(text: str) -> None:
    assert parse_path(text).lookup({"items": [{"sku": "a"}, 1]}) is None


@pytest.mark.parametrize(
    ("found", "value"),
    [("x", "x"), (0, 0), (0.5, 0.5), (False, False), (None, None), ([1], None), ({"a": 1}, None), ("", "")],
)
def test_the_value_of_a_path_is_a_scalar_or_nothing(found: Any, value: Any) -> None:
    assert parse_path("a").value({"a": found}) == value


def test_a_path_binds_to_the_longest_type_it_begins_with() -> None:
    path = parse_path("fraud.scored.score")
    assert path.bind(["fraud", "fraud.scored"]) == Path(("score",), "fraud.scored")
    assert path.bind(["fraud"]) == Path(("scored", "score"), "fraud")
    assert path.bind(["frau", "fraud.score"]) == path
    assert path.bind(["fraud"]).bind(["fraud.scored"]) == Path(("score",), "fraud.scored")
    assert parse_path('"fraud.scored".score').bind(["fraud.scored"]) == Path(("score",), "fraud.scored")
    assert parse_path("a[0].b").bind(["a.0.b", "a"]) == Path((0, "b"), "a")


def test_a_bound_path_finds_its_own_payload_and_an_unbound_one_the_only_payload() -> None:
    payloads = {"a.b": {"x": 1}, "c": {"x": 2}}
    assert parse_path("c.x").bind(payloads).find(payloads) == 2
    assert parse_path("x").find({"a.b": {"x": 1}}) == 1
    assert parse_path("x").find(payloads) is None, "two payloads are ambiguous"
    assert parse_path("x").find({}) is None
    assert parse_path("d.x").bind(["d"]).find(payloads) is None


@pytest.mark.parametrize("text", ["order.id", "a[0].b-c", '"in".x', 'a.in."x y"', '"2fa".x', '"a\\"\\\\\\n"'])
def test_the_text_of_a_path_quotes_only_what_needs_it(text: str) -> None:
    assert str(parse_path(text)) == text


def test_the_longest_path_is_taken() -> None:
    assert len(parse_path(".".join("a" * SEGMENTS_MAX)).segments) == SEGMENTS_MAX


def test_texts_from_outside_are_shown_cut_and_without_control_characters() -> None:
    assert excerpt("größe") == '"größe"'
    assert excerpt("a\x1b[0m") == '"a\\u001b[0m"'
    assert excerpt("x" * 40) == f'"{"x" * 40}"'
    assert excerpt("x" * 41) == f'"{"x" * 39}…"'


@PATIENT
@given(SEGMENTS)
def test_the_text_of_a_path_reads_back_as_the_same_path(segments: list[str | int]) -> None:
    segments[0] = str(segments[0])
    path = Path(tuple(segments))
    assert parse_path(str(path)) == path


@PATIENT
@given(st.text(max_size=40) | st.text("ab.[]\"'\\01 ", max_size=20))
def test_any_text_is_a_path_or_a_typed_refusal(text: str) -> None:
    try:
        parse_path(text)
    except ConditionInvalid as error:
        refused = error
    else:
        return
    assert 1 <= refused.column <= len(text) + 1
    str(refused).encode()


@PATIENT
@given(SEGMENTS | st.lists(st.sampled_from(["a", "b", "c", 0, 1]), min_size=1), JSON)
def test_lookup_never_raises(segments: list[str | int], payload: Any) -> None:
    Path(tuple(segments)).lookup(payload)
    Path(tuple(segments), "t").find({"t": payload})
