from dataclasses import replace

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from mesh.adapters.tracing.decision_spans import DecisionSpans
from mesh.adapters.tracing.kept_spans import KeptSpans
from mesh.adapters.tracing.span_ids import span_id_of, trace_id_of
from mesh.core.protocol.codec import event_headers
from mesh.core.protocol.event import DUE, NO_USAGE, Event
from mesh.core.protocol.record import Record, StoredRecord
from mesh.core.run.effects import DeadLetter, Effect, Finish, Note
from mesh.core.run.state import Run
from mesh.core.task import result
from tests.adapters.tracing.kit import PARENT, TASK_EVENT, TRACE_ID, UNSAMPLED, Traced, attributes_of, ids_of, sampling

ANSWER = result.success_event(TASK_EVENT, [], NO_USAGE)
LETTER = DeadLetter("l1", "timed_out", "too long", b"", b"r1", (), "mesh.inbox:0:4", "r1", cls="builtins.TimeoutError")


def record_of(event: Event) -> Record:
    return StoredRecord("mesh.inbox", 1, 9, 1_000, b"r1", event.data, event_headers(event))


def ended(ending: str, **values: int) -> Finish:
    run = Run("r1", "ask", "", values.get("opened_ms", 0), 99_000, ending=ending, ended_ms=values.get("ended_ms", 10))
    run.traceparent = PARENT
    return Finish(run, ANSWER.id, 10)


def decide(traced: Traced, *effects: Effect, share: float = 0.0, event: Event = ANSWER, run: Run | None = None) -> None:
    spans = DecisionSpans(traced.factory, inbox="mesh.inbox", dead="mesh.dead", group="mesh.orchestrator", share=share)
    assert spans.now_ns() > 0
    spans.decided(record_of(event), effects, 5, lambda run_id: run)


def test_decisions_are_no_spans_by_default() -> None:
    traced = Traced()
    decide(traced, Note("late_result", ""), ended("completed"))
    assert traced.spans == []


def test_a_decision_of_a_run_in_the_share_is_a_span_below_its_cause() -> None:
    traced = Traced()
    decide(traced, Note("late_result", ""), share=1.0)
    assert (traced.one.name, traced.one.kind, traced.one.start_time) == ("decide mesh.inbox", SpanKind.CONSUMER, 5)
    assert ids_of(traced.one)[::2] == (TRACE_ID, "b7ad6b7169203331")
    assert attributes_of(traced.one) == {
        "messaging.system": "kafka",
        "messaging.operation.name": "decide",
        "messaging.operation.type": "process",
        "messaging.destination.name": "mesh.inbox",
        "messaging.destination.partition.id": "1",
        "messaging.kafka.offset": 9,
        "messaging.consumer.group.name": "mesh.orchestrator",
        "messaging.message.id": "t1:1:succeeded",
        "messaging.message.conversation_id": "r1",
        "server.address": "b1",
        "server.port": 9093,
        "cloudevents.event_type": "mesh.batch",
        "mesh.decision.effects": 1,
    }


def test_the_share_is_one_of_whole_runs_in_the_sample() -> None:
    traced = Traced()
    for n in range(400):
        for id in ("q", "p"):
            decide(traced, share=0.25, event=replace(ANSWER, run_id=f"r{n}", traceparent="", id=f"{id}{n}"))
    traces = [ids_of(span)[0] for span in traced.spans]
    assert 100 < len(traces) < 300
    assert all(traces.count(trace) == 2 for trace in traces)
    unsampled = Traced(sampler=sampling(0))
    decide(unsampled, share=1.0)
    assert len(unsampled.spans) == 1  # the headers of the answer say that it is sampled
    decide(unsampled, share=1.0, event=replace(ANSWER, traceparent=UNSAMPLED))
    assert len(unsampled.spans) == 1


@pytest.mark.parametrize(
    ("finish", "why", "status"),
    [
        (ended("failed"), "failed", StatusCode.ERROR),
        (ended("partial"), "failed", StatusCode.ERROR),
        (ended("completed", ended_ms=6_000), "slow", StatusCode.UNSET),
    ],
)
def test_a_run_that_ends_badly_or_late_is_exported_with_what_was_kept_of_it(
    finish: Finish, why: str, status: StatusCode
) -> None:
    ring, exported = KeptSpans(10, 5_000), list[str]()
    ring.add("r1", exported.append)
    traced = Traced(sampler=sampling(0), kept=ring)
    decide(traced, finish, event=replace(ANSWER, traceparent=UNSAMPLED))
    assert (attributes_of(traced.one)["mesh.run.ending"], traced.one.status.status_code) == (finish.run.ending, status)
    assert (attributes_of(traced.one)["mesh.trace.kept"], exported) == (why, [why])


def test_what_was_kept_of_a_run_that_completed_is_forgotten() -> None:
    ring = KeptSpans(10, 5_000)
    ring.add("r1", lambda why: None)
    decide(Traced(kept=ring), ended("completed"))
    assert len(ring) == 0


def test_the_sending_of_a_dead_letter_is_a_span_that_a_redrive_can_link_to() -> None:
    ring, exported = KeptSpans(10, 5_000), list[str]()
    ring.add("r1", exported.append)
    traced = Traced(sampler=sampling(0), kept=ring)
    decide(traced, LETTER, event=replace(ANSWER, traceparent=UNSAMPLED))
    assert (traced.one.name, traced.one.kind) == ("send mesh.dead", SpanKind.PRODUCER)
    assert ids_of(traced.one)[:2] == (TRACE_ID, f"{span_id_of('l1'):016x}")
    assert (attributes_of(traced.one)["error.type"], traced.one.status.description) == (
        "builtins.TimeoutError",
        "too long",
    )
    assert exported == ["refused"]


def test_an_event_without_a_trace_has_that_of_its_run() -> None:
    traced = Traced()
    timer = Event("d1", "/mesh/t", "", DUE, "r1", b"")
    decide(traced, LETTER, event=timer, run=ended("failed").run)
    decide(traced, replace(LETTER, id="l2"), event=timer)
    assert [ids_of(span)[0] for span in traced.spans] == [TRACE_ID, trace_id_of("r1")]
