"""Spans of a worker, in memory."""

import asyncio
from collections import Counter
from dataclasses import replace

import pytest
from opentelemetry import baggage
from opentelemetry.trace import SpanKind, StatusCode

from mesh.adapters.tracing import span_names as names
from mesh.adapters.tracing.kept_spans import KeptSpans
from mesh.adapters.tracing.span_factory import SpanFactory
from mesh.adapters.tracing.span_ids import span_id_of
from mesh.adapters.tracing.task_spans import TaskSpans
from mesh.core.protocol.event import NO_USAGE, Event, Fault, Usage
from mesh.core.task import result
from tests.adapters.tracing.kit import (
    PARENT,
    TASK_EVENT,
    TRACE_ID,
    UNSAMPLED,
    UNTRACED,
    Traced,
    attributes_of,
    ids_of,
    sampling,
)

BOOM = Fault("exception", "boom", "builtins.ValueError")


def spans_of(traced: Traced) -> TaskSpans:
    return TaskSpans(traced.factory, topic="mesh.tasks.echo", group="mesh.echo")


def test_a_task_is_a_consumer_span_in_the_trace_of_its_request() -> None:
    traced = Traced()
    with spans_of(traced).process(TASK_EVENT):
        pass
    assert (traced.one.name, traced.one.kind) == ("process mesh.tasks.echo", SpanKind.CONSUMER)
    assert ids_of(traced.one) == (TRACE_ID, f"{span_id_of('t1:1'):016x}", "b7ad6b7169203331")
    assert attributes_of(traced.one) == {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "mesh.tasks.echo",
        "messaging.destination.partition.id": "3",
        "messaging.kafka.offset": 41,
        "messaging.consumer.group.name": "mesh.echo",
        "messaging.message.id": "t1:1",
        "messaging.message.conversation_id": "r1",
        "server.address": "b1",
        "server.port": 9093,
        "cloudevents.event_type": "ask",
        "gen_ai.agent.name": "echo",
        "mesh.task.id": "t1",
        "mesh.task.attempt": 1,
        "mesh.task.depth": 1,
    }


def test_a_span_on_the_embedded_log_names_no_broker() -> None:
    traced = Traced(log_url="sqlite:/somewhere/mesh.db")
    with spans_of(traced).process(TASK_EVENT):
        pass
    found = attributes_of(traced.one)
    assert (found["messaging.system"], found["mesh.log.offset"]) == ("sqlite", 41)
    assert not {"server.address", "messaging.kafka.offset"} & set(found)


@pytest.mark.parametrize("origin", ["", "elsewhere", "a:b:c"])
def test_a_task_without_a_place_has_a_span_without_one(origin: str) -> None:
    traced = Traced()
    with spans_of(traced).process(replace(TASK_EVENT, origin=origin)):
        pass
    assert not {names.PARTITION, names.KAFKA_OFFSET} & set(attributes_of(traced.one))


def test_the_parent_of_a_task_is_the_attempt_that_caused_it() -> None:
    traced = Traced()
    with spans_of(traced).process(replace(TASK_EVENT, cause_id="t0:2:succeeded")):
        pass
    assert ids_of(traced.one)[2] == f"{span_id_of('t0:2'):016x}"


@pytest.mark.parametrize(
    ("task", "to", "kind"),
    [
        (replace(TASK_EVENT, id="t1:3", attempt=3), "t1:2", "previous attempt"),
        (replace(TASK_EVENT, cause_id="letter1:r1"), "letter1", "dead letter"),
    ],
)
def test_a_retry_links_to_the_attempt_before_and_a_redrive_to_its_letter(task: Event, to: str, kind: str) -> None:
    traced = Traced()
    with spans_of(traced).process(task):
        pass
    (link,) = traced.one.links
    assert (f"{link.context.trace_id:032x}", link.context.span_id) == (TRACE_ID, span_id_of(to))
    assert dict(link.attributes or {}) == {"mesh.link": kind}
    assert ids_of(traced.one)[2] == "b7ad6b7169203331"


def test_a_second_try_of_one_attempt_is_another_span() -> None:
    traced = Traced()
    for _ in range(2):
        with spans_of(traced).process(TASK_EVENT):
            pass
    first, second = (ids_of(span) for span in traced.spans)
    assert (first[0], first[2]) == (second[0], second[2])
    assert first[1] != second[1]


def test_all_tasks_of_a_run_that_came_without_a_trace_are_in_one() -> None:
    traced = Traced()
    for n, run in enumerate(("a", "a", "b")):
        with spans_of(traced).process(replace(UNTRACED, id=f"t{n}:1", run_id=run)):
            pass
    first, second, other = (ids_of(span)[0] for span in traced.spans)
    assert first == second != other


async def test_runs_that_came_without_a_trace_are_sampled_whole_or_not_at_all() -> None:
    one, other = Traced(sampler=sampling(0.25)), Traced(sampler=sampling(0.25))

    async def answer(task: Event) -> Event:
        return result.success_event(task, [], NO_USAGE)

    for n in range(400):
        for traced in (one, other):
            await spans_of(traced).around(answer)(replace(UNTRACED, run_id=f"r{n}", id="t1:1"))
    traces = Counter(ids_of(span)[0] for span in (*one.spans, *other.spans))
    assert 50 < len(traces) < 150
    assert set(traces.values()) == {2}


def test_the_answer_goes_on_from_the_span() -> None:
    traced = Traced()
    with spans_of(traced).process(TASK_EVENT) as span:
        answer = result.success_event(span.task, [], Usage(1_500_000, 12))
        span.answered(answer)
    assert answer.traceparent == f"00-{TRACE_ID}-{ids_of(traced.one)[1]}-01"
    assert traced.one.status.status_code is StatusCode.UNSET
    assert (attributes_of(traced.one)["mesh.cost.usd"], attributes_of(traced.one)["mesh.usage.tokens"]) == (1.5, 12)


def test_a_failure_marks_its_span_but_not_a_wish_to_be_called_later() -> None:
    for fault, status in ((BOOM, StatusCode.ERROR), (Fault("later", "busy"), StatusCode.UNSET)):
        traced = Traced()
        with spans_of(traced).process(TASK_EVENT) as span:
            span.answered(result.failure_event(span.task, fault, NO_USAGE))
        assert traced.one.status.status_code is status
        assert attributes_of(traced.one).get("error.type") == (fault.cls or None)


def test_the_call_of_an_agent_carries_its_run_as_baggage() -> None:
    with spans_of(Traced()).process(TASK_EVENT):
        assert baggage.get_baggage("mesh.run.id") == "r1"
    assert baggage.get_baggage("mesh.run.id") is None


async def test_what_answers_tasks_has_a_span_around_each() -> None:
    traced, seen = Traced(), []

    async def answer(task: Event, attempt: str) -> Event | None:
        seen.append((task, attempt))
        return None if attempt == "given up" else result.failure_event(task, BOOM, NO_USAGE)

    around = spans_of(traced).around(answer)
    answered = await around(TASK_EVENT, "first")
    assert await around(TASK_EVENT, "given up") is None
    made, given_up = traced.spans
    assert answered is not None
    assert answered.traceparent == seen[0][0].traceparent
    assert ids_of(made)[1] in answered.traceparent
    assert (made.status.status_code, given_up.status.status_code) == (StatusCode.ERROR, StatusCode.UNSET)
    assert [attempt for _, attempt in seen] == ["first", "given up"]


async def test_without_a_provider_nothing_stands_around_what_answers() -> None:
    async def answer(task: Event) -> Event | None:
        return None

    spans = TaskSpans(SpanFactory(), topic="t", group="g")
    assert spans.around(answer) is answer
    assert spans.invoked is None
    assert spans.sending(TASK_EVENT, "t") is None
    with spans.process(TASK_EVENT) as span:
        assert span.task is TASK_EVENT


async def test_attempts_outside_the_sample_are_exported_when_one_of_their_run_fails() -> None:
    traced = Traced(sampler=sampling(0), kept=KeptSpans(100, 0))
    faults: list[Fault | None] = [None, None, BOOM, None]
    headers = []

    async def answer(task: Event) -> Event:
        headers.append(task.traceparent)
        fault = faults[len(headers) - 1]
        return result.success_event(task, [], NO_USAGE) if fault is None else result.failure_event(task, fault, None)

    around = spans_of(traced).around(answer)
    tasks = [replace(TASK_EVENT, traceparent=UNSAMPLED, id=f"t{n}:1", task_id=f"t{n}") for n in range(4)]
    await around(tasks[0])
    await around(replace(tasks[1], run_id="another"))
    assert traced.spans == []
    await around(tasks[2])
    await around(tasks[3])
    assert [(attributes_of(span)["mesh.task.id"], attributes_of(span)["mesh.trace.kept"]) for span in traced.spans] == [
        ("t0", "failed"),
        ("t2", "failed"),
        ("t3", "failed"),
    ]
    assert traced.spans[1].status.status_code is StatusCode.ERROR
    assert {ids_of(span)[0] for span in traced.spans} == {TRACE_ID}
    assert headers == [UNSAMPLED] * 4


async def test_a_slow_attempt_outside_the_sample_is_exported_with_its_times() -> None:
    ring = KeptSpans(100, 1)
    traced = Traced(sampler=sampling(0), kept=ring)

    async def answer(task: Event) -> Event:
        await asyncio.sleep(0 if task.id == "quick:1" else 0.002)
        return result.success_event(task, [], NO_USAGE)

    around = spans_of(traced).around(answer)
    ring.slow_ms = 10_000
    await around(replace(TASK_EVENT, traceparent=UNSAMPLED, id="quick:1", run_id="quick"))
    ring.slow_ms = 1
    await around(replace(TASK_EVENT, traceparent=UNSAMPLED))
    assert (attributes_of(traced.one)["mesh.trace.kept"], attributes_of(traced.one)["mesh.task.id"]) == ("slow", "t1")
    assert traced.one.start_time is not None
    assert traced.one.end_time is not None
    assert traced.one.end_time - traced.one.start_time >= 2_000_000


async def test_the_call_and_the_sending_of_its_answer_are_spans_below_the_attempt() -> None:
    traced = Traced()
    spans = spans_of(traced)

    async def call() -> int:
        return 7

    async def broken() -> int:
        raise LookupError("password=hunter2")

    with spans.process(TASK_EVENT) as span:
        assert spans.invoked is not None
        assert await spans.invoked(call(), span.task) == 7
        with pytest.raises(LookupError):
            await spans.invoked(broken(), span.task)
        answer = result.success_event(span.task, [], NO_USAGE)
    sent = spans.sending(answer, "mesh.inbox")
    assert sent is not None
    sent()
    invoked, failing, process, sending = traced.spans
    assert (invoked.name, invoked.kind, ids_of(invoked)[2]) == (
        "invoke_agent echo",
        SpanKind.INTERNAL,
        ids_of(process)[1],
    )
    assert attributes_of(invoked) == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "echo",
        "gen_ai.conversation.id": "r1",
    }
    assert (attributes_of(failing)["error.type"], failing.status.description) == ("builtins.LookupError", None)
    assert (sending.name, sending.kind, ids_of(sending)[2]) == (
        "send mesh.inbox",
        SpanKind.PRODUCER,
        ids_of(process)[1],
    )
    assert attributes_of(sending)["messaging.operation.type"] == "send"


def test_an_error_that_leaves_a_span_is_not_exported_with_its_text() -> None:
    """It may quote a secret, and no redaction stands between it and the exporter."""
    traced = Traced()
    with pytest.raises(RuntimeError), spans_of(traced).process(TASK_EVENT):
        raise RuntimeError("password=hunter2")
    assert (traced.one.events, traced.one.status.description) == ((), None)


def test_the_flags_of_the_trace_are_passed_on() -> None:
    traced = Traced()
    with spans_of(traced).process(replace(TASK_EVENT, traceparent=PARENT[:-2] + "03", tracestate="a=1,b=2")) as span:
        assert span.task.traceparent.endswith("-03")
        assert span.task.tracestate == "a=1,b=2"
