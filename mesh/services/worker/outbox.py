"""Answers on their way to the log: appended as they come, many in one append, a few appends at once.

The board changes of a task stand before its answer in the same append. A task is therefore finished, and its offset
committed, only when its changes are mirrored on mesh.board, without a wait of its own. Changes without an answer (of an
interrupted attempt) or after it are appended alone.
"""

import asyncio
from collections.abc import Callable, Sequence

from mesh.adapters.ports import Log
from mesh.core.board.changelog import BoardChange, change_record
from mesh.core.protocol.record import NewRecord
from mesh.core.topology.model import Topology
from mesh.runtime.loop import append_all
from mesh.services.worker.assignment import Work

APPENDS_MAX = 4
ANSWERS_MAX = 2_000
"""With more unacknowledged answers no task is read: they would pile up if the log is slower than the agent."""
STALLED_MS = 1_000
"""With an append under way for longer, the log counts as unavailable."""


class Changes:
    """Collects changes. `alone` is called with those that belong to no answer."""

    __slots__ = ("_alone", "_closed", "_noted")

    def __init__(self, alone: Callable[[Sequence[BoardChange]], None]) -> None:
        self._alone = alone
        self._noted: list[BoardChange] = []
        self._closed = False

    def note(self, change: BoardChange) -> None:
        """Add a write that the board acknowledged."""
        if self._closed:
            self._alone([change])
        else:
            self._noted.append(change)

    def take(self) -> Sequence[BoardChange]:
        """Return the changes since the last call."""
        noted, self._noted = self._noted, []
        return noted

    def close(self) -> Sequence[BoardChange]:
        """Return the rest; later changes are appended alone."""
        self._closed = True
        return self.take()


class Outbox:
    """Appends answers. `acknowledged` is called with pieces of work when their answers are durable. `mirrors`: board
    changes are appended to mesh.board, too."""

    def __init__(
        self, log: Log, topology: Topology, acknowledged: Callable[[Sequence[Work]], None], *, mirrors: bool = False
    ) -> None:
        self._log, self._topology, self._mirrors = log, topology, mirrors
        self._acknowledged = acknowledged
        self._records: list[NewRecord] = []
        """Records of the next append: answers, each after the board changes of its task."""
        self._works: list[Work] = []
        """Work that is finished when those records are durable."""
        self._some = asyncio.Event()
        self._fewer = asyncio.Event()
        self._under_way = 0
        """Number of appends."""
        self._unacknowledged = 0
        """Number of pieces of work that were put and are not acknowledged."""
        self._late: set[object] = set()
        """Appends that have been under way for longer than STALLED_MS."""
        self._flows = asyncio.Event()
        self._closing = False

    @property
    def stalled(self) -> bool:
        """Whether the log takes nothing, so that a task that began now would most likely be repeated."""
        return bool(self._late)

    async def flowing(self) -> bool:
        """Wait until the log takes answers again. False: the outbox closes, and no task may begin."""
        while self._late and not self._closing:
            self._flows.clear()
            await self._flows.wait()
        return not self._closing

    def close(self) -> None:
        """Let waiting tasks go without beginning them. Answers are still appended."""
        self._closing = True
        self._flows.set()

    def new_changes(self) -> Changes | None:
        """Return the collector for board changes of one attempt; None when changes are not mirrored."""
        return Changes(self.put_changes) if self._mirrors else None

    def put(self, record: NewRecord, work: Work, changes: Sequence[BoardChange] = ()) -> None:
        """Append an answer soon. The work is finished when the answer and its changes are durable."""
        if changes:
            self._records += self._as_records(changes)
        self._records.append(record)
        self._works.append(work)
        self._unacknowledged += 1
        self._some.set()

    def put_changes(self, changes: Sequence[BoardChange]) -> None:
        """Append board changes soon that belong to no answer."""
        if changes:
            self._records += self._as_records(changes)
            self._some.set()

    async def append_changes(self, changes: Sequence[BoardChange]) -> None:
        """Append board changes and return when they are durable. Raises LogUnavailable."""
        await append_all(self._log, self._as_records(changes), self._topology)

    def _as_records(self, changes: Sequence[BoardChange]) -> list[NewRecord]:
        return [change_record(change, self._topology) for change in changes]

    async def run(self) -> None:
        """Append answers until cancelled. Raises LogUnavailable."""
        # One append at a time where events are ordered: a later answer must not be stored without an earlier one.
        free = asyncio.Semaphore(1 if self._topology.ordered else APPENDS_MAX)
        async with asyncio.TaskGroup() as appends:
            while True:
                await self._some.wait()
                await free.acquire()
                self._some.clear()
                records, works, self._records, self._works = self._records, self._works, [], []
                self._under_way += 1
                appends.create_task(self._send(records, works)).add_done_callback(lambda _: free.release())

    async def flushed(self) -> None:
        """Wait until everything that was put is acknowledged."""
        while self._records or self._under_way:
            self._fewer.clear()
            await self._fewer.wait()

    async def room(self) -> None:
        """Wait until fewer than ANSWERS_MAX answers are unacknowledged."""
        while self._unacknowledged >= ANSWERS_MAX:
            self._fewer.clear()
            await self._fewer.wait()

    async def _send(self, records: Sequence[NewRecord], works: Sequence[Work]) -> None:
        this = object()
        timer = asyncio.get_running_loop().call_later(STALLED_MS / 1000, self._late.add, this)
        try:
            await append_all(self._log, records, self._topology)
        finally:
            timer.cancel()
            self._late.discard(this)
            self._flows.set()
        if works:
            self._acknowledged(works)
        self._under_way -= 1
        self._unacknowledged -= len(works)
        self._fewer.set()
