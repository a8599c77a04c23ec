"""Bad input and the answer it gets: which code, heard where, bytes kept, nothing else changed.

Three doors: an ingress topic (`admit`), the inbox (`Partition.step`), a task topic (`read`, `arguments`). The same rows
through whole processes are in tests/services.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.agent import Payload, describe
from mesh.core.codec import Unreadable, read, write
from mesh.core.effect import DeadLetter, Effect, Finish, Note, PublishTask
from mesh.core.errors import InvalidInput
from mesh.core.event import BATCH, FAILED, SUCCEEDED, TASK, Event, Fault, Part, Usage, batch
from mesh.core.fold import Partition, dead_record
from mesh.core.ingress import Rejected, admit
from mesh.core.partition import partition_of
from mesh.core.reasons import COUNTED, DEAD, OUTCOME, REASONS
from mesh.core.record import Record, StoredRecord
from mesh.core.records import dead_letter, record_of
from mesh.core.settle import arguments
from mesh.core.topology import Limits
from tests.builders import AT_MS, agent, event, record, topology

LIMITS = Limits(payload_bytes_max=1_000, fanout_max=3, tasks_max=5, tokens_max=100)
MESH = topology(
    LIMITS,
    check=agent("ask -> checked", reserve_tokens=40),
    ship=agent("checked -> shipped"),
)
PARTITIONS = 1
BODY = b'{"id": "o-1"}'
DEEP = 100_000


# ------------------------------------------------------------------------------------------------------ ingress topics


def incoming(value: bytes | None = BODY, **attributes: str | bytes | None) -> StoredRecord:
    """A record of the ingress topic; with attributes it is a CloudEvent in binary mode."""
    merged: dict[str, Any] = {"specversion": "1.0", "id": "o-1", "source": "/shop", "type": "ask", **attributes}
    headers = [(f"ce_{name}", text.encode() if isinstance(text, str) else text) for name, text in merged.items()]
    return StoredRecord("in.ask", 0, 5, AT_MS, b"\x00key", value, headers if attributes else [])


INGRESS = {
    "no value": (incoming(None), "empty_value"),
    "empty value": (incoming(b""), "empty_value"),
    "bytes that are no text": (incoming(b"\x80\xff\x00"), "unparseable"),
    "compressed bytes": (incoming(b"\x1f\x8b\x08\x00"), "unparseable"),
    "a pickle": (incoming(b"\x80\x04\x95\x01\x00N."), "unparseable"),
    "not JSON": (incoming(b"order 7, please"), "unparseable"),
    "cut JSON": (incoming(b'{"id": "o-'), "unparseable"),
    "bytes after the document": (incoming(b'{"id": "o-1"}\n{"id": "o-2"}'), "unparseable"),
    "a byte order mark": (incoming(b'\xef\xbb\xbf{"id": "o-1"}'), "unparseable"),
    "UTF-16": (incoming('{"id": "o-1"}'.encode("utf-16")), "unparseable"),
    "nested 499 deep": (incoming(b"[" * 499 + b"]" * 499), "too_deep"),
    "duplicate keys": (incoming(b'{"depth":1,"depth":0}'), "duplicate_key"),
    "NaN": (incoming(b'{"usd": NaN}'), "bad_number"),
    "Infinity": (incoming(b'{"usd": -Infinity}'), "bad_number"),
    "a number beyond a double": (incoming(b'{"usd": 1e999}'), "bad_number"),
    "an integer of 900 digits": (incoming(b'{"n": ' + b"9" * 900 + b"}"), "bad_number"),
    "a lone surrogate": (incoming(b'{"name": "\\ud800"}'), "bad_string"),
    "a value over the limit": (incoming(b'"' + b"x" * 999 + b'"'), "too_large"),
    "a header of 100 KB": (incoming(subject="x" * 100_000), "too_large"),
    "no id": (incoming(id=None), "bad_id"),
    "an empty id": (incoming(id=""), "bad_id"),
    "a blank id": (incoming(id="  "), "bad_id"),
    "an over-long id": (incoming(id="x" * 129), "bad_id"),
    "an id of 10 MB": (incoming(id="x" * 10**7), "bad_id"),
    "control characters in an id": (incoming(id="a\x00b"), "bad_id"),
    "a path trick in a run id": (incoming(correlationid="../../etc"), "bad_id"),
    "an empty run id": (incoming(correlationid=""), "bad_id"),
    "no source": (incoming(source=None), "missing_header"),
    "a terminal escape in the source": (incoming(source="\x1b[2J"), "bad_string"),
    "text that turns around": (incoming(subject="\u202egpj.exe"), "bad_string"),
    "an id that is no text": (incoming(id=b"\xff"), "bad_header"),
    "an older CloudEvents": (incoming(specversion="0.3"), "not_cloudevents"),
    "an unknown type": (incoming(type="axk"), "unknown_type"),
    "the type of a result": (incoming(type="checked"), "unknown_type"),
    "a type that only leaves": (incoming(type="shipped"), "unknown_type"),
    "the type of a timer": (incoming(type="mesh.timer"), "unknown_type"),
    "no time": (incoming(time="yesterday"), "bad_time"),
    "a negative deadline": (incoming(expirytime="-1"), "bad_deadline"),
    "a deadline in the year 33658": (incoming(expirytime="33658-09-27T01:46:40Z"), "bad_deadline"),
}


@pytest.mark.parametrize("name", INGRESS)
def test_a_bad_request_is_a_dead_letter_with_its_bytes_and_a_reason(name: str) -> None:
    given_record, code = INGRESS[name]
    rejected = admit(given_record, MESH)
    assert isinstance(rejected, Rejected)
    assert rejected.code == code
    assert DEAD in REASONS[code].heard
    letter = dead_letter(dead_record(given_record, rejected.code, rejected.message), MESH)
    assert (letter.value, letter.key) == (given_record.value, b"\x00key")
    assert list(letter.headers[: len(given_record.headers)]) == list(given_record.headers)
    assert dict(letter.headers)["mesh-dlq-reason"] == code.encode()
    assert len(rejected.message) < 500
    assert rejected.message.isprintable()


@pytest.mark.parametrize(
    "body", [b"[" * DEEP, b'{"a":' * DEEP, b"[" * DEEP + b"]" * DEEP], ids=["open", "keys", "closed"]
)
def test_a_body_nested_a_hundred_thousand_deep_costs_less_than_five_milliseconds(body: bytes) -> None:
    roomy = replace(MESH, limits=Limits(payload_bytes_max=10**7))
    best = 1.0
    for _ in range(5):
        start = time.perf_counter()
        rejected = admit(incoming(body), roomy)
        best = min(best, time.perf_counter() - start)
        assert isinstance(rejected, Rejected)
        assert rejected.code == "too_deep"
    assert best < 0.005


def test_a_foreign_producer_cannot_claim_a_place_in_a_run() -> None:
    claimed = admit(
        incoming(meshkind="succeeded", meshagent="check", meshdepth="-3", meshtask="t", meshpath="x,y"), MESH
    )
    assert isinstance(claimed, Event)
    assert (claimed.kind, claimed.agent, claimed.task_id, claimed.depth, claimed.path) == ("requested", "", "", 0, ())


# ----------------------------------------------------------------------------------------------------------- the inbox


def fresh() -> Partition:
    return Partition(MESH, number=0, partitions=PARTITIONS)


def opened() -> tuple[Partition, Event]:
    """A partition with one run, and the task that it handed out."""
    state = fresh()
    effects = state.step(record(event()))
    task = next(effect.event for effect in effects if isinstance(effect, PublishTask))
    return state, task


def answer(task: Event, **changes: Any) -> Event:
    """The answer of the task's agent, with changes."""
    given_answer = event(
        SUCCEEDED,
        id=f"{task.id}:{SUCCEEDED}",
        type="checked",
        run_id=task.run_id,
        agent=task.agent,
        task_id=task.task_id,
        depth=task.depth,
        path=task.path,
        attempt=task.attempt,
    )
    return replace(given_answer, **changes)


def headers(event: Event, **changes: bytes | None) -> Record:
    """The record of an event with headers changed (None: without it); `_` stands for `-` in plain ones."""
    merged = dict(write(event))
    for name, value in changes.items():
        known = name if name.startswith("ce_") else name.replace("_", "-")
        if value is None:
            merged.pop(known)
        else:
            merged[known] = value
    return record(event, 1, headers=list(merged.items()))


def many(n: int) -> bytes:
    return batch([Part("checked", b"%d" % i) for i in range(n)], source="/agents/check", event_id="t")


class Row(NamedTuple):
    """A record for a partition with one open task; the code it gets; where that is heard."""

    make: Callable[[Event], Record]
    code: str
    heard: str


INBOX = {
    "a record without a value": Row(lambda t: record(answer(t), 1, value=None), "empty_value", DEAD),
    "plain JSON": Row(lambda t: record(answer(t), 1, headers=[]), "not_cloudevents", DEAD),
    "bytes and nothing else": Row(
        lambda t: StoredRecord("mesh.inbox", 0, 1, AT_MS, None, b"\xff\x00", []), "not_cloudevents", DEAD
    ),
    "a header missing": Row(lambda t: headers(answer(t), ce_type=None), "missing_header", DEAD),
    "a header that is no text": Row(lambda t: headers(answer(t), ce_source=b"\xff"), "bad_header", DEAD),
    "a header without a value": Row(
        lambda t: record(answer(t), 1, headers=[*write(answer(t)), ("ce_subject", None)]), "bad_header", DEAD
    ),
    "a header twice": Row(
        lambda t: record(answer(t), 1, headers=[*write(answer(t)), ("ce_meshdepth", b"0")]), "bad_header", DEAD
    ),
    "a depth that is no number": Row(lambda t: headers(answer(t), ce_meshdepth=b"deep"), "bad_header", DEAD),
    "a kind that nobody knows": Row(lambda t: headers(answer(t), ce_meshkind=b"promoted"), "unknown_kind", DEAD),
    "a task on the inbox": Row(lambda t: record(t, 1), "unknown_kind", DEAD),
    "the wrong key": Row(lambda t: record(answer(t), 1, key=b"run-2"), "key_mismatch", DEAD),
    "no key": Row(lambda t: record(answer(t), 1, key=None), "key_mismatch", DEAD),
    "a request with an empty run id": Row(lambda t: record(event(run_id=""), 1), "bad_id", DEAD),
    "a request with an empty id": Row(lambda t: record(event(id="", run_id="run-2"), 1), "bad_id", DEAD),
    "a request with an over-long run id": Row(lambda t: record(event(run_id="x" * 129), 1), "bad_id", DEAD),
    "the same request with another body": Row(lambda t: record(event(data=b"[]"), 1), "idempotency_conflict", DEAD),
    "the same request again": Row(lambda t: record(event(), 1), "duplicate_request", COUNTED),
    "a result for an unknown task": Row(lambda t: record(answer(t, task_id="nobody"), 1), "unknown_task", COUNTED),
    "a result for an unknown run": Row(lambda t: record(answer(t, run_id="run-2"), 1), "unknown_run", COUNTED),
    "a result of another agent": Row(lambda t: record(answer(t, agent="ship"), 1), "wrong_agent", COUNTED),
    "a result of an unknown agent": Row(lambda t: record(answer(t, agent="eve"), 1), "wrong_agent", COUNTED),
    "a result of an older attempt": Row(lambda t: record(answer(t, attempt=0), 1), "late_result", COUNTED),
    "a result of a later attempt": Row(lambda t: record(answer(t, attempt=9), 1), "late_result", COUNTED),
    "a timer for nothing": Row(
        lambda t: record(event("due", id="x", task_id="nobody", type="mesh.timer"), 1), "late_timer", COUNTED
    ),
    "a cancellation for nobody": Row(lambda t: record(event("cancelled", run_id="run-2"), 1), "unknown_run", COUNTED),
}


@pytest.mark.parametrize("name", INBOX)
def test_a_bad_record_on_the_inbox_is_answered_and_changes_no_run(name: str) -> None:
    make, code, heard = INBOX[name]
    state, task = opened()
    before = repr(state.runs)
    given_record = make(task)
    (effect,) = state.step(given_record)
    if heard == DEAD:
        assert isinstance(effect, DeadLetter)
        assert (effect.value, effect.key) == (given_record.value, given_record.key)
        assert list(effect.headers) == list(given_record.headers)
        assert record_of(effect, MESH).value == given_record.value
    else:
        assert isinstance(effect, Note)
        assert effect.security == (code == "wrong_agent")
    assert effect.code == code
    assert heard in REASONS[code].heard
    assert repr(state.runs) == before
    assert state.offset == given_record.offset + 1, "the partition goes on"


def test_a_record_on_the_wrong_partition_is_misrouted() -> None:
    state = Partition(MESH, number=0, partitions=6)
    run_id = next(f"run-{n}" for n in range(100) if partition_of(f"run-{n}".encode(), 6) != 0)
    (effect,) = state.step(record(event(run_id=run_id)))
    assert isinstance(effect, DeadLetter)
    assert effect.code == "misrouted"
    assert not state.runs


REFUSED: dict[str, tuple[Callable[[Event], Event], str]] = {
    "a request of an unknown type": (lambda t: event(id="r2", type="axk", run_id="run-2"), "unknown_type"),
    "a deadline in the past": (lambda t: event(id="r2", run_id="run-2", expiry_ms=AT_MS - 1), "bad_deadline"),
    "a request that is a batch": (
        lambda t: event(id="r2", run_id="run-2", content_type=BATCH, data=many(2)),
        "bad_batch",
    ),
    "a result of an undeclared type": (lambda t: answer(t, type="shipped"), "undeclared_type"),
    "a result for an unknown target": (lambda t: answer(t, type="mesh.tasks.ship"), "undeclared_type"),
    "a batch that is none": (lambda t: answer(t, content_type=BATCH, data=b'[{"type":'), "bad_batch"),
    "a batch nested 100,000 deep": (lambda t: answer(t, content_type=BATCH, data=b"[" * DEEP), "bad_batch"),
    "a batch of more than the fan-out": (lambda t: answer(t, content_type=BATCH, data=many(4)), "fanout"),
    "a payload over the limit": (lambda t: answer(t, data=b'"' + b"x" * 1_000 + b'"'), "payload"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_run_refuses_is_in_its_outcome_and_in_the_dead_letters(name: str) -> None:
    make, code = REFUSED[name]
    state, task = opened()
    bad = make(task)
    effects = state.step(record(bad, 1))
    letter = next(effect for effect in effects if isinstance(effect, DeadLetter))
    assert (letter.code, letter.value) == (code, bad.data)
    finish = next(effect for effect in effects if isinstance(effect, Finish))
    assert finish.run.ending == "stopped"
    assert [refusal.code for refusal in finish.run.refusals] == [code]
    assert not [effect for effect in effects if isinstance(effect, PublishTask)], "refused whole, not in part"
    assert {OUTCOME, DEAD} <= set(REASONS[code].heard)


@pytest.mark.parametrize("claim", [{"depth": 0}, {"depth": -7}, {"path": ()}, {"path": ("ship", "check")}])
def test_an_agent_that_claims_another_depth_or_parent_is_noted_and_not_believed(claim: dict[str, Any]) -> None:
    state, task = opened()
    effects = state.step(record(answer(task, **claim), 1))
    note = next(effect for effect in effects if isinstance(effect, Note))
    assert (note.code, note.security) == ("claimed_lineage", True)
    (next_task,) = [effect.event for effect in effects if isinstance(effect, PublishTask)]
    assert (next_task.depth, next_task.path) == (2, ("check", "ship"))


@pytest.mark.parametrize("report", [b"-5", b"NaN", b"many", b"", b"1.5", b"9" * 5_000])
def test_a_report_that_is_no_usage_charges_the_reservation(report: bytes) -> None:
    state, task = opened()
    state.step(headers(answer(task), ce_meshtokens=report))
    assert state.runs[task.run_id].tokens == 40


@pytest.mark.parametrize("data", [b"", b"\xff", b"{", b"[" * DEEP, b'{"a":1,"a":2}', b"NaN"])
def test_a_payload_that_nobody_can_read_stops_no_partition(data: bytes) -> None:
    """A worker, or whoever writes to the inbox itself, may send such a result; its reader answers."""
    roomy = replace(MESH, limits=Limits())
    state = Partition(roomy, number=0, partitions=PARTITIONS)
    task = next(effect.event for effect in state.step(record(event())) if isinstance(effect, PublishTask))
    effects = state.step(record(answer(task, data=data), 1))
    (next_task,) = [effect.event for effect in effects if isinstance(effect, PublishTask)]
    assert next_task.data == data


HEADER_NAMES = st.sampled_from(
    [name for name, _ in write(answer(opened()[1]))] + ["ce_meshusd", "mesh-error-code", "x"]
)
HEADER_VALUES = st.none() | st.binary(max_size=6) | st.sampled_from([b"0", b"failed", b"due", b"run-1", BATCH.encode()])


@given(st.lists(st.tuples(HEADER_NAMES, HEADER_VALUES), max_size=5), st.none() | st.binary(max_size=20), st.booleans())
def test_no_record_makes_a_partition_raise(changes: list[tuple[str, Any]], value: bytes | None, keyed: bool) -> None:
    state, task = opened()
    base = record(answer(task), 1)
    merged = {**dict(base.headers), **dict(changes)}
    effects: list[Effect] = state.step(base._replace(headers=list(merged.items()), value=value))
    assert effects
    for effect in effects:
        if isinstance(effect, DeadLetter | Finish | PublishTask):
            record_of(effect, MESH)
    state.step(record(answer(task), 2))


# --------------------------------------------------------------------------------------------------------- task topics


class Ask(Payload, type="ask"):
    id: str
    lines: tuple[int, ...] = ()


def take(ask: Ask) -> None: ...


TASKS = {
    "not JSON": (b"order 7, please", "schema", "(document)"),
    "bytes that are no text": (b"\xff\x00", "schema", "(document)"),
    "a field missing": (b"{}", "schema", "id"),
    "a field of the wrong type": (b'{"id": {"a": 1}}', "schema", "id"),
    "a wrong element": (b'{"id": "o", "lines": [1, "x"]}', "schema", "lines.1"),
    "another document": (b"[]", "schema", "(document)"),
    "nested 100,000 deep": (b"[" * DEEP, "schema", "(document)"),
    "a class to import": (b'{"__class__": "os.system", "py/object": "os.system"}', "schema", "id"),
}


@pytest.mark.parametrize("name", TASKS)
def test_a_payload_that_does_not_fit_fails_its_task_for_good_and_names_the_field(name: str) -> None:
    data, code, path = TASKS[name]
    _, task = opened()
    with pytest.raises(InvalidInput) as caught:
        arguments(describe(take), replace(task, data=data))
    assert (caught.value.code, caught.value.retriable) == (code, False)
    assert f"ask does not fit: {path}: " in str(caught.value)
    assert {OUTCOME, DEAD} <= set(REASONS[code].heard)


def test_such_a_failure_ends_the_run_and_keeps_the_input() -> None:
    state, task = opened()
    fault = Fault("schema", "ask does not fit: id: Field required", retryable=False)
    effects = state.step(record(answer(task, kind=FAILED, type="ask", data=b"[]", usage=Usage(), fault=fault), 1))
    letter = next(effect for effect in effects if isinstance(effect, DeadLetter))
    finish = next(effect for effect in effects if isinstance(effect, Finish))
    assert (letter.code, letter.value, letter.agent, letter.task_id) == ("schema", b"[]", "check", task.task_id)
    assert finish.run.ending == "failed"
    assert [failure.code for failure in finish.run.failures] == ["schema"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"ce_specversion": None}, "not_cloudevents"),
        ({"ce_correlationid": None}, "missing_header"),
        ({"ce_expirytime": b"soon"}, "bad_header"),
        ({"ce_meshpath": b"\xff"}, "bad_header"),
    ],
)
def test_a_record_on_a_task_topic_that_is_no_task_is_unreadable(change: dict[str, bytes | None], code: str) -> None:
    _, task = opened()
    assert task.kind == TASK
    found = read(headers(task, **change))
    assert isinstance(found, Unreadable)
    assert found.code == code
    assert DEAD in REASONS[code].heard
