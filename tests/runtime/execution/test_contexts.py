"""A context of its own for each call."""

import asyncio
import decimal
from collections.abc import Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any

import pytest

from mesh.runtime.execution.contexts import Contexts, within

word: ContextVar[str] = ContextVar("word", default="nothing")


async def speak(text: str, *, waits: bool) -> str:
    found = word.get()
    word.set(text)
    if waits:
        await asyncio.sleep(0)
    assert word.get() == text
    return found


@pytest.mark.parametrize("waits", [False, True])
async def test_each_call_finds_what_stood_when_the_contexts_were_made(waits: bool) -> None:
    word.set("first")
    contexts = Contexts()
    word.set("second")
    assert [await within(contexts.new(), speak(text, waits=waits)) for text in "ab"] == ["first", "first"]
    assert word.get() == "second"


async def test_a_task_that_a_call_begins_has_the_context_of_the_call() -> None:
    async def call() -> str:
        word.set("inner")
        return await asyncio.create_task(speak("x", waits=True))

    assert await within(Contexts().new(), call()) == "inner"


@pytest.mark.parametrize("waits", [False, True])
async def test_what_a_call_raises_is_raised(waits: bool) -> None:
    async def fail() -> None:
        if waits:
            await asyncio.sleep(0)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await within(Contexts().new(), fail())


async def test_a_cancelled_call_sees_it_in_its_context_and_may_answer() -> None:
    async def stubborn() -> str:
        word.set("mine")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return word.get()
        raise AssertionError

    task = asyncio.create_task(within(Contexts().new(), stubborn()))
    await asyncio.sleep(0)
    task.cancel()
    assert await task == "mine"


def test_a_call_that_is_closed_is_closed_in_its_context() -> None:
    seen = []

    async def call() -> None:
        word.set("mine")
        try:
            await asyncio.sleep(0)
        finally:
            seen.append(word.get())

    closing: Coroutine[Any, Any, None] = within(Context(), call())
    closing.send(None)
    closing.close()
    assert seen == ["mine"]


async def third() -> str:
    found = str(decimal.Decimal(1) / 3)
    decimal.getcontext().prec = 3
    return found


def in_context(precision: int | None) -> Contexts:
    """Made where a module has set the precision, or has only calculated."""

    def made() -> Contexts:
        decimal.setcontext(decimal.Context() if precision is None else decimal.Context(prec=precision))
        decimal.Decimal(1) / 3
        return Contexts()

    return copy_context().run(made)


@pytest.mark.parametrize(("precision", "digits"), [(None, 28), (7, 7)])
async def test_the_decimal_context_of_one_call_does_not_reach_another(precision: int | None, digits: int) -> None:
    contexts = in_context(precision)
    assert [await within(contexts.new(), third()) for _ in range(3)] == ["0." + "3" * digits] * 3
