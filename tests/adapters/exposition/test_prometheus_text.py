"""The text of a scrape, read back by the parser of Prometheus' own client."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mesh.adapters.exposition.prometheus_text import PrometheusText
from mesh.core.metrics.durations import Durations
from mesh.core.metrics.instruments import INSTRUMENTS, MetricSample


def read(*samples: MetricSample) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = PrometheusText(lambda: samples).write().decode()
    found = [each for family in text_string_to_metric_families(text) for each in family.samples]
    return {(each.name, tuple(sorted(each.labels.items()))): each.value for each in found}


def test_counters_and_gauges_have_their_names_and_labels() -> None:
    found = read(
        MetricSample("mesh_events_processed_total", ("echo", "mesh.tasks.echo", "failed"), 3),
        MetricSample("mesh_runs_open", (), 2),
    )
    labels = (("agent", "echo"), ("outcome", "failed"), ("topic", "mesh.tasks.echo"))
    assert found["mesh_events_processed_total", labels] == 3
    assert found["mesh_runs_open", ()] == 2


def test_buckets_of_a_histogram_are_cumulated() -> None:
    durations = Durations()
    for seconds in (0.0005, 0.002, 0.002, 500.0):
        durations.add(seconds)
    found = read(MetricSample("mesh_queue_wait_seconds", ("echo",), durations))
    name, agent = "mesh_queue_wait_seconds", ("agent", "echo")
    counts = {labels[1][1]: value for (each, labels), value in found.items() if each == f"{name}_bucket"}
    assert (counts["0.001"], counts["0.005"], counts["60.0"], counts["+Inf"]) == (1, 3, 3, 4)
    assert found[f"{name}_count", (agent,)] == 4
    assert found[f"{name}_sum", (agent,)] == pytest.approx(500.0045)


def test_the_process_itself_is_measured() -> None:
    found = read()
    assert found["process_resident_memory_bytes", ()] > 1_000_000
    assert found["process_cpu_seconds_total", ()] > 0


def test_families_come_in_the_order_of_the_table_with_their_meaning() -> None:
    samples = [MetricSample("mesh_runs_open", (), 1), MetricSample("mesh_build_info", ("m", "1"), 1)]
    text = PrometheusText(lambda: samples).write().decode()
    assert text.index("mesh_build_info") < text.index("mesh_runs_open")
    assert f"# HELP mesh_runs_open {INSTRUMENTS['mesh_runs_open'].meaning}" in text


def test_a_number_for_a_histogram_is_an_error() -> None:
    with pytest.raises(TypeError, match="mesh_queue_wait_seconds"):
        PrometheusText(lambda: [MetricSample("mesh_queue_wait_seconds", ("echo",), 1.0)]).write()
