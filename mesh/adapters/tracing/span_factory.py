"""Makes spans: parents from W3C headers, ids from `span_ids`, and spans that are made after the fact.

Without a provider no span is made. A provider that the program has set up itself gives its own ids: its spans are all
children of the request's span, and have no links.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.context import Context, get_current, set_value
from opentelemetry.trace.span import TraceState

from mesh.adapters.distribution import version
from mesh.adapters.tracing import span_names as names
from mesh.adapters.tracing.kept_spans import KeptSpans
from mesh.adapters.tracing.span_ids import SpanIds, span_id_of, trace_id_of
from mesh.core.ingress.trace_context import trace_of
from mesh.core.protocol.event import REQUESTED, Event

KEEP: Final = "mesh-keep-span"
"""Key of a context whose spans the sampler keeps, whatever it says of others."""


class Headers(NamedTuple):
    """The trace headers of an event: of the span that what follows from the event belongs to."""

    traceparent: str
    tracestate: str


class SpanFactory:
    """A factory of spans of `provider`, or of the program's own. `log_url`: the address of the log."""

    def __init__(self, log_url: str = "kafka:", provider: trace.TracerProvider | None = None) -> None:
        provider = provider or trace.get_tracer_provider()
        real = not isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider)
        self.tracer = provider.get_tracer("mesh", version()) if real else None
        self.ids: SpanIds | None = ids if isinstance(ids := getattr(provider, "id_generator", None), SpanIds) else None
        self._sampler = getattr(provider, "sampler", None)
        self.kept: KeptSpans | None = getattr(self._sampler, "kept", None)
        """The process's ring buffer; None: spans that the sampler leaves out are not kept."""
        self._follows = bool(getattr(self._sampler, "follows_parent", False))
        address = urlsplit(log_url.partition(",")[0])
        self.system = "kafka" if address.scheme in ("kafka", "") else address.scheme
        self.fixed: dict[str, str | int] = {names.SYSTEM: self.system}
        if self.system == "kafka" and address.hostname:
            self.fixed |= {names.SERVER_ADDRESS: address.hostname, names.SERVER_PORT: address.port or 9092}

    @property
    def is_active(self) -> bool:
        """Whether spans are made at all."""
        return self.tracer is not None

    def is_sampled(self, event: Event) -> bool:
        """Return whether the sampler would export a span of this event's trace; cheaper than to make one."""
        if event.traceparent:
            return not self._follows or event.traceparent[-1:] in "13579bdf"
        if self._sampler is None:
            return True
        found = self._sampler.should_sample(Context(), int(trace_id_of(event.run_id), 16), "run")
        return bool(found.decision.is_sampled())

    def parent(self, event: Event, span_name: str = "") -> Context:
        """Return the context for a child of the span `span_name`, in the trace of the event.

        The parent is the span in the event's headers where no name is given, or ids do not follow from names.
        """
        parent, state = trace_of([event.traceparent], [event.tracestate]) if event.traceparent else ("", "")
        if parent:
            trace_id, span_id, flags = int(parent[3:35], 16), int(parent[36:52], 16), int(parent[53:], 16)
        else:
            trace_id, span_id, flags = int(trace_id_of(event.run_id), 16), 0, int(self.is_sampled(event))
            span_name = span_name or (event.cause_id if event.kind != REQUESTED else "") or event.id
        if span_name and (self.ids is not None or not span_id):
            span_id = span_id_of(span_name)
        return _context(trace_id, span_id, flags, state)

    def link(self, context: Context, span_name: str, kind: str) -> Sequence[trace.Link]:
        """Return a link to the span of this name in the same trace; none where ids do not follow from names."""
        if self.ids is None or not span_name:
            return ()
        here = trace.get_current_span(context).get_span_context()
        there = trace.SpanContext(here.trace_id, span_id_of(span_name), True, here.trace_flags, here.trace_state)
        return (trace.Link(there, {names.LINK: kind}),)

    def begin(
        self, event: Event, attributes: Mapping[str, Any], *, of: str = "", why: str = "", at: int | None = None
    ) -> trace.Span:
        """Start a span in the trace of an event; that of a request may begin a trace, or go on from the current span.

        `of`: what the span stands for, the event by default. `why`: export it even if the sampler leaves it out. `at`:
        when it began, in nanoseconds; else now.
        """
        context = get_current() if event.kind == REQUESTED and not of and not event.traceparent else self.parent(event)
        return self.start(context, attributes, of=of or event.id, run_id=event.run_id, why=why, at=at)

    def start(
        self,
        context: Context,
        attributes: Mapping[str, Any],
        *,
        of: str,
        run_id: str,
        links: Sequence[trace.Link] = (),
        why: str = "",
        at: int | None = None,
    ) -> trace.Span:
        """Start a span in this context. Name and kind follow from the attributes; see `begin` for the rest."""
        assert self.tracer is not None
        name = f"{attributes[names.OPERATION_NAME]} {attributes[names.DESTINATION]}"
        kind = trace.SpanKind.PRODUCER if attributes[names.OPERATION_TYPE] == names.SEND else trace.SpanKind.CONSUMER
        attributes = {**self.fixed, **attributes}
        if why:
            attributes[names.KEPT] = why
            context = set_value(KEEP, True, context)
        if self.ids is not None:
            self.ids.ask(span_id_of(of), int(trace_id_of(run_id), 16))
        return self.tracer.start_span(
            name, context, kind, attributes, links, at, record_exception=False, set_status_on_exception=False
        )


def headers_of(span: trace.Span) -> Headers:
    """Return the headers that continue the trace from a span."""
    context = span.get_span_context()
    parent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 3:02x}"
    return Headers(parent, context.trace_state.to_header() if context.trace_state else "")


def failed(span: trace.Span, error_type: str, message: str) -> None:
    """Mark a span as failed. The message is one whose secrets are masked."""
    span.set_attribute(names.ERROR_TYPE, error_type)
    span.set_status(trace.StatusCode.ERROR, message)


def _context(trace_id: int, span_id: int, flags: int, state: str) -> Context:
    found = trace.SpanContext(
        trace_id, span_id, True, trace.TraceFlags(flags), TraceState.from_header([state]) if state else None
    )
    return trace.set_span_in_context(trace.NonRecordingSpan(found), Context())
