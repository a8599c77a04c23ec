"""Replacements of a refused record: each is smaller, and the last one is small enough."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest

from mesh.core.history.request_match import why_not_answered
from mesh.core.protocol.codec import event_headers, read_event
from mesh.core.protocol.event import EGRESS, FAILED, NO_USAGE, OUTCOME, REQUESTED, Event, Fault, Part, Usage
from mesh.core.protocol.record import RECORD_BYTES_MAX, RECORD_BYTES_MIN, NewRecord, StoredRecord, record_bytes
from mesh.core.publishing.effect_records import OUTCOME_CUTS, dead_letter, outcome_body, record_of
from mesh.core.publishing.replacement_records import HEADERS_KEPT_MAX, replacement_of, replacements, shorten_outcome
from mesh.core.publishing.request_rejection import rejection_record
from mesh.core.run.dead_letter import dead_record
from mesh.core.run.effects import Finish, PublishEvent, PublishTask
from mesh.core.run.lineage import Refusal
from mesh.core.run.state import Failure, Result
from mesh.core.task import result
from mesh.core.topology.model import Limits, Topology
from tests.core.publishing.test_effect_records import again, ended_run
from tests.core.samples import AT_MS, task

TOPOLOGY = Topology("desk", "0" * 16, Limits(), {}, {})
KIB = 1_024


def small_enough(record: NewRecord, bytes_max: int) -> NewRecord:
    """Return the replacement that a log accepts for a record over its limit."""
    assert record_bytes(record) > bytes_max, "the case is about a record that is too large"
    for new in replacements(record, "too_large", f"the limit is {bytes_max}", TOPOLOGY, bytes_max):
        assert record_bytes(new) < record_bytes(record)
        if record_bytes(new) <= bytes_max:
            return new
    raise AssertionError("no replacement is small enough")


# ------------------------------------------------------------------------------------------------------------ failures


def test_a_refused_task_becomes_its_final_failure() -> None:
    event = again(replacement_of(record_of(PublishTask(task(), b"k"), TOPOLOGY), "too_large", "2 MB", TOPOLOGY))
    assert (event.kind, event.task_id, event.agent, event.attempt) == (FAILED, "t1", "pricing", 1)
    assert event.data == b"null"
    assert event.fault is not None
    assert (event.fault.code, event.fault.retryable) == ("refused_too_large", False)
    assert "mesh.tasks.pricing (18 bytes): 2 MB" in event.fault.message


def test_a_refused_answer_is_the_final_failure_of_its_task() -> None:
    asked = replace(task(), origin="mesh.tasks.pricing:3:7")
    done = result.success_event(asked, [Part("order.priced", b"{}" * 99)], Usage(1_000, 7))
    record = NewRecord(TOPOLOGY.inbox, b"r1", done.data, event_headers(done))
    event = again(replacement_of(record, "too_large", "2 MB", TOPOLOGY))
    assert (event.kind, event.id, event.task_id, event.agent) == (FAILED, "t1:1:failed", "t1", "pricing")
    assert (event.data, event.usage, event.origin) == (b"null", Usage(1_000, 7), asked.origin)
    assert event.fault is not None
    assert (event.fault.code, event.fault.retryable) == ("refused_too_large", False)
    assert "mesh.inbox (198 bytes): 2 MB" in event.fault.message


def failure(*, data: bytes = b"{}", message: str = "no such shop", stack: str = "", **changes: Any) -> NewRecord:
    failed = result.failure_event(task(), Fault("exception", message, stack=stack), NO_USAGE)
    failed = replace(failed, data=data, **changes)
    return NewRecord(TOPOLOGY.inbox, b"r1", failed.data, event_headers(failed))


def test_a_refused_failure_becomes_a_final_one_with_its_message() -> None:
    event = again(replacement_of(failure(), "too_large", "2 MB", TOPOLOGY))
    assert (event.kind, event.data) == (FAILED, b"null")
    assert event.fault is not None
    assert (event.fault.code, event.fault.retryable) == ("refused_too_large", False)
    assert "it said: exception: no such shop" in event.fault.message


def test_a_failure_sheds_its_stack_before_its_input_so_that_it_can_be_tried_again() -> None:
    event = again(small_enough(failure(data=b'"' + b"x" * 15 * KIB + b'"', stack="s" * 8 * KIB), 20 * KIB))
    assert event.fault is not None
    assert (event.fault.code, event.fault.retryable, event.fault.stack) == ("exception", True, "")
    assert len(event.data) == 15 * KIB + 2


def test_a_failure_sheds_its_input_and_is_final() -> None:
    event = again(small_enough(failure(data=b'"' + b"x" * 30 * KIB + b'"'), 20 * KIB))
    assert event.fault is not None
    assert (event.fault.code, event.fault.retryable, event.data) == ("refused_too_large", False, b"null")


@pytest.mark.parametrize("name", ["subject", "source", "type", "time", "cause_id", "origin", "content_type"])
def test_a_failure_sheds_texts_of_any_length(name: str) -> None:
    text: Any = "x" * 50 * KIB
    event = again(small_enough(failure(**{name: text}), 20 * KIB))
    assert (event.kind, event.task_id, event.run_id) == (FAILED, "t1", "r1")


def test_a_failure_sheds_a_path_of_any_length() -> None:
    event = again(small_enough(failure(path=("agent",) * 9_000), 20 * KIB))
    assert (event.kind, event.task_id, event.path) == (FAILED, "t1", ())


@pytest.mark.parametrize("name", ["id", "task_id", "agent", "run_id"])
def test_a_task_whose_ids_are_too_large_for_a_failure_becomes_a_dead_letter(name: str) -> None:
    changes: dict[str, Any] = {name: "x" * 50 * KIB}
    event = replace(task(), **changes)
    letter = small_enough(NewRecord("mesh.tasks.pricing", b"k", event.data, event_headers(event)), 20 * KIB)
    assert letter.topic == TOPOLOGY.dead
    assert dict(letter.headers)["mesh-dlq-reason"] == b"refused_too_large"


# ------------------------------------------------------------------------------------------------------------ outcomes


def outcome(**changes: Any) -> NewRecord:
    run = ended_run()
    for name, value in changes.items():
        setattr(run, name, value)
    return record_of(Finish(run, "c", AT_MS), TOPOLOGY)


def results(count: int, size: int = 2) -> tuple[Result, ...]:
    return tuple(
        Result(f"{n:032x}", "order.line.item.dispatched", "line_dispatcher", b"1" * size) for n in range(count)
    )


def test_a_refused_outcome_is_sent_without_its_payloads() -> None:
    body = orjson.loads(again(replacement_of(outcome(), "too_large", "2 MB", TOPOLOGY)).data)
    assert body["results"] == [{"type": "order.rejected", "id": "x1", "agent": "fraud", "omitted": "refused_too_large"}]
    assert "2 MB" in body["omitted"]
    whole = outcome_body(ended_run())
    assert [draft["omitted"] for draft in body["drafts"]] == ["refused_too_large"] * 2
    rest = [name for name in whole if name not in ("results", "drafts")]
    assert {name: body[name] for name in rest} == orjson.loads(orjson.dumps({name: whole[name] for name in rest}))
    assert not {name for name, _ in OUTCOME_CUTS[1:]} & set(body), "nothing is missing from its lists"


def test_an_outcome_with_more_results_than_have_room_names_the_first_and_counts_the_rest() -> None:
    """11,904 results of a few bytes: their names alone are over the limit."""
    body = orjson.loads(small_enough(outcome(results=results(11_904)), RECORD_BYTES_MAX).value or b"")
    assert body["results_omitted"] > 0
    assert len(body["results"]) + body["results_omitted"] == 11_904
    assert body["results"][0]["id"] == f"{0:032x}"
    assert record_bytes(outcome(results=results(len(body["results"])))) > RECORD_BYTES_MAX * 0.8, "room is used"


FAILURES = tuple(Failure("c", f"t{n}", 3, "exception", "m" * 3_000, ("a",) * 40) for n in range(400))
REFUSALS = tuple(Refusal("depth", "b", ("a",) * 40, 1, 2, "m" * 20_000) for _ in range(64))


def test_an_outcome_sheds_results_before_failures_and_failures_before_requests() -> None:
    requests = tuple(text for n in range(100) for text in (f"request-{n}", "0123456789abcdef"))
    whole = outcome(results=results(3_000), failures=FAILURES, refusals=REFUSALS, requests=requests)
    roomy = orjson.loads(small_enough(whole, 400 * KIB).value or b"")
    assert (len(roomy["failures"]), len(roomy["refusals"])) == (400, 64)
    assert roomy["results_omitted"] + len(roomy["results"]) == 3_000
    assert len(roomy["failures"][0]["message"]) == 256
    tight = orjson.loads(small_enough(whole, 40 * KIB).value or b"")
    assert len(tight["request"]["ids"]) == len(tight["request"]["fingerprints"]) == 100
    assert 0 < len(tight["failures"]) < 400
    assert tight["failures_omitted"] == 400 - len(tight["failures"])
    assert (tight["refusals_omitted"] >= 60, tight["results_omitted"]) == (True, 3_000)
    least = orjson.loads(small_enough(whole, RECORD_BYTES_MIN).value or b"")
    assert (least["ending"], least["tasks"], least["refused"]) == ("partial", 3, 7)


def test_a_failure_in_an_outcome_is_whole_where_it_has_room() -> None:
    body = orjson.loads(
        small_enough(outcome(results=results(11_904), failures=FAILURES[:20]), RECORD_BYTES_MAX).value or b""
    )
    assert body["failures"][0]["message"] == "m" * 3_000


@pytest.mark.parametrize("name", ["subject", "type"])
def test_an_outcome_sheds_texts_of_any_length(name: str) -> None:
    small = small_enough(outcome(**{name: "ä" * 50 * KIB}), 20 * KIB)
    assert (small.topic, orjson.loads(small.value or b"")["ending"]) == (TOPOLOGY.outcomes, "partial")


@pytest.mark.parametrize("name", ["starved", "overspent", "requests", "trouble.redrives"])
def test_an_outcome_sheds_the_end_of_each_list(name: str) -> None:
    run = ended_run()
    texts = tuple("x" * 200 for _ in range(1_000))
    if name == "trouble.redrives":
        run.trouble = run.trouble._replace(redrives=texts)
    else:
        setattr(run, name, texts)
    body = orjson.loads(small_enough(record_of(Finish(run, "c", AT_MS), TOPOLOGY), 20 * KIB).value or b"")
    counter = f"{name.rpartition('.')[2]}_omitted"
    assert counter in dict(OUTCOME_CUTS)
    assert 0 < body[counter] < 1_000


def test_a_request_omitted_from_an_outcome_does_not_count_as_unconsumed() -> None:
    requests = tuple(text for n in range(2_000) for text in (f"request-{n}", "0123456789abcdef"))
    body = orjson.loads(small_enough(outcome(requests=requests), 20 * KIB).value or b"")
    assert "request-1999" not in body["request"]["ids"]
    assert why_not_answered(body, "request-1999", "0123456789abcdef") is None
    assert why_not_answered(body, "request-0", "another") is not None
    assert why_not_answered(orjson.loads(outcome(requests=requests).value or b""), "request-2000", "x") is not None


def test_a_second_cut_counts_what_the_first_one_left_out() -> None:
    once = shorten_outcome(outcome_body(ended_run()) | {"failures": [f._asdict() for f in FAILURES]}, "why", 60_000)
    twice = shorten_outcome(once, "why", 20_000)
    assert len(twice["failures"]) + twice["failures_omitted"] == 400


def test_a_refused_answer_to_a_request_that_opened_no_run_is_sent_with_less_text() -> None:
    record = rejection_record("r1", "unknown_type", "x" * 30_000, TOPOLOGY)
    body = orjson.loads(small_enough(record, 20 * KIB).value or b"")
    assert (body["run"], body["code"], len(body["message"])) == ("r1", "unknown_type", 256)


def test_what_only_claims_to_be_an_outcome_becomes_a_dead_letter() -> None:
    event = Event("x", "/a", "t", OUTCOME, "r1", b"[]")
    assert (
        replacement_of(NewRecord(TOPOLOGY.outcomes, b"r1", b"[]", event_headers(event)), "invalid", "", TOPOLOGY).topic
        == "mesh.dead"
    )


# -------------------------------------------------------------------------------------------------------- dead letters


def test_a_refused_egress_event_becomes_a_dead_letter_that_points_at_it() -> None:
    event = Event("x1", "/agents/fraud", "order.rejected", EGRESS, "r1", b"{}" * 99, AT_MS)
    letter = replacement_of(
        record_of(PublishEvent(event, "orders.decided", None), TOPOLOGY), "unauthorized", "no", TOPOLOGY
    )
    headers = dict(letter.headers)
    assert (letter.topic, letter.value) == ("mesh.dead", None)
    assert headers["mesh-dlq-reason"] == b"refused_unauthorized"
    assert headers["__dlq.errors.topic"] == b"orders.decided"
    assert headers["mesh-dlq-run"] == b"r1"
    assert headers["ce_id"] == b"x1"


def test_an_egress_event_with_a_key_over_the_limit_becomes_a_dead_letter_without_it() -> None:
    event = Event("x1", "/agents/fraud", "order.rejected", EGRESS, "r1", b"{}", AT_MS)
    letter = small_enough(record_of(PublishEvent(event, "out", b"k" * 50 * KIB), TOPOLOGY), 20 * KIB)
    assert (letter.topic, letter.key) == ("mesh.dead", dict(letter.headers)["mesh-dlq-id"])


def test_what_stands_for_a_dead_letter_keeps_its_key_so_that_copies_lie_in_one_partition() -> None:
    assert small_enough(poison(value=b"x" * 50_000), 20 * KIB).key == b"k"


def test_a_request_that_the_inbox_refuses_becomes_a_dead_letter_that_points_at_the_ingress_topic() -> None:
    event = Event("x1", "/shop", "ask", REQUESTED, "r1", b"1" * 50_000, AT_MS, origin="in.ask:3:17")
    headers = dict(small_enough(NewRecord(TOPOLOGY.inbox, b"r1", event.data, event_headers(event)), 20 * KIB).headers)
    places = [headers[f"__dlq.errors.{name}"] for name in ("topic", "partition", "offset")]
    assert places == [b"in.ask", b"3", b"17"]


Odd = Sequence[tuple[str, Any]]


def poison(headers: Odd = (), *, key: bytes = b"k", value: bytes = b"not json") -> NewRecord:
    record = StoredRecord("orders.placed", 3, 17, AT_MS, key, value, list(headers))
    return dead_letter(dead_record(record, "unparseable", "no JSON"), TOPOLOGY)


def test_a_refused_dead_letter_keeps_its_reason_and_coordinates() -> None:
    odd: Odd = [*((f"h{n}", b"x") for n in range(10_000)), ("big", b"x" * 9_000), ("none", None)]
    letter = replacement_of(poison(odd, key=b"k" * 10**6, value=b"x" * 10**6), "too_large", "2 MB", TOPOLOGY)
    headers = dict(letter.headers)
    assert (letter.topic, letter.key, letter.value) == ("mesh.dead", headers["mesh-dlq-id"], None)
    assert headers["mesh-dlq-reason"] == b"unparseable"
    assert headers["__dlq.errors.topic"] == b"orders.placed"
    assert headers["__dlq.errors.offset"] == b"17"
    assert b"2 MB" in headers["mesh-dlq-omitted"]
    assert len(letter.headers) == HEADERS_KEPT_MAX
    assert "big" not in headers
    assert "none" not in headers


@pytest.mark.parametrize("limit", [RECORD_BYTES_MAX, 64 * KIB, RECORD_BYTES_MIN])
@pytest.mark.parametrize(
    "odd",
    [
        pytest.param([("h" * 1_048_400, b"v")], id="a name"),
        pytest.param([("h", b"v" * 1_048_400)], id="a value"),
        pytest.param([("ä" * 524_200, b"v")], id="a name of two bytes a character"),
        pytest.param([("mesh-dlq-run", b"v" * 1_048_400)], id="a name of ours"),
        pytest.param([("__dlq.errors.message", b"v" * 8_000)] * 140, id="a name of ours, often"),
        pytest.param([(f"{n}" * 40, b"v" * 8_000) for n in range(140)], id="many"),
    ],
)
def test_a_dead_letter_keeps_coordinates_whatever_the_headers_of_its_record(odd: Odd, limit: int) -> None:
    letter = small_enough(poison(odd), limit)
    headers = dict(letter.headers)
    assert (letter.topic, letter.value) == ("mesh.dead", None)
    assert [headers[f"__dlq.errors.{name}"] for name in ("topic", "partition", "offset")] == [
        b"orders.placed",
        b"3",
        b"17",
    ]
    assert headers["mesh-dlq-reason"] == b"unparseable"
    assert headers["mesh-dlq-id"]
    assert headers["mesh-dlq-omitted"]


def test_a_topic_with_a_lower_limit_than_the_log_is_met_by_halves() -> None:
    sizes = [
        record_bytes(new)
        for new in replacements(outcome(results=results(5_000)), "too_large", "no", TOPOLOGY, RECORD_BYTES_MAX)
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] <= RECORD_BYTES_MIN
    assert len(sizes) <= 8
    assert read_event(StoredRecord("t", 0, 0, 0, b"", b"{}", outcome().headers))


def test_a_dead_letter_sheds_its_large_headers_and_keeps_the_small_ones() -> None:
    letter = small_enough(poison([("x-tenant", b"ann"), ("h" * 1_048_400, b"v")]), RECORD_BYTES_MAX)
    assert dict(letter.headers)["x-tenant"] == b"ann"
