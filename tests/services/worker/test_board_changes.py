"""Board writes of agents are on mesh.board when their tasks are finished."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from mesh import Context
from mesh.adapters.ports import Appended, Board, Log, Refused
from mesh.adapters.sqlite import SqliteBoard, SqliteLog
from mesh.app.wiring import topic_specs
from mesh.core.board.changelog import BoardChange, read_board_record
from mesh.core.errors import LogUnavailable
from mesh.core.protocol.record import NewRecord
from mesh.services.worker import outbox as module
from mesh.services.worker.outbox import Changes
from tests.services.conftest import append, read_all, read_until, settled, working
from tests.services.worker.counting_agents import TOPOLOGY, Answer, Ask, answers, counts, task, topology, until, worker


@pytest.fixture
async def elsewhere(tmp_path: Path) -> AsyncIterator[Board]:
    """A board that is not in the log's file."""
    board = SqliteBoard(tmp_path / "board.db", timeout_ms=10_000)
    await board.start()
    yield board
    await board.close()


async def changes(log: Log, count: int) -> list[BoardChange]:
    """The first so many on mesh.board."""
    found = [read_board_record(record) for record in await read_until(log, TOPOLOGY.board, count)]
    assert all(isinstance(change, BoardChange) for change in found), found
    return [change for change in found if isinstance(change, BoardChange)]


def change(n: int) -> BoardChange:
    return BoardChange("k", b"%d" % n, f"aa:{n}", "echo/t1")


def test_what_is_noted_before_the_end_is_taken_and_what_comes_after_goes_alone() -> None:
    alone: list[Sequence[BoardChange]] = []
    noted = Changes(alone.append)
    noted.note(change(1))
    assert list(noted.take()) == [change(1)]
    noted.note(change(2))
    assert (list(noted.close()), list(noted.close()), alone) == ([change(2)], [], [])
    noted.note(change(3))
    assert alone == [[change(3)]]
    assert list(noted.take()) == []


async def test_nothing_is_noted_for_a_function_that_never_sees_the_board(
    log: Log, elsewhere: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noted(alone: object) -> Changes:
        raise AssertionError("no test needs one")

    async def echo(ask: Ask) -> Answer:
        return Answer(n=ask.n)

    monkeypatch.setattr(module, "Changes", noted)
    async with working(log, TOPOLOGY, worker(log, elsewhere, echo).run):
        await append(log, task(1))
        (answer,) = await answers(log, 1)
    assert answer.kind == "succeeded"


async def test_a_finished_task_has_its_changes_on_the_log_whether_it_succeeded_or_failed(
    log: Log, elsewhere: Board
) -> None:
    async def echo(ask: Ask, ctx: Context) -> Answer:
        await ctx.board.put(f"seen/{ask.n}", {"n": ask.n})
        await ctx.board.add("count")
        if ask.n:
            raise ValueError("after it wrote")
        return Answer(n=0)

    async with working(log, TOPOLOGY, worker(log, elsewhere, echo).run):
        await append(log, task(0), task(1))
        await settled(log, "mesh.echo", TOPOLOGY.tasks("echo"))
        found = await changes(log, 4)
    for key in ("seen/0", "seen/1", "count"):
        stands = await elsewhere.get(key)
        assert stands is not None
        told = max((c for c in found if c.key == key), key=lambda c: c.version)
        assert (told.value, told.version, told.at_ms) == (stands.value, stands.version, stands.at_ms)
        assert told.by.startswith("echo/t")
    assert sorted(c.op_id for c in found if c.key == "count") == ["t0:1", "t1:1"]


async def test_changes_lie_before_the_answer_in_the_same_append(tmp_path: Path, log: Log, elsewhere: Board) -> None:
    appends: list[list[str]] = []

    class Watched(SqliteLog):
        async def append(self, records: Sequence[NewRecord]) -> Sequence[Appended | Refused]:
            appends.append([record.topic for record in records])
            return await super().append(records)

    async def echo(ask: Ask, ctx: Context) -> Answer:
        await ctx.board.put("k", ask.n)
        await ctx.board.put("k", ask.n + 1)
        return Answer(n=ask.n)

    watched = Watched(tmp_path / "mesh.db")
    await watched.start()
    try:
        async with working(watched, TOPOLOGY, worker(watched, elsewhere, echo).run):
            await append(log, task(1))
            await answers(log, 1)
            await settled(log, "mesh.echo", TOPOLOGY.tasks("echo"))
    finally:
        await watched.close()
    assert [topics for topics in appends if topics] == [[TOPOLOGY.board, TOPOLOGY.board, TOPOLOGY.inbox]]


async def test_a_board_in_the_logs_own_file_is_not_mirrored(log: Log, board: Board) -> None:
    async def echo(ask: Ask, ctx: Context) -> Answer:
        await ctx.board.put("k", ask.n)
        return Answer(n=ask.n)

    async with working(log, TOPOLOGY, worker(log, board, echo).run):
        await append(log, task(1))
        await answers(log, 1)
    assert await read_all(log, TOPOLOGY.board) == []


async def test_what_was_written_before_a_stop_is_reported_though_there_is_no_answer(log: Log, elsewhere: Board) -> None:
    wrote = asyncio.Event()

    async def echo(ask: Ask, ctx: Context) -> Answer:
        await ctx.board.put("k", ask.n)
        wrote.set()
        await asyncio.sleep(60)
        return Answer(n=ask.n)

    mesh = topology(timeout="60s")
    crew = worker(log, elsewhere, echo, mesh)
    async with working(log, mesh, crew.run):
        await append(log, task(7))
        await wrote.wait()
        crew.consumers["echo"].pause()
        (told,) = await changes(log, 1)
        assert await read_all(log, mesh.inbox) == []
    assert (told.key, told.value) == ("k", b"7")


async def test_what_is_written_after_the_task_was_answered_is_reported_too(log: Log, elsewhere: Board) -> None:
    late = asyncio.Event()

    async def echo(ask: Ask, ctx: Context) -> Answer:
        await ctx.board.put("early", 1)
        while not late.is_set():
            try:
                await late.wait()
            except asyncio.CancelledError:
                continue  # it ignores that it was given up
        await ctx.board.put("late", 2)
        return Answer(n=ask.n)

    mesh = topology(timeout="100ms")
    crew = worker(log, elsewhere, echo, mesh, grace_ms=20)
    async with working(log, mesh, crew.run):
        await append(log, task(1))
        (answer,) = await answers(log, 1)
        assert [c.key for c in await changes(log, 1)] == ["early"]
        late.set()
        assert [c.key for c in await changes(log, 2)] == ["early", "late"]
        await until(lambda: counts(crew).late == 1)
    assert answer.fault is not None
    assert answer.fault.code == "timed_out"


async def test_an_answer_is_kept_only_when_what_its_task_changed_is_on_the_log(
    tmp_path: Path, log: Log, elsewhere: Board
) -> None:
    """A later attempt that finds it does not call the function, and so does not repeat its writes."""
    seen: list[int] = []

    class Watched(SqliteBoard):
        async def lease(self, key: str, value: bytes, *, ttl_ms: int, expect: bytes = b"") -> bytes:
            if b'"data"' in value:
                seen.append(len(await read_all(log, TOPOLOGY.board)))
            return await super().lease(key, value, ttl_ms=ttl_ms, expect=expect)

    async def echo(ask: Ask, ctx: Context) -> Answer:
        await ctx.board.put("k", ask.n)
        return Answer(n=ask.n)

    mesh, watched = topology(more=", cache: 1h"), Watched(tmp_path / "board.db")
    await watched.start()
    try:
        async with working(log, mesh, worker(log, watched, echo, mesh).run):
            await append(log, task(1))
            await settled(log, "mesh.echo", mesh.tasks("echo"))
    finally:
        await watched.close()
    assert seen == [1]
    assert len(await changes(log, 1)) == len(await read_all(log, TOPOLOGY.board)) == 1


async def test_a_task_whose_process_ended_between_board_and_log_repeats_its_writes_and_mirrors_them(
    tmp_path: Path, log: Log, elsewhere: Board
) -> None:
    class Deaf(SqliteLog):
        """Takes nothing any more once the agent has written."""

        async def append(self, records: Sequence[NewRecord]) -> Sequence[Appended | Refused]:
            if any(record.topic == TOPOLOGY.inbox for record in records):
                raise LogUnavailable("it does not answer", where="test")
            return await super().append(records)

    async def echo(ask: Ask, ctx: Context) -> Answer:
        await ctx.board.add("count")
        await ctx.board.append("list", ask.n)
        return Answer(n=ask.n)

    deaf = Deaf(tmp_path / "mesh.db")
    await deaf.start()
    await log.create_topics(topic_specs(TOPOLOGY))
    await append(log, task(7))
    with pytest.raises(ExceptionGroup) as ended:
        await asyncio.wait_for(worker(deaf, elsewhere, echo).run(asyncio.Event()), 20)
    assert ended.value.subgroup(LogUnavailable) is not None
    await deaf.close()
    assert await read_all(log, TOPOLOGY.board) == []
    async with working(log, TOPOLOGY, worker(log, elsewhere, echo).run):
        await settled(log, "mesh.echo", TOPOLOGY.tasks("echo"))
    count, array = await elsewhere.get("count"), await elsewhere.get("list")
    assert count is not None
    assert array is not None
    assert (count.value, array.value) == (b"1", b"[7]"), "the second time did nothing"
    told = {c.key: (c.value, c.version) for c in await changes(log, 2)}
    assert told == {"count": (b"1", count.version), "list": (b"[7]", array.version)}
