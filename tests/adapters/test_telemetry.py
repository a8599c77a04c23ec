"""Metrics against the SDK's own in-memory exporter."""

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Gauge, InMemoryMetricReader

from mesh.adapters.telemetry import BacklogMeter, configure_metrics
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
