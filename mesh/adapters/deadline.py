"""A deadline that the lateness of one's own process does not bring about."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

SECOND_LOOK_MS: Final = 20
LOOKS_MAX: Final = 20
"""A loop that is always late gives up all the same, about a second later."""


class Deadline:
    """Calls `passed` on the running loop once `timeout_ms` have gone by since it was made, or since `heard_s()`, a
    time of that loop, when that is later.

    A loop that was held up has answers waiting that it has not read, so one look is never enough to give up, nor is
    one that comes late.
    """

    __slots__ = ("_began_s", "_last_answer_s", "_loop", "_passed", "_timeout_s", "_timer")

    def __init__(
        self, timeout_ms: float, passed: Callable[[], None], *, last_answer_s: Callable[[], float] | None = None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._began_s = self._loop.time()
        self._last_answer_s = last_answer_s
        self._timeout_s = timeout_ms / 1000
        self._passed = passed
        self._look_in(self._timeout_s, 1)

    def cancel(self) -> None:
        """Drop the callback: a caller that keeps this deadline, and is kept by its callback, would be a cycle."""
        self._timer.cancel()
        self._passed = _nothing

    def _look_in(self, delay_s: float, number: int) -> None:
        due_s = self._loop.time() + delay_s
        self._timer = self._loop.call_at(due_s, self._look, due_s, number)

    def _look(self, due_s: float, number: int) -> None:
        """`number`: which look it is since the time was up."""
        now_s = self._loop.time()
        since_s = self._began_s if self._last_answer_s is None else max(self._began_s, self._last_answer_s())
        left_s = since_s + self._timeout_s - now_s
        if left_s > 0:
            self._look_in(left_s, 1)
        elif number == 1 or (now_s - due_s > SECOND_LOOK_MS / 1000 and number < LOOKS_MAX):
            self._look_in(SECOND_LOOK_MS / 1000, number + 1)
        else:
            passed = self._passed
            self.cancel()
            passed()


def _nothing() -> None:
    """The callback of a deadline that is over."""


@asynccontextmanager
async def tolerant_timeout(
    timeout_ms: float, *, last_answer_s: Callable[[], float] | None = None
) -> AsyncIterator[asyncio.Timeout]:
    """`asyncio.timeout` with such a deadline: a block that lasts longer is cancelled and raises TimeoutError."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as limit:
        deadline = Deadline(timeout_ms, lambda: limit.reschedule(loop.time()), last_answer_s=last_answer_s)
        try:
            yield limit
        finally:
            deadline.cancel()
