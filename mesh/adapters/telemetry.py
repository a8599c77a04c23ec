"""Traces with one span for each task, in the trace of its request, and metrics of waiting tasks.

This is the only importer of opentelemetry.

Names follow the OpenTelemetry semantic conventions for messaging, v1.44.0: span `process <topic>`, kind CONSUMER,
parent = the context the record carries (a run is one trace). W3C `traceparent` and `tracestate` travel as plain
headers, exactly one each. Without a provider no span is made, and only a process that exports imports the SDK.

Metric names follow the conventions of Prometheus once a collector has passed them on:
`mesh_consumer_lag_records{group, topic, partition}`, `mesh_oldest_unread_age_seconds{group, topic}`,
`mesh_workers_desired`.
"""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeAlias

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from mesh.core.errors import ConfigInvalid
from mesh.core.protocol.event import FAILED, Event, derive_id
from mesh.core.protocol.record import parse_coordinates
from mesh.core.scaling.policy import Decision, ScalingSample
from mesh.core.topology.model import Topology

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

_CARRIER = TraceContextTextMapPropagator()
_OTLP: Final = "opentelemetry.exporter.otlp.proto.http"
SHUTDOWN_MS: Final = 2_000
"""Longest wait for a collector at the end of a process."""

P = ParamSpec("P")
Answers: TypeAlias = Callable[Concatenate[Event, P], Awaitable[Event | None]]
"""A function that answers a task, or returns None when it gives up."""


class Spans:
    """A factory of spans from `provider`, or from the program's own provider if it has set one up."""

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        provider = provider or trace.get_tracer_provider()
        real = not isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider)
        self._tracer = provider.get_tracer("mesh", _version()) if real else None

    def around(self, answer: Answers[P], *, topic: str, group: str) -> Answers[P]:
        """Return `answer` with a span around each task, or `answer` itself without a provider."""
        if self._tracer is None:
            return answer

        async def _traced_event(task: Event, /, *args: P.args, **kwargs: P.kwargs) -> Event | None:
            with self.process(task, topic=topic, group=group) as span:
                answered = await answer(span.task, *args, **kwargs)
                if answered is not None:
                    span.answered(answered)
            return answered

        return _traced_event

    @contextmanager
    def process(self, task: Event, *, topic: str, group: str) -> Iterator["Span"]:
        """Open the span of one attempt of a task. Its answer continues the trace from this span."""
        if self._tracer is None:
            yield Span(task, None)
            return
        traceparent = task.traceparent or self._trace_of_run(task.run_id)
        parent = _CARRIER.extract({"traceparent": traceparent, "tracestate": task.tracestate})
        place = parse_coordinates(task.origin)
        attributes: dict[str, str | int] = {
            "messaging.system": "kafka",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": topic,
            "messaging.destination.partition.id": "" if place is None else str(place.partition),
            "messaging.consumer.group.name": group,
            "messaging.message.id": task.id,
            "messaging.message.conversation_id": task.run_id,
            "messaging.kafka.offset": -1 if place is None else place.offset,
            "gen_ai.agent.name": task.agent,
            "mesh.task.attempt": task.attempt,
            "mesh.task.depth": task.depth,
        }
        kind = trace.SpanKind.CONSUMER
        with self._tracer.start_as_current_span(
            f"process {topic}", parent, kind, attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            carrier: dict[str, str] = {}
            _CARRIER.inject(carrier)
            onward = replace(task, traceparent=carrier.get("traceparent", ""), tracestate=carrier.get("tracestate", ""))
            yield Span(onward, span)

    def _trace_of_run(self, run_id: str) -> str:
        """Return the trace of a run whose request had none. All tasks of the run get the same trace, in any process.

        The sampler decides whether it is sampled, as for any other trace that begins here.
        """
        trace_id = derive_id("trace", run_id)
        sampler = getattr(self._tracer, "sampler", None)  # of the SDK's tracers; the interface has none
        begun = None if sampler is None else sampler.should_sample(Context(), int(trace_id, 16), "request")
        sampled = begun is None or begun.decision.is_sampled()
        return f"00-{trace_id}-{derive_id('request', run_id)[:16]}-{sampled:02x}"


class Span:
    """An open span, and the task with the trace context of that span."""

    __slots__ = ("_span", "task")

    def __init__(self, task: Event, span: trace.Span | None) -> None:
        self.task = task
        self._span = span

    def answered(self, answer: Event) -> None:
        """Record the result of the task in the span."""
        if self._span is not None and answer.kind == FAILED and answer.fault is not None:
            self._span.set_attribute("error.type", answer.fault.cls or answer.fault.code)
            self._span.set_status(trace.StatusCode.ERROR, answer.fault.message)


def configure(service: str, environ: Mapping[str, str] | None = None) -> "TracerProvider | None":
    """Export spans by OTLP when the standard variables ask for it (`OTEL_EXPORTER_OTLP_ENDPOINT`, not with
    `OTEL_TRACES_EXPORTER=none`), else nothing.

    Raises ConfigInvalid when the exporter is asked for and not installed, or a variable makes no sense. The caller
    shuts the provider down.
    """
    environ = os.environ if environ is None else environ
    exporter = _exporter("TRACES", "trace_exporter", "OTLPSpanExporter", environ)
    if exporter is None:
        return None
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    try:
        provider = TracerProvider(resource=_resource(service, environ), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(exporter))
    except ValueError as error:  # the SDK's own reading of its variables
        raise ConfigInvalid(
            f"tracing cannot be set up: {error}", where="OTEL_…", remedy="Fix or unset the variable of OpenTelemetry"
        ) from error
    return provider


@asynccontextmanager
async def exported(service: str) -> AsyncIterator[None]:
    """Export the spans of this process as the standard variables say (see `configure`), the last ones at the end.

    Does nothing if the program has set up a provider of its own. The end of the block takes two seconds at most, even
    without a collector. Raises ConfigInvalid.
    """
    own = not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider | trace.NoOpTracerProvider)
    provider = None if own else configure(service)
    if provider is None:
        yield
        return
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        # In a thread, since the SDK exceeds its own deadline while it retries. The loop polls the thread, so that it
        # can handle a second Ctrl-C meanwhile.
        last = threading.Thread(target=provider.shutdown, name="last spans", daemon=True)
        last.start()
        with suppress(TimeoutError):
            async with asyncio.timeout(SHUTDOWN_MS / 1000):
                while last.is_alive():  # noqa: ASYNC110  # a thread sets no event
                    await asyncio.sleep(0.02)


class BacklogMeter:
    """Gauges of `provider`: the waiting tasks of each agent, and the number of workers that they call for."""

    def __init__(self, provider: "MeterProvider", topology: Topology) -> None:
        meter = provider.get_meter("mesh", _version())
        self._provider, self._topology = provider, topology
        self._lag = meter.create_gauge("mesh.consumer.lag.records", "{record}", "records that are not committed")
        self._age = meter.create_gauge("mesh.oldest.unread.age", "s", "how long the oldest of them has waited")
        self._desired = meter.create_gauge("mesh.workers.desired", "{worker}", "worker processes that there should be")

    def record(self, sample: ScalingSample, decision: Decision) -> None:
        """Set the gauges."""
        for agent, places in sample.places.items():
            topic = self._topology.tasks(agent)
            group = {"group": self._topology.group(agent), "topic": topic}
            for number, place in places.items():
                self._lag.set(place.lag, {**group, "partition": str(number)})
            self._age.set(decision.loads[agent].age_ms / 1_000, group)
        self._desired.set(decision.workers)

    def close(self) -> None:
        """Export the last values. Blocks for at most two seconds without a collector."""
        self._provider.shutdown(timeout_millis=SHUTDOWN_MS)


def configure_metrics(service: str, environ: Mapping[str, str] | None = None) -> "MeterProvider | None":
    """Export metrics by OTLP when the standard variables ask for it (`OTEL_EXPORTER_OTLP_ENDPOINT`, not with
    `OTEL_METRICS_EXPORTER=none`), every `OTEL_METRIC_EXPORT_INTERVAL` milliseconds; else nothing.

    Raises ConfigInvalid when the exporter is asked for and not installed. The caller shuts the provider down.
    """
    environ = os.environ if environ is None else environ
    exporter = _exporter("METRICS", "metric_exporter", "OTLPMetricExporter", environ)
    if exporter is None:
        return None
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    return MeterProvider([PeriodicExportingMetricReader(exporter)], _resource(service, environ))


def _exporter(signal: str, module: str, name: str, environ: Mapping[str, str]) -> Any:
    """Return the exporter of a signal, or None if no variable asks for it. Raises ConfigInvalid if it is missing."""
    endpoint = environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if environ.get(f"OTEL_{signal}_EXPORTER", "").lower() == "none":
        return None
    if not endpoint or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        return getattr(import_module(f"{_OTLP}.{module}"), name)()
    except ImportError as error:
        raise ConfigInvalid(
            "the OTLP exporter is not installed",
            where="OTEL_EXPORTER_OTLP_ENDPOINT",
            remedy="pip install 'agent-mesh[otel]', or unset the variable",
        ) from error


def _resource(service: str, environ: Mapping[str, str]) -> "Resource":
    from opentelemetry.sdk.resources import Resource

    return Resource.create({"service.name": environ.get("OTEL_SERVICE_NAME", service), "service.version": _version()})


def _version() -> str:
    try:
        return metadata.version("agent-mesh")
    except metadata.PackageNotFoundError:
        return "0"
