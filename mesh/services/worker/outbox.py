"""Answers on their way to the log: as they come, many at once, a few appends under way.

Before each answer lies what its task changed on the board, in the same append: see `board_changes`.
"""

import asyncio
from collections.abc import Callable, Sequence

from mesh.adapters.ports import Log
from mesh.core.board.changelog import BoardChange, change_record
from mesh.core.protocol.record import NewRecord
from mesh.core.topology.model import Topology
from mesh.runtime.loop import append_all
from mesh.services.worker.assignment import Work
from mesh.services.worker.board_changes import Changes

APPENDS_MAX = 4
ANSWERS_MAX = 2_000
"""On their way to the log; with more of them nothing is read. A log slower than the agent would let them pile up."""
STALLED_MS = 1_000
"""With an append under way for so long the log is away, or as good as."""


class Outbox:
    """`acknowledged` is told of pieces of work when their answers are durable, and not before. `mirrors`: changes of
    the board are to be told too."""

    def __init__(
        self, log: Log, topology: Topology, acknowledged: Callable[[Sequence[Work]], None], *, mirrors: bool = False
    ) -> None:
        self._log, self._topology, self._mirrors = log, topology, mirrors
        self._acknowledged = acknowledged
        self._records: list[NewRecord] = []
        """To be appended next: answers, each behind what its task changed."""
        self._works: list[Work] = []
        """What is finished when they are durable."""
        self._some = asyncio.Event()
        self._fewer = asyncio.Event()
        self._under_way = 0
        """Appends."""
        self._unheard = 0
        """Pieces of work that were put and are not acknowledged."""
        self._late: set[object] = set()
        """Appends that are under way for too long."""
        self._flows = asyncio.Event()
        self._last = False

    @property
    def stalled(self) -> bool:
        """The log takes nothing: what is begun now would most likely have to be done again."""
        return bool(self._late)

    async def flowing(self) -> bool:
        """Wait until the log takes answers again. False: nothing more is to be begun."""
        while self._late and not self._last:
            self._flows.clear()
            await self._flows.wait()
        return not self._last

    def last(self) -> None:
        """Nothing more is to be begun."""
        self._last = True
        self._flows.set()

    def changes(self) -> Changes | None:
        """For one more attempt; None: nobody wants to know."""
        return Changes(self.tell) if self._mirrors else None

    def put(self, record: NewRecord, work: Work, changes: Sequence[BoardChange] = ()) -> None:
        """To be appended soon. The work is finished when its answer and its changes are durable."""
        if changes:
            self._records += self._as_records(changes)
        self._records.append(record)
        self._works.append(work)
        self._unheard += 1
        self._some.set()

    def tell(self, changes: Sequence[BoardChange]) -> None:
        """Changes of the board that have no answer to travel with; to be appended soon."""
        if changes:
            self._records += self._as_records(changes)
            self._some.set()

    async def told(self, changes: Sequence[BoardChange]) -> None:
        """Returns when these changes of the board are durable. Raises LogUnavailable."""
        await append_all(self._log, self._as_records(changes), self._topology)

    def _as_records(self, changes: Sequence[BoardChange]) -> list[NewRecord]:
        return [change_record(change, self._topology) for change in changes]

    async def run(self) -> None:
        """Append answers until cancelled. Raises LogUnavailable."""
        # One at a time where events are ordered: a later answer may not be stored when an earlier one was not.
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
        """Wait until fewer than `ANSWERS_MAX` answers are on their way."""
        while self._unheard >= ANSWERS_MAX:
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
        self._unheard -= len(works)
        self._fewer.set()
