"""Maintenance of a mirrored board: notices a new incarnation, restores lost values, compacts mesh.board.

A new incarnation (after a restart, failover or wipe) is incomplete until it was compared with mesh.board. Until then
the store refuses writes that depend on a value which may be lost. No value was lost if the incarnation before it was
complete and the new one began at or behind the last mirrored version. Otherwise everything on mesh.board is compared,
and missing values are restored (`runtime.board_rebuild`).

mesh.board has no log compaction. Two writers of a key may overtake each other between the board and the log, and
compaction would keep the later record instead of the later change. Instead the holder of a lease copies the newest
changes to the end from time to time and trims what lies before. The topic's size follows the number of keys.
"""

import asyncio
from contextlib import aclosing
from secrets import token_hex

from mesh.adapters.diagnostics import diagnostics
from mesh.adapters.ports import Board, Bounds, Clock, Log
from mesh.core.board.changelog import BoardChangelog, BoardRestart, restart_record
from mesh.core.errors import NotFound, Unavailable
from mesh.core.protocol.record import NewRecord, TopicPartition
from mesh.core.topology.model import Topology
from mesh.runtime.board_changelog import append_records, board_bounds, fold, read_tail
from mesh.runtime.board_rebuild import Rebuild
from mesh.runtime.log_reader import read_records

LOOK_EVERY_MS = 1_000
TIDY_EVERY_MS = 60_000
TIDY_FROM_RECORDS = 20_000
"""Number of records from which mesh.board is compacted, as soon as half of them are superseded."""
TIDY_LEASE = "mesh.board/tidy"
RESTORE_LEASE = "mesh.board/restore"
RESTORE_LEASE_MS = 5_000
"""Time after which another process restores too, because the holder may have died. Both may write: each write is a
compare-and-set. It is less than `context.COMPLETE_WAIT_MS`, so that a holder's death fails no call of an agent."""
SETTLE_MS = 500
COPIES_AT_ONCE = 200
_log = diagnostics("board")


class BoardMaintainer:
    """Maintains one board from one process. Any number of processes may do so."""

    def __init__(
        self,
        log: Log,
        board: Board,
        topology: Topology,
        clock: Clock,
        *,
        tidy_every_ms: int = TIDY_EVERY_MS,
        tidy_from_records: int = TIDY_FROM_RECORDS,
    ) -> None:
        self._log, self._board, self._topology, self._clock = log, board, topology, clock
        self._tidy_every_ms, self._tidy_from_records = tidy_every_ms, tidy_from_records
        self._incarnation = ""
        """The last incarnation seen; "": none yet."""
        self._complete = False
        """Whether that incarnation is known to be complete."""
        self._keys = 0
        """Number of keys with a value at the last count."""
        self._available = True
        self._holder = b'"%s"' % token_hex(8).encode()

    async def run(self, stop: asyncio.Event) -> None:
        """Check once a second and compact once a minute, until `stop`. Logs once that a store is unavailable."""
        maintaining = asyncio.get_running_loop().create_task(self._maintain(), name="maintain the board")
        stopped = asyncio.get_running_loop().create_task(stop.wait(), name="stop of board maintenance")
        try:
            await asyncio.wait((maintaining, stopped), return_when=asyncio.FIRST_COMPLETED)
        finally:
            maintaining.cancel()
            stopped.cancel()
            await asyncio.wait((maintaining, stopped))
        if not (stop.is_set() and maintaining.cancelled()):
            maintaining.result()

    async def _maintain(self) -> None:
        tidied_ms = self._clock.monotonic_ms()
        while True:
            try:
                await self.look()
                await self.complete()
                if self._clock.monotonic_ms() - tidied_ms >= self._tidy_every_ms:
                    tidied_ms = self._clock.monotonic_ms()
                    await self.tidy()
            except (Unavailable, NotFound) as error:
                if self._available:
                    _log.warning("the board is not maintained for now", reason=str(error))
                self._available = False
            else:
                self._available = True
            await self._clock.sleep_ms(LOOK_EVERY_MS)

    async def look(self) -> BoardRestart | None:
        """Record a new incarnation on mesh.board, once for all processes. Raises Unavailable, NotFound."""
        now = await self._board.incarnation()
        if now == self._incarnation:
            return None
        incarnations = (await read_tail(self._log, self._clock, self._topology)).incarnations
        old = self._incarnation or (incarnations[-1] if incarnations else now)
        self._complete = False
        if old == now:
            self._incarnation = now
            return None
        restart = BoardRestart(old, now, self._log.now_ms())
        if incarnations[-1:] != [now]:  # otherwise another process has recorded it
            await append_records(self._log, [restart_record(restart, self._topology)])
        self._incarnation = now
        _log.warning("the board began a new incarnation", old=old, new=now, board=self._board.url)
        return restart

    async def complete(self) -> int | None:
        """Compare an incomplete store with mesh.board, restore what is missing, and mark it complete.

        Returns the number of values restored; None: the store was complete, or another process restores it. Waits
        `SETTLE_MS` first, for changes that were acknowledged before the loss and are not on mesh.board yet.
        Raises Unavailable, NotFound.
        """
        if self._complete:
            return None
        found = await self._board.completeness()
        if found.complete:
            self._complete = True
            return None
        if await self._board.lease(RESTORE_LEASE, self._holder, ttl_ms=RESTORE_LEASE_MS) != self._holder:
            return None
        await self._clock.sleep_ms(SETTLE_MS)
        written = 0
        tail = await read_tail(self._log, self._clock, self._topology)
        if not found.before or tail.counter_max(found.before) > found.since:
            written = await Rebuild(self._log, self._board, self._topology, self._clock).restore()
        self._complete = await self._board.mark_complete(self._incarnation)
        if self._complete and written:
            _log.warning("lost values of the board were restored", values=written, board=self._board.url)
        return written

    async def tidy(self) -> int:
        """Copy the newest changes to the end and trim the rest, if that saves space and no other process does it.

        Returns the number of records copied. Raises Unavailable, NotFound.
        """
        bounds = await board_bounds(self._log, self._topology)
        worth = max(self._tidy_from_records, 2 * self._keys)
        if bounds.end - bounds.start < worth:
            return 0
        ttl_ms = max(self._tidy_every_ms // 2, 1)
        if await self._board.lease(TIDY_LEASE, self._holder, ttl_ms=ttl_ms) != self._holder:
            return 0
        mirror = BoardChangelog(values=False)
        await fold(mirror, self._log, self._clock, self._topology, bounds)
        newest = mirror.newest()
        self._keys = len(newest)
        if bounds.end - bounds.start < 2 * self._keys:
            return 0
        await append_records(self._log, [restart_record(restart, self._topology) for restart in mirror.restarts])
        await self._copy({held.offset for held in newest.values()}, bounds)
        await self._log.trim(TopicPartition(self._topology.board, 0), bounds.end)
        _log.info("changes of the board were compacted", before=bounds.end - bounds.start, left=self._keys)
        return self._keys

    async def _copy(self, offsets: set[int], bounds: Bounds) -> None:
        batch: list[NewRecord] = []
        topic = self._topology.board
        async with aclosing(read_records(self._log, topic, {0: bounds}, self._clock)) as stored:
            async for record in stored:
                if record.offset in offsets:
                    batch.append(NewRecord(topic, record.key, record.value, record.headers, 0))
                if len(batch) == COPIES_AT_ONCE:
                    await append_records(self._log, batch)
                    batch = []
        await append_records(self._log, batch)
