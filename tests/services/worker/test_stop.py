"""The end of a worker: within its deadlines whatever the log does, and with a word about what was done."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from mesh import Reject
from mesh.adapters.ports import Appended, Board, Log, Refused
from mesh.adapters.sqlite import SqliteLog
from mesh.app.wiring import topic_specs
from mesh.core.protocol.record import NewRecord
from mesh.settings import Settings
from tests.services.conftest import append, read_all, working
from tests.services.worker.counting_agents import TOPOLOGY, Answer, Ask, answers, counts, task, until, worker


class Stuck(SqliteLog):
    """A log that takes nothing any more, once it is stuck, and does not even say so."""

    stuck = False

    async def append(self, records: Sequence[NewRecord]) -> Sequence[Appended | Refused]:
        if self.stuck:
            await asyncio.Event().wait()
        return await super().append(records)


async def test_a_worker_ends_though_the_log_takes_nothing_any_more(settings: Settings, board: Board) -> None:
    async def echo(ask: Ask) -> Answer:
        return Answer(n=ask.n)

    log = Stuck(Path(settings.log.removeprefix("sqlite:")))
    await log.start()
    await log.create_topics(topic_specs(TOPOLOGY))
    stop = asyncio.Event()
    crew = worker(log, board, echo)
    running = asyncio.create_task(crew.run(stop))
    await crew.wait_ready()
    await append(log, task(1), task(2))
    log.stuck = True
    await until(lambda: counts(crew).succeeded == 2)
    stop.set()
    async with asyncio.timeout(15):
        await running
    log.stuck = False
    assert await read_all(log, TOPOLOGY.inbox) == []
    again = asyncio.Event()
    heir = worker(log, board, echo)
    running = asyncio.create_task(heir.run(again))
    assert {a.task_id for a in await answers(log, 2)} == {"t1", "t2"}
    again.set()
    await running
    await log.close()


async def test_a_worker_says_at_its_end_what_its_tasks_came_to(
    log: Log, board: Board, caplog: pytest.LogCaptureFixture
) -> None:
    async def echo(ask: Ask) -> Answer | Reject:
        return Answer(n=ask.n) if ask.n else Reject("nothing")

    caplog.set_level("INFO", "mesh.worker")
    async with working(log, TOPOLOGY, worker(log, board, echo).run):
        await append(log, task(0), task(1), task(2))
        await answers(log, 3)
    (said,) = [record.getMessage() for record in caplog.records if "stopped" in record.getMessage()]
    assert said == "stopped agent=echo succeeded=2 rejected=1"
