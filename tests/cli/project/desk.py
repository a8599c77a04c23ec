"""Agents for the command line's tests."""

import asyncio
from pathlib import Path

from mesh import Context, Payload, agent


class Hello(Payload, type="hello"):
    name: str


class Greeted(Payload, type="greeted"):
    text: str


class GreetingKept(Payload, type="greeting.kept"):
    name: str


class BreakMe(Payload, type="break.me"):
    why: str = "it was glass"


class Noted(Payload, type="noted"):
    text: str


class RoundGo(Payload, type="round.go"):
    lap: int = 0


class NapTaken(Payload, type="nap.taken"):
    seconds: float = 60.0


class Woken(Payload, type="woken"):
    seconds: float


class WordSaid(Payload, type="word.said"):
    word: str


class WordHeard(Payload, type="word.heard"):
    word: str


@agent
async def greet(hello: Hello) -> list[Greeted | GreetingKept]:
    return [Greeted(text=f"good day, {hello.name}"), GreetingKept(name=hello.name)]


@agent
async def keep(greeting: GreetingKept, context: Context) -> None:
    await context.board.put(f"greetings/{greeting.name}", {"name": greeting.name})


@agent
async def smash(order: BreakMe) -> Noted:
    raise ValueError(order.why)


@agent
async def go_round(go: RoundGo) -> RoundGo:
    return RoundGo(lap=go.lap + 1)


@agent
async def nap(nap: NapTaken, context: Context) -> Woken:
    Path(f"napping-{context.run_id}").touch()  # noqa: ASYNC240  # so that a test knows when it has begun
    try:
        await asyncio.sleep(nap.seconds)
    except asyncio.CancelledError:
        Path(f"roused-{context.run_id}").touch()  # noqa: ASYNC240
        raise
    return Woken(seconds=nap.seconds)


@agent
async def hear(said: WordSaid) -> WordHeard:
    return WordHeard(word=said.word)
