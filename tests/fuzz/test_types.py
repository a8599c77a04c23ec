"""Pydantic's own catalogue of field types, both ways: what one agent returns is what the next one is given.

For each type, an agent writes any value of it, a record carries it, and the next agent reads an equal value. A foreign
consumer reads the same JSON. A value without a form in JSON is refused as `bad_result`.
"""

import enum
import json
import re
from base64 import b64encode
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import PurePosixPath
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, Self, TypeVar
from uuid import UUID

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    AnyUrl,
    Base64Bytes,
    Base64Str,
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    PlainSerializer,
    PostgresDsn,
    RootModel,
    Secret,
    SecretStr,
    TypeAdapter,
    computed_field,
    create_model,
    model_validator,
)
from typing_extensions import TypedDict

from mesh.core.errors import InvalidInput
from mesh.core.payload.json_encode import encode
from mesh.core.payload.json_fields import JsonSide, MissingField, lookup
from mesh.core.protocol import json_check
from mesh.core.protocol.event import BATCH, NO_USAGE, Part, encode_batch
from mesh.core.task import result
from mesh.core.task.agent import Agent, Payload, agent_of
from mesh.core.topology.model import AgentSpec
from tests.core.samples import again, task

T = TypeVar("T")
SPEC = AgentSpec("one", "x:one", ("in",), ("made",))


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Pair(NamedTuple):
    left: int
    right: str


class Row(TypedDict, total=False):
    number: int
    text: str


@dataclass
class Record:
    number: int
    at: date


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    name: str = Field(default="", alias="Name")


class Box(BaseModel, Generic[T]):
    item: T


class Words(RootModel[list[str]]):
    pass


class Base64(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
    raw: bytes


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=lambda name: name.title(), validate_by_name=True)
    order_id: str
    price: float

    @computed_field  # type: ignore[prop-decorator]
    @property
    def double(self) -> float:
        return self.price * 2


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    when: datetime
    id: UUID
    color: Color
    parts: tuple[int, ...]


Reference = NewType("Reference", str)
Open = Annotated[SecretStr, PlainSerializer(lambda secret: secret.get_secret_value(), return_type=str)]
Lower = Annotated[str, AfterValidator(str.lower)]

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.integers(-(2**63), 2**64 - 1)
floats = st.floats(allow_nan=False, allow_infinity=False)
zones = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
aware = st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 12, 31), timezones=zones)
cats, dogs = st.builds(Cat, lives=numbers), st.builds(Dog, Name=words)
decimals = st.decimals(allow_nan=False, allow_infinity=False)
plain = st.recursive(
    st.none() | st.booleans() | numbers | floats | words, lambda inner: st.lists(inner) | st.dictionaries(words, inner)
)

CARRIED: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "str": (str, words),
    "int": (int, numbers),
    "float": (float, floats),
    "bool": (bool, st.booleans()),
    "None": (None, st.none()),
    "Decimal": (Decimal, decimals),
    "complex": (complex, st.complex_numbers(allow_nan=False, allow_infinity=False)),
    "Fraction": (Fraction, st.fractions()),
    "datetime": (datetime, st.datetimes() | aware),
    "date": (date, st.dates()),
    "time": (time, st.times()),
    "timedelta": (timedelta, st.timedeltas(timedelta(days=-999_999), timedelta(days=999_999))),
    "UUID": (UUID, st.uuids()),
    "Enum": (Color, st.sampled_from(Color)),
    "IntEnum": (Level, st.sampled_from(Level)),
    "Literal": (Literal["a", 1, True], st.sampled_from(["a", 1])),
    "PurePath": (PurePosixPath, words.map(PurePosixPath)),
    "IPv4Address": (IPv4Address, st.ip_addresses(v=4)),
    "IPv6Address": (IPv6Address, st.ip_addresses(v=6)),
    "IPv4Network": (IPv4Network, st.ip_addresses(v=4).map(IPv4Network)),
    "AnyUrl": (AnyUrl, st.integers(1, 65_535).map(lambda port: AnyUrl(f"https://u:p@example.com:{port}/a?b=c#d"))),
    "PostgresDsn": (PostgresDsn, st.just(PostgresDsn("postgres://u:p@a:1,b:2/db"))),
    "Pattern": (re.Pattern[str], words.map(lambda word: re.compile(re.escape(word)))),
    "bytes": (bytes, words.map(str.encode)),
    "bytes as base64": (Base64, st.builds(Base64, raw=st.binary())),
    "Base64Bytes": (Base64Bytes, st.binary(max_size=20).map(b64encode)),
    "Base64Str": (Base64Str, st.text("abc", max_size=20).map(lambda text: b64encode(text.encode()).decode())),
    "ByteSize": (ByteSize, st.integers(0, 2**63).map(ByteSize)),
    "list": (list[int], st.lists(numbers)),
    "list of Optional": (list[int | None], st.lists(numbers | st.none())),
    "tuple": (tuple[int, str], st.tuples(numbers, words)),
    "tuple of any length": (tuple[float, ...], st.lists(floats).map(tuple)),
    "set": (set[int], st.sets(numbers)),
    "frozenset": (frozenset[str], st.frozensets(words)),
    "list of sets": (list[set[str]], st.lists(st.sets(words))),
    "deque": (deque[int], st.lists(numbers).map(deque)),
    "dict": (dict[str, float], st.dictionaries(words, floats)),
    "dict by int": (dict[int, str], st.dictionaries(numbers, words)),
    "dict by UUID": (dict[UUID, date], st.dictionaries(st.uuids(), st.dates())),
    "defaultdict": (defaultdict[str, int], st.dictionaries(words, numbers).map(lambda d: defaultdict(int, d))),
    "OrderedDict": (OrderedDict[str, int], st.dictionaries(words, numbers).map(OrderedDict)),
    "Counter": (Counter[str], st.dictionaries(words, st.integers(0, 9)).map(Counter)),
    "Sequence": (Sequence[int], st.lists(numbers)),
    "Mapping": (Mapping[str, int], st.dictionaries(words, numbers)),
    "NamedTuple": (Pair, st.builds(Pair, numbers, words)),
    "TypedDict": (Row, st.fixed_dictionaries({}, optional={"number": numbers, "text": words})),
    "dataclass": (Record, st.builds(Record, numbers, st.dates())),
    "model": (Cat, cats),
    "model with alias": (Dog, dogs),
    "model with aliases and a computed field": (
        Camel,
        st.builds(Camel, Order_Id=words, Price=st.floats(-1e300, 1e300)),
    ),
    "strict model": (
        Strict,
        st.builds(Strict, when=aware, id=st.uuids(), color=st.sampled_from(Color), parts=st.lists(numbers).map(tuple)),
    ),
    "generic model": (Box[Box[int]], numbers.map(lambda n: Box[Box[int]](item=Box[int](item=n)))),
    "RootModel": (Words, st.lists(words).map(Words)),
    "union": (int | str | None, numbers | words | st.none()),
    "discriminated union": (Annotated[Cat | Dog, Field(discriminator="kind")], cats | dogs),
    "NewType": (Reference, words),
    "constraint": (Annotated[int, Field(ge=0, le=9)], st.integers(0, 9)),
    "validator": (Lower, words.map(str.lower)),
    "secret that is written": (Open, words.map(SecretStr)),
    "Any": (Any, plain),
}
DOUBTFUL: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "int": (int, st.integers()),
    "float": (float, st.floats()),
    "Decimal": (Decimal, st.decimals()),
    "bytes": (bytes, st.binary()),
    "str": (str, st.text("\ud800a")),
    "SecretStr": (SecretStr, st.text("*a", max_size=12).map(SecretStr)),
    "Secret": (Secret[int], numbers.map(Secret[int])),
    "dict of mixed keys": (dict[int | str, int], st.dictionaries(st.integers(0, 3) | st.sampled_from("0123"), numbers)),
    "Decimal as float": (Annotated[Decimal, PlainSerializer(float)], decimals),
    "Any": (Any, st.floats() | st.integers() | st.text("*", max_size=12).map(SecretStr)),
}
quickly = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


def payload_of(hint: Any) -> type[Payload]:
    return create_model("Made", __base__=Payload, __cls_kwargs__={"type": "made"}, value=(hint, ...))


def agents_of(hint: Any) -> tuple[Agent, Agent]:
    """One that returns the type, one that takes it."""

    def one(event: Payload) -> None: ...

    def two(event: Any) -> None: ...

    one.__annotations__["return"] = hint
    two.__annotations__["event"] = hint
    return agent_of(one), agent_of(two)


def carried(hint: Any, value: Any) -> tuple[bytes, Any, Any]:
    """The JSON of a result, and what the next agent is given: alone, and in a batch."""
    one, two = agents_of(hint)
    (part,) = result.parts_of(one, SPEC, value)
    answer = again(result.success_event(task(), [part], NO_USAGE))
    assert answer.data == part.data
    handed = task()
    handed.type, handed.data = answer.type, answer.data
    (alone,) = result.arguments(two, handed).values()
    handed.content_type = BATCH
    handed.data = encode_batch([Part("other", b"{}"), part], source="/runs/r", event_id="e")
    (batched,) = result.arguments(two, handed).values()
    return part.data, alone, batched


@pytest.mark.parametrize("name", CARRIED)
def test_the_next_agent_is_given_what_the_first_returned(name: str) -> None:
    hint, values = CARRIED[name]
    made = payload_of(hint)

    @quickly
    @given(values)
    def holds(value: Any) -> None:
        payload = made(value=value)
        data, alone, batched = carried(made, payload)
        assert alone == payload
        assert batched == payload
        assert type(alone.value) is type(payload.value)  # type: ignore[attr-defined]
        assert not isinstance(json_check.parse_strict(data), json_check.Flaw) or "too_deep" in str(
            json_check.parse_strict(data)
        )
        assert json.loads(data) == orjson.loads(data)
        pydantics = payload.model_dump_json(by_alias=True).encode()
        assert data == pydantics or (sets_in(hint) and len(data) == len(pydantics))

    holds()


@pytest.mark.parametrize("name", CARRIED)
def test_a_class_that_reads_something_else_than_it_writes_is_validated(name: str) -> None:
    """The same catalogue in a class with aliases both ways, a validator and a computed field."""
    hint, values = CARRIED[name]

    class Base(Payload):
        other: int = Field(0, validation_alias="in", serialization_alias="out", ge=0)

        @computed_field  # type: ignore[prop-decorator]
        @property
        def twice(self) -> int:
            return self.other * 2

        @model_validator(mode="after")
        def checked(self) -> Self:
            if self.other == 13:
                raise ValueError("unlucky")
            return self

    fields: Any = {"value": (hint, ...)}
    made = create_model("Made", __base__=Base, __cls_kwargs__={"type": "made"}, **fields)
    agent, _ = agents_of(made)

    @quickly
    @given(values)
    def holds(value: Any) -> None:
        payload = made(value=value)
        (part,) = result.parts_of(agent, SPEC, payload)
        assert orjson.loads(part.data)["out"] == 0
        for wrong in (-1, 13, "x"):
            with pytest.raises(InvalidInput, match="not of its declared type"):
                result.parts_of(agent, SPEC, payload.model_copy(update={"other": wrong}))
        if hint is not Any:
            with pytest.raises(InvalidInput):
                result.parts_of(agent, SPEC, payload.model_copy(update={"value": Nothing()}))

    holds()


class Nothing:
    """A payload without a type."""


@pytest.mark.parametrize("name", CARRIED)
def test_every_path_into_what_is_written_is_known_to_the_check_of_topics(name: str) -> None:
    hint, values = CARRIED[name]
    made = payload_of(hint)
    adapter = TypeAdapter(made)

    @quickly
    @given(values)
    def holds(value: Any) -> None:
        data = orjson.loads(encoded(made(value=value)))
        for path in paths_into(data):
            assert not isinstance(lookup(JsonSide(adapter.core_schema, written=True), path), MissingField)
        assert isinstance(lookup(JsonSide(adapter.core_schema, written=True), ("valuee",)), MissingField)

    holds()


def encoded(value: Any) -> bytes:
    data = encode(value)
    assert isinstance(data, bytes)
    return data


def paths_into(data: Any) -> Iterator[tuple[str | int, ...]]:
    """Every path that leads to something in a JSON document."""
    below = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for step, member in below:
        yield (step,)
        yield from ((step, *rest) for rest in paths_into(member))


def sets_in(hint: Any) -> bool:
    return "set[" in str(hint)


@pytest.mark.parametrize("name", DOUBTFUL)
def test_what_json_does_not_carry_is_refused_and_the_rest_arrives(name: str) -> None:
    hint, values = DOUBTFUL[name]
    made = payload_of(hint)
    unchecked = hint in (float, Decimal, str)  # pydantic refuses some of these itself

    @quickly
    @given(values)
    def holds(value: Any) -> None:
        payload = made.model_construct(value=value) if unchecked else None
        try:
            payload = payload or made(value=value)
        except ValueError:
            return  # pydantic itself has no such payload
        try:
            data, alone, _ = carried(made, payload)
        except InvalidInput as error:
            refusals.append((error.code, "value" in error.what))
            return
        assert not isinstance(json_check.parse_strict(data), json_check.Flaw)
        assert alone == payload or isinstance(value, SecretStr | dict)  # `int | str` reads keys as texts
        if isinstance(value, SecretStr):
            assert orjson.loads(data)["value"] == value.get_secret_value()

    refusals: list[tuple[str, bool]] = []
    holds()
    assert set(refusals) == {("bad_result", True)}
