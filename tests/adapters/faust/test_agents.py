"""A Faust agent as the mesh sees it: found by `run`, payloads in, what it yields out."""

from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

import faust
import pytest

from mesh.adapters.faust.agents import described, joining
from mesh.core.errors import ConfigInvalid, InvalidInput
from mesh.core.protocol.event import TASK, Event
from mesh.core.task import result
from mesh.core.task.agent import Emit, RetryLater
from mesh.core.topology.model import AgentSpec

SPEC = AgentSpec("count", f"{__name__}:count", ("word.seen",), ("word.counted",), faust="words", line=7)
MESSAGE: ContextVar[Any] = ContextVar("message", default=None)


class Place(faust.Record):
    page: int


class Seen(faust.Record, validation=True):
    word: str
    place: Place


async def count(seen: Any) -> None:
    async for _ in seen:
        pass


def app_with_agent() -> Any:
    app = faust.App("words", broker="kafka://127.0.0.1:9")
    app.agent(app.topic("seen", value_type=Seen), name="any-name", concurrency=3)(count)
    return app


def task(data: bytes) -> Event:
    return Event("t:1", "/mesh", "word.seen", TASK, "r", data, agent="count")


class Given:
    """Stands for the calls of an agent that yields these values."""

    def __init__(self, *values: Any) -> None:
        self.values, self.calls = list(values), []  # type: ignore[var-annotated]

    async def call(self, *arguments: Any) -> list[Any]:
        self.calls.append(arguments)
        return self.values


def test_an_agent_is_found_by_module_and_function() -> None:
    app = app_with_agent()
    assert joining(app, {"count": SPEC}, "topics.yaml") == {"count": app.agents["any-name"]}


def test_an_unknown_agent_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ConfigInvalid, match=r"topics\.yaml:7.*'count' is not in the Faust app") as caught:
        joining(app_with_agent(), {"count": AgentSpec("count", "a:b", (), (), line=7)}, "topics.yaml")
    assert caught.value.expected == f"{__name__}:count"


def test_a_join_of_events_is_refused() -> None:
    spec = AgentSpec("count", SPEC.run, ("a", "b"), (), join=True)
    with pytest.raises(ConfigInvalid, match="needs several events"):
        joining(app_with_agent(), {"count": spec}, "topics.yaml")


def test_a_payload_is_read_as_the_value_type_of_the_agent() -> None:
    agent = described(app_with_agent().agents["any-name"], Given(), MESSAGE)  # type: ignore[arg-type]
    assert agent.calls_max == 3
    given = result.arguments(agent, task(b'{"word":"cat","place":{"page":2}}'))
    assert given == {"payload": Seen(word="cat", place=Place(page=2))}


@pytest.mark.parametrize("data", [b'{"word":"cat"}', b"[1]", b"null"])
def test_a_payload_that_does_not_fit_is_refused(data: bytes) -> None:
    agent = described(app_with_agent().agents["any-name"], Given(), MESSAGE)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput) as caught:
        result.arguments(agent, task(data))
    assert caught.value.code == "schema"


@pytest.mark.parametrize(
    ("values", "sent"),
    [
        ([], []),
        ([Seen(word="cat", place=Place(page=2))], [b'{"word":"cat","place":{"page":2}}']),
        ([{"n": 1}, Emit("word.counted", Place(page=3))], [b'{"n":1}', b'{"page":3}']),
    ],
)
async def test_what_an_agent_yields_is_emitted(values: list[Any], sent: list[bytes]) -> None:
    calls = Given(*values)
    agent = described(app_with_agent().agents["any-name"], calls, MESSAGE)  # type: ignore[arg-type]
    message = SimpleNamespace()
    MESSAGE.set(message)
    value = await agent.function(payload={"word": "cat"}, context=None)
    assert [part.data for part in result.parts_of(agent, SPEC, value)] == sent
    assert calls.calls == [({"word": "cat"}, message, None)]


async def test_a_request_to_come_later_is_one() -> None:
    agent = described(app_with_agent().agents["any-name"], Given(RetryLater(3)), MESSAGE)  # type: ignore[arg-type]
    assert await agent.function(payload={}, context=None) == RetryLater(3)
