"""The write lock of an embedded file, locked on purpose so that no process can write to it (`mesh break`).

It is a lock of the operating system, which ends with the process in any case.
"""

import asyncio
import sqlite3
import time
from pathlib import Path

from mesh.adapters.sqlite.storage.failure import is_busy, unavailable
from mesh.core.errors import Unavailable

FREE_S = 0.02
"""Time between two locks of a slow file: enough for waiting processes to write."""
_TRY_EVERY_S = 0.002


async def hold_lock(path: Path, *, for_s: float, turn_s: float | None = None) -> float:
    """Lock the file for `for_s` seconds, in intervals of `turn_s` for a slow file. Returns the seconds of being locked.

    May be cancelled, which frees the lock. Raises Unavailable when the file cannot be locked at all.
    """
    try:
        return await _hold(path, for_s, turn_s)
    except sqlite3.Error as error:
        raise unavailable(Unavailable, error, operation="locking it", where=str(path)) from error


async def _hold(path: Path, for_s: float, turn_s: float | None) -> float:
    connection = sqlite3.connect(path, isolation_level=None, timeout=0)
    began = time.monotonic()
    end, held_s = began + for_s, 0.0
    try:
        while time.monotonic() < end:
            await _begin(connection, end)
            since = time.monotonic()
            turn_ends = min(end, since + turn_s) if turn_s is not None else end
            await asyncio.sleep(max(0.0, turn_ends - since))
            if connection.in_transaction:
                connection.execute("ROLLBACK")
                held_s += time.monotonic() - since
            await asyncio.sleep(FREE_S if turn_s is not None else 0)
    finally:
        connection.close()
    return held_s


async def _begin(connection: sqlite3.Connection, end: float) -> None:
    """Take the lock between the writes of other processes; give up at `end`."""
    while time.monotonic() < end:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise
            await asyncio.sleep(_TRY_EVERY_S)
        else:
            return
