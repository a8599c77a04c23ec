"""Agents of the benchmarks: as little work as an agent can do, but decoded, validated and encoded like any other."""

import asyncio

from mesh import Payload, agent


class Ask(Payload, type="bench.ask"):
    """About 200 bytes of JSON."""

    id: str
    text: str
    numbers: list[int]


class Answer(Payload, type="bench.answer"):
    """The answer to a request."""

    id: str
    total: int


@agent
async def echo(ask: Ask) -> Answer:
    """Add the numbers."""
    return Answer(id=ask.id, total=sum(ask.numbers))


class Second(Payload, type="bench.second"):
    """Between the first step and the second of a pipeline; also a branch of a join."""

    id: str
    total: int


class Third(Payload, type="bench.third"):
    """Between the second step and the third; also a branch of a join."""

    id: str
    total: int


class Fourth(Payload, type="bench.fourth"):
    """The third branch of a join."""

    id: str
    total: int


class Piece(Payload, type="bench.piece"):
    """One of the hundred parts of a fan-out."""

    id: str
    number: int


class Wait(Payload, type="bench.wait"):
    """A request to wait."""

    id: str
    wait_ms: int


@agent
async def first(ask: Ask) -> Second:
    """Do step one, or one branch of the join."""
    return Second(id=ask.id, total=sum(ask.numbers))


@agent
async def second(step: Second) -> Third:
    """Do step two."""
    return Third(id=step.id, total=step.total + 1)


@agent
async def third(step: Third) -> Answer:
    """Do step three."""
    return Answer(id=step.id, total=step.total + 1)


@agent
async def left(ask: Ask) -> Third:
    """Do another branch of the join."""
    return Third(id=ask.id, total=max(ask.numbers))


@agent
async def right(ask: Ask) -> Fourth:
    """Do the third branch of the join."""
    return Fourth(id=ask.id, total=min(ask.numbers))


@agent
async def joined(one: Second, two: Third, three: Fourth) -> Answer:
    """Join all three branches."""
    return Answer(id=one.id, total=one.total + two.total + three.total)


@agent
async def spread(ask: Ask) -> list[Piece]:
    """Start a hundred tasks."""
    return [Piece(id=f"{ask.id}/{number}", number=number) for number in range(100)]


@agent
async def work(piece: Piece) -> Answer:
    """Do one of the hundred tasks."""
    return Answer(id=piece.id, total=piece.number)


@agent
async def wait(request: Wait) -> Answer:
    """Wait, as an agent does that calls a model or a service."""
    await asyncio.sleep(request.wait_ms / 1_000)
    return Answer(id=request.id, total=request.wait_ms)


class Burn(Payload, type="bench.burn"):
    """A request to compute."""

    id: str
    rounds: int


def compute(rounds: int) -> int:
    """Compute `rounds` rounds of arithmetic: the same work however busy the machine is."""
    total = 0
    for n in range(rounds):
        total = (total * 31 + n) % 1_000_003
    return total


@agent
async def burn(request: Burn) -> Answer:
    """Compute on one core; nothing else of the process runs meanwhile."""
    return Answer(id=request.id, total=compute(request.rounds))
