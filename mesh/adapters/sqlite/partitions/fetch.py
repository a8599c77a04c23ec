"""Reads from the file: positions in several partitions, and the records from there on."""

import asyncio
import sqlite3
import time
from collections.abc import Mapping, Sequence

from mesh.adapters.sqlite.partitions.batch import StoredBatch, decode
from mesh.adapters.sqlite.partitions.catalog import OFFSET_BITS, OFFSET_MASK
from mesh.adapters.sqlite.storage.file import ReadableFile
from mesh.core.errors import InvalidInput, NotFound
from mesh.core.protocol.record import Record, TopicPartition

# Begins with the batch that holds the wanted offset, which need not be the first of the batch.
_FETCH = """
SELECT id, at_ms, records, keys, bodies, shapes, headers FROM batches
WHERE id >= coalesce((SELECT max(id) FROM batches WHERE id >= ?1 AND id <= ?2), ?2) AND id < ?3 ORDER BY id
"""


class _Cursor:
    """The next offset of one partition, and records of a batch that was read but not delivered whole."""

    __slots__ = ("number", "partition", "paused", "position", "read_ahead", "unread")

    def __init__(self, partition: TopicPartition, number: int, position: int, paused: bool) -> None:
        self.partition = partition
        self.number = number
        self.position = position
        self.paused = paused
        self.unread = True
        """False once the end was reached, until a wake-up."""
        self.read_ahead: list[Record] = []


class Fetcher:
    """The positions of one reader or member. Wake-ups tell which partitions to read."""

    def __init__(self, file: ReadableFile) -> None:
        self._file = file
        self._cursors: dict[TopicPartition, _Cursor] = {}
        self._by_number: dict[int, _Cursor] = {}
        self._first = 0
        self.wakeup = file.subscribe(())

    def add(self, partition: TopicPartition, number: int, position: int, *, paused: bool) -> None:
        _check(partition, position)
        cursor = _Cursor(partition, number, position, paused)
        self._cursors[partition] = cursor
        self._by_number[number] = cursor
        self._update_channels()

    def remove(self, partition: TopicPartition) -> None:
        cursor = self._cursors.pop(partition)
        del self._by_number[cursor.number]
        self._update_channels()

    def __contains__(self, partition: TopicPartition) -> bool:
        return partition in self._cursors

    def position(self, partition: TopicPartition) -> int | None:
        cursor = self._cursors.get(partition)
        return None if cursor is None else cursor.position

    def seek(self, partition: TopicPartition, offset: int) -> None:
        _check(partition, offset)
        cursor = self._cursors[partition]
        cursor.position = offset
        cursor.read_ahead = []
        cursor.unread = True
        self.wakeup.set(())

    def pause(self, partition: TopicPartition) -> None:
        self._cursors[partition].paused = True

    def resume(self, partition: TopicPartition) -> None:
        self._cursors[partition].paused = False
        self.wakeup.set(())

    def close(self) -> None:
        self.wakeup.close()
        self.wakeup.set(())
        self._cursors.clear()
        self._by_number.clear()

    def take(self, records_max: int) -> dict[TopicPartition, list[Record]]:
        """Take the records that are there now, at most `records_max` in all. Raises LogUnavailable."""
        self._note_wakeup()
        taken: dict[TopicPartition, list[Record]] = {}
        cursors = list(self._cursors.values())
        # Each call begins with another partition, so that a full one does not starve the others.
        self._first = first = (self._first + 1) % len(cursors) if cursors else 0
        for cursor in cursors[first:] + cursors[:first]:
            if cursor.paused or records_max <= 0 or not (cursor.unread or cursor.read_ahead):
                continue
            records = self._file.read(lambda connection: _fetch(connection, cursor, records_max), operation="fetch")  # noqa: B023
            if records:
                taken[cursor.partition] = records
                records_max -= len(records)
        return taken

    async def poll(self, records_max: int, wait_ms: float) -> dict[TopicPartition, list[Record]]:
        """Take records, after a wait for a wake-up of up to `wait_ms` if there are none.

        There is no await after `take`, so that the caller still owns the partitions of the records.
        """
        # A caller that polls a full log in a loop must let other tasks run.
        await asyncio.sleep(0)
        taken = self.take(records_max)
        if taken or wait_ms <= 0:
            return taken
        await self.wakeup.wait(wait_ms)
        return self.take(records_max)

    def _update_channels(self) -> None:
        self.wakeup.channels = set(self._by_number)
        self.wakeup.set(())

    def _note_wakeup(self) -> None:
        if self.wakeup.everything:
            for cursor in self._cursors.values():
                cursor.unread = True
        else:
            for number in self.wakeup.fired:
                if number in self._by_number:
                    self._by_number[number].unread = True
        self.wakeup.clear()


def _fetch(connection: sqlite3.Connection, cursor: _Cursor, records_max: int) -> list[Record]:
    """Read up to `records_max` records from the cursor's position, and advance it."""
    found = cursor.read_ahead
    position = cursor.position + len(found)
    if len(found) < records_max:
        base = cursor.number << OFFSET_BITS
        rows = connection.execute(_FETCH, (base, base | position, (cursor.number + 1) << OFFSET_BITS))
        ended = True
        for row_id, at_ms, *columns in rows:
            offset = row_id & OFFSET_MASK
            records = decode(*cursor.partition, offset, at_ms, StoredBatch._make(columns))
            if offset < position:
                records = records[position - offset :]
            found = found + records if found else records
            if len(found) >= records_max:
                ended = False
                break
        rows.close()  # an open statement would hold the WAL
        cursor.unread = not ended
    taken, cursor.read_ahead = found[:records_max], found[records_max:]
    if taken:
        cursor.position = taken[-1].offset + 1
    elif cursor.position < (start := _start(connection, cursor.number)):
        cursor.position = start
    return taken


def _start(connection: sqlite3.Connection, number: int) -> int:
    return int(connection.execute("SELECT start FROM partitions WHERE number = ?", (number,)).fetchone()[0])


class SqliteReader:
    """A reader of chosen partitions outside any group; see `ports.Reader`."""

    def __init__(self, file: ReadableFile, positions: Mapping[TopicPartition, int], numbers: Sequence[int]) -> None:
        self._fetcher = Fetcher(file)
        for (partition, position), number in zip(positions.items(), numbers, strict=True):
            self._fetcher.add(TopicPartition(*partition), number, position, paused=False)

    async def poll(self, *, records_max: int, wait_ms: int) -> Sequence[Record]:
        """Return the next records, in order per partition; empty after `wait_ms` without any. Raises LogUnavailable."""
        until = time.monotonic() + wait_ms / 1000
        while True:
            taken = await self._fetcher.poll(records_max, (until - time.monotonic()) * 1000)
            if taken or time.monotonic() >= until:
                return [record for records in taken.values() for record in records]

    def position(self, partition: TopicPartition) -> int:
        """Return the next offset to read. Raises NotFound for a partition that is not read here."""
        position = self._fetcher.position(partition)
        if position is None:
            raise _foreign(partition)
        return position

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read on from `offset`. Raises NotFound for a partition that is not read here."""
        if partition not in self._fetcher:
            raise _foreign(partition)
        self._fetcher.seek(partition, offset)

    async def close(self) -> None:
        self._fetcher.close()


def _check(partition: TopicPartition, offset: int) -> None:
    if not 0 <= offset <= OFFSET_MASK:
        raise InvalidInput(
            f"invalid offset in {partition[0]}:{partition[1]}",
            code="invalid",
            expected=f"0 to {OFFSET_MASK}",
            got=str(offset),
        )


def _foreign(partition: TopicPartition) -> NotFound:
    return NotFound(f"{partition[0]}:{partition[1]} is not read here", remedy="Name it in `Log.reader`")
