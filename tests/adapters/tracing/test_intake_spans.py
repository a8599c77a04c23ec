from dataclasses import replace

import pytest
from opentelemetry import propagate
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from mesh.adapters.tracing.intake_spans import IntakeSpans
from mesh.adapters.tracing.kept_spans import KeptSpans
from mesh.adapters.tracing.span_ids import span_id_of
from mesh.core.ingress.request_formats import Rejection
from mesh.core.protocol.record import StoredRecord
from tests.adapters.tracing.kit import PARENT, REQUEST, TRACE_ID, UNSAMPLED, Traced, attributes_of, ids_of, sampling

RECORD = StoredRecord("asks", 2, 7, 1_000, b"k", b"{}", ())


def test_a_record_is_a_span_from_which_its_request_goes_on() -> None:
    traced, request = Traced(), replace(REQUEST, traceparent=PARENT, tracestate="a=1")
    IntakeSpans(traced.factory, "mesh.intake").processed(RECORD, request, 5)
    assert (traced.one.name, traced.one.kind, traced.one.start_time) == ("process asks", SpanKind.CONSUMER, 5)
    assert ids_of(traced.one) == (TRACE_ID, f"{span_id_of('q1'):016x}", "b7ad6b7169203331")
    assert (request.traceparent, request.tracestate) == (f"00-{TRACE_ID}-{ids_of(traced.one)[1]}-01", "a=1")
    assert attributes_of(traced.one) == {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "asks",
        "messaging.destination.partition.id": "2",
        "messaging.kafka.offset": 7,
        "messaging.consumer.group.name": "mesh.intake",
        "messaging.message.id": "q1",
        "messaging.message.conversation_id": "r1",
        "server.address": "b1",
        "server.port": 9093,
        "cloudevents.event_type": "ask",
    }


@pytest.mark.parametrize("header", ["", UNSAMPLED])
def test_a_request_outside_the_sample_keeps_its_headers_and_its_span_waits(header: str) -> None:
    ring = KeptSpans(10, 0)
    traced, request = Traced(sampler=sampling(0), kept=ring), replace(REQUEST, traceparent=header)
    IntakeSpans(traced.factory, "mesh.intake").processed(RECORD, request, 5)
    assert (request.traceparent, traced.spans, len(ring)) == (header, [], 1)
    ring.export("r1", "failed")
    assert (traced.one.name, traced.one.start_time) == ("process asks", 5)
    assert attributes_of(traced.one)["mesh.trace.kept"] == "failed"


def test_a_rejected_record_is_an_error_whatever_the_sampler_says() -> None:
    traced = Traced(sampler=sampling(0), kept=KeptSpans(10, 0))
    IntakeSpans(traced.factory, "mesh.intake").processed(RECORD, Rejection("bad_json", "no JSON"), 5)
    found = attributes_of(traced.one)
    assert (found["error.type"], found["messaging.message.id"], traced.one.status.description) == (
        "bad_json",
        "asks:2:7",
        "no JSON",
    )


def test_formats_of_other_propagators_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    class Reversed(TextMapPropagator):
        """A format of its own: the id of the trace and of the span in one header."""

        def extract(self, carrier, context=None, getter=None):  # type: ignore[no-untyped-def]
            assert "traceparent" not in carrier
            return TraceContextTextMapPropagator().extract({"traceparent": carrier["x-trace"][::-1]})

        def inject(self, *arguments: object, **more: object) -> None:
            pass

        @property
        def fields(self) -> set[str]:
            return {"x-trace"}

    monkeypatch.setenv("OTEL_PROPAGATORS", "tracecontext,reversed")
    monkeypatch.setattr(propagate, "extract", Reversed().extract)
    traced, request = Traced(), replace(REQUEST)
    record = RECORD._replace(headers=(("x-trace", PARENT[::-1].encode()), ("traceparent", b"malformed")))
    IntakeSpans(traced.factory, "mesh.intake").processed(record, request, 5)
    assert ids_of(traced.one)[::2] == (TRACE_ID, "b7ad6b7169203331")
