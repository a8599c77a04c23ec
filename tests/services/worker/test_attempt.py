"""One call of an agent's function: what it raises, answers, and how long it may take."""

import asyncio
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mesh import Context, Emit, Reject, RetryLater
from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Board, Log
from mesh.adapters.sqlite import SqliteLog
from tests.services.conftest import append, settled, working
from tests.services.worker.counting_agents import TOPOLOGY, Answer, Ask, answers, counts, task, topology, until, worker


async def test_what_an_agent_raises_is_its_answer_with_the_input_untouched(log: Log, board: Board) -> None:
    async def echo(ask: Ask) -> Answer:
        raise ConnectionError("model said password=hunter2 is wrong")

    async with working(log, TOPOLOGY, worker(log, board, echo).run):
        await append(log, task(1, data=b'{"n": 1, "extra": "kept"}'))
        (answer,) = await answers(log, 1)
    assert (answer.kind, answer.data) == ("failed", b'{"n": 1, "extra": "kept"}')
    assert answer.fault is not None
    assert (answer.fault.code, answer.fault.cls, answer.fault.retryable) == (
        "exception",
        "builtins.ConnectionError",
        True,
    )
    assert "hunter2" not in answer.fault.message + answer.fault.stack
    assert answer.origin.startswith("mesh.tasks.echo:")


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError("by itself")])
async def test_an_agent_that_tries_to_end_the_process_only_fails(log: Log, board: Board, error: BaseException) -> None:
    async def echo(ask: Ask) -> Answer:
        raise error

    async with working(log, TOPOLOGY, worker(log, board, echo).run):
        await append(log, task(1))
        (answer,) = await answers(log, 1)
    assert answer.fault is not None
    assert (answer.kind, answer.fault.cls.rpartition(".")[2]) == ("failed", type(error).__name__)


async def test_a_payload_that_does_not_fit_fails_for_good_and_names_the_field(log: Log, board: Board) -> None:
    async def echo(ask: Ask) -> Answer:
        return Answer(n=0)

    async with working(log, TOPOLOGY, worker(log, board, echo).run):
        await append(log, task(1, data=b'{"n": "many"}'))
        (answer,) = await answers(log, 1)
    assert answer.fault is not None
    assert (answer.fault.code, answer.fault.retryable) == ("schema", False)
    assert "n:" in answer.fault.message


async def test_an_answer_of_no_known_type_fails_for_good(log: Log, board: Board) -> None:
    async def echo(ask: Ask) -> Any:
        return object()

    async with working(log, TOPOLOGY, worker(log, board, echo).run):
        await append(log, task(1))
        (answer,) = await answers(log, 1)
    assert answer.fault is not None
    assert (answer.fault.code, answer.fault.retryable) == ("bad_result", False)


async def test_invalid_spending_fails_and_is_marked_so_that_the_reservation_is_charged(log: Log, board: Board) -> None:
    async def echo(ask: Ask, ctx: Context) -> Emit:
        ctx.spend(tokens=-5)
        return Emit("answer", {"n": 1})

    async with working(log, TOPOLOGY, worker(log, board, echo).run):
        await append(log, task(1))
        (answer,) = await answers(log, 1)
    assert answer.fault is not None
    assert (answer.kind, answer.fault.code, answer.usage) == ("failed", "bad_usage", None)


async def test_a_slow_agent_is_cancelled_at_its_timeout(log: Log, board: Board) -> None:
    cancelled = asyncio.Event()

    async def echo(ask: Ask) -> Answer:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return Answer(n=0)

    mesh = topology(timeout="50ms")
    async with working(log, mesh, worker(log, board, echo, mesh).run):
        await append(log, task(1))
        (answer,) = await answers(log, 1)
    assert cancelled.is_set()
    assert answer.fault is not None
    assert (answer.fault.code, answer.fault.retryable) == ("timed_out", True)


async def test_a_timeout_error_of_the_agent_itself_is_its_own(log: Log, board: Board) -> None:
    async def echo(ask: Ask) -> Answer:
        raise TimeoutError("the model took too long")

    async with working(log, TOPOLOGY, worker(log, board, echo).run):
        await append(log, task(1))
        (answer,) = await answers(log, 1)
    assert answer.fault is not None
    assert (answer.fault.code, answer.fault.message) == ("exception", "the model took too long")


async def test_a_task_past_the_runs_deadline_is_not_begun(log: Log, board: Board) -> None:
    async def echo(ask: Ask) -> Answer:
        raise AssertionError("must not run")

    async with working(log, TOPOLOGY, worker(log, board, echo).run):
        await append(log, task(1, expiry_ms=1_000))
        (answer,) = await answers(log, 1)
    assert answer.fault is not None
    assert (answer.fault.code, answer.fault.retryable) == ("expired", False)


async def test_a_plain_function_runs_in_a_thread_and_blocks_no_other_task(log: Log, board: Board) -> None:
    both = threading.Barrier(2, timeout=20)

    def echo(ask: Ask) -> Answer:
        both.wait()
        return Answer(n=ask.n)

    async with working(log, TOPOLOGY, worker(log, board, echo).run):
        await append(log, task(1), task(2))
        assert {a.kind for a in await answers(log, 2)} == {"succeeded"}


# ------------------------------------------------------------------------------------------ RetryLater and Reject


async def test_later_and_reject_are_answers_that_are_no_events(log: Log, board: Board) -> None:
    async def echo(ask: Ask, ctx: Context) -> Answer | RetryLater | Reject:
        ctx.spend(tokens=7)
        return RetryLater(1.5, "rate limited") if ask.n == 1 else Reject("there is no 2")

    crew = worker(log, board, echo)
    async with working(log, TOPOLOGY, crew.run):
        await append(log, task(1), task(2))
        found = {a.task_id: a for a in await answers(log, 2)}
    later, rejected = found["t1"].fault, found["t2"].fault
    assert later is not None
    assert rejected is not None
    assert (later.code, later.message, later.retryable, later.retry_after_ms) == ("later", "rate limited", True, 1_500)
    assert (rejected.code, rejected.message, rejected.retryable) == ("rejected", "there is no 2", False)
    for answer in found.values():
        assert (answer.kind, answer.data, answer.usage and answer.usage.tokens) == (
            "failed",
            b'{"n":%d}' % int(answer.task_id[1:]),
            7,
        )
    assert counts(crew).shown() == {"later": 1, "rejected": 1}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
async def test_a_result_that_json_cannot_say_fails_and_does_not_become_null(
    log: Log, board: Board, value: float
) -> None:
    async def echo(ask: Ask) -> Emit:
        return Emit("answer", {"n": value})

    async with working(log, TOPOLOGY, worker(log, board, echo).run):
        await append(log, task(1))
        (answer,) = await answers(log, 1)
    assert answer.fault is not None
    assert (answer.fault.code, answer.fault.retryable) == ("bad_result", False)


# ---------------------------------------------------------------------------------------- too slow, and not to be ended


class Stubborn:
    """An agent's function that does not let itself be cancelled, for n below 0."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()

    def function(self) -> Any:
        async def echo(ask: Ask) -> Answer:
            while ask.n < 0 and not self.gate.is_set():
                try:
                    await self.gate.wait()
                except asyncio.CancelledError:
                    continue
            return Answer(n=ask.n)

        return echo


async def test_a_function_that_ignores_its_cancellation_is_abandoned_and_its_slot_and_key_are_free(
    log: Log, board: Board
) -> None:
    stubborn = Stubborn()
    mesh = topology(timeout="50ms", lanes=1)
    crew = worker(log, board, stubborn.function(), mesh, grace_ms=50)
    async with working(log, mesh, crew.run):
        await append(log, task(-1, key="same"), task(1, key="same"), task(2))
        found = {a.task_id: a for a in await answers(log, 3)}
        await settled(log, "mesh.echo", mesh.tasks("echo"))
        assert crew.abandoned_calls == 1
        assert counts(crew).shown() == {"succeeded": 2, "timed_out": 1, "abandoned": 1}
        stubborn.gate.set()
        await until(lambda: counts(crew).late == 1)
        assert crew.abandoned_calls == 0
        assert len(await answers(log, 3)) == 3
    fault = found["t-1"].fault
    assert fault is not None
    assert (fault.code, fault.retryable) == ("timed_out", True)
    assert "did not end 0.05 s after it was cancelled" in fault.message
    assert found["t1"].kind == found["t2"].kind == "succeeded"
    assert counts(crew).succeeded == 2


async def test_what_a_function_answers_while_it_winds_up_counts(log: Log, board: Board) -> None:
    async def echo(ask: Ask) -> Answer:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return Answer(n=99)
        return Answer(n=0)

    mesh = topology(timeout="50ms")
    async with working(log, mesh, worker(log, board, echo, mesh).run):
        await append(log, task(1), task(2))
        found = await answers(log, 2)
    assert [(a.kind, a.data) for a in found] == [("succeeded", b'{"n":99}')] * 2


async def test_what_a_function_raises_for_its_cancellation_is_slow_and_not_wrong(log: Log, board: Board) -> None:
    async def echo(ask: Ask) -> Answer:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            raise ConnectionError("the model hung up") from error
        return Answer(n=0)

    mesh = topology(timeout="50ms")
    crew = worker(log, board, echo, mesh)
    async with working(log, mesh, crew.run):
        await append(log, task(1))
        (answer,) = await answers(log, 1)
    assert answer.fault is not None
    assert (answer.fault.code, answer.fault.cls) == ("timed_out", "builtins.ConnectionError")
    assert "the model hung up" in answer.fault.stack
    assert counts(crew).shown() == {"timed_out": 1}


async def test_blocking_functions_that_hang_are_abandoned_and_their_threads_replaced(log: Log, board: Board) -> None:
    gate = threading.Event()

    def echo(ask: Ask) -> Answer:
        if ask.n < 0:
            gate.wait(20)
        return Answer(n=ask.n)

    mesh = topology(timeout="50ms", lanes=2)
    crew = worker(log, board, echo, mesh)
    async with working(log, mesh, crew.run):
        await append(log, *(task(-n) for n in range(1, 11)), task(1), task(2))
        found = {a.task_id: a for a in await answers(log, 12)}
        assert crew.abandoned_calls == 10
        gate.set()
        await until(lambda: counts(crew).late == 10)
        assert crew.abandoned_calls == 0
    assert [a.kind for a in found.values()].count("succeeded") == 2
    assert {a.fault.code for a in found.values() if a.fault is not None} == {"timed_out"}
    assert counts(crew).shown() == {"succeeded": 2, "timed_out": 10, "abandoned": 10, "late": 10}


async def test_a_stop_iteration_in_a_thread_is_an_error_and_not_a_hang(log: Log, board: Board) -> None:
    def echo(ask: Ask) -> Answer:
        return next(iter(()))

    async with working(log, TOPOLOGY, worker(log, board, echo).run):
        await append(log, task(1))
        (answer,) = await answers(log, 1)
    assert answer.fault is not None
    assert answer.fault.code == "exception"


async def test_a_task_that_the_runs_deadline_cuts_short_has_expired(log: Log, board: Board) -> None:
    async def echo(ask: Ask) -> Answer:
        await asyncio.Event().wait()
        return Answer(n=0)

    crew = worker(log, board, echo)
    async with working(log, TOPOLOGY, crew.run):
        await crew.wait_ready()
        await append(log, task(1, expiry_ms=round(time.time() * 1_000) + 300))
        (answer,) = await answers(log, 1)
    assert answer.fault is not None
    assert (answer.fault.code, answer.fault.retryable) == ("expired", False)
    assert counts(crew).shown() == {"expired": 1}


@pytest.mark.parametrize("ahead_ms", [3_600_000, -3_600_000])
async def test_the_runs_deadline_is_one_by_the_clock_of_the_log(tmp_path: Path, board: Board, ahead_ms: int) -> None:
    class Offset(SystemClock):
        def now_ms(self) -> int:
            return super().now_ms() + ahead_ms

    async def echo(ask: Ask) -> Answer:
        if ask.n == 2:
            await asyncio.Event().wait()
        return Answer(n=ask.n)

    log = SqliteLog(tmp_path / "offset.db", clock=Offset())
    await log.start()
    crew = worker(log, board, echo)
    async with working(log, TOPOLOGY, crew.run):
        await crew.wait_ready()
        await append(log, task(1, expiry_ms=log.now_ms() + 20_000), task(2, expiry_ms=log.now_ms() + 300))
        found = await answers(log, 2)
        await append(log, task(3, expiry_ms=log.now_ms() - 1))
        await until(lambda: counts(crew).shown() == {"succeeded": 1, "expired": 2})
    assert {answer.task_id: answer.kind for answer in found} == {"t1": "succeeded", "t2": "failed"}
    await log.close()


@pytest.mark.parametrize("how", ["waits", "answers", "raises"])
async def test_a_function_that_cancels_itself_has_failed_or_answered_and_harms_no_other(
    log: Log, board: Board, how: str
) -> None:
    begun: Counter[int] = Counter()

    async def suicidal(ask: Ask) -> Answer:
        begun[ask.n] += 1
        if ask.n == 0:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            task.cancel()
            if how == "waits":
                await asyncio.Event().wait()
            elif how == "raises":
                raise ValueError("on top of it")
            return Answer(n=0)
        await asyncio.sleep(0)
        return Answer(n=ask.n)

    mesh = topology(lanes=1)
    async with working(log, mesh, worker(log, board, suicidal, mesh).run):
        await append(log, *(task(n, key="k") for n in range(5)))
        found = {a.task_id: a for a in await answers(log, 5)}
        await settled(log, "mesh.echo", mesh.tasks("echo"))
    assert set(begun.values()) == {1}
    assert {a.kind for id, a in found.items() if id != "t0"} == {"succeeded"}
    ended = {"waits": "asyncio.exceptions.CancelledError", "answers": "", "raises": "builtins.ValueError"}
    fault = found["t0"].fault
    assert (fault.cls if fault is not None else "") == ended[how]
