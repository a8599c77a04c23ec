"""Read the past of the board from a recording."""

from collections.abc import Iterable
from contextlib import aclosing

from mesh.adapters.ports import ReadLog
from mesh.core.board.changelog import BoardChange, read_board_record
from mesh.core.board.past_values import MemoryPast, PastBoard, PastValue
from mesh.core.topology.model import Topology
from mesh.operations.replay.task_answers import Period, bounds_in
from mesh.runtime.log_reader import read_records


async def read_past_board(
    log: ReadLog, topology: Topology, period: Period, embedded: Iterable[PastValue] = ()
) -> MemoryPast:
    """Return the board as it stood at any time of `period`: from the changes on mesh.board, by their log times.

    `embedded`: the same of a board in the log's own file, which is not mirrored on the log. Raises LogUnavailable.
    """
    past = MemoryPast(period.since_ms or 0)
    await read_past_into(past, log, topology, period, embedded)
    return past


async def read_past_into(
    past: PastBoard, log: ReadLog, topology: Topology, period: Period, embedded: Iterable[PastValue] = ()
) -> None:
    """Read the same into what keeps it."""
    for value in embedded:
        past.take(value)
    if topology.board in await log.topics():
        bounds = await bounds_in(log, topology.board, Period(None, period.until_ms))
        async with aclosing(read_records(log, topology.board, bounds)) as records:
            async for record in records:
                change = read_board_record(record)
                if isinstance(change, BoardChange):
                    past.take(PastValue(change.key, change.value, change.version, record.timestamp, change.by))
