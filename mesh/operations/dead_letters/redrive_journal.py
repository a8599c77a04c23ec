"""Read and write the ledger of redrives on the log."""

from collections.abc import Collection, Sequence
from contextlib import aclosing
from typing import Final

from mesh.adapters.ports import Bounds, Log, ReadLog, Refused
from mesh.core.dead_letters.redrive_log import PLANNED, RedriveEntry, RedriveLedger, entry_record, ledger_topic
from mesh.core.dead_letters.redrive_plan import Sending
from mesh.core.errors import InvalidInput
from mesh.core.topology.model import Topology
from mesh.runtime.log_reader import read_records

ENTRIES_AT_ONCE_MAX: Final = 100


async def read_ledger(log: ReadLog, topology: Topology) -> tuple[RedriveLedger, int]:
    """Return the ledger of a mesh and its end. A ledger without a topic is empty."""
    ledger, topic = RedriveLedger(), ledger_topic(topology)
    if topic not in await log.topics():
        return ledger, 0
    places = await log.bounds(topic)
    async with aclosing(read_records(log, topic, places)) as stored:
        async for record in stored:
            ledger.take(record)
    return ledger, places[0].end


class Journal:
    """The ledger of one mesh."""

    def __init__(self, log: Log, topology: Topology) -> None:
        self._log = log
        self._topology = topology
        self._topic = ledger_topic(topology)

    async def read(self) -> tuple[RedriveLedger, int]:
        """Return the ledger and its end: `read_ledger`."""
        return await read_ledger(self._log, self._topology)

    async def note(self, entries: Sequence[RedriveEntry]) -> list[int]:
        """Write entries; return their offsets. Raises InvalidInput if the log refuses one."""
        offsets: list[int] = []
        for start in range(0, len(entries), ENTRIES_AT_ONCE_MAX):
            records = [entry_record(entry, self._topology) for entry in entries[start : start + ENTRIES_AT_ONCE_MAX]]
            for verdict in await self._log.append(records):
                if isinstance(verdict, Refused):
                    raise InvalidInput(
                        f"the log refused an entry of the ledger: {verdict.message}",
                        code=verdict.code,
                        where=f"{self._log.url} {self._topic}",
                        remedy="`mesh topics create` creates a missing ledger",
                    )
                offsets.append(verdict.offset)
        return offsets

    async def noted_before(self, keys: Collection[str], begin: int, offsets: Sequence[int]) -> set[str]:
        """Return the keys that another process wrote, from `begin` on, before this one wrote them at `offsets`."""
        first = dict(zip(keys, offsets, strict=True))
        found: set[str] = set()
        if first:
            async with aclosing(read_records(self._log, self._topic, {0: Bounds(begin, max(offsets))})) as stored:
                async for record in stored:
                    key = (record.key or b"").decode("utf-8", "replace")
                    if record.offset < first.get(key, 0):
                        found.add(key)
        return found


def planned_entry(sending: Sending, *, by: str, at_ms: int, after: int = 0, reason: str = "") -> RedriveEntry:
    """Return the ledger's entry of a letter that is to be sent. `after`: end of the partition where it goes."""
    return RedriveEntry(
        letter=sending.letter.id,
        n=sending.n,
        state=PLANNED,
        by=by,
        at_ms=at_ms,
        way=sending.way,
        before=sending.before,
        topic=sending.topic,
        partition=sending.partition,
        after=after,
        run_id=sending.run_id,
        data=sending.data,
        reason=reason,
    )
