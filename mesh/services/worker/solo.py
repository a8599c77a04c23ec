"""Who may run beside whom in this process: everybody beside everybody, but who is suspected of killing it, alone."""

import asyncio

from mesh.core.crashes import MARKED_MAX


class Solo:
    """One for all agents of a process. `inside` is raised by who begins, when `wanted` is 0; then `leave`."""

    __slots__ = ("_changed", "_marks", "_turns", "inside", "wanted")

    def __init__(self) -> None:
        self.inside = 0
        """Who runs beside others."""
        self.wanted = 0
        """Who waits to be alone, or is."""
        self._changed = asyncio.Event()
        self._turns = asyncio.Lock()
        self._marks = asyncio.Semaphore(MARKED_MAX)

    async def enter(self) -> None:
        """Begin beside others, after all who want to be alone."""
        while self.wanted:
            self._changed.clear()
            await self._changed.wait()
        self.inside += 1

    def leave(self) -> None:
        """The end of what was begun."""
        self.inside -= 1
        if self.wanted:
            self._changed.set()

    async def enter_marked(self) -> None:
        """Begin beside others something that may kill all of them; only so many of those at once."""
        await self._marks.acquire()
        try:
            await self.enter()
        except BaseException:
            self._marks.release()
            raise

    def leave_marked(self) -> None:
        """The end of what was begun so."""
        self._marks.release()
        self.leave()

    async def enter_alone(self) -> None:
        """Wait until everybody has left, then keep everybody out, until `leave_alone`. One after another."""
        self.wanted += 1
        try:
            await self._turns.acquire()
            try:
                while self.inside:
                    self._changed.clear()
                    await self._changed.wait()
            except BaseException:
                self._turns.release()
                raise
        except BaseException:
            self.wanted -= 1
            self._changed.set()
            raise

    def leave_alone(self) -> None:
        """Let the others in."""
        self._turns.release()
        self.wanted -= 1
        self._changed.set()
