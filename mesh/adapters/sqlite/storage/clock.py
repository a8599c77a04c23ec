"""The clock of one file: the same time in all processes that share it, whatever their wall clocks say; never set back.

It is the wall clock of the process that opened the file first, and goes on by the machine's uptime. So it does not
follow when somebody sets the wall clock, in either direction; it does when the file is opened while nobody has it open,
and then only forward: a record is never stamped earlier than one before it.
"""

import sqlite3
from pathlib import Path

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Clock

SCHEMA = ("CREATE TABLE IF NOT EXISTS clock (one INTEGER PRIMARY KEY CHECK (one = 1), boot TEXT, ahead_ms INTEGER)",)
BEHIND_MS_MAX = 1_000
"""Of the wall clock, when the file is opened by its only user: beyond that the file's clock is set forward."""
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class FileClock(SystemClock):
    """`Clock` whose `now_ms` is the file's. Until `settle` it is the machine's."""

    def __init__(self, machine: Clock | None = None) -> None:
        self._machine = machine or SystemClock()
        self._ahead_ms: int | None = None
        """The file's time minus the machine's uptime."""

    def now_ms(self) -> int:
        """See `Log.now_ms`."""
        if self._ahead_ms is None:
            return self._machine.now_ms()
        return round(self._machine.uptime_ms()) + self._ahead_ms

    def settle(self, connection: sqlite3.Connection, *, newest_ms: int, alone: bool) -> None:
        """Agree with the other processes about the time, in a transaction. `newest_ms`: of all records in the file.
        `alone`: nobody else has the file open."""
        for statement in SCHEMA:
            connection.execute(statement)
        found = connection.execute("SELECT boot, ahead_ms FROM clock").fetchone()
        boot, uptime_ms, wall_ms = _boot(), round(self._machine.uptime_ms()), self._machine.now_ms()
        ahead_ms = wall_ms - uptime_ms
        if found is not None and found[0] == boot and not (alone and ahead_ms - found[1] > BEHIND_MS_MAX):
            ahead_ms = found[1]
        ahead_ms = max(ahead_ms, newest_ms - uptime_ms)
        if found != (boot, ahead_ms):
            connection.execute("INSERT OR REPLACE INTO clock VALUES (1, ?, ?)", (boot, ahead_ms))
        self._ahead_ms = ahead_ms


def _boot() -> str:
    """The life of the machine from which its uptime counts; empty where it has no name."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""
