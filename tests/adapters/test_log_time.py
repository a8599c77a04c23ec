"""Log time by acknowledgements, the question at the start, and the line about clocks that differ."""

import logging
from typing import Any

import pytest

from mesh.adapters.clock import SystemClock
from mesh.adapters.log_time import SKEW_MS_MAX, LogTime, SkewWatch, ask_time
from mesh.adapters.ports import Appended, Refused
from mesh.core.protocol.record import NewRecord
from mesh.core.topology.loader import load

HOUR_MS = 3_600_000
AT_MS = 1_795_176_000_000
MESH = load("mesh: {name: t}\ntopics: {asks: {ingress: ask, partitions: 1}}\nagents: {echo: {run: 'x:y', on: ask}}")


class HandClock(SystemClock):
    """Both times stand still until they are moved."""

    def __init__(self) -> None:
        self.wall_ms, self.up_ms = AT_MS, 1_000.0

    def now_ms(self) -> int:
        return self.wall_ms

    def uptime_ms(self) -> float:
        return self.up_ms

    def passes(self, ms: float) -> None:
        self.up_ms += ms
        self.wall_ms += int(ms)


class Told:
    """A log with a known or unknown time. It stores appended records, or refuses them."""

    def __init__(self, clock: HandClock, verdict: Appended | Refused | None = None) -> None:
        self.time = LogTime(clock)
        self.appended: list[NewRecord] = []
        self._verdict = verdict or Appended(0, 0)

    def now_ms(self) -> int:
        return self.time.now_ms()

    @property
    def knows_time(self) -> bool:
        return self.time.known

    async def append(self, records: Any) -> Any:
        self.appended += records
        if isinstance(self._verdict, Appended):
            self.time.stamped(AT_MS + HOUR_MS, self.time.sent_ms())
        return [self._verdict for _ in records]


def test_before_any_acknowledgement_the_wall_clock_is_used() -> None:
    clock = HandClock()
    time = LogTime(clock)
    assert (time.known, time.now_ms()) == (False, AT_MS)


def test_log_time_goes_on_by_the_uptime_whatever_happens_to_the_wall_clock() -> None:
    clock = HandClock()
    time = LogTime(clock)
    time.stamped(AT_MS + HOUR_MS, time.sent_ms())
    clock.passes(5_000)
    clock.wall_ms -= 2 * HOUR_MS
    assert (time.known, time.now_ms()) == (True, AT_MS + HOUR_MS + 5_000)


def test_an_acknowledgement_bounds_log_time_from_both_sides() -> None:
    clock = HandClock()
    time = LogTime(clock)
    time.stamped(AT_MS, time.sent_ms())
    sent_ms = time.sent_ms()
    clock.passes(300)  # on the way there and back
    time.stamped(AT_MS + 200, sent_ms)
    assert time.now_ms() == AT_MS + 300, "that fits: the stamp was made within the round trip"
    sent_ms = time.sent_ms()
    clock.passes(100)
    time.stamped(AT_MS + 900, sent_ms)
    assert time.now_ms() == AT_MS + 900, "the log's clock is further than we thought"
    sent_ms = time.sent_ms()
    clock.passes(100)
    time.stamped(AT_MS + 500, sent_ms)
    assert time.now_ms() == AT_MS + 600, "and now it cannot be further than this"


@pytest.mark.parametrize("step_ms", [HOUR_MS, -HOUR_MS])
def test_it_follows_a_log_whose_clock_jumps(step_ms: int) -> None:
    clock = HandClock()
    time = LogTime(clock)
    time.stamped(AT_MS, time.sent_ms())
    clock.passes(1_000)
    time.stamped(AT_MS + 1_000 + step_ms, time.sent_ms())
    assert time.now_ms() == AT_MS + 1_000 + step_ms


async def test_a_log_of_unknown_time_is_asked_once() -> None:
    log = Told(HandClock())
    await ask_time(log, MESH)  # type: ignore[arg-type]  # as much of a log as is asked for
    await ask_time(log, MESH)  # type: ignore[arg-type]
    assert [record.topic for record in log.appended] == ["t.clock"]
    assert log.now_ms() == AT_MS + HOUR_MS


async def test_a_log_without_the_right_to_ask_is_reported_with_the_fix(caplog: Any) -> None:
    log = Told(HandClock(), Refused("unknown_topic", "there is none"))
    with caplog.at_level(logging.WARNING):
        await ask_time(log, MESH)  # type: ignore[arg-type]
    assert "mesh topics create" in caplog.text
    assert not log.knows_time


def test_clocks_that_differ_are_reported_once_and_again_when_that_changes(caplog: Any) -> None:
    clock = HandClock()
    log = Told(clock)
    watch = SkewWatch(log, clock)  # type: ignore[arg-type]
    with caplog.at_level(logging.INFO):
        watch.look()
        log.time.stamped(AT_MS, log.time.sent_ms())
        watch.look()
        clock.wall_ms += SKEW_MS_MAX
        watch.look()
        assert not caplog.records, "unknown, equal, within the bound"
        clock.wall_ms += HOUR_MS
        watch.look()
        watch.look()
        assert len(caplog.records) == 1
        assert "3602.0" in caplog.text
        clock.wall_ms -= HOUR_MS
        watch.look()
        watch.look()
    assert len(caplog.records) == 2
    assert "agrees with the log's again" in caplog.text
