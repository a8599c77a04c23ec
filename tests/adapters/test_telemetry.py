"""Spans and metrics against the SDK's own in-memory exporters."""

from collections import Counter
from dataclasses import replace

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Gauge, InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode

from mesh.adapters.telemetry import BacklogMeter, Spans, configure, configure_metrics
from mesh.core.errors import ConfigInvalid
from mesh.core.protocol.event import NO_USAGE, TASK, Event, Fault
from mesh.core.scaling.lag import Backlog, GroupOffsets
from mesh.core.scaling.policy import Decision, ScalingSample
from mesh.core.task import result
from mesh.core.topology.loader import load
from tests.collector import collector

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TASK_EVENT = Event(
    "t1:1", "/mesh/t", "ask", TASK, "r1", b"{}", agent="echo", task_id="t1", depth=1, path=("echo",),
    traceparent=PARENT, origin="mesh.tasks.echo:3:41",
)  # fmt: skip


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> Spans:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Spans(provider)


def test_a_task_is_a_consumer_span_in_the_trace_of_its_request(spans: Spans, exporter: InMemorySpanExporter) -> None:
    with spans.process(TASK_EVENT, topic="mesh.tasks.echo", group="mesh.echo"):
        pass
    (span,) = exporter.get_finished_spans()
    assert (span.name, span.kind) == ("process mesh.tasks.echo", SpanKind.CONSUMER)
    assert span.context is not None
    assert span.parent is not None
    assert f"{span.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"
    assert span.attributes is not None
    expected = {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.destination.name": "mesh.tasks.echo",
        "messaging.destination.partition.id": "3",
        "messaging.kafka.offset": 41,
        "messaging.consumer.group.name": "mesh.echo",
        "messaging.message.id": "t1:1",
        "messaging.message.conversation_id": "r1",
    }
    assert {name: span.attributes[name] for name in expected} == expected


def test_a_task_without_a_place_has_a_span_too(spans: Spans, exporter: InMemorySpanExporter) -> None:
    for origin in ("", "elsewhere", "a:b:c"):
        with spans.process(replace(TASK_EVENT, origin=origin), topic="mesh.tasks.echo", group="mesh.echo"):
            pass
    for span in exporter.get_finished_spans():
        assert span.attributes is not None
        assert span.attributes["messaging.destination.partition.id"] == ""
        assert span.attributes["messaging.kafka.offset"] == -1


def test_all_tasks_of_a_run_that_came_without_a_trace_are_in_one(spans: Spans, exporter: InMemorySpanExporter) -> None:
    untraced = [replace(TASK_EVENT, traceparent="", id=f"t{n}:1", run_id=run) for n, run in enumerate(("a", "a", "b"))]
    for task in untraced:
        with spans.process(task, topic="mesh.tasks.echo", group="mesh.echo"):
            pass
    first, second, other = [span.context.trace_id for span in exporter.get_finished_spans() if span.context]
    assert first == second != other


def test_runs_that_came_without_a_trace_are_sampled_whole_or_not_at_all(exporter: InMemorySpanExporter) -> None:
    provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(0.25)))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    spans = Spans(provider)
    for n in range(400):
        for task_id in ("t1:1", "t2:1"):
            task = replace(TASK_EVENT, traceparent="", run_id=f"r{n}", id=task_id)
            with spans.process(task, topic="mesh.tasks.echo", group="mesh.echo"):
                pass
    traces = Counter(span.context.trace_id for span in exporter.get_finished_spans() if span.context)
    assert 50 < len(traces) < 150
    assert set(traces.values()) == {2}


@pytest.mark.parametrize(("name", "value"), [("OTEL_BSP_MAX_QUEUE_SIZE", "0"), ("OTEL_BSP_SCHEDULE_DELAY", "-5")])
def test_a_setting_of_the_sdk_that_makes_no_sense_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigInvalid, match="tracing cannot be set up"):
        configure("mesh-worker")


def test_the_answer_goes_on_from_the_span(spans: Spans, exporter: InMemorySpanExporter) -> None:
    with spans.process(TASK_EVENT, topic="mesh.tasks.echo", group="mesh.echo") as span:
        answer = result.success_event(span.task, [], NO_USAGE)
        span.answered(answer)
    (made,) = exporter.get_finished_spans()
    assert made.context is not None
    assert answer.traceparent == f"00-0af7651916cd43dd8448eb211c80319c-{made.context.span_id:016x}-01"
    assert made.status.status_code is StatusCode.UNSET


def test_a_failure_marks_its_span(spans: Spans, exporter: InMemorySpanExporter) -> None:
    with spans.process(TASK_EVENT, topic="mesh.tasks.echo", group="mesh.echo") as span:
        span.answered(result.failure_event(span.task, Fault("exception", "boom", "builtins.ValueError"), NO_USAGE))
    (made,) = exporter.get_finished_spans()
    assert made.status.status_code is StatusCode.ERROR
    assert made.attributes is not None
    assert made.attributes["error.type"] == "builtins.ValueError"


async def test_what_answers_tasks_has_a_span_around_each(spans: Spans, exporter: InMemorySpanExporter) -> None:
    seen: list[tuple[Event, str]] = []

    async def answer(task: Event, attempt: str) -> Event | None:
        seen.append((task, attempt))
        if attempt == "given up":
            return None
        return result.failure_event(task, Fault("exception", "boom", "builtins.ValueError"), NO_USAGE)

    traced = spans.around(answer, topic="mesh.tasks.echo", group="mesh.echo")
    answered = await traced(TASK_EVENT, "first")
    assert await traced(TASK_EVENT, "given up") is None
    made, given_up = exporter.get_finished_spans()
    assert made.context is not None
    assert answered is not None
    assert answered.traceparent == seen[0][0].traceparent
    assert f"{made.context.span_id:016x}" in answered.traceparent
    assert (made.status.status_code, given_up.status.status_code) == (StatusCode.ERROR, StatusCode.UNSET)
    assert [attempt for _, attempt in seen] == ["first", "given up"]


async def test_without_a_provider_nothing_stands_around_what_answers() -> None:
    async def answer(task: Event) -> Event | None:
        return None

    assert Spans().around(answer, topic="mesh.tasks.echo", group="mesh.echo") is answer


def test_without_a_provider_the_context_passes_through_untouched() -> None:
    with Spans().process(TASK_EVENT, topic="mesh.tasks.echo", group="mesh.echo") as span:
        assert span.task is TASK_EVENT


def test_nothing_is_exported_unless_asked_for() -> None:
    assert configure("mesh", {}) is None
    asked = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    assert configure("mesh", {**asked, "OTEL_SDK_DISABLED": "true"}) is None
    assert configure("mesh", {**asked, "OTEL_TRACES_EXPORTER": "none"}) is None


def test_spans_are_exported_where_the_standard_variable_points(monkeypatch: pytest.MonkeyPatch) -> None:
    with collector() as (address, received):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        provider = configure("mesh-worker")
        assert provider is not None
        with Spans(provider).process(TASK_EVENT, topic="mesh.tasks.echo", group="mesh.echo"):
            pass
        provider.shutdown()
    assert [path for path, _ in received] == ["/v1/traces"]
    assert received[0][1] > 100


TOPOLOGY = load("""
mesh: {name: t, prefix: mesh}
topics: {asks: {ingress: ask}, answers: {egress: answer}}
agents: {echo: {run: "x:y", on: ask, emits: answer}}
""")
SAMPLE = ScalingSample(5_000, 2, True, {"echo": {0: GroupOffsets(3, 10), 1: GroupOffsets(4, 4)}})
DECISION = Decision(4, "7 tasks wait", loads={"echo": Backlog(lag=7, age_ms=1_500)})


def test_the_backlog_is_a_metric_by_group_topic_and_partition() -> None:
    reader = InMemoryMetricReader()
    meter = BacklogMeter(MeterProvider([reader]), TOPOLOGY)
    meter.record(SAMPLE, DECISION)
    data = reader.get_metrics_data()
    assert data is not None
    found = {}
    for metric in data.resource_metrics[0].scope_metrics[0].metrics:
        assert isinstance(metric.data, Gauge)
        points = {tuple((point.attributes or {}).items()): point.value for point in metric.data.data_points}
        found[metric.name, metric.unit] = points
    group = (("group", "mesh.echo"), ("topic", "mesh.tasks.echo"))
    assert found == {
        ("mesh.consumer.lag.records", "{record}"): {
            (*group, ("partition", "0")): 7,
            (*group, ("partition", "1")): 0,
        },
        ("mesh.oldest.unread.age", "s"): {group: 1.5},
        ("mesh.workers.desired", "{worker}"): {(): 4},
    }
    meter.close()


def test_metrics_are_exported_only_when_asked_for() -> None:
    asked = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    assert configure_metrics("mesh", {}) is None
    assert configure_metrics("mesh", {**asked, "OTEL_METRICS_EXPORTER": "none"}) is None
    assert configure_metrics("mesh", {**asked, "OTEL_SDK_DISABLED": "true"}) is None


def test_metrics_are_exported_where_the_standard_variable_points(monkeypatch: pytest.MonkeyPatch) -> None:
    with collector() as (address, received):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", f"{address}/v1/metrics")
        provider = configure_metrics("mesh-autoscaler")
        assert provider is not None
        meter = BacklogMeter(provider, TOPOLOGY)
        meter.record(SAMPLE, DECISION)
        meter.close()
    assert [path for path, _ in received] == ["/v1/metrics"]
    assert received[0][1] > 100


def test_an_error_that_leaves_a_span_is_not_exported_with_its_text(
    spans: Spans, exporter: InMemorySpanExporter
) -> None:
    """It may quote a secret, and no redaction stands between it and the exporter."""
    with pytest.raises(RuntimeError), spans.process(TASK_EVENT, topic="t", group="g"):
        raise RuntimeError("password=hunter2")
    (span,) = exporter.get_finished_spans()
    assert (span.events, span.status.description) == ((), None)
