"""Records that may have been in work when a worker died: begun marked, or apart, or not at all. See
`core.task.poison`."""

import asyncio
from collections.abc import Awaitable, Callable

from mesh.adapters.diagnostics import diagnostics
from mesh.core.task.agent import Agent
from mesh.core.task.poison import APART_DEATHS_MAX, APART_FROM, DEATHS_MAX, MARKED_MAX
from mesh.runtime.execution.isolation import IsolatedProcess, IsolatedProcesses, NotLoaded
from mesh.services.worker.assignment import Held, Work
from mesh.services.worker.attempt import Attempt
from mesh.services.worker.board_changes import Changes

_log = diagnostics("worker")


class MarkSlots:
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


class PoisonGuard:
    """Those of one agent. `places` are shared by all agents of the process; `cells`: None, or where it begins who is
    suspected twice. `say` commits until it is taken, and is False when the partition is lost; `do` runs an attempt
    to its answer, `condemn` answers a record that is not begun again with the number of deaths, `news` hears that there
    is something to commit. Nothing is taken back while all of this is `ending` for an error: what was in work may be
    why.
    """

    def __init__(
        self,
        agent: Agent,
        places: MarkSlots,
        cells: IsolatedProcesses | None,
        *,
        changes: Callable[[], Changes | None],
        say: Callable[[Held], Awaitable[bool]],
        do: Callable[[Attempt], Awaitable[None]],
        condemn: Callable[[Work, int], None],
        news: Callable[[], None],
        ending: Callable[[], bool],
    ) -> None:
        self._where, self._places = agent.where, places
        self._cells = cells if cells is not None and cells.can_run(agent) else None
        self._changes, self._say = changes, say
        self._do, self._condemn, self._news, self._ending = do, condemn, news, ending

    async def handle(self, work: Work) -> None:
        """Run one of them to an answer."""
        suspicion, cells = work.death_count, self._cells
        if cells is not None and APART_FROM <= suspicion < APART_DEATHS_MAX and await self._apart(work, cells):
            return
        if suspicion >= DEATHS_MAX:
            self._condemn(work, suspicion)
        else:
            await self._here(work, 1 if suspicion < APART_FROM else MARKED_MAX)

    async def _apart(self, work: Work, cells: IsolatedProcesses) -> bool:
        """In a process of its own. False: there the function cannot be loaded."""
        try:
            async with cells.acquire(self._where) as cell:
                if work.held.live:  # else it was lost while it waited
                    await self._run(work, 0, cell)
                return True
        except NotLoaded as error:
            _log.warning("a suspected task is begun in its worker", function=self._where, reason=str(error))
            return False

    async def _here(self, work: Work, places: int) -> None:
        """A death blames all that are marked in a process: so they are few, or one."""
        await self._places.take(places)
        await self._run(work, places, None)

    async def _run(self, work: Work, places: int, cell: IsolatedProcess | None) -> None:
        """Once the log says that it begins."""
        held, watch, offset = work.held, work.held.watch, work.record.offset

        def leave() -> None:
            if not self._ending():
                watch.unmark(offset)
                self._news()
            self._places.give(places)

        attempt = Attempt(work, self._changes(), leave=leave, cell=cell)
        try:
            watch.mark(offset)
            if await self._say(held):
                await self._do(attempt)
                if not attempt.abandoned and not attempt.killed and not self._ending():
                    watch.clear(offset)
        finally:
            if not attempt.abandoned:
                leave()
