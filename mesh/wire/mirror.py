"""mesh.board: the changes of the board on the log. Reading them, noticing that the board began a new life, tidying up.

Workers write the changes (`services.worker.changes`). A board in the log's own file has no mirror: what rolls one back
rolls back the other. The topic is not compacted, since two writers of a key may be overtaken between the board and the
log, and compaction would keep the later record instead of the later change. Instead whoever holds a lease copies what
is newest to the end, from time to time, and trims what lies before; how much is kept follows the number of keys.
"""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from secrets import token_hex

from mesh.core.errors import LogUnavailable, NotFound, Unavailable
from mesh.core.mirror import Change, Mirror, Restart, change_record, restart_record
from mesh.core.record import NewRecord, TopicPartition
from mesh.core.topology import Topology
from mesh.wire.diagnostics import diagnostics
from mesh.wire.ports import Appended, Board, Bounds, Clock, Log
from mesh.wire.span import read_span

LOOK_EVERY_MS = 1_000
TAIL_RECORDS = 200
"""Of mesh.board, read to know in which life of the board it was last written."""
TIDY_EVERY_MS = 60_000
TIDY_FROM_RECORDS = 20_000
"""With fewer records nothing is tidied; with more, as soon as half of them are of no use."""
TIDY_LEASE = "mesh.board/tidy"
COPIES_AT_ONCE = 200
REMEDY = "What was written shortly before may be missing: `mesh board rebuild` shows it, and with --yes puts it back"
_log = diagnostics("board")


def is_mirrored(log: Log, board: Board) -> bool:
    """Whether the board is somewhere else than the log."""
    return log.url != board.url


async def read_mirror(log: Log, clock: Clock, topology: Topology, *, values: bool = True) -> Mirror:
    """All that mesh.board says now. Raises NotFound without the topic, LogUnavailable."""
    mirror, known = Mirror(values=values), await _bounds(log, topology)
    position = known.start
    while True:
        await _fold(mirror, log, clock, topology, Bounds(position, known.end))
        position, now = known.end, await _bounds(log, topology)
        if now.start == known.start:
            return mirror
        known = now  # tidied meanwhile: what we could no longer read lies copied behind where we stopped


async def mirror_changes(log: Log, topology: Topology, changes: Sequence[Change]) -> None:
    """Say on mesh.board what was written by others than agents. Returns when it is durable; raises LogUnavailable."""
    await _append(log, [change_record(change, topology) for change in changes])


class BoardKeeper:
    """Watches over one board from one process. Any number of processes may."""

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
        self._life = ""
        """The life of the board that we know of; "": none yet."""
        self._keys = 0
        """With a value, when we last counted."""
        self._well = True
        self._holder = b'"%s"' % token_hex(8).encode()

    async def run(self, stop: asyncio.Event) -> None:
        """Look once a second, tidy up once a minute, until `stop`. A store that is gone is said once and waited for."""
        keeping = asyncio.get_running_loop().create_task(self._keep(), name="keep the board")
        stopped = asyncio.get_running_loop().create_task(stop.wait(), name="board keeper stop")
        try:
            await asyncio.wait((keeping, stopped), return_when=asyncio.FIRST_COMPLETED)
        finally:
            keeping.cancel()
            stopped.cancel()
            await asyncio.wait((keeping, stopped))
        if not (stop.is_set() and keeping.cancelled()):
            keeping.result()

    async def _keep(self) -> None:
        tidied_ms = self._clock.monotonic_ms()
        while True:
            try:
                await self.look()
                if self._clock.monotonic_ms() - tidied_ms >= self._tidy_every_ms:
                    tidied_ms = self._clock.monotonic_ms()
                    await self.tidy()
            except (Unavailable, NotFound) as error:
                if self._well:
                    _log.warning("the board is not watched over for now", reason=str(error))
                self._well = False
            else:
                self._well = True
            await self._clock.sleep_ms(LOOK_EVERY_MS)

    async def look(self) -> Restart | None:
        """See whether the board began a new life, and say so if it did. Raises Unavailable, NotFound."""
        now = await self._board.incarnation()
        if now == self._life:
            return None
        lives = (await self._tail()).lives
        old = self._life or (lives[-1] if lives else now)
        if old == now:
            self._life = now
            return None
        restart = Restart(old, now, self._clock.now_ms())
        if lives[-1:] != [now]:  # else somebody has said it
            await _append(self._log, [restart_record(restart, self._topology)])
        self._life = now
        _log.warning("the board began a new life", old=old, new=now, board=self._board.url, remedy=REMEDY)
        return restart

    async def tidy(self) -> int:
        """Copy what is newest to the end and trim what lies before, if that is worth it and nobody else does it.
        Answers how many records were copied. Raises Unavailable, NotFound."""
        bounds = await _bounds(self._log, self._topology)
        worth = max(self._tidy_from_records, 2 * self._keys)
        if bounds.end - bounds.start < worth:
            return 0
        ttl_ms = max(self._tidy_every_ms // 2, 1)
        if await self._board.lease(TIDY_LEASE, self._holder, ttl_ms=ttl_ms) != self._holder:
            return 0
        mirror = Mirror(values=False)
        await _fold(mirror, self._log, self._clock, self._topology, bounds)
        newest = mirror.newest()
        self._keys = len(newest)
        if bounds.end - bounds.start < 2 * self._keys:
            return 0
        await _append(self._log, [restart_record(restart, self._topology) for restart in mirror.restarts])
        await self._copy({held.offset for held in newest.values()}, bounds)
        await self._log.trim(TopicPartition(self._topology.board, 0), bounds.end)
        _log.info("changes of the board were tidied up", before=bounds.end - bounds.start, left=self._keys)
        return self._keys

    async def _copy(self, offsets: set[int], bounds: Bounds) -> None:
        lot: list[NewRecord] = []
        place = TopicPartition(self._topology.board, 0)
        async with aclosing(read_span(self._log, self._clock, place, *bounds)) as span:
            async for records in span:
                for record in records:
                    if record.offset in offsets:
                        lot.append(NewRecord(place.topic, record.key, record.value, record.headers, 0))
                    if len(lot) == COPIES_AT_ONCE:
                        await _append(self._log, lot)
                        lot = []
        await _append(self._log, lot)

    async def _tail(self) -> Mirror:
        bounds = await _bounds(self._log, self._topology)
        mirror = Mirror(values=False)
        tail = Bounds(max(bounds.start, bounds.end - TAIL_RECORDS), bounds.end)
        await _fold(mirror, self._log, self._clock, self._topology, tail)
        return mirror


async def _append(log: Log, records: Sequence[NewRecord]) -> None:
    for verdict in await log.append(records) if records else ():
        if not isinstance(verdict, Appended):
            raise LogUnavailable(
                f"the log refused a change of the board: {verdict.message}",
                where=f"{log.url} {records[0].topic}",
                remedy="Grant the right to write to it",
            )


async def _bounds(log: Log, topology: Topology) -> Bounds:
    return (await log.bounds(topology.board))[0]


async def _fold(mirror: Mirror, log: Log, clock: Clock, topology: Topology, bounds: Bounds) -> None:
    async with aclosing(read_span(log, clock, TopicPartition(topology.board, 0), *bounds)) as span:
        async for records in span:
            for record in records:
                flaw = mirror.take(record)
                if flaw is not None:
                    _log.warning("a record of mesh.board was passed over", code=flaw.code, reason=flaw.message)
