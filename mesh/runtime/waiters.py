"""Who waits for the end of which run: one timer for all of them, since most runs end before it comes.

A wait costs a future and a place in a queue. Those that are still open after `LOOK_BACK_AFTER_S` look back through the
log, for a run that ended before anybody watched, and get a timer of their own for the time when they give up.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

from mesh.core.protocol.event import Event

LOOK_BACK_AFTER_S: Final = 1.0
TICK_S: Final = 0.05
"""So much later than that a wait may look back."""

Answer = asyncio.Future[Event]


class _Wait:
    """One of them. `answer` is None as soon as nobody waits: its place in the queue keeps nothing alive."""

    __slots__ = ("answer", "began", "ends", "look_back", "timer")

    def __init__(self, answer: Answer, began: float, ends: float) -> None:
        self.answer: Answer | None = answer
        self.began = began
        self.ends = ends
        self.look_back: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None

    def end(self) -> None:
        self.answer = None
        if self.look_back is not None:
            self.look_back.cancel()
        if self.timer is not None:
            self.timer.cancel()


class RunWaiters:
    """Waits by run. `look_back` is given a run and its answer, which it sets if it finds one."""

    def __init__(self, look_back: Callable[[str, Answer], Coroutine[Any, Any, None]]) -> None:
        self._look_back = look_back
        self._answers: dict[str, list[Answer]] = {}
        self._young: deque[tuple[str, _Wait]] = deque()
        """In the order in which they began, those too that have ended since."""
        self._timer: asyncio.TimerHandle | None = None

    async def answer(self, run_id: str, timeout_s: float) -> Event:
        """What `tell` brings for this run from now on. Raises TimeoutError, and what `fail` was given."""
        loop = asyncio.get_running_loop()
        answer: Answer = loop.create_future()
        now = loop.time()
        wait = _Wait(answer, now, now + timeout_s)
        self._answers.setdefault(run_id, []).append(answer)
        if timeout_s <= LOOK_BACK_AFTER_S:
            wait.timer = loop.call_at(wait.ends, _give_up, answer)
        else:
            self._young.append((run_id, wait))
            if self._timer is None:
                self._timer = loop.call_at(now + LOOK_BACK_AFTER_S, self._tick, loop)
        try:
            return await answer
        finally:
            wait.end()
            self._forget(run_id, answer)

    def tell(self, event: Event) -> None:
        """Everybody who waits for this run hears it."""
        for answer in self._answers.pop(event.run_id, ()):
            if not answer.done():
                answer.set_result(event)

    def fail(self, error: Exception) -> None:
        """Everybody hears that there will be no answer."""
        for answers in self._answers.values():
            for answer in answers:
                if not answer.done():
                    answer.set_exception(error)

    def _forget(self, run_id: str, answer: Answer) -> None:
        if (answers := self._answers.get(run_id)) is not None and answer in answers:
            answers.remove(answer)
            if not answers:
                del self._answers[run_id]

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        young, due = self._young, loop.time() - LOOK_BACK_AFTER_S
        while young and (young[0][1].answer is None or young[0][1].began <= due):
            run_id, wait = young.popleft()
            if wait.answer is not None:
                wait.look_back = loop.create_task(self._look_back(run_id, wait.answer))
                wait.timer = loop.call_at(wait.ends, _give_up, wait.answer)
        self._timer = None
        if young:
            self._timer = loop.call_at(max(young[0][1].began - due, TICK_S) + loop.time(), self._tick, loop)


def _give_up(answer: Answer) -> None:
    if not answer.done():
        answer.set_exception(TimeoutError())
