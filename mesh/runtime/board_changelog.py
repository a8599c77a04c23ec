"""Reads and appends of mesh.board, the changes of the board on the log.

Workers append the changes of agents (`services.worker.outbox`). A board in the log's own file has no mirror: a
rollback of the file rolls back both.
"""

from collections.abc import Sequence
from contextlib import aclosing

from mesh.adapters.diagnostics import diagnostics
from mesh.adapters.ports import Appended, Board, Bounds, Clock, Log, ReadLog
from mesh.core.board.changelog import BoardChange, BoardChangelog, change_record
from mesh.core.errors import LogUnavailable
from mesh.core.protocol.record import NewRecord
from mesh.core.topology.model import Topology
from mesh.runtime.log_reader import read_records

TAIL_RECORDS = 200
"""Number of latest records that tell in which incarnation the board was last written."""
_log = diagnostics("board")


def is_mirrored(log: ReadLog, board: Board) -> bool:
    """Return whether the board is stored apart from the log."""
    return log.url != board.url


async def read_mirror(log: ReadLog, clock: Clock, topology: Topology, *, values: bool = True) -> BoardChangelog:
    """Read all of mesh.board. Raises NotFound without the topic, LogUnavailable."""
    mirror, known = BoardChangelog(values=values), await board_bounds(log, topology)
    position = known.start
    while True:
        await fold(mirror, log, clock, topology, Bounds(position, known.end))
        position, now = known.end, await board_bounds(log, topology)
        if now.start == known.start:
            return mirror
        known = now  # compacted meanwhile: the removed records were copied behind the last offset read


async def read_tail(log: ReadLog, clock: Clock, topology: Topology) -> BoardChangelog:
    """Read the last changes, without their values. Raises NotFound without the topic, LogUnavailable."""
    bounds = await board_bounds(log, topology)
    mirror = BoardChangelog(values=False)
    await fold(mirror, log, clock, topology, Bounds(max(bounds.start, bounds.end - TAIL_RECORDS), bounds.end))
    return mirror


async def mirror_changes(log: Log, topology: Topology, changes: Sequence[BoardChange]) -> None:
    """Append changes that no agent made. Returns when they are durable; raises LogUnavailable."""
    await append_records(log, [change_record(change, topology) for change in changes])


async def append_records(log: Log, records: Sequence[NewRecord]) -> None:
    """Append to mesh.board. Raises LogUnavailable, also when the log refuses a record."""
    for verdict in await log.append(records) if records else ():
        if not isinstance(verdict, Appended):
            raise LogUnavailable(
                f"the log refused a change of the board: {verdict.message}",
                where=f"{log.url} {records[0].topic}",
                remedy="Grant the right to write to it",
            )


async def board_bounds(log: ReadLog, topology: Topology) -> Bounds:
    """Return the first and next offset of mesh.board. Raises NotFound without the topic, LogUnavailable."""
    return (await log.bounds(topology.board))[0]


async def fold(mirror: BoardChangelog, log: ReadLog, clock: Clock, topology: Topology, bounds: Bounds) -> None:
    """Fold a span of mesh.board into `mirror`. Raises LogUnavailable."""
    async with aclosing(read_records(log, topology.board, {0: bounds}, clock)) as stored:
        async for record in stored:
            flaw = mirror.fold(record)
            if flaw is not None:
                _log.warning("a record of mesh.board was skipped", code=flaw.code, reason=flaw.message)
