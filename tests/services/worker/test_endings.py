"""A run that is cancelled reaches its functions within a second, and no function of another run."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from mesh import Context, Emit
from mesh.client import Run
from mesh.core.protocol.codec import read_event
from mesh.core.protocol.event import CANCELLED, Event
from mesh.core.protocol.record import NewRecord, TopicPartition
from mesh.core.run.control import command_record
from mesh.services.worker.environment import ABANDONED_MAX
from mesh.testing import MeshTest

TOPOLOGY = """
mesh: {{name: t, inbox: {{partitions: 2}}}}
topics: {{asks: {{ingress: ask, partitions: 1}}, answers: {{egress: answer, partitions: 1}}}}
agents:
  echo: {{run: "no.such:function", on: ask, emits: answer, lanes: {lanes}, timeout: 60s, retry: {{attempts: 1}}}}
"""
SOON_S = 1.0


class Seen:
    """The observations of a test's functions: the word of a run → its begin, and the time of its cancellation."""

    def __init__(self) -> None:
        self.begun: dict[str, float] = {}
        self.told: dict[str, float] = {}


def waiting(seen: Seen) -> Callable[..., Any]:
    async def function(ask: dict[str, Any], ctx: Context) -> Emit:
        seen.begun[ask["word"]] = time.monotonic()
        ctx.spend(tokens=7)
        try:
            await asyncio.sleep(30 if ask["word"] != "quick" else 0)
        except asyncio.CancelledError:
            seen.told[ask["word"]] = time.monotonic()
            assert ctx.cancelled
            raise
        return Emit("answer", ask)

    return function


def looking(seen: Seen) -> Callable[..., Any]:
    def function(ask: dict[str, Any], ctx: Context) -> Emit:
        seen.begun[ask["word"]] = time.monotonic()
        ctx.spend(tokens=7)
        while ask["word"] != "quick" and not ctx.cancelled:
            time.sleep(0.005)
        seen.told[ask["word"]] = time.monotonic()
        return Emit("answer", ask)

    return function


def using_the_board(seen: Seen) -> Callable[..., Any]:
    def function(ask: dict[str, Any], ctx: Context) -> Emit:
        seen.begun[ask["word"]] = time.monotonic()
        ctx.spend(tokens=7)
        try:
            while ask["word"] != "quick":
                asyncio.run(ctx.board.get("k"))
                time.sleep(0.005)
        except asyncio.CancelledError:
            seen.told[ask["word"]] = time.monotonic()
            asyncio.run(ctx.board.put("last words", ask["word"]))
            raise
        return Emit("answer", ask)

    return function


async def cancel(mesh: MeshTest, run: Run) -> float:
    record = command_record(CANCELLED, run.id, mesh.topology, event_id=f"c-{run.id}", at_ms=0, by="test", why="")
    await mesh.log.append([record])
    return time.monotonic()


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # threads set it
            await asyncio.sleep(0.005)


async def last_answers(mesh: MeshTest, count: int) -> list[Event]:
    """Answers of tasks on the inbox, once there are so many."""
    places = {TopicPartition(mesh.topology.inbox, n): 0 for n in range(2)}
    reader, found = mesh.log.reader(places), list[Event]()
    async with asyncio.timeout(20):
        while len(found) < count:
            events = [read_event(record) for record in await reader.poll(records_max=100, wait_ms=100)]
            found += [event for event in events if isinstance(event, Event) and event.kind in ("failed", "succeeded")]
    await reader.close()
    return found


@pytest.mark.parametrize("make", [waiting, looking, using_the_board])
async def test_a_function_sees_the_end_and_its_answer_has_its_usage(make: Callable[[Seen], Any]) -> None:
    seen = Seen()
    async with MeshTest(TOPOLOGY.format(lanes=8), agents={"echo": make(seen)}) as mesh:
        run = await mesh.publish("ask", {"word": "long"})
        await until(lambda: "long" in seen.begun)
        at = await cancel(mesh, run)
        assert (await run.outcome(timeout_s=20)).ending == "cancelled"
        await until(lambda: "long" in seen.told)
        assert seen.told["long"] - at < SOON_S
        (answer,) = await last_answers(mesh, 1)
        if make is looking:
            assert answer.kind == "succeeded"
        else:
            assert answer.fault is not None
            assert (answer.fault.code, answer.fault.retryable) == ("run_ended", False)
        assert answer.usage is not None
        assert answer.usage.tokens == 7


async def test_the_functions_of_other_runs_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, gate = Seen(), asyncio.Event()

    async def function(ask: dict[str, Any]) -> Emit:
        seen.begun[ask["word"]] = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(20):
                await gate.wait()
        return Emit("answer", ask)

    async with MeshTest(TOPOLOGY.format(lanes=8), agents={"echo": function}) as mesh:
        runs = [await mesh.publish("ask", {"word": word}) for word in "abc"]
        await until(lambda: len(seen.begun) == 3)
        await cancel(mesh, runs[1])
        assert (await runs[1].outcome(timeout_s=20)).ending == "cancelled"
        await last_answers(mesh, 1)
        gate.set()
        assert [(await run.outcome(timeout_s=20)).ending for run in runs] == ["completed", "cancelled", "completed"]


async def test_a_task_that_waits_for_its_turn_is_not_begun_when_its_run_has_ended() -> None:
    seen = Seen()
    async with MeshTest(TOPOLOGY.format(lanes=1), agents={"echo": waiting(seen)}) as mesh:
        assert mesh.process.worker is not None
        consumer = mesh.process.worker.consumers["echo"]
        first = await mesh.publish("ask", {"word": "first"})
        await until(lambda: "first" in seen.begun)
        second = await mesh.publish("ask", {"word": "second"})
        await until(lambda: consumer.lanes.queued == 1)
        await cancel(mesh, second)
        await second.outcome(timeout_s=20)
        await until(lambda: mesh.process.worker is not None and mesh.process.worker._ended_ids)
        await cancel(mesh, first)
        await first.outcome(timeout_s=20)
        third = await mesh.publish("ask", {"word": "quick"})
        assert (await third.outcome(timeout_s=20)).ending == "completed"
        assert list(seen.begun) == ["first", "quick"]


async def test_what_others_write_there_disturbs_nothing() -> None:
    seen = Seen()
    async with MeshTest(TOPOLOGY.format(lanes=8), agents={"echo": waiting(seen)}) as mesh:
        values = (b"", b"{", b"[]", b'{"tasks": [1]}', b'{"tasks": ["no such task"]}')
        await mesh.log.append([NewRecord(mesh.topology.endings, b"x", value, ()) for value in values])
        run = await mesh.publish("ask", {"word": "quick"})
        assert (await run.outcome(timeout_s=20)).ending == "completed"


async def test_a_blocking_function_that_does_not_look_keeps_its_thread_and_its_process() -> None:
    gate, begun = threading.Event(), Counter[str]()

    def function(ask: dict[str, Any], ctx: Context) -> Emit:
        begun["all"] += 1
        gate.wait(20)
        return Emit("answer", ask)

    async with MeshTest(TOPOLOGY.format(lanes=64), agents={"echo": function}) as mesh:
        runs = [await mesh.publish("ask", {"n": n}) for n in range(ABANDONED_MAX + 4)]
        await until(lambda: begun["all"] == len(runs))
        for run in runs:
            await cancel(mesh, run)
        assert {(await run.outcome(timeout_s=20)).ending for run in runs} == {"cancelled"}
        worker = mesh.process.worker
        assert worker is not None
        await until(lambda: len(worker._ended_ids) == len(runs))
        assert (worker.abandoned_calls, worker.running) == (0, len(runs))
        gate.set()
        assert {answer.kind for answer in await last_answers(mesh, len(runs))} == {"succeeded"}
