"""Agents of the fault tests. Every call leaves a line in the file of side effects: agent, task, attempt, pid, note.

The tree takes its time: lognormal around `CHAOS_MEDIAN_MS`, one call in a hundred `CHAOS_TAIL_MS`, by the task's id.
"""

import asyncio
import os
import random
import time

from mesh import BoardUnavailable, Context, Payload, agent

EFFECTS = os.environ.get("CHAOS_EFFECTS", os.devnull)
MEDIAN_MS = float(os.environ.get("CHAOS_MEDIAN_MS", "20"))
TAIL_MS = float(os.environ.get("CHAOS_TAIL_MS", "500"))
BLOCK_S = float(os.environ.get("CHAOS_BLOCK_S", "8"))
HEAVY_BYTES = 40_000
PARTS, TWIGS = 3, 2
WATCH_EVERY_S = 0.02
BOMB, LARGE_BOMB, SPREE, HEAP = 2_000, 10_000, 50, 60


class Ask(Payload, type="chaos.ask"):
    """A request for a tree."""

    id: str


class Part(Payload, type="chaos.part"):
    """First fork."""

    id: str
    part: int


class Twig(Payload, type="chaos.twig"):
    """Second fork."""

    id: str
    part: int
    twig: int


class Leaf(Payload, type="chaos.leaf"):
    """The output payload."""

    id: str
    place: str = ""


class Odd(Payload, type="chaos.odd"):
    """A request for trouble: `how` is one of the names in `odd`."""

    id: str
    how: str
    n: int = 0


class Even(Payload, type="chaos.even"):
    """The other half of a circle."""

    id: str


class Cost(Payload, type="chaos.cost"):
    """Work that costs a cent."""

    id: str
    n: int


class Heavy(Payload, type="chaos.heavy"):
    """A payload that may be larger than its topic takes."""

    id: str
    n: int
    ballast: str = ""


class Order(Payload, type="chaos.order"):
    """A request of a plain client."""

    id: str


class Heard(Payload, type="chaos.heard"):
    """Half of the way."""

    id: str


class Answered(Payload, type="chaos.answered"):
    """The answer for a plain client."""

    id: str


class Slow(Payload, type="chaos.slow"):
    """Work that takes long."""

    id: str
    n: int
    ms: int


def effect(ctx: Context, note: str = "-") -> None:
    """One line, in one write: whole, whoever else writes and whenever we are killed."""
    line = f"{ctx.agent} {ctx.task_id} {ctx.attempt} {os.getpid()} {time.time():.3f} {note}\n"
    handle = os.open(EFFECTS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)


async def think(ctx: Context) -> None:
    """As long as a model would, for this task always the same."""
    effect(ctx)
    dice = random.Random(ctx.task_id)
    tail = dice.random() < 0.01
    await asyncio.sleep((TAIL_MS if tail else MEDIAN_MS * dice.lognormvariate(0, 0.5)) / 1000)


@agent
async def split(ask: Ask, ctx: Context) -> list[Part]:
    """Three parts."""
    await think(ctx)
    return [Part(id=ask.id, part=n) for n in range(PARTS)]


@agent
async def branch(part: Part, ctx: Context) -> list[Twig]:
    """Two twigs each."""
    await think(ctx)
    return [Twig(id=part.id, part=part.part, twig=n) for n in range(TWIGS)]


@agent
async def leaf(twig: Twig, ctx: Context) -> Leaf:
    """One leaf each."""
    await think(ctx)
    return Leaf(id=twig.id, place=f"{twig.part}.{twig.twig}")


@agent
async def hear(order: Order, ctx: Context) -> Heard:
    """Pass it on."""
    effect(ctx, f"hear:{order.id}")
    return Heard(id=order.id)


@agent
async def answer(heard: Heard, ctx: Context) -> Answered:
    """Answer."""
    effect(ctx, f"answer:{heard.id}")
    return Answered(id=heard.id)


@agent
async def odd(odd: Odd, ctx: Context) -> Odd | Leaf | Even | list[Odd | Even | Cost | Heavy | Slow] | None:
    """Does what it is told."""
    effect(ctx, odd.how)
    match odd.how:
        case "bomb" | "large-bomb":
            return [Odd(id=odd.id, how="leaf", n=n) for n in range(BOMB if odd.how == "bomb" else LARGE_BOMB)]
        case "same":
            return odd
        case "changing":
            return Odd(id=odd.id, how="changing", n=odd.n + 1)
        case "circle":
            return Even(id=odd.id)
        case "spree":
            return [Cost(id=odd.id, n=n) for n in range(SPREE)]
        case "heap":
            return [Heavy(id=odd.id, n=n, ballast="x" * (HEAVY_BYTES * (n == HEAP // 2))) for n in range(HEAP)]
        case "queue":
            return [Slow(id=odd.id, n=n, ms=odd.n) for n in range(SPREE)]
        case "exit":
            os._exit(66)
        case "block":
            time.sleep(BLOCK_S)  # noqa: ASYNC251  # that is the fault
        case "second":
            if ctx.attempt == 1:
                raise RuntimeError("the first attempt fails")
            await asyncio.sleep(odd.n / 1000)
        case "nap":
            await asyncio.sleep(odd.n / 1000)
        case "board":
            await _board(ctx)
    return Leaf(id=odd.id, place=odd.how)


async def _board(ctx: Context) -> None:
    """Note how the call ended and how long it took. The time for which this process was held up does not count."""
    began_s, held_up_s = time.monotonic(), [0.0]
    watch = asyncio.create_task(_watch_loop(held_up_s))
    try:
        await ctx.board.add("chaos/calls")
    except BoardUnavailable as error:
        effect(ctx, f"{error.code}:{(time.monotonic() - began_s - held_up_s[0]) * 1000:.0f}")
    else:
        effect(ctx, "board-there")
    finally:
        watch.cancel()


async def _watch_loop(held_up_s: list[float]) -> None:
    """Add up in `held_up_s[0]` how late each turn of the event loop is."""
    while True:
        began_s = time.monotonic()
        await asyncio.sleep(WATCH_EVERY_S)
        held_up_s[0] += time.monotonic() - began_s - WATCH_EVERY_S


@agent
async def even(even: Even, ctx: Context) -> Odd:
    """Back to where it came from."""
    effect(ctx)
    return Odd(id=even.id, how="circle")


@agent
async def cost(cost: Cost, ctx: Context) -> Leaf:
    """A cent."""
    effect(ctx)
    ctx.spend(usd="0.01")
    return Leaf(id=cost.id, place=str(cost.n))


@agent
async def heavy(heavy: Heavy, ctx: Context) -> Leaf:
    """Heavy only on its way here."""
    effect(ctx)
    return Leaf(id=heavy.id, place=str(heavy.n))


@agent
async def slow(slow: Slow, ctx: Context) -> Leaf:
    """Sleeps."""
    effect(ctx)
    await asyncio.sleep(slow.ms / 1000)
    return Leaf(id=slow.id, place=str(slow.n))
