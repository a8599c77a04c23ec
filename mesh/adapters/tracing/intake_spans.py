"""Spans of intake: `process <topic>` for each record of an upstream system, in the trace that the record came with.

The request continues the trace from this span. A request outside the sample keeps its headers as they came. The span
of a rejected record is always exported.
"""

import os
from dataclasses import replace
from functools import partial
from time import time_ns
from typing import Final

from opentelemetry import propagate, trace

from mesh.adapters.tracing import span_names as names
from mesh.adapters.tracing.span_factory import SpanFactory, failed, headers_of
from mesh.core.ingress.request_formats import Rejection
from mesh.core.protocol.event import REQUESTED, Event
from mesh.core.protocol.record import Position, Record, coordinates

W3C: Final = frozenset({"tracecontext", "baggage", "none", ""})
"""Formats of `OTEL_PROPAGATORS` that admission reads itself, or that carry no trace."""
_HEADERS: Final = frozenset({"traceparent", "tracestate"})


class IntakeSpans:
    """Spans of the records of all ingress topics, read by one group."""

    def __init__(self, factory: SpanFactory, group: str) -> None:
        self._factory, self._group = factory, group
        formats = os.environ.get("OTEL_PROPAGATORS", "").lower().split(",")
        self._foreign = not {name.strip() for name in formats} <= W3C

    @property
    def is_active(self) -> bool:
        """Whether spans are made at all."""
        return self._factory.is_active

    def processed(self, record: Record, request: Event | Rejection, began_ns: int) -> None:
        """Make the span of a record, from which its request continues the trace."""
        if isinstance(request, Rejection):
            self._reject(record, request, began_ns)
            return
        if self._foreign and not request.traceparent:
            _read_foreign(record, request)
        factory, place, times = self._factory, Position(record.topic, record.partition, record.offset), time_ns()
        if factory.is_sampled(request):
            span = self._make(place, request, began_ns)
            span.end(times)
            request.traceparent, request.tracestate = headers_of(span)
        elif factory.kept is not None:
            bare = replace(request, data=b"")  # the ring keeps no payloads
            factory.kept.add(request.run_id, partial(self._export, place, bare, (began_ns, times)))

    def _reject(self, record: Record, rejection: Rejection, began_ns: int) -> None:
        id = coordinates(record)
        refused = Event(id, "", "", REQUESTED, rejection.run_id or id, b"")
        place = Position(record.topic, record.partition, record.offset)
        span = self._make(place, refused, began_ns, why="refused")
        failed(span, rejection.code, rejection.message)
        span.end()

    def _export(self, place: Position, request: Event, times: tuple[int, int], why: str) -> None:
        self._make(place, request, times[0], why=why).end(times[1])

    def _make(self, place: Position, request: Event, start_ns: int, *, why: str = "") -> trace.Span:
        factory = self._factory
        attributes: dict[str, str | int] = {
            names.OPERATION_NAME: names.PROCESS,
            names.OPERATION_TYPE: names.PROCESS,
            names.DESTINATION: place.topic,
            names.PARTITION: str(place.partition),
            names.KAFKA_OFFSET if factory.system == "kafka" else names.OFFSET: place.offset,
            names.GROUP: self._group,
            names.MESSAGE_ID: request.id,
            names.CONVERSATION_ID: request.run_id,
            names.EVENT_TYPE: request.type,
        }
        return factory.begin(request, attributes, why=why, at=start_ns)


def _read_foreign(record: Record, request: Event) -> None:
    """Read the trace in a format that `OTEL_PROPAGATORS` names; the mesh passes it on as W3C Trace Context."""
    carrier = {name: value.decode("utf-8", "replace") for name, value in record.headers if name not in _HEADERS}
    found = trace.get_current_span(propagate.extract(carrier))
    if found.get_span_context().is_valid:
        request.traceparent, request.tracestate = headers_of(found)
