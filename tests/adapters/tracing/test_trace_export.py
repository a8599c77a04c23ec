"""The standard variables of OpenTelemetry, and what is exported by them."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.trace.sampling import ParentBased

from mesh.adapters import telemetry
from mesh.adapters.tracing.kept_spans import KeptSpans
from mesh.adapters.tracing.span_factory import SpanFactory
from mesh.adapters.tracing.task_spans import TaskSpans
from mesh.adapters.tracing.trace_export import configure, new_provider
from mesh.core.errors import ConfigInvalid
from tests.adapters.tracing.kit import TASK_EVENT
from tests.collector import ReceivedSpan, read_spans, span_collector

ASKED = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("environ", "remedy"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "Install the package"),
        ({**ASKED, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "pip install 'agent-mesh[otel-grpc]'"),
        (ASKED, "pip install 'agent-mesh[otel]'"),
    ],
)
def test_an_exporter_that_is_not_installed_is_refused_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], remedy: str
) -> None:
    monkeypatch.setattr(telemetry, "entry_points", lambda group: [])
    with pytest.raises(ConfigInvalid, match="is not installed") as caught:
        configure("mesh", environ=environ)
    assert remedy in caught.value.remedy


def test_spans_are_exported_by_grpc_where_its_extra_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    grpc = pytest.importorskip("grpc")
    service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc")
    received: list[ReceivedSpan] = []

    class Receiver(service.TraceServiceServicer):  # type: ignore[misc, name-defined]
        def Export(self, request: ExportTraceServiceRequest, context: object) -> ExportTraceServiceResponse:  # noqa: N802
            received.extend(read_spans(request.SerializeToString()))
            return ExportTraceServiceResponse()

    server = grpc.server(ThreadPoolExecutor(1))
    service.add_TraceServiceServicer_to_server(Receiver(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    provider = configure("mesh-worker")
    assert provider is not None
    with TaskSpans(SpanFactory("kafka://b", provider), topic="mesh.tasks.echo", group="g").process(TASK_EVENT):
        pass
    provider.shutdown()
    server.stop(None)
    assert [span.name for span in received] == ["process mesh.tasks.echo"]


def test_nothing_is_exported_unless_asked_for() -> None:
    assert configure("mesh", environ={}) is None


@pytest.mark.parametrize(("name", "value"), [("OTEL_BSP_MAX_QUEUE_SIZE", "0"), ("OTEL_BSP_SCHEDULE_DELAY", "-5")])
def test_a_setting_of_the_sdk_that_makes_no_sense_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigInvalid, match="tracing cannot be set up"):
        configure("mesh-worker")


def test_the_sdk_reads_sampler_and_resource(monkeypatch: pytest.MonkeyPatch) -> None:
    assert new_provider("mesh-worker").resource.attributes["service.name"] == "mesh-worker"
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=theirs,deployment.environment.name=test")
    attributes = new_provider("mesh-worker").resource.attributes
    assert (attributes["service.name"], attributes["deployment.environment.name"]) == ("theirs", "test")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "ours")
    assert new_provider("mesh-worker").resource.attributes["service.name"] == "ours"
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.25")
    sampler = new_provider("mesh").sampler
    assert "TraceIdRatioBased{0.25}" in sampler.get_description()
    assert not isinstance(sampler, ParentBased)


def test_spans_are_exported_where_the_standard_variable_points(monkeypatch: pytest.MonkeyPatch) -> None:
    with span_collector() as collected:
        for name, value in collected.environ.items():
            monkeypatch.setenv(name, value)
        provider = configure("mesh-worker", KeptSpans(1, 0))
        assert provider is not None
        spans = TaskSpans(SpanFactory("kafka://b", provider), topic="mesh.tasks.echo", group="mesh.echo")
        with spans.process(TASK_EVENT):
            pass
        provider.shutdown()
        (span,) = collected.spans
    assert (span.service, span.name) == ("mesh-worker", "process mesh.tasks.echo")
