"""One heartbeat for all members of a process."""

import asyncio
import time
from collections import Counter

import pytest

from mesh.adapters.ports import TopicSpec
from mesh.adapters.sqlite import SqliteLog
from mesh.adapters.sqlite.groups.heartbeat import Heartbeat
from tests.adapters.log_kit import Recorder, until


class Pulse:
    """A member that only lives."""

    def __init__(self, member_id: str, session_timeout_ms: int) -> None:
        self.member_id = member_id
        self.session_timeout_ms = session_timeout_ms
        self.gone = False
        self.errors: list[tuple[Exception, bool]] = []

    def expelled(self) -> None:
        self.gone = True

    def fail(self, error: Exception, *, for_good: bool = False) -> None:
        self.errors.append((error, for_good))


@pytest.fixture
async def heartbeat(log: SqliteLog) -> Heartbeat:
    return log._heartbeat


async def test_ten_members_cost_one_write_a_beat_and_no_wake_up(log: SqliteLog) -> None:
    await log.create_topics([TopicSpec("t", 10)])
    listeners = [Recorder() for _ in range(10)]
    for listener in listeners:
        await log.join("g", ["t"], listener, session_timeout_ms=500)
    await until(lambda: all(len(listener.held) == 1 for listener in listeners), "shares")
    done: Counter[str] = Counter()
    await log.file.write(lambda c: c.set_trace_callback(lambda sql: done.update([sql.split()[0]])), wakes=())
    done.clear()
    begun = time.monotonic()
    await until(lambda: done["COMMIT"] >= 5, "five beats")
    assert time.monotonic() - begun > 0.35
    assert done["UPDATE"] <= done["COMMIT"] + 1


async def test_a_member_that_is_not_in_the_file_is_reported(heartbeat: Heartbeat) -> None:
    pulse = Pulse("unknown", 100)
    heartbeat.add(pulse)
    await until(lambda: pulse.gone, "told")
    heartbeat.discard(pulse)


async def test_a_shorter_session_quickens_the_beat_at_once(heartbeat: Heartbeat) -> None:
    slow, quick = Pulse("slow", 60_000), Pulse("quick", 100)
    heartbeat.add(slow)
    await asyncio.sleep(0)
    heartbeat.add(quick)
    await until(lambda: quick.gone, "a beat long before the slow one's")
    heartbeat.stop()


async def test_a_dead_heartbeat_is_reported_to_every_member_for_good(heartbeat: Heartbeat, log: SqliteLog) -> None:
    pulses = [Pulse("a", 100), Pulse("b", 100)]
    heartbeat._clock = None  # type: ignore[assignment]
    for pulse in pulses:
        heartbeat.add(pulse)
    await until(lambda: all(pulse.errors for pulse in pulses), "told")
    assert all(for_good for pulse in pulses for _, for_good in pulse.errors)
    heartbeat.stop()


async def test_it_stops_with_its_last_member_and_starts_with_a_new_one(heartbeat: Heartbeat) -> None:
    first, second = Pulse("first", 100), Pulse("second", 100)
    heartbeat.add(first)
    heartbeat.discard(first)
    assert heartbeat._task is None
    heartbeat.add(second)
    await until(lambda: second.gone, "a beat")
    assert not first.gone
    heartbeat.stop()
