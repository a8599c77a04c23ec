"""Deadlines that a delay of this process alone does not exceed."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

EXTENSION_MS: Final = 20
EXTENSIONS_MAX: Final = 20
"""Greatest number of extensions: they are capped at about one second."""


class Deadline:
    """A timer that calls `passed` on the running loop after `timeout_ms`.

    The time counts from the making of the deadline, or from `last_answer_s()` (a time of that loop) if that is later. A
    loop that was blocked has answers waiting that it has not read. So the deadline is extended once, and again while
    the timer itself fires late.
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
        self._check_in(self._timeout_s, 1)

    def cancel(self) -> None:
        """Stop the timer and drop the callback, which may refer to the owner of this deadline in a cycle."""
        self._timer.cancel()
        self._passed = _nothing

    def _check_in(self, delay_s: float, number: int) -> None:
        due_s = self._loop.time() + delay_s
        self._timer = self._loop.call_at(due_s, self._check, due_s, number)

    def _check(self, due_s: float, number: int) -> None:
        """Check the deadline. `number`: 1 for the first check after the time is up, one more for each extension."""
        now_s = self._loop.time()
        since_s = self._began_s if self._last_answer_s is None else max(self._began_s, self._last_answer_s())
        left_s = since_s + self._timeout_s - now_s
        if left_s > 0:
            self._check_in(left_s, 1)
        elif number == 1 or (now_s - due_s > EXTENSION_MS / 1000 and number < EXTENSIONS_MAX):
            self._check_in(EXTENSION_MS / 1000, number + 1)
        else:
            passed = self._passed
            self.cancel()
            passed()


def _nothing() -> None:
    """Do nothing: the callback of a deadline that is over."""


@asynccontextmanager
async def tolerant_timeout(
    timeout_ms: float, *, last_answer_s: Callable[[], float] | None = None
) -> AsyncIterator[asyncio.Timeout]:
    """Limit a block as `asyncio.timeout` does, with such a deadline. Raises TimeoutError."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as limit:
        deadline = Deadline(timeout_ms, lambda: limit.reschedule(loop.time()), last_answer_s=last_answer_s)
        try:
            yield limit
        finally:
            deadline.cancel()
