from dataclasses import replace

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from mesh.adapters.tracing import span_names as names
from mesh.adapters.tracing.kept_spans import KeptSpans
from mesh.adapters.tracing.span_factory import SpanFactory, failed, headers_of
from mesh.adapters.tracing.span_ids import span_id_of, trace_id_of
from mesh.core.protocol.event import Event
from tests.adapters.tracing.kit import (
    PARENT,
    REQUEST,
    TASK_EVENT,
    TRACE_ID,
    UNSAMPLED,
    UNTRACED,
    Traced,
    ids_of,
    sampling,
)

SEND = {names.OPERATION_NAME: names.SEND, names.OPERATION_TYPE: names.SEND, names.DESTINATION: "t"}


def span_of(factory: SpanFactory, event: Event) -> trace.SpanContext:
    return trace.get_current_span(factory.parent(event)).get_span_context()


def test_a_parent_is_the_span_of_the_headers() -> None:
    found = span_of(Traced().factory, replace(TASK_EVENT, tracestate="a=1"))
    assert (f"{found.trace_id:032x}", f"{found.span_id:016x}") == (TRACE_ID, "b7ad6b7169203331")
    assert (found.trace_flags.sampled, found.trace_state.to_header(), found.is_remote) == (True, "a=1", True)


def test_without_headers_it_is_the_span_of_the_cause_in_the_trace_of_the_run() -> None:
    found = span_of(Traced().factory, UNTRACED)
    assert (f"{found.trace_id:032x}", found.span_id) == (trace_id_of("r1"), span_id_of("q1"))


@pytest.mark.parametrize(
    "header",
    [
        "00-" + "0" * 32 + "-b7ad6b7169203331-01",
        PARENT.upper(),
        PARENT[:-1],
        "ff" + PARENT[2:],
        "x" * 9_000,
        f"{PARENT}-x",
    ],
)
def test_headers_that_make_no_sense_do_not_count(header: str) -> None:
    found = span_of(Traced().factory, replace(TASK_EVENT, traceparent=header))
    assert f"{found.trace_id:032x}" == trace_id_of("r1")


def test_a_request_begins_the_trace_of_its_run() -> None:
    traced = Traced()
    traced.factory.begin(REQUEST, SEND).end()
    assert ids_of(traced.one) == (trace_id_of("r1"), f"{span_id_of('q1'):016x}", "")


def test_a_request_goes_on_from_the_current_span() -> None:
    traced = Traced()
    with traced.provider.get_tracer("program").start_as_current_span("program") as program:
        traced.factory.begin(REQUEST, SEND).end()
    sent, around = traced.spans
    assert ids_of(sent)[::2] == ids_of(around)[:2]
    assert f"{program.get_span_context().trace_id:032x}" == ids_of(sent)[0]


@pytest.mark.parametrize(
    ("header", "sampler", "sampled"),
    [(PARENT, sampling(0), True), (UNSAMPLED, sampling(1), False), ("", sampling(0), False), ("", sampling(1), True)],
)
def test_the_sampler_decides_where_the_headers_do_not(header: str, sampler: object, sampled: bool) -> None:
    traced = Traced(sampler=sampler)  # type: ignore[arg-type]
    event = replace(TASK_EVENT, traceparent=header)
    assert traced.factory.is_sampled(event) is sampled
    traced.factory.begin(event, SEND).end()
    assert bool(traced.spans) is sampled


def test_a_span_that_is_kept_is_exported_whatever_the_sampler_says() -> None:
    traced = Traced(sampler=sampling(0), kept=KeptSpans(1, 0))
    traced.factory.begin(REQUEST, SEND, why="failed", at=5).end(9)
    assert (traced.one.start_time, traced.one.end_time, traced.one.attributes["mesh.trace.kept"]) == (5, 9, "failed")  # type: ignore[index]
    none_kept = Traced(sampler=sampling(0))
    none_kept.factory.begin(REQUEST, SEND, why="failed").end()
    assert none_kept.spans == []


def test_a_provider_of_the_program_keeps_its_own_ids_and_parents() -> None:
    factory = SpanFactory("kafka://b", TracerProvider())
    context = factory.parent(TASK_EVENT, "t0:1")
    assert f"{trace.get_current_span(context).get_span_context().span_id:016x}" == "b7ad6b7169203331"
    assert factory.link(context, "t0:1", "previous attempt") == ()
    assert factory.is_sampled(UNTRACED)


def test_headers_continue_from_a_span() -> None:
    traced = Traced()
    span = traced.factory.begin(replace(TASK_EVENT, tracestate="a=1"), SEND)
    assert headers_of(span) == (f"00-{TRACE_ID}-{span_id_of('t1:1'):016x}-01", "a=1")


def test_a_failed_span_says_why() -> None:
    traced = Traced()
    span = traced.factory.begin(TASK_EVENT, SEND)
    failed(span, "timed_out", "too long")
    span.end()
    assert traced.one.status.description == "too long"
    assert (traced.one.attributes or {})["error.type"] == "timed_out"
