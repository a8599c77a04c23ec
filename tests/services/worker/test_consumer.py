"""One agent at work on a real log: lanes, order, hand-over, commits, drain."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from mesh import Context
from mesh.adapters.ports import Appended, Board, Commit, Log, Member, Refused
from mesh.adapters.sqlite import SqliteLog
from mesh.app.wiring import topic_specs
from mesh.core.protocol.codec import event_headers
from mesh.core.protocol.event import BATCH, TASK, Event
from mesh.core.protocol.record import NewRecord, TopicPartition
from mesh.core.task.poison import CommitMarks, PoisonDetector
from mesh.services.worker import outbox as module
from mesh.settings import Settings
from tests.services.conftest import append, read_all, read_until, settled, working
from tests.services.worker.desk import TOPOLOGY, Answer, Ask, answers, counts, task, topology, until, worker


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


async def test_only_the_finished_prefix_is_committed(log: Log, board: Board) -> None:
    gate = asyncio.Event()

    async def echo(ask: Ask) -> Answer:
        if ask.n == 0:
            await gate.wait()
        return Answer(n=ask.n)

    mesh = topology(timeout="60s")
    async with working(log, mesh, worker(log, board, echo, mesh).run):
        await append(log, *(task(n)._replace(partition=0) for n in range(5)))
        await answers(log, 4)
        clock_s = time.monotonic() + 0.3
        while time.monotonic() < clock_s:
            place = (await log.committed("mesh.echo", TOPOLOGY.tasks("echo"))).get(0)
            assert place is None or place.offset == 0
            await asyncio.sleep(0.01)
        gate.set()
        await settled(log, "mesh.echo", TOPOLOGY.tasks("echo"))


async def test_those_that_wait_until_the_log_has_heard_of_them_wait_for_one_commit(
    log: Log, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def echo(ask: Ask) -> Answer:
        return Answer(n=ask.n)

    await log.create_topics(topic_specs(TOPOLOGY))
    await append(log, *(task(n)._replace(partition=0) for n in range(3_000)))
    commits = 0
    join = log.join

    async def counting(*arguments: Any, **options: Any) -> Member:
        member = await join(*arguments, **options)
        commit = member.commit

        async def count(places: Mapping[TopicPartition, Commit]) -> None:
            nonlocal commits
            commits += 1
            await asyncio.sleep(0.02)  # as far as a broker is away
            await commit(places)

        monkeypatch.setattr(member, "commit", count)
        return member

    monkeypatch.setattr(log, "join", counting)
    async with working(log, TOPOLOGY, worker(log, board, echo).run):
        await answers(log, 3_000)
    assert commits < 30  # not one for each of 64 lanes


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


async def test_two_workers_share_an_agents_tasks(log: Log, board: Board) -> None:
    seen: dict[str, set[int]] = {"one": set(), "two": set()}

    def made(name: str) -> Callable[..., Any]:
        async def echo(ask: Ask) -> Answer:
            seen[name].add(ask.n)
            return Answer(n=ask.n)

        return echo

    first, second = worker(log, board, made("one")), worker(log, board, made("two"))
    async with working(log, TOPOLOGY, first.run):
        await first.wait_ready()
        async with working(log, TOPOLOGY, second.run):
            await second.wait_ready()
            await append(log, *(task(n) for n in range(200)))
            await answers(log, 200)
    assert seen["one"]
    assert seen["two"]
    assert seen["one"] | seen["two"] == set(range(200))


async def test_a_short_session_does_not_cut_short_the_tasks_of_a_revoked_partition(log: Log, board: Board) -> None:
    gate, begun, elsewhere = asyncio.Event(), list[int](), list[int]()

    async def waits(ask: Ask) -> Answer:
        begun.append(ask.n)
        await gate.wait()
        return Answer(n=ask.n)

    async def echo(ask: Ask) -> Answer:
        elsewhere.append(ask.n)
        return Answer(n=ask.n)

    first, second = worker(log, board, waits), worker(log, board, echo)
    async with working(log, TOPOLOGY, first.run):
        await append(log, *(task(n) for n in range(20)))
        await until(lambda: len(begun) == 20)
        async with working(log, TOPOLOGY, second.run):
            await until(lambda: len(first.consumers["echo"]._partitions) < 2)
            asyncio.get_running_loop().call_later(0.8, gate.set)  # a third of the session is 0.67 s
            await answers(log, 20)
            await settled(log, "mesh.echo", TOPOLOGY.tasks("echo"))
    assert (sorted(begun), elsewhere) == (list(range(20)), [])


async def test_a_task_that_runs_on_while_its_partition_goes_and_comes_back_is_not_begun_again(
    log: Log, board: Board
) -> None:
    gate, numbers = asyncio.Event(), range(20)
    begun: Counter[int] = Counter()

    async def waits(ask: Ask) -> Answer:
        begun[ask.n] += 1
        await gate.wait()
        return Answer(n=ask.n)

    async def hangs(ask: Ask) -> Answer:
        elsewhere.set()
        await asyncio.Event().wait()
        return Answer(n=0)

    mesh, elsewhere = topology(timeout="60s"), asyncio.Event()
    first, second = worker(log, board, waits, mesh), worker(log, board, hangs, mesh, drain_ms=50, grace_ms=50)
    async with working(log, mesh, first.run):
        await append(log, *(task(n) for n in numbers))
        await until(lambda: len(begun) == len(numbers))
        async with working(log, mesh, second.run):
            await elsewhere.wait()
        await until(lambda: first.consumers["echo"].lanes.queued > 0)  # they came again, and wait for the first
        gate.set()
        await settled(log, "mesh.echo", TOPOLOGY.tasks("echo"))
    assert begun == Counter(numbers)
    assert sorted(a.task_id for a in await answers(log, len(numbers))) == sorted(f"t{n}" for n in numbers)


class Bystander:
    """A member of the group that only says something."""

    def __init__(self) -> None:
        self.told = asyncio.Event()

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        self.told.set()

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        pass


@pytest.mark.parametrize("away", [True, False])
async def test_who_comes_back_after_the_log_was_away_takes_nobody_for_dead(log: Log, board: Board, away: bool) -> None:
    async def echo(ask: Ask) -> Answer:
        return Answer(n=ask.n)

    topic, bystander = TOPOLOGY.tasks("echo"), Bystander()
    await log.create_topics(topic_specs(TOPOLOGY))
    member = await log.join("mesh.echo", [topic], bystander, session_timeout_ms=2_000)
    async with asyncio.timeout(10):
        while not bystander.told.is_set():
            await member.poll(records_max=1, wait_ms=10)
    working_on = PoisonDetector(CommitMarks(), place=0, end=0, by="another").metadata(0)
    await member.commit({TopicPartition(topic, 0): Commit(0, working_on)})
    await member.close()
    crew = worker(log, board, echo, away=away)
    async with working(log, TOPOLOGY, crew.run):
        await append(log, *(task(n) for n in range(5)))
        await answers(log, 5)
    assert counts(crew).deaths == (0 if away else 1)


class Slow:
    """A log, or its member, that answers what was committed only when a gate is open."""

    def __init__(self, real: Any, asked: asyncio.Event, gate: asyncio.Event) -> None:
        self._real, self._asked, self._gate = real, asked, gate

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def join(self, *args: Any, **kwargs: Any) -> Any:
        return Slow(await self._real.join(*args, **kwargs), self._asked, self._gate)

    async def committed(self, partition: TopicPartition) -> Commit | None:
        self._asked.set()
        await self._gate.wait()
        return cast("Commit | None", await self._real.committed(partition))


async def test_a_partition_that_was_revoked_while_it_was_taken_over_is_no_sign_of_a_death(
    log: Log, board: Board
) -> None:
    async def echo(ask: Ask) -> Answer:
        return Answer(n=ask.n)

    asked, gate = asyncio.Event(), asyncio.Event()
    first, second = worker(cast("Log", Slow(log, asked, gate)), board, echo), worker(log, board, echo)
    async with working(log, TOPOLOGY, first.run):
        await asked.wait()
        async with working(log, TOPOLOGY, second.run):
            await second.wait_ready()  # it is at work on partitions that the first one was about to take over
            gate.set()
            await first.wait_ready()
            await append(log, *(task(n) for n in range(20)))
            await answers(log, 20)
    assert (counts(first).deaths, counts(second).deaths) == (0, 0)
