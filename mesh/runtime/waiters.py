"""Callers that wait for the end of a run. One timer serves all of them, since most runs end before it fires.

A wait costs a future and an entry of a queue. Waits that are open for longer than `LOOK_BACK_AFTER_S` search the log
for a run that ended before the wait began, and get a timer of their own for their timeout.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

from mesh.core.protocol.event import Event

LOOK_BACK_AFTER_S: Final = 1.0
TICK_S: Final = 0.05
"""Greatest delay of that search."""

Answer = asyncio.Future[Event]


class _Wait:
    """One wait. `answer` is None once its caller has gone, so that the queue keeps nothing alive."""

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
    """Waits by run. `look_back` gets a run and a future, which it completes if it finds the outcome."""

    def __init__(self, look_back: Callable[[str, Answer], Coroutine[Any, Any, None]]) -> None:
        self._look_back = look_back
        self._answers: dict[str, list[Answer]] = {}
        self._young: deque[tuple[str, _Wait]] = deque()
        """Waits in the order in which they began, with those that have ended since."""
        self._timer: asyncio.TimerHandle | None = None

    async def answer(self, run_id: str, timeout_s: float) -> Event:
        """Wait for the event that `notify` gets for this run. Raises TimeoutError, and the error given to `fail`."""
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

    def notify(self, event: Event) -> None:
        """Complete all waits for the run of this event."""
        for answer in self._answers.pop(event.run_id, ()):
            if not answer.done():
                answer.set_result(event)

    def fail(self, error: Exception) -> None:
        """Fail all waits."""
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
