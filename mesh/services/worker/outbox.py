"""Answers on their way to the log: as they come, many at once, a few appends under way."""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mesh.core.record import NewRecord
from mesh.core.topology import Topology
from mesh.services.worker.held import Work
from mesh.wire.loop import append_all
from mesh.wire.ports import Log

APPENDS_MAX = 4


class Answer(NamedTuple):
    """What a piece of work led to, waiting to be appended."""

    record: NewRecord
    work: Work


class Outbox:
    """`acknowledged` is told of each piece of work whose answer is durable, and not before."""

    def __init__(self, log: Log, topology: Topology, acknowledged: Callable[[Work], None]) -> None:
        self._log, self._topology = log, topology
        self._acknowledged = acknowledged
        self._answers: list[Answer] = []
        self._some = asyncio.Event()
        self._none = asyncio.Event()
        self._none.set()
        self._unsent = 0

    def put(self, record: NewRecord, work: Work) -> None:
        """To be appended soon."""
        self._answers.append(Answer(record, work))
        self._unsent += 1
        self._some.set()

    async def run(self) -> None:
        """Append answers until cancelled. Raises LogUnavailable."""
        free = asyncio.Semaphore(APPENDS_MAX)
        async with asyncio.TaskGroup() as appends:
            while True:
                await self._some.wait()
                await free.acquire()
                self._some.clear()
                answers, self._answers = self._answers, []
                appends.create_task(self._send(answers)).add_done_callback(lambda _: free.release())

    async def flushed(self) -> None:
        """Wait until everything that was put is acknowledged."""
        while self._unsent:
            self._none.clear()
            await self._none.wait()

    async def _send(self, answers: Sequence[Answer]) -> None:
        await append_all(self._log, [answer.record for answer in answers], self._topology)
        for answer in answers:
            self._acknowledged(answer.work)
        self._unsent -= len(answers)
        if not self._unsent:
            self._none.set()
