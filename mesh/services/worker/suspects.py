"""Records that may have been in work when a worker died: begun marked, or apart, or not at all. See `core.crashes`."""

import asyncio
from collections.abc import Awaitable, Callable

from mesh.core.agent import Agent
from mesh.core.crashes import APART_FROM, DEATHS_MAX, MARKED_MAX
from mesh.core.event import Event
from mesh.core.mirror import Change
from mesh.services.worker.attempt import Attempt
from mesh.services.worker.changes import Changes
from mesh.services.worker.held import Held, Work
from mesh.wire.cells import Cell, CellDied, Cells, Order


class Places:
    """Who may be marked at once in a process: so many, or a single one who is suspected more. First come, first in."""

    def __init__(self) -> None:
        self.free = MARKED_MAX
        self._turn, self._given = asyncio.Lock(), asyncio.Event()

    async def take(self, number: int) -> None:
        """Wait for so many places."""
        async with self._turn:
            while self.free < number:
                self._given.clear()
                await self._given.wait()
            self.free -= number

    def give(self, number: int) -> None:
        """Back."""
        self.free += number
        self._given.set()


class Watched:
    """A cell with a record in it. Should it die, the log hears of that before anybody hears the answer: whatever ends
    this process then, nobody begins the record again."""

    def __init__(self, cell: Cell, work: Work, say: Callable[[Held], Awaitable[bool]]) -> None:
        self._cell, self._work, self._say = cell, work, say
        self.died = False

    async def answer(self, order: Order, changed: Callable[[Change], None] | None) -> Event:
        """As `Cell.answer`."""
        try:
            return await self._cell.answer(order, changed)
        except CellDied:
            self.died = True
            self._work.held.watch.convict(self._work.record.offset)
            await self._say(self._work.held)
            raise


class Suspects:
    """Those of one agent. `places` are shared by all agents of the process; `cells`: None, or where it begins who is
    suspected twice. `say` commits until it is taken, and is False when the partition is lost; `do` runs an attempt
    to its answer, `condemn` answers a record that is not begun again with the number of deaths, `news` hears that there
    is something to commit. Nothing is taken back while all of this is `ending` for an error: what was in work may be
    why.
    """

    def __init__(
        self,
        agent: Agent,
        places: Places,
        cells: Cells | None,
        *,
        changes: Callable[[], Changes | None],
        say: Callable[[Held], Awaitable[bool]],
        do: Callable[[Attempt], Awaitable[None]],
        condemn: Callable[[Work, int], None],
        news: Callable[[], None],
        ending: Callable[[], bool],
    ) -> None:
        self._where, self._places = agent.where, places
        self._cells = cells if cells is not None and cells.takes(agent) else None
        self._changes, self._say = changes, say
        self._do, self._condemn, self._news, self._ending = do, condemn, news, ending

    async def handle(self, work: Work) -> None:
        """Run one of them to an answer."""
        suspicion = work.held.watch.suspicion(work.record.offset)
        if suspicion >= DEATHS_MAX:
            self._condemn(work, suspicion)
        elif suspicion >= APART_FROM and self._cells is not None:
            await self._apart(work, self._cells)
        else:
            await self._marked(work, 1 if suspicion < APART_FROM else MARKED_MAX)

    async def _apart(self, work: Work, cells: Cells) -> None:
        """In a process of its own. It bears no mark: should this process die meanwhile, it was not for that."""
        async with cells.one(self._where) as cell:
            if not work.held.live:
                return  # lost while it waited
            watched = Watched(cell, work, self._say)
            attempt = Attempt(work, self._changes(), cell=watched)
            await self._do(attempt)
            if not watched.died:
                self._cleared(attempt)
            self._news()

    async def _marked(self, work: Work, places: int) -> None:
        """Here, once the log says that it begins. A death blames all that are marked: so they are few, or one."""
        held, watch, offset = work.held, work.held.watch, work.record.offset
        await self._places.take(places)

        def leave() -> None:
            if not self._ending():
                watch.unmark(offset)
                self._news()
            self._places.give(places)

        attempt = Attempt(work, self._changes(), leave=leave)
        try:
            watch.mark(offset)
            if await self._say(held):
                await self._do(attempt)
                self._cleared(attempt)
        finally:
            if not attempt.abandoned:
                leave()

    def _cleared(self, attempt: Attempt) -> None:
        """It has ended, and killed nobody."""
        if not attempt.abandoned and not self._ending():
            attempt.work.held.watch.ended(attempt.work.record.offset)
