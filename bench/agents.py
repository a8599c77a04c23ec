"""Agents of the benchmarks: as little work as an agent can do, but decoded, validated and encoded like any other."""

from mesh import Payload, agent


class Ask(Payload, type="bench.ask"):
    """About 200 bytes of JSON."""

    id: str
    text: str
    numbers: list[int]


class Answer(Payload, type="bench.answer"):
    """What came back."""

    id: str
    total: int


@agent
async def echo(ask: Ask) -> Answer:
    """Add the numbers up."""
    return Answer(id=ask.id, total=sum(ask.numbers))
