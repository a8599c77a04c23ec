"""The clock of one file, which shows the same time in all processes that share the file and is never set back.

It starts as the wall clock of the process that opened the file first, and goes on with the machine's uptime. So a
change of the wall clock does not affect it. When the file is opened while no other process has it open, the clock may
be set forward to the wall clock. So no record is stamped earlier than one before it.
"""

import sqlite3
from pathlib import Path

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Clock

SCHEMA = ("CREATE TABLE IF NOT EXISTS clock (one INTEGER PRIMARY KEY CHECK (one = 1), boot TEXT, ahead_ms INTEGER)",)
BEHIND_MS_MAX = 1_000
"""Delay behind the wall clock from which the only user of the file sets its clock forward at the start."""
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class FileClock(SystemClock):
    """`Clock` whose `now_ms` is the file's, or the machine's until `synchronize`."""

    def __init__(self, machine: Clock | None = None) -> None:
        self._machine = machine or SystemClock()
        self._ahead_ms: int | None = None
        """The file's time minus the machine's uptime."""

    def now_ms(self) -> int:
        """See `Log.now_ms`."""
        if self._ahead_ms is None:
            return self._machine.now_ms()
        return round(self._machine.uptime_ms()) + self._ahead_ms

    def synchronize(self, connection: sqlite3.Connection, *, newest_ms: int, alone: bool) -> None:
        """Agree with the other processes about the time, in a transaction.

        `newest_ms`: time of the newest record in the file. `alone`: no other process has the file open.
        """
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

    def follow(self, connection: sqlite3.Connection, *, newest_ms: int) -> None:
        """Take over the time of the file without a write. `newest_ms`: time of the newest record in the file."""
        stored = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'clock'").fetchone() is not None
        found = connection.execute("SELECT boot, ahead_ms FROM clock").fetchone() if stored else None
        uptime_ms = round(self._machine.uptime_ms())
        ahead_ms = self._machine.now_ms() - uptime_ms
        if found is not None and found[0] == _boot():
            ahead_ms = found[1]
        self._ahead_ms = max(ahead_ms, newest_ms - uptime_ms)


def _boot() -> str:
    """Return the id of the machine's boot, from which its uptime counts; empty if it has none."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""
