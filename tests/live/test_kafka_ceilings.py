"""The limit of a real broker: by Kafka's own tool, or by aiokafka without that tool."""

from itertools import pairwise

import pytest

from bench.ceilings import TOOL, log_alone, tool, with_aiokafka
from bench.field import Setup
from bench.logged import broker_cpu_s
from bench.workloads.run1 import TEXT

pytestmark = pytest.mark.live


async def test_kafkas_own_tool_loads_the_broker_and_its_cpu_time_is_seen(kafka_bootstrap: str) -> None:
    used = [broker_cpu_s(f"kafka://{kafka_bootstrap}")]
    async with Setup(log=f"kafka://{kafka_bootstrap}").field(TEXT) as field:
        found = await log_alone(field, 500, records=20_000)
        bounds = await field.log.bounds(f"{field.topology.prefix}.ceiling")
    used.append(broker_cpu_s(f"kafka://{kafka_bootstrap}"))
    assert found.by == TOOL
    assert found.records_per_s > 500
    assert sum(b.end - b.start for b in bounds.values()) == 20_000
    assert all(before is not None and after is not None and before < after for before, after in pairwise(used))


async def test_by_hand_the_same_topic_takes_as_many_records(kafka_bootstrap: str) -> None:
    async with Setup(log=f"kafka://{kafka_bootstrap}").field(TEXT) as field:
        topic = field.topology.outcomes
        found = await with_aiokafka(kafka_bootstrap, topic, 500, 5_000)
        bounds = await field.log.bounds(topic)
    assert found.records_per_s > 500
    assert sum(b.end - b.start for b in bounds.values()) >= 5_000


async def test_a_tool_that_fails_says_why(kafka_bootstrap: str) -> None:
    with pytest.raises(RuntimeError, match=TOOL):
        await tool(kafka_bootstrap, "not a topic!", 500, 1_000)


async def test_a_broker_with_authentication_is_not_measured_by_the_tool(
    kafka_bootstrap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESH_KAFKA__SECURITY_PROTOCOL", "SASL_SSL")
    assert await tool(kafka_bootstrap, "any", 500, 1_000) is None
