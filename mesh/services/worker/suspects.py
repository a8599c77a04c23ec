"""Records that may have been in work when a worker died: begun marked, or alone, or not at all. See `core.crashes`."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

from mesh.core.crashes import ALONE_FROM, DEATHS_MAX
from mesh.services.worker.attempt import Attempt
from mesh.services.worker.changes import Changes
from mesh.services.worker.held import Held, Work
from mesh.services.worker.solo import Solo


class Commit(Protocol):
    """Says what is new of partitions; False: they are not all ours any more."""

    async def __call__(self, partitions: Iterable[Held], *, working: bool = True) -> bool: ...


class Suspects:
    """Those of one agent. `say` commits until it is taken, and is False when the partition is lost; `do` runs an
    attempt to its answer, `condemn` answers a record that is not begun again with the number of deaths, `news` hears
    that there is something to commit. Nothing is taken back while all of this is `ending` for an error: what was in
    work may be why."""

    def __init__(
        self,
        solo: Solo,
        *,
        changes: Callable[[], Changes | None],
        commit: Commit,
        say: Callable[[Held], Awaitable[bool]],
        do: Callable[[Attempt], Awaitable[None]],
        condemn: Callable[[Work, int], None],
        news: Callable[[], None],
        ending: Callable[[], bool],
    ) -> None:
        self._solo, self._changes = solo, changes
        self._commit, self._say = commit, say
        self._do, self._condemn, self._news, self._ending = do, condemn, news, ending

    async def handle(self, work: Work) -> None:
        """Run one of them to an answer: marked before it begins, the more suspicious alone."""
        held, watch, offset = work.held, work.held.watch, work.record.offset
        suspicion = watch.suspicion(offset)
        if suspicion >= DEATHS_MAX:
            self._condemn(work, suspicion)
            return
        alone = suspicion >= ALONE_FROM
        await (self._solo.enter_alone() if alone else self._solo.enter_marked())

        def leave() -> None:
            if not self._ending():
                watch.unmark(offset)
                self._news()
            (self._solo.leave_alone if alone else self._solo.leave_marked)()

        attempt = Attempt(work, leave, self._changes())
        try:
            watch.mark(offset, alone=alone)
            if await self._say(held):
                await self._do(attempt)
                if not attempt.abandoned and not self._ending():
                    watch.ended(offset)
                    for working in (True, False) if alone else ():  # also while it is handed over: nobody who
                        await self._commit([held], working=working)  # begins now is to be mistaken for it
        finally:
            if not attempt.abandoned:
                leave()
