"""The monitor publishes the windows that a recount of the log gives: after restarts, kills and without its group."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Commit, Log
from mesh.adapters.sqlite import SqliteLog
from mesh.app.wiring import topic_specs
from mesh.core.metrics.aggregate import Aggregate
from mesh.core.metrics.measurements import source_topics
from mesh.core.metrics.window_records import read_window
from mesh.core.metrics.windows import PartitionWindows, Restart
from mesh.core.protocol.record import NewRecord, TopicPartition
from mesh.core.run.control import AGENT, RUNNING, Switch, control_record, read_switch
from mesh.core.topology.model import AlertRule, Topology
from mesh.operations.alert_reading import alerts_now
from mesh.runtime.control_follower import control_now
from mesh.services.monitor import Monitor, read_restart, write_restart
from tests.core.metrics.scenario import MESH, scenario
from tests.services.conftest import DEADLINE_S, append, read_all, settled, working

Parts = Mapping[tuple[TopicPartition, int, str], Aggregate]


class AheadClock(SystemClock):
    """A clock that the test moves ahead."""

    ahead_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms

    def uptime_ms(self) -> float:
        return super().uptime_ms() + self.ahead_ms


def monitor(log: Log) -> Monitor:
    return Monitor(log, MESH, SystemClock(), session_timeout_ms=2_000)


async def play(log: Log, first: int = 0, last: int | None = None) -> None:
    """Append records of the scenario; their times are those of now."""
    records = sorted((r for some in scenario().values() for r in some), key=lambda r: r.timestamp)
    await append(log, *(NewRecord(r.topic, r.key, r.value, r.headers) for r in records[first:last]))


async def published(log: Log, topology: Topology = MESH) -> Parts:
    """The parts on mesh.windows, the last one of each key."""
    found = {}
    for record in await read_all(log, topology.windows):
        part = read_window(record)
        assert part is not None
        found[part.place, part.start_ms, part.scope] = part.aggregate
    return found


async def recounted(log: Log, topology: Topology = MESH) -> Parts:
    """The parts that the log gives."""
    found = {}
    for topic in source_topics(topology):
        counts: dict[int, PartitionWindows] = {}
        for record in await read_all(log, topic):
            place = TopicPartition(topic, record.partition)
            counts.setdefault(record.partition, PartitionWindows(topology, place)).take([record])
        for part in counts.values():
            for start, scopes in part.windows.items():
                found.update({(part.place, start, scope): aggregate for scope, aggregate in scopes.items()})
    return found


async def counted(log: Log, topology: Topology = MESH) -> None:
    """Wait until the monitor has counted everything."""
    for topic in source_topics(topology):
        await settled(log, topology.group("monitor"), topic)


async def test_a_monitor_that_ends_has_published_what_a_recount_gives(log: Log) -> None:
    async with working(log, MESH, monitor(log).run):
        await play(log)
        await counted(log)
    assert await published(log) == await recounted(log)
    assert len(await recounted(log)) > 10


async def test_a_restart_in_the_middle_of_a_window(log: Log) -> None:
    for first, last in ((0, 5), (5, 9), (9, None)):
        async with working(log, MESH, monitor(log).run):
            await play(log, first, last)
            await counted(log)
    assert await published(log) == await recounted(log)


async def test_a_window_is_published_when_it_has_ended(log: Log) -> None:
    clock = SystemClock()
    async with working(log, MESH, monitor(log).run):
        await play(log)
        async with asyncio.timeout(DEADLINE_S):
            while not (found := await published(log)):
                await clock.sleep_ms(20)
        late_ms = log.now_ms() - max(start for _, start, _ in found) - 10_000
    assert late_ms < 2_000


async def test_an_error_of_the_log_does_not_end_it(log: Log) -> None:
    stop = asyncio.Event()
    running = asyncio.ensure_future(monitor(log).run(stop))  # there are no topics yet
    await asyncio.sleep(0)
    await log.create_topics(topic_specs(MESH))
    await play(log)
    await counted(log)
    stop.set()
    async with asyncio.timeout(DEADLINE_S):
        await running
    assert await published(log) == await recounted(log)


def test_a_commit_says_where_to_begin() -> None:
    restart = Restart(12, 1_795_176_000_000)
    assert read_restart(Commit(40, write_restart(restart))) == restart
    for text in ("", "windows", "windows 1", "windows 1 x", "other 1 2"):
        assert read_restart(Commit(40, text)) is None


async def test_an_alert_stops_an_agent_and_clears_after_its_resumption(tmp_path: Path) -> None:
    clock = AheadClock()
    rule = AlertRule("failing", "error_rate", True, 0.2, 10_000, "ship", True, "error_rate > 20% for 10s", 1)
    topology = replace(MESH, alerts={"failing": rule})
    log = SqliteLog(tmp_path / "alerts.db", clock=clock)
    await log.start()

    async def until(state: tuple[list[str], list[str]]) -> None:
        """Wait for these alerts and switches."""
        async with asyncio.timeout(DEADLINE_S):
            while state != (list(await alerts_now(log, topology)), list((await control_now(log, topology)).switches)):
                await SystemClock().sleep_ms(20)

    try:
        watching = Monitor(log, topology, SystemClock(), session_timeout_ms=600_000)
        async with working(log, topology, watching.run):
            await watching.ready.wait()
            await play(log)
            await counted(log)
            clock.ahead_ms += 11_000
            await until((["alert:failing/agent:ship"], ["agent:ship"]))
            clock.ahead_ms += 20_000  # nothing is measured while it is stopped, so the alert stands
            await append(log, control_record(Switch(AGENT, "ship", RUNNING, "ann"), topology, event_id="resume"))
            clock.ahead_ms += 10_000
            await until(([], []))
        stops = [read_switch(record) for record in await read_all(log, topology.control)]
        assert isinstance(stops[1], Switch)
        assert stops[1].by == "monitor"
        assert stops[1].why == "alert failing: error_rate is 100.0 %, the rule is error_rate > 20% for 10s"
    finally:
        await log.close()
