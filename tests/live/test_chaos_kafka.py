"""Real Kafka and Redis, broken in every way of the table: nothing acknowledged is lost, nothing ends twice.

The faults and their criteria are in `chaos/faults_*.py`. They share a broker and a mesh, and act one after the other;
those whose criteria stay apart act together. `make chaos` runs the same at full scale.
"""

from pathlib import Path

import pytest

from tests.live.chaos.fault import CI
from tests.live.chaos.field import Field, complaints
from tests.live.chaos.table import ON_CLUSTER, ON_KAFKA

pytestmark = pytest.mark.live

TOGETHER = (
    ("F14", "F21", "F24", "F25", "F34", "F35", "F36"),
    ("F01",),
    ("F02",),
    ("F03", "F03i"),
    ("F04",),
    ("F07", "F22"),
    ("F19",),
    ("F20",),
    ("F15", "F16"),
    ("F17",),
    ("F33", "F26"),
    ("F08",),
    ("F09",),
    ("F10",),
    ("F11",),
    ("F12",),
    ("F05",),
    ("F37",),
)


async def test_kafka_and_redis_are_broken_in_every_way_and_nothing_is_lost(tmp_path: Path) -> None:
    async with Field(tmp_path, CI) as field:
        for names in TOGETHER:
            await field.run(*(ON_KAFKA[name] for name in names))
        assert complaints(*await field.verdict()) == []


async def test_kafka_brokers_are_restarted_one_after_the_other_and_nothing_is_lost(tmp_path: Path) -> None:
    async with Field(tmp_path, CI, brokers=3) as field:
        for fault in ON_CLUSTER.values():
            await field.run(fault)
        assert complaints(*await field.verdict()) == []
