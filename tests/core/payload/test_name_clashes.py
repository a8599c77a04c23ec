"""Two fields with one JSON name are refused: in a class when it is loaded, with an extra field when it is written."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any

import pytest
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializeAsAny,
    TypeAdapter,
    computed_field,
    model_serializer,
)
from typing_extensions import TypedDict

from mesh.core.errors import InvalidInput
from mesh.core.payload.json_encode import PayloadWriter, encode
from mesh.core.payload.name_clashes import DuplicateJsonName
from mesh.core.protocol.json_check import Flaw
from mesh.core.task.agent import Payload, agent_of

Z = Annotated[int, Field(serialization_alias="z")]


class FieldAndAlias(BaseModel):
    k: int = 1
    j: int = Field(2, serialization_alias="k")


class TwoAliases(BaseModel):
    k: Z = 1
    j: Z = 2


class Generated(BaseModel):
    model_config = ConfigDict(alias_generator=str.lower, populate_by_name=True)
    k: int = 1
    K: int = 2


class FieldAndComputed(BaseModel):
    k: int = Field(1, serialization_alias="j")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def j(self) -> int:
        return 2


class Row(TypedDict):
    k: Z
    j: Z


@dataclass
class Data:
    k: Z = 1
    j: Z = 2


class Wrapped(FieldAndAlias):
    @model_serializer(mode="wrap")
    def write(self, handler: Callable[[Any], dict[str, int]]) -> dict[str, int]:
        return handler(self)


class Tree(BaseModel):
    below: "list[Tree]" = []
    leaf: FieldAndAlias | None = None


CLASSES = [FieldAndAlias, TwoAliases, Generated, FieldAndComputed, Row, Data, Wrapped]


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("wrap", [lambda cls: cls, lambda cls: dict[str, list[cls]]])  # type: ignore[valid-type]
def test_a_class_with_two_fields_of_one_name_is_refused_before_it_writes(cls: Any, wrap: Callable[[Any], Any]) -> None:
    with pytest.raises(
        DuplicateJsonName, match=f"^{cls.__name__} writes its fields '[kK]' and '[jK]' under one name"
    ) as caught:
        PayloadWriter(TypeAdapter(wrap(cls))).prepare()
    assert "errors.pydantic.dev" not in str(caught.value)


def test_a_class_is_found_below_one_that_refers_to_itself() -> None:
    with pytest.raises(DuplicateJsonName, match="FieldAndAlias writes"):
        PayloadWriter(TypeAdapter(Tree)).prepare()


class Order(Payload, type="order"):
    number: int = 0


class Sum(Payload, type="sum"):
    net: int = 0
    total: int = Field(0, serialization_alias="net")


class Report(Payload, type="report"):
    rows: tuple[Row, ...] = ()


async def add(order: Order) -> Sum:
    return Sum()


async def report(order: Order) -> list[Report]:
    return []


async def read(sum: Sum) -> None: ...


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (add, "Sum writes its fields 'net' and 'total' under one name, 'net'"),
        (report, "Row writes its fields 'k' and 'j' under one name, 'z'"),
    ],
)
def test_an_agent_that_returns_such_a_class_is_refused_when_it_is_loaded(function: Any, what: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        agent_of(function)
    error = caught.value
    assert error.code == "bad_agent"
    assert what in str(error)
    assert "test_name_clashes.py" in str(error)
    assert "alias" in str(error)


def test_an_agent_that_only_reads_such_a_class_is_legal() -> None:
    assert agent_of(read).parameters[0].types == ("sum",)


@pytest.mark.parametrize("value", [FieldAndAlias(), Data(), {"a": FieldAndAlias()}])
def test_a_class_that_no_agent_declares_is_refused_at_the_write(value: Any) -> None:
    flaw = encode(value)
    assert isinstance(flaw, Flaw)
    assert flaw.code == "duplicate_key"
    assert "writes its fields 'k' and 'j' under one name" in flaw.message


# ------------------------------------------------------------------------------------------------------- at the write


class Extra(BaseModel):
    model_config = ConfigDict(extra="allow")
    k: int = Field(1, serialization_alias="x")


class ExtraComputed(BaseModel):
    model_config = ConfigDict(extra="allow")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def x(self) -> int:
        return 1


class Holder(BaseModel):
    inner: Extra


class Anything(BaseModel):
    aliased: int = Field(0, alias="Aliased")
    held: Any


class AsAny(BaseModel):
    held: SerializeAsAny[BaseModel]


class Unset(BaseModel):
    k: int = 1
    x: int | None = Field(None, serialization_alias="k", exclude_if=lambda value: value is None)


class Partial(TypedDict, total=False):
    k: Z
    j: Z


class ExtraRow(TypedDict):
    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    k: Z


@pytest.mark.parametrize(
    ("declared", "value", "path"),
    [
        (Extra, Extra(k=1, x=2), "x"),
        (ExtraComputed, ExtraComputed(x=2), "x"),
        (Holder, Holder(inner=Extra(k=1, x=2)), "inner.x"),
        (list[Holder], [Holder(inner=Extra(k=1, x=2))], "0.inner.x"),
        (Anything, Anything(Aliased=1, held=[Extra(k=1, x=2)]), "held.0.x"),
        (Anything, Anything(Aliased=1, held=FieldAndAlias()), "held.k"),
        (AsAny, AsAny(held=Unset(x=2)), None),
        (Unset, Unset(x=2), "k"),
        (dict[str, Partial], {"a": {"k": 1, "j": 2}}, "a.z"),
        (ExtraRow, {"k": 1, "z": 2}, "z"),
    ],
)
def test_two_fields_of_one_name_are_refused_at_the_write_with_their_place(declared: Any, value: Any, path: str) -> None:
    data = PayloadWriter(TypeAdapter(declared)).checked(value)
    if path is None:  # it is written by its names
        assert data == b'{"held":{"k":1,"x":2}}'
        return
    assert isinstance(data, Flaw)
    assert data.code == "duplicate_key"
    assert f"at {path!r}" in data.message


class Excluded(BaseModel):
    k: int = 1
    j: int = Field(2, serialization_alias="k", exclude=True)


class Own(FieldAndAlias):
    @model_serializer
    def write(self) -> dict[str, int]:
        return {"k": self.k, "j": self.j}


class Replaced(BaseModel):
    inner: Annotated[FieldAndAlias, PlainSerializer(lambda inner: inner.j, return_type=int)] = FieldAndAlias()


class NamedAsSchemas(BaseModel):
    """Fields whose names are words of a core schema."""

    type: int = 1
    serialization: int = 2
    fields: int = 3
    config: dict[str, Any] = Field({"type": {}, "function": {}}, json_schema_extra={"type": ["object", "null"]})
    function: int = 5
    metadata: int = 6
    serialization_exclude: bool = True


@pytest.mark.parametrize(
    ("declared", "value", "data"),
    [
        (Extra, Extra(k=1, y=2), b'{"x":1,"y":2}'),
        (Unset, Unset(), b'{"k":1}'),
        (Partial, {"j": 2}, b'{"z":2}'),
        (ExtraRow, {"k": 1, "y": 2}, b'{"z":1,"y":2}'),
        (Excluded, Excluded(), b'{"k":1}'),
        (Own, Own(), b'{"k":1,"j":2}'),
        (Replaced, Replaced(), b'{"inner":2}'),
    ],
)
def test_what_is_written_once_is_written(declared: Any, value: Any, data: bytes) -> None:
    assert PayloadWriter(TypeAdapter(declared)).checked(value) == data


def test_a_field_may_have_the_name_of_a_word_of_schemas() -> None:
    value = NamedAsSchemas()
    assert PayloadWriter(TypeAdapter(NamedAsSchemas)).checked(value) == value.model_dump_json().encode()


# --------------------------------------------------------------------------------------------------------------- keys


class Number(Enum):
    NONE = math.nan


@pytest.mark.parametrize(
    ("declared", "value", "path"),
    [
        (dict[float, int], {math.nan: 1}, "(document)"),
        (dict[str, dict[float, int]], {"a": {-math.inf: 1}}, "a"),
        (dict[Any, int], {math.inf: 1}, "(document)"),
        (dict[Number, int], {Number.NONE: 1}, "(document)"),
    ],
)
def test_nan_and_infinity_are_refused_as_keys(declared: Any, value: Any, path: str) -> None:
    data = PayloadWriter(TypeAdapter(declared)).checked(value)
    assert isinstance(data, Flaw)
    assert data.code == "bad_number"
    assert f"at {path!r}" in data.message


class Price(BaseModel):
    net: Decimal = Field(allow_inf_nan=True)


def test_what_a_class_writes_as_the_text_nan_is_written() -> None:
    none = Annotated[float, PlainSerializer(lambda number: "none")]
    assert PayloadWriter(TypeAdapter(dict[none, int])).write({math.nan: 1}) == b'{"none":1}'
    assert PayloadWriter(TypeAdapter(dict[str, int])).checked({"nan": 1}) == b'{"nan":1}'
    assert PayloadWriter(TypeAdapter(dict[str | float, int])).checked({"nan": 1, 1.5: 2}) == b'{"nan":1,"1.5":2}'
    data = PayloadWriter(TypeAdapter(Price)).checked(Price(net=Decimal("NaN")))
    assert data == b'{"net":"NaN"}'
    assert Price.model_validate_json(data).net.is_nan()
