"""Types in a whole mesh: through records, an egress topic and the next agent."""

import functools
from typing import Any

import orjson
from hypothesis import find
from pydantic import Json, SecretStr, create_model

from mesh.core.task.agent import Payload
from mesh.testing import MeshTest
from tests.fuzz.test_types import CARRIED, Open


class Begin(Payload, type="begin"):
    pass


TOPOLOGY = """
mesh: {name: catalogue}
topics:
  in.topic: {ingress: begin, partitions: 1}
  out.topic: {egress: [made, seen], partitions: 1}
agents:
  one: {run: "x:one", on: begin, emits: [made]}
  two: {run: "x:two", on: made, emits: [seen]}
"""


async def test_the_catalogue_passes_an_egress_topic_and_the_next_agent() -> None:
    fields: Any = {f"f{n}": (hint, ...) for n, (hint, _) in enumerate(CARRIED.values())}
    made: Any = create_model("Made", __base__=Payload, __cls_kwargs__={"type": "made"}, **fields)
    value = made(**{f"f{n}": find(values, lambda _: True) for n, (_, values) in enumerate(CARRIED.values())})
    given_to_two: list[Any] = []

    async def one(event: Begin) -> Payload:
        return value

    async def two(event: Payload) -> dict[str, Any]:
        given_to_two.append(event)
        return {"class": type(event).__name__}

    one.__annotations__["return"] = made
    two.__annotations__["event"] = made
    async with MeshTest(TOPOLOGY, agents={"one": one, "two": two}) as mesh:
        outcome = await (await mesh.publish("begin", {})).outcome(timeout_s=20)
    assert outcome.ending == "completed", outcome.raw
    assert given_to_two == [value]
    left = {result.type: result.data for result in outcome.results}
    assert left["seen"] == {"class": "Made"}
    assert made.model_validate_json(orjson.dumps(left["made"])) == value


HOPS = """
mesh: {name: types}
topics:
  in.topic: {ingress: begin, partitions: 1}
  out.topic: {egress: [seen], partitions: 1}
agents:
  one: {run: "x:one", on: begin, emits: [key], retry: {attempts: 1}}
  two: {run: "x:two", on: key, emits: [seen], retry: {attempts: 1}}
"""


class Key(Payload, type="key"):
    api_key: SecretStr


class OpenKey(Payload, type="key"):
    api_key: Open


class Seen(Payload, type="seen"):
    number: int = 0


async def ended(one: Any, two: Any) -> Any:
    async with MeshTest(HOPS, agents={"one": one, "two": two}) as mesh:
        return await (await mesh.publish("begin", {})).outcome(timeout_s=20)


async def test_a_secret_reaches_the_next_agent_only_as_its_model_says() -> None:
    async def one(event: Begin) -> Key:
        return Key(api_key=SecretStr("k-123456"))

    async def one_open(event: Begin) -> OpenKey:
        return OpenKey(api_key=SecretStr("k-123456"))

    async def two(event: OpenKey) -> Seen:
        return Seen(number=int(event.api_key.get_secret_value() == "k-123456"))

    refused = await ended(one, two)
    assert (refused.ending, refused.failures[0]["code"]) == ("failed", "bad_result")
    assert "at 'api_key'" in refused.failures[0]["message"]
    assert "asterisks" in refused.failures[0]["message"]
    carried_on = await ended(one_open, two)
    assert [(result.type, result.data) for result in carried_on.results] == [("seen", {"number": 1})]


async def test_every_emission_is_validated_where_it_is_made() -> None:
    async def one(event: Begin) -> OpenKey:
        return OpenKey(api_key=SecretStr("k"))

    async def one_wrong(event: Begin) -> OpenKey:
        return OpenKey.model_construct(api_key=5)  # type: ignore[arg-type]

    async def two(event: dict[str, Any]) -> Seen:
        return Seen.model_construct(number="many")  # type: ignore[arg-type]

    left, passed_on = await ended(one, two), await ended(one_wrong, two)
    assert [(f["agent"], f["code"]) for f in left.failures] == [("two", "bad_result")]
    assert "number: Input should be a valid integer" in left.failures[0]["message"]
    assert [(f["agent"], f["code"]) for f in passed_on.failures] == [("one", "bad_result")]
    assert left.results == passed_on.results == ()


class Text(Payload, type="key"):
    api_key: Json[list[int]]


class Content(Payload, type="key"):
    api_key: list[int]


async def test_a_field_of_json_is_written_as_its_content() -> None:
    async def one(event: Begin) -> Text:
        return Text.model_validate({"api_key": "[1, 2]"})

    async def two(event: Content) -> Seen:
        return Seen(number=sum(event.api_key))

    async def two_text(event: Text) -> Seen:
        return Seen(number=sum(event.api_key))

    read, refused = await ended(one, two), await ended(one, two_text)
    assert [result.data for result in read.results] == [{"number": 3}]
    assert [(f["agent"], f["code"]) for f in refused.failures] == [("two", "schema")]


async def test_an_async_function_behind_a_plain_decorator_is_awaited() -> None:
    def decorated(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    @decorated
    async def one(event: Begin) -> OpenKey:
        return OpenKey(api_key=SecretStr("k"))

    async def two(event: OpenKey) -> Seen:
        return Seen(number=5)

    outcome = await ended(one, two)
    assert [result.data for result in outcome.results] == [{"number": 5}]
