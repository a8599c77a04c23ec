"""Spans in memory, from a provider as a process of the mesh has it."""

from dataclasses import replace
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, TraceIdRatioBased

from mesh.adapters.tracing.kept_spans import KeptSpans
from mesh.adapters.tracing.span_factory import SpanFactory
from mesh.adapters.tracing.trace_export import new_provider
from mesh.core.protocol.event import REQUESTED, TASK, Event

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"
UNSAMPLED = PARENT[:-2] + "00"
REQUEST = Event("q1", "/up", "ask", REQUESTED, "r1", b"{}", origin="asks:2:7")
TASK_EVENT = Event(
    "t1:1", "/mesh/t", "ask", TASK, "r1", b"{}", agent="echo", task_id="t1", depth=1, path=("echo",),
    traceparent=PARENT, origin="mesh.tasks.echo:3:41", cause_id="q1",
)  # fmt: skip
UNTRACED = replace(TASK_EVENT, traceparent="")


class Traced:
    """A process of the mesh: its factory of spans, and the spans that it has exported."""

    def __init__(
        self, *, sampler: Sampler | None = None, kept: KeptSpans | None = None, log_url: str = "kafka://b1:9093,b2"
    ) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider: TracerProvider = new_provider("mesh", kept, sampler)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.factory = SpanFactory(log_url, self.provider)

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    @property
    def one(self) -> ReadableSpan:
        (span,) = self.spans
        return span


def sampling(ratio: float) -> Sampler:
    return ParentBased(TraceIdRatioBased(ratio))


def ids_of(span: ReadableSpan) -> tuple[str, str, str]:
    """Return trace id, span id and parent's span id; "" for a root."""
    assert span.context is not None
    parent = "" if span.parent is None else f"{span.parent.span_id:016x}"
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}", parent


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})
