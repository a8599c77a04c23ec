"""The packed form says what the plain form says, and is read as strictly."""

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.protocol.codec import Unreadable, event_headers, internal_headers, plain_headers, read_event
from mesh.core.protocol.event import (
    BATCH,
    FAULT_TEXT_BYTES_MAX,
    JSON,
    NO_USAGE,
    RETRY_AFTER_MS_MAX,
    STACK_BYTES_MAX,
    TASK,
    TIME_MS_MAX,
    Event,
    Fault,
    Usage,
)
from mesh.core.protocol.packed_form import FAULT_ITEMS, ITEMS, PACKED, VERSION, pack
from mesh.core.protocol.record import Headers, PackedHeaders
from mesh.core.reason_codes import REASONS
from tests.core.samples import AT_MS, events, stored, task

ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
ANY_NUMBER = st.integers() | st.integers(-3, 10**15 + 3)


@st.composite
def odd_events(draw: st.DrawFn) -> Event:
    """Any event at all: also those that no part of the mesh makes."""
    lone = st.text(st.characters(), max_size=8)  # with lone surrogates
    extensions = draw(st.dictionaries(st.sampled_from(["tenant", "dataschema", "ä"]), ANY_TEXT, max_size=2))
    return Event(
        draw(ANY_TEXT),
        draw(ANY_TEXT),
        draw(ANY_TEXT),
        draw(ANY_TEXT),
        draw(ANY_TEXT),
        draw(st.binary(max_size=4)),
        draw(st.integers(-5, 2**62)),
        draw(ANY_TEXT),
        draw(ANY_TEXT),
        draw(ANY_TEXT),
        draw(ANY_NUMBER),
        tuple(draw(st.lists(ANY_TEXT, max_size=3))),
        draw(ANY_NUMBER),
        draw(st.sampled_from([JSON, BATCH, "", "text/plain"])),
        draw(ANY_TEXT),
        draw(ANY_TEXT),
        draw(st.none() | st.integers(-(10**13), 2**62)),
        draw(ANY_TEXT),
        draw(ANY_TEXT),
        draw(st.none() | st.just(NO_USAGE) | st.just(Usage()) | st.builds(Usage, ANY_NUMBER, ANY_NUMBER)),
        draw(st.none() | st.builds(Fault, ANY_TEXT, lone, lone, st.booleans(), lone, ANY_NUMBER)),
        draw(ANY_TEXT),
        draw(ANY_TEXT),
        tuple(text for pair in extensions.items() for text in pair),
        draw(ANY_NUMBER),
    )


def read(headers: Headers, event: Event) -> Event | Unreadable:
    return read_event(stored(headers, event.data, event.at_ms))


def read_items(items: Any, *, beside: Headers = ()) -> Event | Unreadable:
    return read_event(stored([(PACKED, orjson.dumps(items)), *beside]))


def good() -> list[Any]:
    found: list[Any] = orjson.loads(pack(task()))
    return found


# ------------------------------------------------------------------------------------------------- write, then read


@given(events() | odd_events())
def test_both_forms_give_the_same_event(event: Event) -> None:
    plain, packed = read(event_headers(event), event), read(internal_headers(event), event)
    if isinstance(plain, Event):
        assert packed == plain
    else:
        assert isinstance(packed, Unreadable)
        assert packed.code == plain.code


@given(events())
def test_what_the_mesh_writes_has_one_header(event: Event) -> None:
    ((name, _),) = internal_headers(event)
    assert name == PACKED
    assert read(internal_headers(event), event) == event


@given(events())
def test_a_packed_header_can_be_shown_as_plain_ones(event: Event) -> None:
    assert list(plain_headers(internal_headers(event))) == list(event_headers(event))


@given(odd_events())
def test_what_is_shown_is_read_as_the_same_event(event: Event) -> None:
    packed = internal_headers(event)
    assert read(plain_headers(packed), event) == read(packed, event) or isinstance(read(packed, event), Unreadable)


def test_a_plain_record_stays_as_it_is() -> None:
    headers = (("ce_id", b"x"), ("other", b"\xff"))
    assert plain_headers(headers) is headers


def test_other_headers_stay_behind_the_plain_ones() -> None:
    (packed,) = internal_headers(task())
    shown = plain_headers([("before", b"1"), packed, ("behind", b"2")])
    assert list(shown) == [*event_headers(task()), ("before", b"1"), ("behind", b"2")]


def test_a_header_that_holds_no_event_is_shown_as_it_is() -> None:
    headers = [(PACKED, b"[1,")]
    assert plain_headers(headers) is headers


@pytest.mark.parametrize(
    "change",
    [{"fault": Fault("a", "\ud800 lone")}, {"depth": 2**70}, {"attempt": 2**65, "fault": Fault("a", "b", "c\udfff")}],
)
def test_what_json_cannot_carry_is_written_in_plain_form(change: dict[str, Any]) -> None:
    event = replace(task(), **change)
    headers = internal_headers(event)
    assert PACKED not in dict(headers)
    assert isinstance(read(headers, event), Event)


def test_a_lifetime_counts_from_when_the_log_stored_the_record() -> None:
    event = replace(task(), expiry_ms=-5_000)
    found = read_event(stored(internal_headers(event), timestamp=AT_MS + 7))
    assert isinstance(found, Event)
    assert found.expiry_ms == AT_MS + 7 + 5_000


def test_an_event_without_origin_has_that_of_its_record() -> None:
    found = read_event(stored(internal_headers(task())))
    assert isinstance(found, Event)
    assert found.origin == "mesh.inbox:2:7"


def test_long_texts_of_a_failure_are_cut_as_in_plain_form() -> None:
    fault = Fault("ä" * 9_000, "🙂" * 9_000, "x" * 9_000, True, "ä" * 20_000, RETRY_AFTER_MS_MAX + 1)
    event = replace(task(), fault=fault)
    packed = read(internal_headers(event), event)
    assert packed == read(event_headers(event), event)
    assert isinstance(packed, Event)
    assert packed.fault is not None
    assert len(packed.fault.cls) == FAULT_TEXT_BYTES_MAX
    assert len(packed.fault.stack.encode()) <= STACK_BYTES_MAX
    assert packed.fault.retry_after_ms == RETRY_AFTER_MS_MAX


def test_headers_of_an_adapter_are_read_as_pairs_are() -> None:
    packed = PackedHeaders((PACKED,), [pack(task())])
    assert read(packed, task()) == read(internal_headers(task()), task())


# ------------------------------------------------------------------------------------------------------------ broken


def is_refused(found: Event | Unreadable, code: str = "bad_header") -> str:
    assert isinstance(found, Unreadable), found
    assert found.code == code
    assert code in REASONS
    assert found.message.isprintable()
    assert len(found.message) < 400
    return found.message


@pytest.mark.parametrize(
    "packed",
    [
        *(b"", b"[1,", b"null", b"1", b'"x"', b"{}", b"[]", b"\xff", b"[NaN]", b'["\\ud800"]', b"[" * 5_000),
        *(b"[1]", b"[0]", b"[true]", b"[-1]", b"[1.0]", b"[" * 900 + b"]" * 900, b"[99999999999999999999999999]"),
        *(b"x" * 1_048_576, b"[" + b"1," * 500_000 + b"1]", b'["' + b"x" * 1_048_576 + b'"]'),
    ],
    ids=lambda packed: repr(packed[:12]),
)
def test_what_is_no_array_of_these_items_is_refused(packed: bytes) -> None:
    is_refused(read_event(stored([(PACKED, packed)])))


WRONG: dict[str, list[Any]] = {
    "text": [None, 1, True, 1.5, [], {}, ["x"]],
    "whole number": [None, True, False, "1", 1.0, 1e300, [], {}, 10**19 + 0.5],
    "text or null": [0, False, [], {}],
    "whole number or null": [True, False, "1", 1.5, [], {}],
    "array of texts": [None, {}, "x", 0, ["x"], ["a", 1], ["a", None], ["", "x"], ["a,b", "x"], ["a", "1", "a", "2"]],
    "array (see below) or null": [{}, "x", 0, False, [], ["code"], [1] * 6],
    "true or false": [None, 0, 1, "true", []],
}


@pytest.mark.parametrize(
    ("number", "value"), [(n, value) for n, item in enumerate(ITEMS) for value in WRONG[item.type]], ids=repr
)
def test_an_item_of_another_type_is_refused(number: int, value: Any) -> None:
    items = good()
    items[number] = value
    assert ITEMS[number].name in is_refused(read_items(items)).replace("failure:", "failure").replace(":", " ")


@pytest.mark.parametrize(
    ("number", "value"), [(n, value) for n, item in enumerate(FAULT_ITEMS) for value in WRONG[item.type]], ids=repr
)
def test_an_item_of_a_failure_of_another_type_is_refused(number: int, value: Any) -> None:
    fault: list[Any] = [*Fault("exception", "it broke")]
    fault[number] = value
    items = good()
    items[[item.name for item in ITEMS].index("failure")] = fault
    assert FAULT_ITEMS[number].name in is_refused(read_items(items))


@pytest.mark.parametrize("expiry", [TIME_MS_MAX + 1, -(10**12), 2**64 - 1])
def test_a_deadline_beyond_the_plain_form_is_refused(expiry: int) -> None:
    items = good()
    items[15] = expiry
    assert "expiry" in is_refused(read_items(items))


def test_missing_and_further_items_are_refused() -> None:
    assert "24 items, expected 25" in is_refused(read_items(good()[:-1]))
    assert "26 items, expected 25" in is_refused(read_items([*good(), ""]))


@pytest.mark.parametrize("items", [good()[1:], [*good()[1:], "more"], []])
def test_a_later_version_is_reported_separately(items: list[Any]) -> None:
    said = is_refused(read_items([VERSION + 1, *items]), "later_version")
    assert f"version {VERSION + 1}" in said


def test_a_header_without_a_value_is_refused() -> None:
    headers: Any = [(PACKED, None)]
    assert "has no value" in is_refused(read_event(stored(headers)))


def test_a_record_without_a_value_is_refused() -> None:
    is_refused(read_event(stored(internal_headers(task()), None)), "empty_value")


@pytest.mark.parametrize("name", ["ce_id", "ce_specversion", "ce_anything", "mesh-attempt", "mesh-error-code", PACKED])
def test_two_forms_on_one_record_are_refused(name: str) -> None:
    for headers in ([(name, b"1"), *internal_headers(task())], [*internal_headers(task()), (name, b"1")]):
        assert name in is_refused(read_event(stored(headers)))


@pytest.mark.parametrize("name", ["content-type", "traceparent", "tracestate", "mesh-redrives", "x"])
def test_headers_of_tools_are_left_alone(name: str) -> None:
    found = read_event(stored([(name, b"\xff"), *internal_headers(task())]))
    assert found == read_event(stored(internal_headers(task())))


@given(
    st.lists(st.tuples(st.integers(0, len(ITEMS) - 1), st.sampled_from([v for vs in WRONG.values() for v in vs]))),
    st.integers(0, 30),
    st.binary(max_size=4),
    st.integers(0, 400),
)
def test_whatever_is_in_the_header_is_an_event_or_unreadable(
    changes: list[tuple[int, Any]], kept: int, noise: bytes, at: int
) -> None:
    items = good()
    for number, value in changes:
        items[number] = value
    packed = orjson.dumps(items[:kept])
    for one in (packed, packed[:at] + noise + packed[at:], packed[:at]):
        found = read_event(stored([(PACKED, one)]))
        if isinstance(found, Unreadable):
            is_refused(found, found.code)
        else:
            assert isinstance(read(event_headers(found), found), Event)


def test_the_table_names_every_item() -> None:
    event = replace(task(), kind=TASK)
    assert len(orjson.loads(pack(event))) == len(ITEMS)
    assert len(FAULT_ITEMS) == len(Fault._fields)
    for item, value in zip(ITEMS, orjson.loads(pack(Event("", "", "", "", "", b"", time="x"))), strict=True):
        if item.absent and item.name != "time":
            assert orjson.loads(item.absent) == value, item.name
