"""Calls of a Faust agent: real streams of Faust, without a broker."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import faust
import pytest
from faust.types.tuples import ConsumerMessage

from mesh.adapters.faust.calls import Calls, current_context
from mesh.core.errors import InvalidInput

DEADLINE_S = 30


CallsOf = Callable[..., Calls]


@pytest.fixture
async def calls_of() -> AsyncIterator[CallsOf]:
    """Makes calls of a function as an agent of an app; both end with the test."""
    made: list[Calls] = []

    def calls_of(function: Callable[..., Any], **options: Any) -> Calls:
        made.append(_calls_of(function, **options))
        return made[-1]

    yield calls_of
    for calls in made:
        await calls.close()
        calls.agent.app.consumer._thread.thread_loop.close()


def _calls_of(function: Callable[..., Any], **options: Any) -> Calls:
    app = faust.App("calls", broker="kafka://127.0.0.1:9")
    agent = app.agent(app.topic("seen"), **options)(function)
    app.flow_control.resume()
    return Calls(app, agent)


def message(offset: int = 0) -> Any:
    return ConsumerMessage("tasks", 2, offset, 1.0, 0, [("ce_id", b"1")], b"k", b"v", None, generation_id=-7)


async def test_values_belong_to_the_event_before_the_next_is_asked_for(calls_of: CallsOf) -> None:
    started = 0

    async def agent(stream: Any) -> AsyncIterator[str]:
        nonlocal started
        started += 1
        async for value in stream:
            for n in range(value):
                yield f"{value}.{n}"

    calls = calls_of(agent)
    assert [await calls.call(n, message(n), None) for n in (2, 0, 1)] == [["2.0", "2.1"], [], ["1.0"]]
    assert started == 1, "the function runs on"


async def test_a_function_that_yields_nothing_is_called(calls_of: CallsOf) -> None:
    seen = []

    async def agent(stream: Any) -> None:
        async for event in stream.events():
            seen.append((event.value, event.key, event.message.partition, event.headers, current_context()))

    calls = calls_of(agent)
    assert await calls.call("a", message(), "its context") == []
    assert seen == [("a", b"k", 2, {"ce_id": b"1"}, "its context")]


async def test_an_error_is_the_answer_and_a_new_instance_goes_on(calls_of: CallsOf) -> None:
    noted = []

    async def agent(stream: Any) -> AsyncIterator[Any]:
        async for value in stream:
            yield 1 / value

    async def on_error(agent: Any, error: BaseException) -> None:
        noted.append(type(error))

    calls = calls_of(agent)
    calls.agent._on_error = on_error
    with pytest.raises(ZeroDivisionError):
        await calls.call(0, message(), None)
    assert await calls.call(2, message(), None) == [0.5]
    assert noted == [ZeroDivisionError], "the agent's own error handler stays"


async def test_an_error_of_the_error_handler_is_the_answer(calls_of: CallsOf) -> None:
    async def agent(stream: Any) -> AsyncIterator[Any]:
        async for value in stream:
            yield 1 / value

    async def on_error(agent: Any, error: BaseException) -> None:
        raise KeyError("no handler")

    calls = calls_of(agent)
    calls.agent._on_error = on_error
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(KeyError) as raised:
            await calls.call(0, message(), None)
    assert isinstance(raised.value.__context__, ZeroDivisionError)


async def test_a_cancelled_call_cancels_the_function(calls_of: CallsOf) -> None:
    ended = asyncio.Event()

    async def agent(stream: Any) -> AsyncIterator[int]:
        async for value in stream:
            try:
                await asyncio.sleep(value)
            except asyncio.CancelledError:
                ended.set()
                raise
            yield value

    calls = calls_of(agent)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(calls.call(3_600, message(), None), 0.05)
    assert ended.is_set()
    assert await asyncio.wait_for(calls.call(0, message(), None), DEADLINE_S) == [0]


async def test_calls_at_once_have_an_instance_each(calls_of: CallsOf) -> None:
    both = asyncio.Barrier(2)

    async def agent(stream: Any) -> AsyncIterator[int]:
        async for value in stream:
            await both.wait()
            yield value

    calls = calls_of(agent, concurrency=2)
    answers = asyncio.gather(*(calls.call(n, message(), None) for n in (1, 2)))
    assert await asyncio.wait_for(answers, DEADLINE_S) == [[1], [2]]


async def test_sinks_of_the_agent_stay(calls_of: CallsOf) -> None:
    sunk: list[int] = []

    async def agent(stream: Any) -> AsyncIterator[int]:
        async for value in stream:
            yield value

    calls = calls_of(agent, sink=[sunk.append])
    assert await calls.call(5, message(), None) == [5]
    assert sunk == [5]


@pytest.mark.parametrize("operator", ["take", "group_by", "through"])
async def test_operators_that_hold_events_back_are_refused(calls_of: CallsOf, operator: str) -> None:
    async def agent(stream: Any) -> None:
        async for _ in getattr(stream, operator)(10, within=1):
            pass

    calls = calls_of(agent)
    with pytest.raises(InvalidInput, match="one event at a time"):
        await calls.call(1, message(), None)


async def test_an_event_waits_while_faust_rebalances(calls_of: CallsOf) -> None:
    async def agent(stream: Any) -> AsyncIterator[int]:
        async for value in stream:
            yield value

    calls = calls_of(agent)
    flow = calls.agent.app.flow_control
    flow.suspend()
    call = asyncio.ensure_future(calls.call(1, message(), None))
    done, _ = await asyncio.wait({call}, timeout=0.05)
    assert not done, "Faust would drop it, and the task would end without an answer"
    flow.resume()
    assert await asyncio.wait_for(call, DEADLINE_S) == [1]
