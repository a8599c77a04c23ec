"""One agent at work on a real log: lanes, order, hand-over, commits, drain."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from mesh import Context
from mesh.adapters.ports import Appended, Board, Log, Refused
from mesh.adapters.sqlite import SqliteLog
from mesh.app.wiring import topic_specs
from mesh.core.protocol.codec import event_headers
from mesh.core.protocol.event import BATCH, TASK, Event
from mesh.core.protocol.record import NewRecord
from mesh.services.worker import outbox as module
from mesh.settings import Settings
from tests.services.conftest import append, read_all, read_until, settled, working
from tests.services.worker.counting_agents import TOPOLOGY, Answer, Ask, answers, task, topology, worker


async def test_an_answer_carries_the_lineage_and_the_spending_of_its_task(log: Log, board: Board) -> None:
    async def echo(ask: Ask, ctx: Context) -> Answer:
        ctx.spend(usd="0.25", tokens=120)
        return Answer(n=ask.n + 1)

    async with working(log, TOPOLOGY, worker(log, board, echo).run):
        await append(log, task(1))
        (answer,) = await answers(log, 1)
        await settled(log, "mesh.echo", TOPOLOGY.tasks("echo"))
    assert (answer.kind, answer.type, answer.data, answer.run_id) == ("succeeded", "answer", b'{"n":2}', "r1")
    assert (answer.task_id, answer.depth, answer.path, answer.attempt) == ("t1", 1, ("echo",), 1)
    assert answer.usage is not None
    assert (answer.usage.usd_micros, answer.usage.tokens) == (250_000, 120)


async def test_several_or_no_events_travel_in_one_record(log: Log, board: Board) -> None:
    async def echo(ask: Ask) -> list[Answer]:
        return [Answer(n=i) for i in range(ask.n)]

    async with working(log, TOPOLOGY, worker(log, board, echo).run):
        await append(log, task(3), task(0))
        by_task = {a.task_id: a for a in await answers(log, 2)}
    assert by_task["t3"].content_type == BATCH
    assert [(p.type, p.data) for p in by_task["t3"].parts()] == [("answer", b'{"n":%d}' % i) for i in range(3)]
    assert by_task["t0"].parts() == []


async def test_a_thousand_tasks_wait_at_once_in_one_process(log: Log, board: Board) -> None:
    gate, all_in = asyncio.Event(), asyncio.Event()
    inside = 0

    async def echo(ask: Ask) -> Answer:
        nonlocal inside
        inside += 1
        if inside == 1_000:
            all_in.set()
        await gate.wait()
        return Answer(n=ask.n)

    mesh = topology(timeout="60s", lanes=1_000)
    async with working(log, mesh, worker(log, board, echo, mesh).run):
        await append(log, *(task(n) for n in range(1_000)))
        async with asyncio.timeout(20):
            await all_in.wait()
        gate.set()
        await answers(log, 1_000)
        await settled(log, "mesh.echo", TOPOLOGY.tasks("echo"))


class Unhurried(SqliteLog):
    """A log that takes its time for every append, and counts what is on its way to it."""

    under_way = most = 0

    async def append(self, records: Sequence[NewRecord]) -> Sequence[Appended | Refused]:
        self.under_way += len(records)
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(0.05)
        self.under_way -= len(records)
        return await super().append(records)


async def test_answers_do_not_pile_up_before_a_log_that_is_slower_than_the_agent(
    settings: Settings, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def echo(ask: Ask) -> Answer:
        return Answer(n=ask.n)

    monkeypatch.setattr(module, "ANSWERS_MAX", 20)
    log = Unhurried(Path(settings.log.removeprefix("sqlite:")))
    await log.start()
    await log.create_topics(topic_specs(TOPOLOGY))
    await append(log, *(task(n) for n in range(600)))
    log.most = 0
    crew = worker(log, board, echo, topology(lanes=4), records_max=10)
    async with working(log, TOPOLOGY, crew.run):
        await answers(log, 600)
    assert 20 <= log.most < 20 + 4 + 2 * 10
    await log.close()


async def test_tasks_of_one_key_run_in_order_one_at_a_time(log: Log, board: Board) -> None:
    seen: list[int] = []
    inside = 0

    async def echo(ask: Ask) -> Answer:
        nonlocal inside
        inside += 1
        assert inside == 1
        await asyncio.sleep(0)
        seen.append(ask.n)
        inside -= 1
        return Answer(n=ask.n)

    async with working(log, TOPOLOGY, worker(log, board, echo).run):
        await append(log, *(task(n, key="same") for n in range(50)))
        assert all(a.kind == "succeeded" for a in await answers(log, 50))
    assert seen == list(range(50))


async def test_records_that_are_no_task_of_this_agent_are_dead_letters(log: Log, board: Board) -> None:
    async def echo(ask: Ask) -> Answer:
        return Answer(n=ask.n)

    foreign = Event("t9:1", "/mesh/t", "ask", TASK, "r9", b"{}", agent="other", task_id="t9", depth=1, path=("other",))
    topic = TOPOLOGY.tasks("echo")
    async with working(log, TOPOLOGY, worker(log, board, echo).run):
        await append(
            log, NewRecord(topic, b"k", b"junk"), NewRecord(topic, b"k", b"{}", event_headers(foreign)), task(1)
        )
        await answers(log, 1)
        dead = await read_until(log, TOPOLOGY.dead, 2)
        await settled(log, "mesh.echo", topic)
    assert {dict(d.headers)["mesh-dlq-reason"] for d in dead} == {b"not_cloudevents", b"wrong_agent"}


async def test_a_stopping_worker_lets_running_tasks_end_and_commits_them(log: Log, board: Board) -> None:
    begun, gate = asyncio.Event(), asyncio.Event()

    async def echo(ask: Ask) -> Answer:
        begun.set()
        await gate.wait()
        return Answer(n=ask.n)

    async with working(log, TOPOLOGY, worker(log, board, echo).run) as stop:
        await append(log, task(1))
        await begun.wait()
        stop.set()
        gate.set()
    assert len(await read_all(log, TOPOLOGY.inbox)) == 1
    places = await log.committed("mesh.echo", TOPOLOGY.tasks("echo"))
    assert sum(place.offset for place in places.values()) == 1


async def test_a_task_that_outlives_the_drain_is_left_to_the_next_owner(log: Log, board: Board) -> None:
    begun = asyncio.Event()

    async def hangs(ask: Ask) -> Answer:
        begun.set()
        await asyncio.Event().wait()
        return Answer(n=0)

    async def echo(ask: Ask) -> Answer:
        return Answer(n=ask.n)

    mesh = topology(timeout="60s")
    async with working(log, mesh, worker(log, board, hangs, mesh, drain_ms=50).run) as stop:
        await append(log, task(1))
        await begun.wait()
        stop.set()
    assert await read_all(log, TOPOLOGY.inbox) == []
    async with working(log, TOPOLOGY, worker(log, board, echo).run):
        (answer,) = await answers(log, 1)
    assert (answer.kind, answer.task_id) == ("succeeded", "t1")
