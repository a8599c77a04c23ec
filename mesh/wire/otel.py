"""Traces: one span a task, in the trace that the request came with. The only importer of opentelemetry.

Names follow the OpenTelemetry semantic conventions for messaging, v1.44.0: span `process <topic>`, kind CONSUMER,
parent = the context the record carries (a run is one trace). W3C `traceparent` and `tracestate` travel as plain
headers, exactly one each. Without a provider nothing is made and nothing is paid.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module, metadata

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from mesh.core.errors import ConfigInvalid
from mesh.core.event import FAILED, Event

_CARRIER = TraceContextTextMapPropagator()
_EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


class Spans:
    """Makes spans with `provider`, or with the program's own one, if it has set one up."""

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        provider = provider or trace.get_tracer_provider()
        real = not isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider)
        self._tracer = provider.get_tracer("mesh", _version()) if real else None

    @contextmanager
    def process(self, task: Event, *, topic: str, group: str) -> Iterator["Span"]:
        """The span of one attempt of a task. Its answer continues the trace from here."""
        if self._tracer is None:
            yield Span(task, None)
            return
        parent = _CARRIER.extract({"traceparent": task.traceparent, "tracestate": task.tracestate})
        partition, offset = task.origin.rsplit(":", 2)[-2:] if task.origin.count(":") >= 2 else ("", "-1")
        attributes: dict[str, str | int] = {
            "messaging.system": "kafka",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": topic,
            "messaging.destination.partition.id": partition,
            "messaging.consumer.group.name": group,
            "messaging.message.id": task.id,
            "messaging.message.conversation_id": task.run_id,
            "messaging.kafka.offset": int(offset),
            "gen_ai.agent.name": task.agent,
            "mesh.task.attempt": task.attempt,
            "mesh.task.depth": task.depth,
        }
        kind = trace.SpanKind.CONSUMER
        with self._tracer.start_as_current_span(f"process {topic}", parent, kind, attributes) as span:
            carrier: dict[str, str] = {}
            _CARRIER.inject(carrier)
            onward = replace(task, traceparent=carrier.get("traceparent", ""), tracestate=carrier.get("tracestate", ""))
            yield Span(onward, span)


class Span:
    """An open span and the task as it goes on from it."""

    __slots__ = ("_span", "task")

    def __init__(self, task: Event, span: trace.Span | None) -> None:
        self.task = task
        self._span = span

    def answered(self, answer: Event) -> None:
        """Note how the task went."""
        if self._span is not None and answer.kind == FAILED and answer.fault is not None:
            self._span.set_attribute("error.type", answer.fault.cls or answer.fault.code)
            self._span.set_status(trace.StatusCode.ERROR, answer.fault.message)


def configure(service: str, environ: Mapping[str, str] | None = None) -> TracerProvider | None:
    """Export spans by OTLP when the standard variables ask for it (`OTEL_EXPORTER_OTLP_ENDPOINT`), else nothing.

    Raises ConfigInvalid when the exporter is asked for and not installed. The caller shuts the provider down.
    """
    environ = os.environ if environ is None else environ
    endpoint = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if not endpoint or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        exporter = import_module(_EXPORTER).OTLPSpanExporter()
    except ImportError as error:
        raise ConfigInvalid(
            "the OTLP exporter is not installed",
            where="OTEL_EXPORTER_OTLP_ENDPOINT",
            remedy="pip install 'agent-mesh[otel]', or unset the variable",
        ) from error
    name = environ.get("OTEL_SERVICE_NAME", service)
    provider = TracerProvider(resource=Resource.create({"service.name": name, "service.version": _version()}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _version() -> str:
    try:
        return metadata.version("agent-mesh")
    except metadata.PackageNotFoundError:
        return "0"
