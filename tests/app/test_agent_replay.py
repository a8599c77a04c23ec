"""Recorded tasks of one agent are given to a function of today, and its answers compared with the recorded ones."""

import asyncio
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from mesh import Context, Emit, Payload, Reject
from mesh.adapters.sqlite import SqliteLog
from mesh.adapters.sqlite.board_history import read_past_values
from mesh.app.agent_replay import FOLDER_PREFIX, Compared, replay_agent
from mesh.core.protocol.record import TopicPartition
from mesh.core.replay.answer_diff import Ignored
from mesh.core.task.agent import agent_of
from mesh.operations.replay.past_board import read_past_board
from mesh.operations.replay.task_answers import Period, Skipped, read_task_answers
from mesh.testing import MeshTest
from tests.adapters.log_kit import until


class Placed(Payload, type="order.placed"):
    n: int


class Priced(Payload, type="order.priced"):
    cents: int
    seen: int = 0
    drawn: float = 0
    at_ms: int = 0


async def price(order: Placed, ctx: Context) -> Priced | Reject:
    seen = await ctx.board.add("seen")
    if order.n == 13:
        return Reject("no luck")
    assert not ctx.sandbox
    return Priced(cents=order.n * 5, seen=seen.value, drawn=ctx.random().random(), at_ms=ctx.now_ms)


async def price_apart(order: Placed, ctx: Context) -> Priced:
    assert ctx.sandbox
    assert os.getsid(0) == os.getpid()  # an isolated process leads a session of its own
    seen = await ctx.board.add("seen")
    return Priced(cents=order.n * 5, seen=seen.value, drawn=ctx.random().random(), at_ms=ctx.now_ms)


async def plain(order: Placed) -> Priced:
    return Priced(cents=order.n)


async def ends_its_process(order: Placed) -> Priced:
    if order.n == 25:
        os._exit(0)
    return Priced(cents=order.n)


async def blocks(order: Placed) -> Priced:
    if order.n == 25:
        time.sleep(60)  # noqa: ASYNC251  # a fault of authors
    return Priced(cents=order.n)


async def recorded(mesh: MeshTest, orders: Sequence[int]) -> None:
    for n in orders:
        run = await mesh.publish("order.placed", {"n": n})
        await run.outcome(timeout_s=20)


async def replay(
    mesh: MeshTest,
    function: Callable[..., Any],
    *,
    ignore: Sequence[str] = (),
    skipped: Skipped | None = None,
    period: Period | None = None,
    name: str = "price",
) -> list[Compared]:
    found: list[Compared] = []
    assert isinstance(mesh.log, SqliteLog)
    embedded = read_past_values(mesh.log.file, mesh.topology.prefix, 2**60)
    past = await read_past_board(mesh.log, mesh.topology, Period(), embedded)
    pairs = read_task_answers(mesh.log, mesh.topology, name, period or Period(), skipped or Skipped())
    async with aclosing(pairs) as batches:
        agent = agent_of(function)
        await replay_agent(
            mesh.topology, name, agent, batches, past, on_result=found.append, jobs=4, ignored=Ignored(ignore)
        )
    return found


async def test_an_unchanged_function_gives_every_recorded_answer_again() -> None:
    async def again(order: Placed, ctx: Context) -> Priced | Reject:
        assert ctx.sandbox
        seen = await ctx.board.add("seen")
        if order.n == 13:
            return Reject("no luck")
        return Priced(cents=order.n * 5, seen=seen.value, drawn=ctx.random().random(), at_ms=ctx.now_ms)

    async with MeshTest.of(price) as mesh:
        await recorded(mesh, [1, 2, 13, 4, 5])
        found = await replay(mesh, again)
        standing = await mesh.board.get("seen")
    assert [(each.verdict, list(each.differences)) for each in found] == [("same", [])] * 5
    assert {each.recorded.task.run_id for each in found} == {each.new.run_id for each in found}
    assert standing is not None
    assert standing.value == b"5"  # the board of the mesh is untouched


async def test_a_function_of_a_module_sees_the_past_board_in_its_own_process() -> None:
    async with MeshTest.of(price) as mesh:
        await recorded(mesh, [1, 2, 3])
        found = await replay(mesh, price_apart)
    assert [(each.verdict, list(each.differences)) for each in found] == [("same", [])] * 3


@pytest.mark.parametrize(("function", "code"), [(ends_its_process, "crash_loop"), (blocks, "timed_out")])
async def test_one_call_of_a_batch_that_kills_or_holds_the_process_is_found(
    function: Callable[..., Any], code: str
) -> None:
    async with MeshTest.of(plain, options={"plain": {"timeout": "2s"}}) as mesh:
        await recorded(mesh, range(1, 41))
        found = await replay(mesh, function, name="plain")
    assert len(found) == 40
    (failed,) = (each for each in found if each.verdict not in ("same", "slower"))
    assert failed.new.fault is not None
    assert (failed.new.fault.code, failed.recorded.task.data) == (code, b'{"n":25}')


async def test_of_twenty_orders_exactly_those_that_the_change_touches_differ() -> None:
    async def dearer(order: Placed, ctx: Context) -> Priced:
        seen = await ctx.board.add("seen")
        if order.n == 20:
            raise KeyError("rate")
        cents = order.n * 5 + (1 if order.n in (3, 7, 11) else 0)
        return Priced(cents=cents, seen=seen.value, drawn=ctx.random().random(), at_ms=ctx.now_ms)

    async with MeshTest.of(price) as mesh:
        await recorded(mesh, [n for n in range(1, 22) if n != 13])
        found = await replay(mesh, dearer)
        ignored = await replay(mesh, dearer, ignore=["cents"])
    assert Counter(each.verdict for each in found) == {"same": 16, "different": 3, "failed": 1}
    texts = {each.recorded.task.data: each.differences[0] for each in found if each.differences}
    assert set(texts) == {b'{"n":3}', b'{"n":7}', b'{"n":11}', b'{"n":20}'}
    assert texts[b'{"n":3}'] == ("order.priced.cents", "15", "16")
    assert texts[b'{"n":20}'].got == "failed: exception: KeyError: 'rate'"
    assert Counter(each.verdict for each in ignored) == {"same": 19, "failed": 1}


async def test_arguments_and_results_are_validated_as_in_a_worker() -> None:
    class Strict(Payload, type="order.placed"):
        n: int
        country: str

    async def strict(order: Strict) -> Priced:
        raise AssertionError("never called")

    async def undeclared(order: Placed) -> Emit:
        return Emit("other", {})

    async with MeshTest.of(price) as mesh:
        await recorded(mesh, [1])
        (unfit,), (wrong,) = await replay(mesh, strict), await replay(mesh, undeclared)
    assert (unfit.verdict, unfit.new.fault and unfit.new.fault.code) == ("failed", "schema")
    assert (wrong.verdict, wrong.new.fault and wrong.new.fault.code) == ("failed", "undeclared_type")


@pytest.mark.parametrize("blocking", [False, True])
async def test_a_function_that_hangs_times_out_and_holds_nothing_up(blocking: bool) -> None:
    released = asyncio.Event()

    async def hanging(order: Placed) -> Priced:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                if order.n < 4:
                    raise
        return Priced(cents=1)

    def sleeping(order: Placed, ctx: Context) -> Priced:
        while not ctx.cancelled:
            time.sleep(0.01)
        return Priced(cents=1)

    options = {"price": {"timeout": "300ms"}}
    async with MeshTest.of(price, options=options) as mesh:
        await recorded(mesh, [1, 2, 3, 4, 5])
        async with asyncio.timeout(30):
            found = await replay(mesh, sleeping if blocking else hanging)
        released.set()
    assert [each.verdict for each in found] == ["failed"] * 5
    assert {each.new.fault.code for each in found if each.new.fault} == {"timed_out"}


async def test_deadlines_that_have_passed_do_not_keep_a_task_from_being_replayed() -> None:
    def blocking(order: Placed, ctx: Context) -> Priced:
        assert ctx.deadline_ms is not None
        return Priced(cents=order.n * 5, seen=1, drawn=ctx.random().random(), at_ms=ctx.now_ms)

    async with MeshTest.of(price) as mesh:
        await (await mesh.publish("order.placed", {"n": 3}, deadline_s=0.8)).outcome(timeout_s=20)
        passed_ms = mesh.log.now_ms() + 800
        await until(lambda: mesh.log.now_ms() > passed_ms)
        (found,) = await replay(mesh, blocking)
    assert found.verdict == "same"


async def test_an_answer_that_took_much_longer_is_slower() -> None:
    async def slow(order: Placed, ctx: Context) -> Priced:
        await asyncio.sleep(0.9)
        return Priced(cents=order.n * 5, seen=1, drawn=ctx.random().random(), at_ms=ctx.now_ms)

    async with MeshTest.of(price) as mesh:
        await recorded(mesh, [3])
        (found,) = await replay(mesh, slow)
    assert found.verdict == "slower"
    assert found.took_ms >= 900


async def test_tasks_that_are_gone_or_were_not_called_are_counted() -> None:
    async with MeshTest.of(price) as mesh:
        await recorded(mesh, [1, 2, 3])
        topic = mesh.topology.tasks("price")
        ends = await mesh.log.bounds(topic)
        for number, bounds in ends.items():
            await mesh.log.trim(TopicPartition(topic, number), bounds.end)
        skipped = Skipped()
        assert await replay(mesh, price, skipped=skipped) == []
    assert skipped == Skipped(gone=3)


async def test_a_period_chooses_by_the_time_of_the_answer() -> None:
    async with MeshTest.of(price) as mesh:
        await recorded(mesh, [1])
        await asyncio.sleep(0.02)
        middle_ms = mesh.log.now_ms()
        await asyncio.sleep(0.02)
        await recorded(mesh, [2, 3])

        async def again(order: Placed) -> None: ...

        later = await replay(mesh, again, period=Period(since_ms=middle_ms))
        earlier = await replay(mesh, again, period=Period(until_ms=middle_ms))
    assert [each.recorded.task.data for each in later] == [b'{"n":2}', b'{"n":3}']
    assert [each.recorded.task.data for each in earlier] == [b'{"n":1}']


async def test_no_folder_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    async def looking(order: Placed) -> None:
        seen.append([name for name in os.listdir(tmp_path) if name.startswith(FOLDER_PREFIX)])

    async with MeshTest.of(price) as mesh:
        await recorded(mesh, [1])
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        await replay(mesh, looking)
    assert len(seen[0]) == 1
    assert os.listdir(tmp_path) == []
