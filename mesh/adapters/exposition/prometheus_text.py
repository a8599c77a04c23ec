"""Samples in the text format of Prometheus. This is the only importer of prometheus_client.

Besides the mesh's own samples there are those of the process, under the names that all clients of Prometheus use:
`process_resident_memory_bytes`, `process_cpu_seconds_total`, `process_open_fds`.
"""

from collections.abc import Callable, Iterable
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from mesh.core.metrics.durations import BOUNDS_S, Durations
from mesh.core.metrics.instruments import COUNTER, GAUGE, INSTRUMENTS, MetricSample

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_BOUNDS = (*(str(bound) for bound in BOUNDS_S), "+Inf")


class PrometheusText(Collector):
    """The exposition of a process. `read` returns all samples of the moment."""

    def __init__(self, read: Callable[[], Iterable[MetricSample]]) -> None:
        self._read = read
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def write(self) -> bytes:
        """Return the text of one scrape."""
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the table has each name once, so no clash needs to be found."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return one family for each instrument that has samples, in the order of the table."""
        found: dict[str, list[MetricSample]] = {}
        for sample in self._read():
            found.setdefault(sample.name, []).append(sample)
        return [_family(name, found[name]) for name in INSTRUMENTS if name in found]


def _family(name: str, samples: Iterable[MetricSample]) -> Metric:
    instrument = INSTRUMENTS[name]
    if instrument.kind == COUNTER:
        counter = CounterMetricFamily(name.removesuffix("_total"), instrument.meaning, labels=instrument.labels)
        for _, labels, value in samples:
            counter.add_metric(labels, _number(value))
        return counter
    if instrument.kind == GAUGE:
        gauge = GaugeMetricFamily(name, instrument.meaning, labels=instrument.labels)
        for _, labels, value in samples:
            gauge.add_metric(labels, _number(value))
        return gauge
    histogram = HistogramMetricFamily(name, instrument.meaning, labels=instrument.labels)
    for _, labels, value in samples:
        if not isinstance(value, Durations):
            raise TypeError(f"{name} is a histogram, and its sample a number")
        buckets = list(zip(_BOUNDS, accumulate(value.buckets), strict=True))
        histogram.add_metric(labels, buckets, value.sum_s)
    return histogram


def _number(value: "float | Durations") -> float:
    if isinstance(value, Durations):
        raise TypeError("a histogram was given for a number")
    return value
