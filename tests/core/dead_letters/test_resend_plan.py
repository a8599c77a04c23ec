"""A recorded request becomes a record for an ingress topic, or an obstacle that says why not."""

from dataclasses import replace
from typing import Any

import pytest

from mesh.core.dead_letters.redrive_log import PLANNED, REFUSED, SENT, RedriveEntry, RedriveLedger
from mesh.core.dead_letters.redrive_plan import AlreadyDone, Obstacle, Sending
from mesh.core.dead_letters.resend_plan import (
    REPLAY,
    RecordedRequest,
    ResendOptions,
    ResendPlanner,
    is_resent,
    ordering_key,
)
from mesh.core.ingress.admission import admit
from mesh.core.ingress.request_formats import Rejection
from mesh.core.protocol.codec import event_headers, read_event
from mesh.core.protocol.event import REQUESTED, Event, derive_id
from mesh.core.protocol.partitioner import partition_of
from mesh.core.protocol.record import StoredRecord, UnreadValue
from mesh.core.topology.loader import load

MESH = load(
    """
mesh: {name: shop, prefix: new}
topics:
  orders: {ingress: order, partitions: 3}
  bids: {ingress: bid, order: key, key: lot, partitions: 5}
  keyed: {ingress: move, order: key, partitions: 5}
  joins: {ingress: more, join: true}
  out: {egress: done}
agents:
  take: {run: "a:take", on: order, emits: done}
  bid: {run: "a:bid", on: bid, key: lot, emits: done}
  move: {run: "a:move", on: move, key: lot, emits: done}
  more: {run: "a:more", on: more, emits: done}
"""
)
PARTITIONS = {"orders": 4, "bids": 5, "keyed": 5, "joins": 6}
RUN = "0123456789abcdef01234567"


def recorded(type: str = "order", data: bytes = b'{"lot": "x"}', **fields: Any) -> RecordedRequest:
    own = {name: fields.pop(name) for name in ("key", "key_known", "masked") if name in fields}
    made = Event(**{"id": "e1", "source": "/shop", "kind": REQUESTED, "run_id": RUN, **fields}, type=type, data=data)
    record = StoredRecord("old.inbox", 2, 7, 1_000, made.run_id.encode(), data, event_headers(made))
    event = read_event(record)
    assert isinstance(event, Event)
    return RecordedRequest(event, record, **own)


def planner(*entries: RedriveEntry, **options: Any) -> ResendPlanner:
    ledger = RedriveLedger()
    for entry in entries:
        ledger.add(entry)
    return ResendPlanner("old", MESH, PARTITIONS, ledger, ResendOptions(**options))


def sent(request: RecordedRequest, *entries: RedriveEntry, **options: Any) -> Sending:
    step = planner(*entries, **options).plan(request)
    assert isinstance(step, Sending)
    return step


def obstacle(request: RecordedRequest, **options: Any) -> str:
    step = planner(**options).plan(request)
    assert isinstance(step, Obstacle)
    assert step.remedy
    return step.message


def headers(step: Sending) -> dict[str, str]:
    return {name: value.decode() for name, value in step.records[0].headers}


def test_the_record_is_a_cloudevent_that_the_mesh_admits_as_a_new_run() -> None:
    request = recorded(subject="o-1", time="2026-01-01T00:00:00.000Z", extensions=("colour", "red"), key=b"k")
    step = sent(request)
    letter = derive_id("resend", "old", RUN, "e1")
    assert headers(step) == {
        "ce_specversion": "1.0",
        "ce_id": f"{letter}:r1",
        "ce_source": "/shop",
        "ce_type": "order",
        "ce_subject": "o-1",
        "ce_time": "2026-01-01T00:00:00.000Z",
        "ce_causationid": "e1",
        "ce_colour": "red",
        "ce_replayof": RUN,
        "content-type": "application/json",
        REPLAY: f"{letter}:r1",
    }
    (record,) = step.records
    assert (record.topic, record.key, record.value) == ("orders", b"k", b'{"lot": "x"}')
    assert record.partition == partition_of(b"k", 4), "as many partitions as the log has, not as are declared"
    event = admit(StoredRecord("orders", 0, 0, 0, b"k", record.value, record.headers), MESH)
    assert isinstance(event, Event)
    assert (event.run_id, is_resent(event)) == (step.run_id, True)
    assert not is_resent(request.event)


def test_time_deadline_and_trace_of_the_first_run_are_not_sent_where_they_are_none_or_over() -> None:
    request = recorded(expiry_ms=5_000, traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01")
    assert not {"ce_time", "ce_expirytime", "traceparent", "ce_correlationid"} & headers(sent(request)).keys()


@pytest.mark.parametrize(
    ("source", "type", "said"),
    [
        ("/topics/old-orders", "order", "/topics/orders"),
        ("/agents/pricing", "order", "/topics/orders"),
        ("/agents/pricing", "more", "/agents/pricing"),
        ("urn:shop", "order", "urn:shop"),
    ],
)
def test_a_source_of_the_mesh_itself_becomes_that_of_the_topic(source: str, type: str, said: str) -> None:
    assert headers(sent(recorded(type, source=source)))["ce_source"] == said


def test_with_its_id_a_request_keeps_its_cause_and_its_run() -> None:
    request = recorded(source="/topics/orders", cause_id="before")
    first = admit(StoredRecord("orders", 0, 0, 0, None, b"{}", _plain("e1", "/topics/orders")), MESH)
    step = sent(request, keep_ids=True)
    assert (headers(step)["ce_id"], headers(step)["ce_causationid"]) == ("e1", "before")
    assert not isinstance(first, Rejection)
    assert step.run_id == first.run_id
    assert step.ids == (headers(step)[REPLAY],), "an interrupted resend is found by the header"
    assert step.ids != sent(request).ids, "with new ids it is another resend"


def _plain(id: str, source: str) -> list[tuple[str, bytes]]:
    pairs = {"specversion": "1.0", "id": id, "source": source, "type": "order"}
    return [(f"ce_{name}", text.encode()) for name, text in pairs.items()]


def test_the_key_is_the_declared_field_else_that_of_the_record() -> None:
    rules = MESH.ingress
    assert ordering_key(recorded("bid", key=b"other"), rules["bid"]) == b"x"
    assert ordering_key(recorded("move", key=b"other"), rules["move"]) == b"other"
    home = f"{RUN}:k" + "0" * 16
    lost = recorded("move", run_id=home, key_known=False)
    assert "`order: key`, and the record with its key is not there" in obstacle(lost)
    assert sent(recorded("bid", run_id=home, key_known=False)).records[0].key == b"x"
    assert sent(recorded("move", key_known=False)).records[0].key is None, "the run had no ordering key"
    assert sent(recorded("move", run_id=home, key=b"k")).records[0].key == b"k"


@pytest.mark.parametrize(
    ("request_", "options", "said"),
    [
        (recorded("gone"), {}, "no ingress topic of mesh shop takes gone"),
        (recorded(), {"into": "bids"}, "order comes in by topic orders, not by bids"),
        (recorded(masked=True), {}, "a value of its payload was masked in the recording"),
        (recorded(data=b"{"), {}, "the mesh would reject it: unparseable"),
        (
            recorded(extensions=tuple("abcde"[n] if m else "x" * 814 for n in range(5) for m in (1, 0))),
            {},
            "reject it: too_large",
        ),
    ],
)
def test_what_cannot_be_sent_says_why(request_: RecordedRequest, options: dict[str, Any], said: str) -> None:
    assert said in obstacle(request_, **options)


def test_a_missing_topic_and_an_unread_payload_are_obstacles() -> None:
    step = ResendPlanner("old", MESH, {}, RedriveLedger(), ResendOptions()).plan(recorded())
    assert isinstance(step, Obstacle)
    assert step.message == "the log has no topic orders"
    request = recorded()
    unread = request.record._replace(value=UnreadValue("too_large", "9 bytes"))  # type: ignore[attr-defined]
    step = planner().plan(request._replace(record=unread))
    assert isinstance(step, Obstacle)
    assert step.message == "its payload cannot be read: 9 bytes"


def test_further_requests_of_a_run_join_the_run_of_the_first_where_the_topic_allows_it() -> None:
    plans = planner()
    first, second = plans.plan(recorded()), plans.plan(recorded("more", id="e2"))
    assert isinstance(first, Sending)
    assert isinstance(second, Sending)
    assert (second.run_id, headers(second)["ce_correlationid"]) == (first.run_id, first.run_id)
    third = plans.plan(recorded(id="e3"))
    assert isinstance(third, Obstacle)
    assert "does not say `join: true`" in third.message
    done = RedriveEntry(first.letter.id, 1, SENT, "ann", 1, run_id="f" * 24)
    plans = planner(done)
    assert isinstance(plans.plan(recorded()), AlreadyDone)
    late = plans.plan(recorded("more", id="e2"))
    assert isinstance(late, Sending)
    assert late.run_id == "f" * 24, "the first was sent before an interruption"


def test_the_ledger_decides_what_is_sent() -> None:
    request = recorded()
    fresh = sent(request)
    entry = RedriveEntry(fresh.letter.id, 1, PLANNED, "ann", 1, topic="orders", after=3, way="resend")
    rest = sent(request, entry)
    assert (rest.n, rest.ids, rest.interrupted) == (1, fresh.ids, entry)
    assert sent(request, entry, again=True).n == 1, "an interrupted one is finished first"
    assert isinstance(planner(entry._replace(state=SENT)).plan(request), AlreadyDone)
    assert sent(request, entry._replace(state=SENT), again=True).n == 2
    assert sent(request, entry._replace(state=REFUSED)).n == 2
    ledger = RedriveLedger()
    ledger.add(entry)
    assert (ledger.interrupted("resend"), ledger.interrupted("task")) == ([entry], [])
    ledger.add(entry._replace(state=SENT))
    assert ledger.interrupted("resend") == []


def test_a_request_is_the_same_letter_wherever_it_was_recorded() -> None:
    request = recorded()
    elsewhere = StoredRecord("copy.inbox", 0, 99, 5_000, None, request.event.data, request.record.headers)
    assert sent(request).ids == sent(request._replace(record=elsewhere, event=replace(request.event, at_ms=9))).ids
