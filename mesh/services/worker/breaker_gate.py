"""The circuit breaker of one agent in its worker: while it is open, no call begins.

A worker sees the answers of all partitions, so it counts consecutive failures of the agent. After the last allowed
failure it declines all tasks for the declared time without a call. They are answered as `left_alone`, from which each
partition of the inbox learns that the breaker is open (`core.run.circuit_breaker`). Then one call tries the agent while
others wait for its answer. mesh.control carries the state that another worker found.
"""

import asyncio
from collections.abc import Awaitable, Callable

from mesh.adapters.ports import Clock
from mesh.core.protocol.event import NO_USAGE, Event, Fault
from mesh.core.run.circuit_breaker import CALM, LEFT_ALONE, Breaker, next_breaker
from mesh.core.task import result
from mesh.core.topology.model import AgentSpec
from mesh.services.worker.attempt import Attempt
from mesh.services.worker.counts import Counts

Answer = Callable[[Event, Attempt], Awaitable[Event | None]]


class BreakerGate:
    """Lets calls through while the breaker is closed. Times are those of the monotonic clock."""

    def __init__(self, spec: AgentSpec, clock: Clock, counts: Counts) -> None:
        self._name, self._rule = spec.name, spec.breaker
        self._clock, self._counts = clock, counts
        self._breaker: Breaker = CALM
        self._trial: Attempt | None = None
        """The attempt that tries the agent after the breaker was open."""
        self._tried = asyncio.Event()

    def around(self, answer: Answer) -> Answer:
        """Wrap `answer` so that the breaker decides whether it is called. Without a breaker it is returned as it is."""
        if self._rule is None:
            return answer

        async def guarded(task: Event, attempt: Attempt) -> Event | None:
            wait_ms = await self._enter(attempt)
            if wait_ms:
                return self._decline(task, wait_ms)
            try:
                event = await answer(task, attempt)
                self.record(attempt, event)
            finally:
                self._leave(attempt)
            return event

        return guarded

    def record(self, attempt: Attempt, answer: Event | None) -> None:
        """Count the answer of a call; None: it was interrupted, or its answer was recorded before."""
        if self._rule is not None and answer is not None:
            self._breaker = next_breaker(self._breaker, self._rule, answer, self._now_ms())
            self._leave(attempt)

    def follow(self, *, opened: bool) -> None:
        """Take over the state on mesh.control. A breaker that was opened here and is not on mesh.control yet stays."""
        if self._rule is not None and opened != self._breaker.shared:
            until_ms = self._breaker.until_ms or self._now_ms() + self._rule.open_ms
            self._breaker = Breaker(self._breaker.failures, until_ms, shared=True) if opened else CALM

    async def _enter(self, attempt: Attempt) -> int:
        """Wait while another call tries the agent. Return 0 when this one may begin, else the milliseconds to wait."""
        while self._breaker.until_ms:
            left_ms = self._breaker.until_ms - self._now_ms()
            if left_ms > 0:
                return left_ms
            if self._trial is None:
                self._trial = attempt
                self._tried.clear()
                break
            await self._tried.wait()
        return 0

    def _leave(self, attempt: Attempt) -> None:
        if self._trial is attempt:
            self._trial = None
            self._tried.set()

    def _decline(self, task: Event, wait_ms: int) -> Event:
        self._counts.failure(LEFT_ALONE)
        text = f"{self._name} was not called: its breaker is open"
        return result.failure_event(task, Fault("left_alone", text, retry_after_ms=wait_ms), NO_USAGE)

    def _now_ms(self) -> int:
        return round(self._clock.monotonic_ms())
