"""One heartbeat for all members of a process: a single small write every fifth of the shortest session timeout."""

import asyncio
import sqlite3
from typing import Protocol

from mesh.adapters.ports import Clock
from mesh.adapters.sqlite.groups import roster
from mesh.adapters.sqlite.storage.file import SqliteFile
from mesh.core.errors import LogUnavailable

_BEATS_A_SESSION = 5


class SessionMember(Protocol):
    """A member, as far as its heartbeat is concerned."""

    member_id: str
    session_timeout_ms: int

    def expelled(self) -> None:
        """Note that the group has removed the member."""
        ...

    def fail(self, error: Exception, *, for_good: bool = False) -> None:
        """Make `poll` raise this error."""
        ...


class Heartbeat:
    """The heartbeat of all members. Its errors are raised by every member's `poll`."""

    def __init__(self, file: SqliteFile, clock: Clock) -> None:
        self._file = file
        self._clock = clock
        self._members: set[SessionMember] = set()
        self._task: asyncio.Task[None] | None = None
        self._change = asyncio.Event()

    def add(self, member: SessionMember) -> None:
        """Add a member that has just joined. Its `member_id` may change when it joins again."""
        self._members.add(member)
        self._change.set()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="heartbeat")
            self._task.add_done_callback(self._on_ended)

    def discard(self, member: SessionMember) -> None:
        self._members.discard(member)
        if not self._members:
            self.stop()

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self) -> None:
        acknowledged_ms = self._clock.monotonic_ms()
        while self._members:
            session_ms = min(member.session_timeout_ms for member in self._members)
            # A member that joins with a shorter session ends the pause of a longer one.
            await self._pause(session_ms / _BEATS_A_SESSION)
            if not self._members:
                return
            late = self._clock.monotonic_ms() - acknowledged_ms > session_ms / 2
            try:
                await self._beat(judge=not late, timeout_ms=session_ms / _BEATS_A_SESSION)
            except LogUnavailable as error:
                silent_ms = self._clock.monotonic_ms() - acknowledged_ms
                for member in self._members:
                    if silent_ms > member.session_timeout_ms:
                        member.fail(error)
            else:
                acknowledged_ms = self._clock.monotonic_ms()

    async def _pause(self, pause_ms: float) -> None:
        self._change.clear()
        try:
            async with asyncio.timeout(pause_ms / 1000):
                await self._change.wait()
        except TimeoutError:
            return

    async def _beat(self, *, judge: bool, timeout_ms: float) -> None:
        members = {member.member_id: member for member in self._members}
        wakes: list[int] = []

        def job(connection: sqlite3.Connection) -> list[str]:
            now_ms = self._clock.monotonic_ms()
            expelled, changed = roster.beat(connection, list(members), now_ms, is_dead=self._file.is_dead, judge=judge)
            wakes[:] = [roster.channel(group) for group in changed]
            return expelled

        for member_id in await self._file.write(job, operation="heartbeat", timeout_ms=timeout_ms, wakes=wakes):
            if members[member_id].member_id == member_id:  # otherwise it has joined again meanwhile
                members[member_id].expelled()

    def _on_ended(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled() or task.exception() is None:
            return
        error = task.exception()
        for member in self._members:
            member.fail(error if isinstance(error, Exception) else RuntimeError(repr(error)), for_good=True)
