"""Records ⇄ events on the mesh's own topics. The oracle is in test_cloudevents."""

import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mesh.core.protocol.codec import (
    Unreadable,
    event_headers,
    is_json,
    read_event,
)
from mesh.core.protocol.event import (
    BATCH,
    FAULT_TEXT_BYTES_MAX,
    NO_USAGE,
    RETRY_AFTER_MS_MAX,
    STACK_BYTES_MAX,
    TASK_TIME,
    Event,
    Fault,
    Usage,
)
from mesh.core.protocol.headers import HEADERS
from mesh.core.protocol.record import Headers, PackedHeaders, Record
from tests.core.samples import AT_MS, events, stored, task


def good() -> dict[str, bytes]:
    return dict(event_headers(task()))


# ------------------------------------------------------------------------------------------------- write, then read


@given(events())
def test_what_was_written_is_read_again(event: Event) -> None:
    assert read_event(stored(event_headers(event), event.data, event.at_ms)) == event


def test_a_waiting_time_is_read_again_and_a_broken_one_is_none() -> None:
    event = task()
    event.waited_ms = 18_400
    headers = dict(event_headers(event))
    for digits, waited_ms in ((b"18400", 18_400), (b"-1", 0), (b"x", 0), (b"9" * 40, 0)):
        headers["mesh-waited-ms"] = digits
        found = read_event(stored(list(headers.items()), event.data, event.at_ms))
        assert isinstance(found, Event)
        assert found.waited_ms == waited_ms


PLACES = st.sampled_from([name for name, _ in HEADERS])
ODD = st.sampled_from(
    (
        b"",
        b"\0",
        b"1.0",
        b"7",
        b" 7\n",
        b"1_0",
        b"-1",
        b"x",
        b"a,b",
        b"2026-11-20T12:00:00.000Z",
        "é".encode(),
        b"\xff",
        None,
    )
)


@given(events(), st.dictionaries(PLACES, ODD | st.binary(max_size=8), max_size=3), st.sets(PLACES, max_size=3))
def test_packed_headers_are_read_as_pairs_are(event: Event, odd: dict[str, Any], missing: set[str]) -> None:
    headers = {name: value for name, value in (dict(event_headers(event)) | odd).items() if name not in missing}
    packed: Any = PackedHeaders(tuple(headers), [*headers.values()])
    pairs: Any = tuple(headers.items())
    assert read_event(stored(packed, event.data, event.at_ms)) == read_event(stored(pairs, event.data, event.at_ms))


@given(events())
def test_each_name_has_a_value_of_its_own(event: Event) -> None:
    written = event_headers(event)
    assert len(written.names) == len(written.values) == len(list(written))


def test_events_of_one_form_share_their_names() -> None:
    first, second = task(), task()
    second.id, second.path, second.data = "t1:2", ("a", "b"), b"[]"
    assert event_headers(first).names is event_headers(second).names


def test_only_listed_headers_are_written_and_all_are_listed() -> None:
    event = task()
    event.usage, event.fault, event.origin = Usage(5, 6), Fault("later", "no", "E", True, "stack", 5), "t:0:1"
    event.topology, event.waited_ms = "0" * 16, 18_400
    event.extensions = ("tenant", "eu", TASK_TIME, "2026-11-30T12:00:00.123Z")
    written = {name for name, _ in event_headers(event)}
    event.expiry_ms = -30_000
    assert written | {name for name, _ in event_headers(event)} == {*(name for name, _ in HEADERS), "ce_tenant"}


def test_a_deadline_that_counts_from_its_record_is_absolute_once_it_is_read() -> None:
    event = task()
    event.expiry_ms = -30_000
    headers = dict(event_headers(event))
    assert headers["mesh-lifetime-ms"] == b"30000"
    assert "ce_expirytime" not in headers
    record = stored(list(headers.items()))
    found = read_event(record)
    assert isinstance(found, Event)
    assert found.expiry_ms == record.timestamp + 30_000


def test_each_header_is_written_once() -> None:
    event = task()
    event.usage, event.fault = None, Fault("exception", "no")
    names = [name for name, _ in event_headers(event)]
    assert len(names) == len(set(names))
    assert names.count("traceparent") == names.count("tracestate") == 1


def test_a_tracestate_never_travels_without_its_traceparent() -> None:
    event = task()
    event.traceparent = ""
    assert not [name for name, _ in event_headers(event) if name.startswith("trace")]


def test_an_event_without_a_time_bears_the_time_of_its_cause() -> None:
    assert dict(event_headers(task()))["ce_time"] == b"2026-11-20T12:00:00.123Z"


def test_the_log_says_when_and_where() -> None:
    found = read_event(stored(event_headers(task())))
    assert isinstance(found, Event)
    assert found.at_ms == AT_MS
    assert found.origin == "mesh.inbox:2:7"


# ------------------------------------------------------------------------------------------------- what is no event


@pytest.mark.parametrize("name", ["ce_id", "ce_source", "ce_type", "ce_meshkind", "ce_correlationid"])
def test_a_missing_header_is_named(name: str) -> None:
    headers = good()
    del headers[name]
    assert read_event(stored(list(headers.items()))) == Unreadable("missing_header", f"header '{name}' is missing")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ce_id", b"\xff"),
        ("ce_type", b"\xed\xa0\x80"),
        ("ce_meshpath", b"a,\xff"),
        ("ce_subject", b"\x80"),
        ("traceparent", b"\xff"),
        ("ce_meshdepth", b"two"),
        ("ce_meshdepth", b""),
        ("ce_meshdepth", b"1" * 5_000),
        ("mesh-attempt", b"1.5"),
        ("ce_expirytime", b"tomorrow"),
        ("ce_expirytime", b""),
        ("ce_expirytime", b"2026-11-20T12:00:00"),
        ("ce_expirytime", b"\xff"),
        ("mesh-lifetime-ms", b"soon"),
        ("mesh-lifetime-ms", b"-5"),
        ("mesh-lifetime-ms", b"9" * 13),
    ],
)
def test_a_header_that_does_not_parse_is_a_bad_header(name: str, value: bytes) -> None:
    found = read_event(stored(list({**good(), name: value}.items())))
    assert isinstance(found, Unreadable)
    assert found.code == "bad_header"
    assert len(found.message) < 400


@pytest.mark.parametrize("name", [name for name, _ in HEADERS])
def test_a_header_without_a_value_is_a_bad_header(name: str) -> None:
    """Kafka allows it, and clients hand it over as None."""
    event = task()
    event.usage, event.fault = Usage(5, 6), Fault("exception", "no", "E", True, "stack")
    event.extensions = (TASK_TIME, "2026-11-30T12:00:00.123Z")
    headers: dict[str, Any] = {**dict(event_headers(event)), "mesh-origin": b"t:0:1", name: None}
    found = read_event(stored(list(headers.items())))
    if name == "ce_specversion":
        assert found == Unreadable("not_cloudevents", "ce_specversion is None; expected b'1.0'")
    elif name == "mesh-error-retryable":
        assert isinstance(found, Event)
        assert found.fault is not None
        assert not found.fault.retryable
    else:
        assert found == Unreadable("bad_header", f"header '{name}' has no value")


def test_an_attribute_that_stands_twice_is_refused_even_with_one_value() -> None:
    for again in (b"t1:1", b"other"):
        found = read_event(stored([*good().items(), ("ce_id", again)]))
        assert found == Unreadable("bad_header", "header 'ce_id' stands twice")


def test_of_two_plain_headers_the_last_counts() -> None:
    """An instrumented client appends its traceparent to ours."""
    found = read_event(stored([*good().items(), ("traceparent", b"00-second")]))
    assert isinstance(found, Event)
    assert found.traceparent == "00-second"
    assert [name for name, _ in event_headers(found)].count("traceparent") == 1


def test_a_record_without_a_value_is_no_event() -> None:
    found = read_event(stored(event_headers(task()), None))
    assert isinstance(found, Unreadable)
    assert found.code == "empty_value"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("ce_id", b"x")],
        [("ce_specversion", b"0.3")],
        [("ce_specversion", b"")],
        [("content-type", b"application/json")],
        [("ce_specversion", b"0.3"), ("content-type", b"application/cloudevents+json")],
    ],
)
def test_a_record_that_is_no_cloudevent_says_so(headers: Headers) -> None:
    found = read_event(stored(headers))
    assert isinstance(found, Unreadable)
    assert found.code == "not_cloudevents"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "unparseable"),
        (b"[]", "unparseable"),
        (b"{}", "not_cloudevents"),
        (b'{"specversion":"1.0"}', "empty_value"),
        (b'{"specversion":"1.0","data":1}', "missing_header"),
        (b'{"specversion":"1.0","data":1,"data":2}', "duplicate_key"),
        (b"[" * 100_000, "too_deep"),
    ],
)
def test_a_structured_event_that_is_none_says_why(body: bytes, code: str) -> None:
    found = read_event(stored([("content-type", b"application/cloudevents+json")], body))
    assert isinstance(found, Unreadable)
    assert found.code == code


HEADER_NAMES = st.sampled_from([name for name, _ in HEADERS]) | st.text(max_size=8)
HEADER_VALUES = st.none() | st.binary(max_size=12) | st.sampled_from([b"1.0", b"application/cloudevents+json", b"9"])


@given(st.lists(st.tuples(HEADER_NAMES, HEADER_VALUES), max_size=8), st.none() | st.binary(max_size=40), st.booleans())
@example([("ce_specversion", b"1.0")], b"{}", True)
@example([("ce_expirytime", b"0001-01-01T00:00:00+23:59")], b"{}", True)
@example([("ce_expirytime", b"9999-12-31T23:59:59-23:59")], b"{}", True)
@example([("ce_meshusd", b"1" * 5_000)], b"{}", True)
def test_any_record_is_an_event_or_unreadable(headers: Any, value: bytes | None, on_top: bool) -> None:
    base = list(good().items()) if on_top else []
    merged = list({**dict(base), **dict(headers)}.items()) if on_top else headers
    record: Record = stored(merged, value)
    found = read_event(record)
    assert isinstance(found, Event | Unreadable)


def test_ten_thousand_headers_cost_milliseconds() -> None:
    headers = [*good().items(), *((f"x{n}", b"y") for n in range(10_000)), *((f"ce_{n}", b"y") for n in range(99))]
    start = time.thread_time()
    found = read_event(stored([*headers, ("x1", b"z")]))
    assert isinstance(found, Event)
    assert time.thread_time() - start < 0.2


# ------------------------------------------------------------------------------------------------- values in headers


@pytest.mark.parametrize(
    ("usd", "tokens", "usage"),
    [
        (b"12", b"34", Usage(12, 34)),
        (b"12", None, Usage(12, 0)),
        (None, b"34", Usage(0, 34)),
        (None, None, NO_USAGE),
        (b"-1", None, None),
        (b"0.5", None, None),
        (b"NaN", None, None),
        (b"", None, None),
        (b"invalid", None, None),
        (None, b"many", None),
        (b"1" * 5_000, None, None),
        (str(10**15).encode(), None, None),
        (None, str(10**15).encode(), None),
    ],
)
def test_invalid_usage_differs_from_no_usage(usd: bytes | None, tokens: bytes | None, usage: Usage | None) -> None:
    headers = good()
    if usd is not None:
        headers["ce_meshusd"] = usd
    if tokens is not None:
        headers["ce_meshtokens"] = tokens
    found = read_event(stored(list(headers.items())))
    assert isinstance(found, Event)
    assert found.usage == usage


def test_a_failure_from_outside_is_cut_to_size() -> None:
    headers = {**good(), "mesh-error-code": b"x", "mesh-error-message": b"m" * 10**6, "mesh-error-stack": b"s" * 10**6}
    found = read_event(stored(list(headers.items())))
    assert isinstance(found, Event)
    assert found.fault is not None
    assert len(found.fault.message) == FAULT_TEXT_BYTES_MAX
    assert len(found.fault.stack) == STACK_BYTES_MAX


@pytest.mark.parametrize(
    ("digits", "after_ms"),
    [
        (b"1500", 1500),
        (b"0", 0),
        (b"", 0),
        (b"soon", 0),
        (b"-1", 0),
        (b"1.5", 0),
        (b"9" * 15, RETRY_AFTER_MS_MAX),
        (b"9" * 400, 0),
    ],
)
def test_a_retry_delay_is_read_and_an_invalid_one_does_not_lose_the_failure(digits: bytes, after_ms: int) -> None:
    event = task()
    event.fault = Fault("later", "busy")
    headers = [*event_headers(event), ("mesh-error-retry-after-ms", digits)]
    found = read_event(stored(headers))
    assert isinstance(found, Event)
    assert found.fault == Fault("later", "busy", retry_after_ms=after_ms)


def test_a_failure_with_odd_text_is_written_and_read() -> None:
    event = task()
    event.fault = Fault("exception", "lone \ud800", "cls \udfff", True, "stack \udc00")
    found = read_event(stored(event_headers(event)))
    assert isinstance(found, Event)
    assert found.fault == Fault("exception", "lone ?", "cls ?", True, "stack ?")


@pytest.mark.parametrize(
    ("content_type", "json"),
    [
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        ("application/vnd.github+json", True),
        ("text/json", True),
        ("", True),
        (BATCH, False),
        ("text/plain", False),
        ("application/octet-stream", False),
        ("application/jsonl", False),
    ],
)
def test_media_types_of_one_json_document_are_known(content_type: str, json: bool) -> None:
    assert is_json(content_type) is json
