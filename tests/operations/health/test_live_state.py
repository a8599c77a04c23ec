"""The state of a mesh from a real log: what is counted, what waits, what stands still."""

from contextlib import aclosing

from mesh.adapters.sqlite import SqliteLog
from mesh.core.metrics.alerts import ALERTED, CLEARED, AlertFact, alert_record
from mesh.core.metrics.definitions import DEFINITIONS
from mesh.core.metrics.window_records import WindowPart, window_record
from mesh.core.metrics.windows import BASE_MS, PartitionWindows
from mesh.core.protocol.record import NewRecord, TopicPartition
from mesh.core.run.control import AGENT, OPENED, RUNNING, STOPPED, Switch, control_record
from mesh.operations.health.live_state import LiveState, MeshState
from mesh.runtime.log_reader import read_records
from tests.core.metrics.scenario import BEGIN_MS, MESH
from tests.operations.test_window_reading import CLOCK, log, play

__all__ = ["log"]


def state(log: SqliteLog, span_ms: int = 60_000) -> LiveState:
    return LiveState(log, MESH, span_ms)


def answers(snapshot: MeshState) -> dict[str, int]:
    return {one.spec.name: one.measured.own.counts.get("answers", 0) for one in snapshot.agents}


async def test_numbers_are_those_of_the_records(log: SqliteLog) -> None:
    await play(log)
    found = await state(log).take()
    assert answers(found) == {"plan": 3, "ship": 2, "hand": 2}
    assert found.measured.own.counts["requests"] == 2
    plan = found.agents[0]
    assert DEFINITIONS["error_rate"].compute(plan.measured) == 1 / 3
    assert plan.lag is not None
    assert plan.lag.lag == 0
    assert ("orchestrator", 10) in [(each.consumer, each.lag) for each in found.services]
    assert not found.from_monitor


async def test_what_comes_is_counted_and_what_is_old_is_forgotten(log: SqliteLog) -> None:
    await play(log, 0, 2_000)
    live = state(log, 20_000)
    assert answers(await live.take()) == {"plan": 2, "ship": 0, "hand": 0}
    await play(log, 2_000)
    assert answers(await live.take()) == answers(await live.take()) == {"plan": 3, "ship": 2, "hand": 2}
    CLOCK.at_ms = BEGIN_MS + 30_000
    later = await live.take()
    assert answers(later) == {"plan": 0, "ship": 1, "hand": 1}
    assert later.since_ms == BEGIN_MS + BASE_MS


async def test_stops_breakers_and_alerts_come_and_go(log: SqliteLog) -> None:
    live = state(log)
    fact = AlertFact("failing", "agent:ship", ALERTED, "it is bad", BEGIN_MS, True)
    switches = [Switch(AGENT, "ship", STOPPED, "monitor", "why"), Switch("breaker", "hand", OPENED, why="5 in a row")]
    records = [control_record(switch, MESH, event_id=switch.key) for switch in switches]
    await log.append([*records, alert_record(fact, MESH)])
    plan, ship, hand = (await live.take()).agents
    assert (plan.stop, plan.breaker, plan.alerts) == (None, None, [])
    assert ship.stop is not None
    assert (ship.stop.by, [one.name for one in ship.alerts]) == ("monitor", ["failing"])
    assert hand.breaker is not None
    resumed = control_record(Switch(AGENT, "ship", RUNNING), MESH, event_id="resumed")
    await log.append([resumed, alert_record(fact._replace(state=CLEARED), MESH)])
    after = await live.take()
    assert (after.agents[1].stop, after.alerts) == (None, {})


async def test_windows_of_a_monitor_are_used_and_named(log: SqliteLog) -> None:
    await play(log)
    CLOCK.at_ms = BEGIN_MS + 20_000
    records: list[NewRecord] = []
    for number, bounds in (await log.bounds(MESH.inbox)).items():
        part = PartitionWindows(MESH, TopicPartition(MESH.inbox, number))
        async with aclosing(read_records(log, MESH.inbox, {number: bounds})) as stored:
            part.take([record async for record in stored])
        for start, scopes in part.windows.items():
            for scope, aggregate in scopes.items():
                window = WindowPart(part.place, start, scope, part.next_offset, aggregate)
                records.append(window_record(window, MESH))
    await log.append(records)
    found = await state(log).take()
    assert found.from_monitor
    assert answers(found) == {"plan": 3, "ship": 2, "hand": 2}
    CLOCK.at_ms = BEGIN_MS + 200_000
    assert not (await state(log, 300_000).take()).from_monitor
