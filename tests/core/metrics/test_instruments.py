"""The table of instruments: names as Prometheus wants them, and no label without a bound."""

import re

import pytest

from mesh.core.metrics.instruments import (
    COUNTER,
    HISTOGRAM,
    INSTRUMENTS,
    LABELS,
    OTHER,
    known_reason,
    label_values,
)
from mesh.core.topology.loader import load

TOPOLOGY = load("""
mesh: {name: t, prefix: shop, inbox: {partitions: 3}}
topics: {asks: {ingress: ask, partitions: 4}, answers: {egress: answer, partitions: 1}}
agents: {echo: {run: "x:y", on: ask, emits: answer}}
""")
PROCESS_LABELS = {"mesh", "version"}
"""Labels with one value in each process."""


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_names_follow_the_conventions(name: str) -> None:
    instrument = INSTRUMENTS[name]
    assert re.fullmatch(r"mesh_[a-z]+(_[a-z]+)*", name)
    assert name.endswith("_total") == (instrument.kind == COUNTER)
    if instrument.kind == HISTOGRAM:
        assert name.endswith("_seconds")
        assert instrument.unit == "s"


def test_every_label_has_a_bound() -> None:
    used = {label for instrument in INSTRUMENTS.values() for label in instrument.labels}
    assert used <= set(LABELS)
    assert set(label_values(TOPOLOGY)) | PROCESS_LABELS == set(LABELS)


def test_the_bounds_follow_from_the_topology() -> None:
    found = label_values(TOPOLOGY)
    assert found["agent"] == {"", "echo", OTHER}
    assert found["group"] == {"shop.intake", "shop.orchestrator", "shop.monitor", "shop.monitor-faust", "shop.echo"}
    assert found["topic"] == {"asks", "answers", "shop.inbox", "shop.outcomes", "shop.dead", "shop.tasks.echo"}
    assert found["partition"] == {"0", "1", "2", "3"}
    assert found["scope"] == {"mesh", "echo"}


def test_a_code_that_is_not_in_the_table_is_not_a_label() -> None:
    assert known_reason("timed_out") == "timed_out"
    assert known_reason("order-4711 not found") == OTHER
