"""Exporters by the standard variables; metrics against the SDK's own in-memory exporter."""

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Gauge, InMemoryMetricReader

from mesh.adapters import telemetry
from mesh.adapters.telemetry import BacklogMeter, configure_metrics, exporter_names
from mesh.core.errors import ConfigInvalid
from mesh.core.scaling.lag import Backlog, GroupOffsets
from mesh.core.scaling.policy import Decision, ScalingSample
from mesh.core.topology.loader import load
from tests.collector import collector

TOPOLOGY = load("""
mesh: {name: t, prefix: mesh}
topics: {asks: {ingress: ask}, answers: {egress: answer}}
agents: {echo: {run: "x:y", on: ask, emits: answer}}
""")
SAMPLE = ScalingSample(5_000, 2, True, {"echo": {0: GroupOffsets(3, 10), 1: GroupOffsets(4, 4)}})
ASKED = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
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
    assert configure_metrics("mesh", {}) is None
    assert configure_metrics("mesh", {**ASKED, "OTEL_METRICS_EXPORTER": "none"}) is None
    assert configure_metrics("mesh", {**ASKED, "OTEL_SDK_DISABLED": "true"}) is None


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


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({}, []),
        (ASKED, ["otlp_proto_http"]),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://h/v1/traces"}, ["otlp_proto_http"]),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://h/v1/metrics"}, []),
        ({**ASKED, "OTEL_SDK_DISABLED": "true"}, []),
        ({**ASKED, "OTEL_TRACES_EXPORTER": "none"}, []),
        ({"OTEL_TRACES_EXPORTER": "otlp, console"}, ["otlp_proto_http", "console"]),
        ({**ASKED, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ["otlp_proto_grpc"]),
        (
            {**ASKED, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"},
            ["otlp_proto_http"],
        ),
    ],
)
def test_the_variables_name_the_exporters(environ: dict[str, str], names: list[str]) -> None:
    assert exporter_names("TRACES", environ) == names


def test_a_protocol_that_is_not_supported_is_refused() -> None:
    with pytest.raises(ConfigInvalid, match="the protocol is not supported") as caught:
        exporter_names("TRACES", {**ASKED, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"})
    assert (caught.value.where, caught.value.got) == ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")


def test_an_exporter_of_metrics_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "entry_points", lambda group: [])
    with pytest.raises(ConfigInvalid, match="is not installed") as caught:
        configure_metrics("mesh", {**ASKED, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    assert caught.value.where.startswith("OTEL_METRICS_EXPORTER")
    assert "agent-mesh[otel-grpc]" in caught.value.remedy
