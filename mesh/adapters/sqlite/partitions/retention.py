"""Removal of records: those older than their topic's `retention.ms`, and those before an offset."""

import sqlite3

from mesh.adapters.ports import Clock
from mesh.adapters.sqlite.partitions import catalog
from mesh.adapters.sqlite.partitions.catalog import OFFSET_BITS, OFFSET_MASK, Catalog
from mesh.adapters.sqlite.storage.connection import is_mostly_free, shrink
from mesh.adapters.sqlite.storage.file import SqliteFile
from mesh.core.errors import LogUnavailable

_BATCHES_A_WRITE = 100


async def sweep_often(file: SqliteFile, clock: Clock, pause_ms: int) -> None:
    """Sweep until cancelled. Every process on the file may do so."""
    while True:
        await clock.sleep_ms(pause_ms)
        try:
            await sweep(file, clock)
        except LogUnavailable:
            continue  # appends fail as well and report it; old records can wait


async def sweep(file: SqliteFile, clock: Clock) -> int:
    """Remove expired records and shorten the file, in small steps, since each holds the write lock.

    Returns the number of records removed."""
    topics = Catalog()
    file.read(topics.load, operation="retention")
    removed = 0
    for topic in topics.topics.values():
        if topic.retention_ms is None:
            continue
        horizon_ms = clock.now_ms() - topic.retention_ms
        for number in range(topic.first, topic.first + topic.partitions):
            while gone := await _remove_some(file, number, horizon_ms):
                removed += gone
    while file.read(is_mostly_free, operation="retention"):
        await file.write(shrink, operation="retention", wakes=())
    return removed


async def _remove_some(file: SqliteFile, number: int, horizon_ms: int) -> int:
    def old_until(connection: sqlite3.Connection) -> int:
        end = catalog.ends(connection, (number,))[number]
        until = catalog.first_at(connection, number, end, horizon_ms)
        return until if until > end.start else 0

    until = file.read(old_until, operation="retention")
    return await remove_some(file, number, until) if until else 0


async def remove_some(file: SqliteFile, number: int, until: int) -> int:
    """Remove the first batches that lie entirely before an offset. Returns the number of records removed."""
    base = number << OFFSET_BITS

    def job(connection: sqlite3.Connection) -> int:
        before = catalog.ends(connection, (number,))[number]
        old = [
            row[0]
            for row in connection.execute(
                "SELECT id FROM batches WHERE id >= ? AND id < ? AND id + records <= ? ORDER BY id LIMIT ?",
                (base, base | until, base | until, _BATCHES_A_WRITE),
            ).fetchall()
        ]
        if not old:
            return 0
        connection.executemany("DELETE FROM batches WHERE id = ?", [(row_id,) for row_id in old])
        first = connection.execute(
            "SELECT min(id) FROM batches WHERE id >= ? AND id < ?", (base, (number + 1) << OFFSET_BITS)
        ).fetchone()[0]
        start = before.end if first is None else first & OFFSET_MASK
        # Times and offsets must not fall back when no record is left.
        connection.execute(
            "UPDATE partitions SET start = ?, last_ms = ? WHERE number = ?", (start, before.last_ms, number)
        )
        return start - before.start

    return await file.write(job, operation="retention", wakes=(number,))
