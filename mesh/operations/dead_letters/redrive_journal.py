"""The ledger of redrives on the log: read whole, written entry by entry."""

from collections.abc import Collection, Sequence
from typing import Final

from mesh.adapters.ports import Bounds, Log, Refused
from mesh.core.dead_letters.redrive_log import RedriveEntry, RedriveLedger, entry_record, ledger_topic
from mesh.core.errors import InvalidInput
from mesh.core.topology.model import Topology
from mesh.runtime.log_reader import read_records

ENTRIES_AT_ONCE_MAX: Final = 100


class Journal:
    """The ledger of one mesh."""

    def __init__(self, log: Log, topology: Topology) -> None:
        self._log = log
        self._topology = topology
        self._topic = ledger_topic(topology)

    async def read(self) -> tuple[RedriveLedger, int]:
        """The ledger, and up to where it was read. One that was never written is empty."""
        ledger = RedriveLedger()
        if self._topic not in await self._log.topics():
            return ledger, 0
        places = await self._log.bounds(self._topic)
        async for record in read_records(self._log, self._topic, places):
            ledger.take(record)
        return ledger, places[0].end

    async def note(self, entries: Sequence[RedriveEntry]) -> list[int]:
        """Write entries; answers their offsets. Raises InvalidInput when the log refuses one."""
        offsets: list[int] = []
        for start in range(0, len(entries), ENTRIES_AT_ONCE_MAX):
            records = [entry_record(entry, self._topology) for entry in entries[start : start + ENTRIES_AT_ONCE_MAX]]
            for verdict in await self._log.append(records):
                if isinstance(verdict, Refused):
                    raise InvalidInput(
                        f"the log refused an entry of the ledger: {verdict.message}",
                        code=verdict.code,
                        where=f"{self._log.url} {self._topic}",
                        remedy="`mesh topics create` makes the ledger where it is missing",
                    )
                offsets.append(verdict.offset)
        return offsets

    async def noted_before(self, keys: Collection[str], begin: int, offsets: Sequence[int]) -> set[str]:
        """Of these keys, which were written from `begin` on by somebody else before we wrote them at these offsets."""
        first = dict(zip(keys, offsets, strict=True))
        found: set[str] = set()
        if first:
            async for record in read_records(self._log, self._topic, {0: Bounds(begin, max(offsets))}):
                key = (record.key or b"").decode("utf-8", "replace")
                if record.offset < first.get(key, 0):
                    found.add(key)
        return found
