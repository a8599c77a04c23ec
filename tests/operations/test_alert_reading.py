"""The alerts that stand, read from the log."""

from pathlib import Path

from mesh.adapters.sqlite import SqliteLog
from mesh.app.wiring import topic_specs
from mesh.core.metrics.alerts import ALERTED, AlertFact, alert_record
from mesh.operations.alert_reading import alerts_now
from tests.core.metrics.scenario import MESH


async def test_alerts_are_read_from_mesh_control(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "mesh.db")
    await log.start()
    try:
        assert await alerts_now(log, MESH) == {}  # the topic is missing
        await log.create_topics(topic_specs(MESH))
        fact = AlertFact("slow", "agent:plan", ALERTED, "p95 is 3000 ms")
        await log.append([alert_record(fact, MESH)])
        (found,) = (await alerts_now(log, MESH)).values()
    finally:
        await log.close()
    assert found._replace(at_ms=0) == fact
    assert found.at_ms > 0
