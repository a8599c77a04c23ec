"""Answers cached on the board, so that a task that is delivered again does not call its function (a model) again.

An answer is cached under the id of the attempt before it is appended. While a function runs, a lease holds the key:
another worker with the same task waits for the answer instead of calling, too. A lease expires when its holder died.
Only successes are cached; a failure may be tried again.

The cache saves money and is not needed for correctness: without the board functions are called, and that is counted.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson

from mesh.adapters.diagnostics import diagnostics
from mesh.adapters.ports import Board, Clock
from mesh.core.board import rules
from mesh.core.errors import BoardUnavailable
from mesh.core.protocol.event import SUCCEEDED, Event, Usage
from mesh.core.task.result import cached_event
from mesh.services.worker.counts import Counts

LEASE_MS: Final = 6_000
"""Renewed three times in that time. The worker that takes over the task of a dead one waits at most this long."""
LOOK_EVERY_MS: Final = 100
PAUSE_MS: Final = 5_000
"""Time without calls to the board after it was unavailable: otherwise each task would wait for its timeout."""
_log = diagnostics("worker")


class ResultCache:
    """The cache of one agent in one process. `holder` is the unique name of the process."""

    def __init__(
        self,
        board: Board,
        clock: Clock,
        counts: Counts,
        *,
        agent: str,
        ttl_ms: int,
        holder: str,
        lease_ms: int = LEASE_MS,
    ) -> None:
        self._board, self._clock, self._counts = board, clock, counts
        self._prefix = f"results/{agent}/"
        self._ttl_ms, self._lease_ms = ttl_ms, lease_ms
        self._holder = holder
        self._calls = 0
        self._running: dict[str, bytes] = {}
        """Key → the lease that this process holds there."""
        self._gone_until_ms = 0.0

    async def through(self, task: Event, call: Callable[[], Awaitable[Event]]) -> Event:
        """Return the cached answer, or that of `call`."""
        key = self._prefix + task.id
        self._calls += 1
        lease = orjson.dumps({"by": f"{self._holder}:{self._calls}"})
        try:
            kept = await self._claim(key, lease)
            if kept is not None:
                self._counts.cached += 1
                return cached_event(task, *kept)
            held = key in self._running
            if not held:
                self._counts.uncached += 1
            answer = await call()
            if held and answer.kind == SUCCEEDED:
                await self._keep(key, lease, answer)
            return answer
        finally:
            if self._running.get(key) == lease:
                del self._running[key]

    async def renew(self) -> None:
        """Renew the leases of this process until cancelled."""
        while True:
            await self._clock.sleep_ms(self._lease_ms / 3)
            for key, lease in list(self._running.items()):
                if self._running.get(key) == lease:
                    await self._lease(key, lease, self._lease_ms, expect=lease)

    async def _claim(self, key: str, lease: bytes) -> "tuple[str, str, bytes, Usage] | None":
        """Return the cached answer; None: call the function, with the lease if it could be acquired."""
        expect = b""
        while True:
            stands = await self._lease(key, lease, self._lease_ms, expect=expect)
            if stands is None:
                return None
            if stands == lease:
                self._running[key] = lease
                return None
            kept = _cached_answer(stands)
            if kept is not None:
                return kept
            expect = b""
            if self._is_ours(stands) and self._running.get(key) != stands:
                expect = stands  # an abandoned attempt of this process
            else:
                await self._clock.sleep_ms(LOOK_EVERY_MS)

    async def _keep(self, key: str, lease: bytes, answer: Event) -> None:
        body: dict[str, Any] = {"type": answer.type, "content_type": answer.content_type, "data": answer.data.decode()}
        if answer.usage is not None:
            body |= {"usd_micros": answer.usage.usd_micros, "tokens": answer.usage.tokens}
        value = orjson.dumps(body)
        if len(value) > rules.VALUE_BYTES_MAX or answer.usage is None:
            self._counts.uncached += 1
            return
        await self._lease(key, value, self._ttl_ms, expect=lease)

    def _is_ours(self, lease: bytes) -> bool:
        found = orjson.loads(lease)
        return isinstance(found, dict) and str(found.get("by", "")).rpartition(":")[0] == self._holder

    async def _lease(self, key: str, value: bytes, ttl_ms: int, *, expect: bytes) -> bytes | None:
        """Return the value that the key has then; None: the board is, or was a moment ago, unavailable."""
        if self._clock.monotonic_ms() < self._gone_until_ms:
            return None
        try:
            return await self._board.lease(key, value, ttl_ms=ttl_ms, expect=expect)
        except BoardUnavailable as error:
            self._gone_until_ms = self._clock.monotonic_ms() + PAUSE_MS
            _log.warning("answers are not cached for a while", reason=str(error))
            return None


def _cached_answer(value: bytes) -> tuple[str, str, bytes, Usage] | None:
    """Return the answer in a value of the board; None for a lease or a foreign value."""
    try:
        found = orjson.loads(value)
        return found["type"], found["content_type"], found["data"].encode(), Usage(found["usd_micros"], found["tokens"])
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None
