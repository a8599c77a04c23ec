"""Rows of a checkpoint: an open run, or the memory of one that ended, as one line of text. Pure.

    1795176060010 0b1c2d3e4f5a6b7c [["<task>",2,1795176001000]] ["run-1","order.placed",…]
    deadline      topology         waiting tasks: attempt, due   the run

    118 0b1c2d3e4f5a6b7c ["completed",…]
    where it ended, topology of the run that is kept (or -), the memory

The fields that a restore needs of every run come first, so the rest is read only for runs that get an event. These
first words contain no blank: ids and digests have none, and orjson writes none between values. The rest may have some.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

import orjson

from mesh.core.run.effects import Schedule
from mesh.core.run.state import Ended, Run
from mesh.core.state.lazy_table import Table
from mesh.core.topology.shape import Convert, Shapes

NO_TOPOLOGY: Final = "-"
"""Digest in the row of a run that ended and was not kept."""


class RowCodec(NamedTuple):
    """Functions that write and read rows, for one set of fields."""

    fields: dict[str, list[str]]
    """Class → names of its fields, in the order of the rows."""
    write_run: Callable[[Run], bytes]
    write_ended: Callable[[Ended], bytes]
    read_run: Callable[[bytes], Run]
    read_ended: Callable[[bytes], Ended]


@cache
def current_codec() -> RowCodec:
    """Return the codec for the fields of the running code."""
    shapes = Shapes()
    run, ended = shapes.plain(Run), shapes.plain(Ended)

    def write_run(value: Run) -> bytes:
        retries = orjson.dumps([(timer.task_id, timer.attempt, timer.due_ms) for timer in _retries(value)])
        return b"%d %b %b %b" % (value.deadline_ms, value.topology.encode(), retries, orjson.dumps(run(value)))

    def write_ended(value: Ended) -> bytes:
        digest = NO_TOPOLOGY if value.run is None else value.run.topology
        return b"%d %b %b" % (value.offset, digest.encode(), orjson.dumps(ended(value)))

    return RowCodec(shapes.fields, write_run, write_ended, *readers(shapes.fields))


def readers(fields: dict[str, list[str]]) -> tuple[Callable[[bytes], Run], Callable[[bytes], Ended]]:
    """Return the readers of rows that were written with these fields. Raises ShapeUnknown."""
    shapes = Shapes(fields=fields)
    run, ended = shapes.value(Run), shapes.value(Ended)

    def read_run(row: bytes) -> Run:
        found: Run = _rest(row, 3, run)
        return found

    def read_ended(row: bytes) -> Ended:
        found: Ended = _rest(row, 2, ended)
        return found

    return read_run, read_ended


def read_run(row: bytes) -> Run:
    """Read an open run from its row. Raises ValueError for an invalid row."""
    return current_codec().read_run(row)


def read_ended(row: bytes) -> Ended:
    """Read the memory of a run from its row. Raises ValueError for an invalid row."""
    return current_codec().read_ended(row)


def _rest(row: bytes, words: int, convert: Convert) -> Any:
    try:
        return convert(orjson.loads(row.split(b" ", words)[words]))
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise ValueError(f"a row is damaged, though its checksum was right: {error}: {row[:200]!r}") from error


def topology_of(row: bytes) -> str:
    """Return the digest of the topology that the row pins; `NO_TOPOLOGY`: none."""
    return row.split(b" ", 2)[1].decode()


def pending_timers(runs: Table[Run]) -> Iterator[Schedule]:
    """Yield the timers of open runs: the deadline of each, and every retry that is due. Reads no cold run."""
    for run in list(runs.warm.values()):
        yield _deadline(run.id, run.deadline_ms)
        yield from _retries(run)
    for id, row in list(runs.cold.items()):
        deadline, _, retries, _ = row.split(b" ", 3)
        yield _deadline(id, int(deadline))
        if retries != b"[]":
            for task_id, attempt, due_ms in orjson.loads(retries):
                yield _retry(id, task_id, attempt, due_ms)


def _retries(run: Run) -> Sequence[Schedule]:
    held = [task for task in run.open.values() if task.held is not None and task.held.due_ms]
    return [_retry(run.id, task.id, task.attempt, task.held.due_ms) for task in held if task.held is not None]


def _deadline(run_id: str, due_ms: int) -> Schedule:
    return Schedule(run_id, f"{run_id}:deadline", due_ms)


def _retry(run_id: str, task_id: str, attempt: int, due_ms: int) -> Schedule:
    return Schedule(run_id, f"{task_id}:{attempt}:due", due_ms, task_id, attempt)
