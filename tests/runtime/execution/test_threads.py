"""Threads whose callers may go away."""

import asyncio
import itertools
import threading
from collections.abc import Callable
from contextvars import ContextVar

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from mesh.runtime.execution.threads import Threads

NUMBERS = itertools.count()


class Heard:
    """Counts what the pool tells."""

    def __init__(self) -> None:
        self.name = f"test {next(NUMBERS)}"
        self.abandoned = 0
        self.late = 0
        self.changed = asyncio.Event()

    def on_abandoned(self) -> None:
        self.abandoned += 1

    def on_late(self) -> None:
        self.late += 1
        self.changed.set()


def pool(threads_max: int) -> tuple[Threads, Heard]:
    heard = Heard()
    return Threads(threads_max, name=heard.name, on_abandon=heard.on_abandoned, on_late=heard.on_late), heard


def alive(heard: Heard) -> int:
    return sum(thread.name == heard.name for thread in threading.enumerate())


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110  # threads set no event of the loop
            await asyncio.sleep(0.002)


async def test_a_call_is_answered_or_raises_as_it_did() -> None:
    threads, heard = pool(2)
    assert await threads.run(lambda: threading.current_thread().name) == heard.name
    for error in (ValueError("no"), SystemExit(3), KeyboardInterrupt()):

        def call(error: BaseException = error) -> None:
            raise error

        with pytest.raises(type(error)):
            await threads.run(call)
    threads.close()
    await until(lambda: not alive(heard))


async def test_a_stop_iteration_is_an_error_and_ends_the_wait() -> None:
    threads, _ = pool(1)

    def call() -> None:
        raise StopIteration

    with pytest.raises(RuntimeError, match="StopIteration"):
        async with asyncio.timeout(20):
            await threads.run(call)
    threads.close()


async def test_no_more_threads_than_allowed_and_none_before_it_is_needed() -> None:
    threads, heard = pool(3)
    inside = peak = 0
    lock = threading.Lock()
    full = threading.Event()

    def call() -> None:
        nonlocal inside, peak
        with lock:
            inside += 1
            peak = max(peak, inside)
            if inside == 3:
                full.set()
        assert full.wait(5)
        with lock:
            inside -= 1

    assert alive(heard) == 0
    await asyncio.gather(*(threads.run(call) for _ in range(20)))
    assert peak == 3
    assert alive(heard) == 3
    threads.close()
    await until(lambda: not alive(heard))


async def test_threads_are_used_again() -> None:
    threads, heard = pool(8)
    for _ in range(50):
        await threads.run(lambda: None)
    assert alive(heard) < 8  # another one when the first had answered and was not back yet
    threads.close()
    await until(lambda: not alive(heard))


async def test_an_abandoned_thread_is_replaced_and_its_answer_is_late() -> None:
    threads, heard = pool(1)
    gate, begun = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        gate.wait(10)

    first = asyncio.create_task(threads.run(hang))
    await until(begun.is_set)
    waits = asyncio.create_task(threads.run(lambda: "next"))
    await asyncio.sleep(0)
    first.cancel()
    async with asyncio.timeout(20):
        assert await waits == "next"
    assert (first.cancelled(), threads.abandoned_calls, heard.abandoned, heard.late) == (True, 1, 1, 0)
    assert await threads.run(lambda: "and another") == "and another"
    gate.set()
    async with asyncio.timeout(20):
        await heard.changed.wait()
    assert (threads.abandoned_calls, heard.abandoned, heard.late) == (0, 1, 1)
    threads.close()
    await until(lambda: not alive(heard))


async def test_a_hundred_abandoned_threads_leave_the_pool_as_large_as_before() -> None:
    threads, heard = pool(2)
    gate = threading.Event()
    for _ in range(50):
        begun = threading.Event()

        def hang(begun: threading.Event = begun) -> None:
            begun.set()
            gate.wait(10)

        call = asyncio.create_task(threads.run(hang))
        await until(begun.is_set)
        call.cancel()
        await asyncio.wait([call])
    assert threads.abandoned_calls == 50
    both = threading.Barrier(2, timeout=20)
    await asyncio.gather(threads.run(both.wait), threads.run(both.wait))
    gate.set()
    await until(lambda: heard.late == 50)
    assert threads.abandoned_calls == 0
    threads.close()
    await until(lambda: not alive(heard))


async def test_a_call_that_had_not_begun_is_simply_not_made() -> None:
    threads, heard = pool(1)
    gate = threading.Event()
    made: list[int] = []
    first = asyncio.create_task(threads.run(lambda: gate.wait(10)))
    second = asyncio.create_task(threads.run(lambda: made.append(1)))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait([second])
    gate.set()
    await first
    await threads.run(lambda: made.append(2))
    assert (made, heard.abandoned, threads.abandoned_calls) == ([2], 0, 0)
    threads.close()


async def test_a_call_runs_in_a_copy_of_the_context_of_its_caller() -> None:
    word: ContextVar[str] = ContextVar("word", default="nothing")
    tracer = TracerProvider().get_tracer("test")

    def call() -> tuple[str, int]:
        found = word.get()
        word.set("inner")
        return found, trace.get_current_span().get_span_context().span_id

    threads = Threads(1, name="t", on_abandon=lambda: None, on_late=lambda: None)
    assert await threads.run(call) == ("nothing", 0)
    word.set("outer")
    with tracer.start_as_current_span("task") as span:
        assert await threads.run(call) == ("outer", span.get_span_context().span_id)
    assert word.get() == "outer"
    assert await threads.run(call) == ("outer", 0)
    threads.close()
