"""Spans of programs that publish: `send <inbox>` for each request, below the span that the program has open."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

from opentelemetry import trace

from mesh.adapters.tracing import span_names as names
from mesh.adapters.tracing.span_factory import SpanFactory, failed, headers_of
from mesh.core.protocol.event import Event


@contextmanager
def published(log_url: str, requests: Sequence[Event], inbox: str) -> Iterator[None]:
    """Open a span for each request, from which its run continues the trace. An error marks and leaves them."""
    factory = _factory(log_url, trace.get_tracer_provider())
    spans = []
    if factory.is_active:
        below = trace.get_current_span().get_span_context().is_valid
        wanted = requests if below else [request for request in requests if factory.is_sampled(request)]
        spans = [_start(factory, request, inbox) for request in wanted]
    try:
        yield
    except Exception as error:
        for span in spans:
            failed(span, f"{type(error).__module__}.{type(error).__qualname__}", "")
        raise
    finally:
        for span in spans:
            span.end()


@lru_cache(maxsize=16)
def _factory(log_url: str, provider: trace.TracerProvider) -> SpanFactory:
    return SpanFactory(log_url, provider)


def _start(factory: SpanFactory, request: Event, inbox: str) -> trace.Span:
    attributes = {
        names.OPERATION_NAME: names.SEND,
        names.OPERATION_TYPE: names.SEND,
        names.DESTINATION: inbox,
        names.MESSAGE_ID: request.id,
        names.CONVERSATION_ID: request.run_id,
        names.EVENT_TYPE: request.type,
    }
    span = factory.begin(request, attributes)
    if span.get_span_context().trace_flags.sampled or request.traceparent:
        request.traceparent, request.tracestate = headers_of(span)
    return span
