"""Metrics of waiting tasks, exported by OTLP. Spans: `tracing`. Only these two import opentelemetry.

Metric names follow the conventions of Prometheus once a collector has passed them on:
`mesh_consumer_lag_records{group, topic, partition}`, `mesh_oldest_unread_age_seconds{group, topic}`,
`mesh_workers_desired`.
"""

import os
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from mesh.adapters.distribution import version
from mesh.core.errors import ConfigInvalid
from mesh.core.scaling.policy import Decision, ScalingSample
from mesh.core.topology.model import Topology

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.resources import Resource

_OTLP: Final = "opentelemetry.exporter.otlp.proto.http"
SHUTDOWN_MS: Final = 2_000
"""Longest wait for a collector at the end of a process."""


class BacklogMeter:
    """Gauges of `provider`: the waiting tasks of each agent, and the number of workers that they call for."""

    def __init__(self, provider: "MeterProvider", topology: Topology) -> None:
        meter = provider.get_meter("mesh", version())
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

    return Resource.create({"service.name": environ.get("OTEL_SERVICE_NAME", service), "service.version": version()})
