"""Exporters of OpenTelemetry, as the standard variables name them, and metrics of waiting tasks for them.

`tracing` makes the spans. Only these two import opentelemetry.

Metric names follow the conventions of Prometheus once a collector has passed them on:
`mesh_consumer_lag_records{group, topic, partition}`, `mesh_oldest_unread_age_seconds{group, topic}`,
`mesh_workers_desired`.
"""

import os
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final

from mesh.adapters.distribution import version
from mesh.core.errors import ConfigInvalid
from mesh.core.scaling.policy import Decision, ScalingSample
from mesh.core.topology.model import Topology

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.resources import Resource

SHUTDOWN_MS: Final = 2_000
"""Longest wait for a collector at the end of a process."""
PROTOCOLS: Final = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
"""Value of `OTEL_EXPORTER_OTLP_PROTOCOL`, and the SDK's name of its exporter."""
EXTRAS: Final = {"otlp_proto_http": "otel", "otlp_proto_grpc": "otel-grpc"}


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
    """Export metrics as the standard variables say, every `OTEL_METRIC_EXPORT_INTERVAL` milliseconds; None: nowhere.

    Raises ConfigInvalid when an exporter is asked for and not installed. The caller shuts the provider down.
    """
    names = exporter_names("METRICS", os.environ if environ is None else environ)
    exporters = [load_exporter("METRICS", name) for name in names]
    if not exporters:
        return None
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    return MeterProvider([PeriodicExportingMetricReader(exporter()) for exporter in exporters], resource_of(service))


def exporter_names(signal: str, environ: Mapping[str, str]) -> list[str]:
    """Return the SDK's names of the exporters of a signal that the variables ask for. `signal`: TRACES or METRICS.

    Raises ConfigInvalid for a wrong protocol.
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    asked = environ.get(f"OTEL_{signal}_EXPORTER", "").strip()
    if not asked:
        endpoint = environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
        asked = "otlp" if endpoint else "none"
    names = [name.strip() for name in asked.split(",") if name.strip() and name.strip().lower() != "none"]
    return [_otlp(signal, environ) if name == "otlp" else name for name in names]


def _otlp(signal: str, environ: Mapping[str, str]) -> str:
    for variable in (f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if protocol := environ.get(variable, "").strip():
            if protocol in PROTOCOLS:
                return PROTOCOLS[protocol]
            raise ConfigInvalid(
                "the protocol is not supported",
                where=variable,
                expected=" or ".join(PROTOCOLS),
                got=protocol,
                remedy="Correct or unset the variable",
            )
    return PROTOCOLS["http/protobuf"]


def load_exporter(signal: str, name: str) -> Any:
    """Return the class of an exporter by its entry point. Raises ConfigInvalid if it is not installed."""
    points = {point.name: point for point in entry_points(group=f"opentelemetry_{signal.lower()}_exporter")}
    try:
        return points[name].load()
    except (KeyError, ImportError) as error:
        extra = EXTRAS.get(name)
        remedy = "Install the package that has it, or correct the variable"
        if extra is not None:
            remedy = f"pip install 'agent-mesh[{extra}]', or unset the variable"
        raise ConfigInvalid(
            f"the exporter {name!r} is not installed",
            where=f"OTEL_{signal}_EXPORTER, OTEL_EXPORTER_OTLP_ENDPOINT",
            expected=", ".join(sorted(points)) or "an installed exporter",
            got=name,
            remedy=remedy,
        ) from error


def resource_of(service: str) -> "Resource":
    """Return this process as the variables describe it; `service` is its name by default."""
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    ours = {"service.name": service, "service.version": version()}
    return Resource.create({**ours, **OTELResourceDetector().detect().attributes})
