"""Fields that a class writes and accepts: aliases, computed and excluded fields, serializers."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pytest
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    Json,
    SerializeAsAny,
    TypeAdapter,
    computed_field,
    field_serializer,
    model_serializer,
)
from typing_extensions import TypedDict

from mesh.core.payload.json_fields import JsonSide, MissingField, lookup
from mesh.core.task.agent import Payload, describe
from mesh.core.task.path_check import check_paths
from mesh.core.topology.loader import load


class Ask(Payload, type="ask"):
    pass


class Address(BaseModel):
    city: str


class Row(TypedDict):
    number: int


@dataclass
class Stamp:
    by: str


class Written(Payload, type="made"):
    order_id: str = Field("", serialization_alias="orderId")
    price: float = Field(0.0, validation_alias="cost")
    secret: str = Field("", exclude=True)
    home: Address = Field(Address(city=""), alias="address")
    table: Json[dict[str, int]] = Field(default_factory=dict)
    row: Row = Field(default_factory=lambda: Row(number=1))
    stamp: Stamp = Stamp("")
    other: SerializeAsAny[Address] = Address(city="")
    shown: Address = Address(city="")
    free: Address = Address(city="")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def vat(self) -> float:
        return self.price * 0.2

    @computed_field(alias="whereTo")  # type: ignore[prop-decorator]
    @cached_property
    def target(self) -> Address:
        return self.home

    @field_serializer("shown")
    def show(self, value: Address) -> Row:
        return {"number": 1}

    @field_serializer("free")
    def anything(self, value: Address):  # type: ignore[no-untyped-def]
        return {"a": 1}


class Whole(Payload, type="made"):
    order_id: str

    @model_serializer
    def write(self) -> Row:
        return {"number": 1}


class Accepted(Payload, type="made"):
    model_config = ConfigDict(validate_by_name=True)
    order_id: str = Field("", alias="orderId")
    price: float = Field(0.0, validation_alias=AliasChoices("price", "cost", AliasPath("sums", "total")))
    table: Json[dict[str, int]] = Field(default_factory=dict)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def vat(self) -> float:
        return self.price * 0.2


class NamesOnly(Payload, type="made"):
    model_config = ConfigDict(validate_by_alias=False, validate_by_name=True)
    order_id: str = Field("", alias="orderId")


BETWEEN = """
topics:
  {more}asks: {{ingress: ask}}
  ends: {{egress: seen}}
agents:
  one: {{run: "tests:one", on: ask, emits: made}}
  two: {{run: "tests:two", on: made, emits: seen, when: {path} == 1}}
"""


def between(path: str, made: Any, heard: Any, *, from_outside: bool = False) -> str:
    """Return the findings for a condition on `made`, which one agent emits and another consumes."""

    async def one(event: Ask) -> None: ...

    async def two(event: Payload) -> None: ...

    one.__annotations__["return"] = made
    two.__annotations__["event"] = heard
    text = BETWEEN.format(path=path, more="more: {ingress: made}\n  " if from_outside else "")
    wrong, unknown = check_paths(load(text), {"one": describe(one), "two": describe(two)})
    return "; ".join([f"{each.what.rpartition(': ')[2]}. {each.remedy}" for each in wrong] + [*map(str, unknown)])


NOT_CHECKED = "is not checked"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        *(
            (path, "")
            for path in ("orderId", "price", "address.city", "vat", "whereTo.city", "table.a", "shown.number")
        ),
        *((path, "") for path in ("row.number", "stamp.by", "address")),
        ("order_id", "Did you mean orderId?"),
        ("cost", "there is no 'cost'"),
        ("home.city", "Did you mean address?"),
        ("target.city", "Did you mean whereTo?"),
        ("secret", "there is no 'secret'"),
        ("vat.eur", "Fields there: none"),
        ("shown.city", "there is no 'city'"),
        ("row.numbr", "Did you mean number?"),
        ("stamp.at", "Fields there: by"),
        ("orderld", "Did you mean orderId?"),
        ("free.city", NOT_CHECKED),
        ("other.street", NOT_CHECKED),
    ],
)
def test_a_path_sees_what_the_emitter_writes(path: str, said: str) -> None:
    found = between(path, Written, Accepted)
    assert said in found
    assert bool(said) == bool(found)


def test_what_a_model_serializer_returns_is_what_it_writes() -> None:
    assert between("number", Whole, Accepted) == ""
    assert "there is no 'order_id'" in between("order_id", Whole, Accepted)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        *((path, "") for path in ("orderId", "order_id", "price", "cost", "sums")),
        ("sums.total", ""),
        ("sums.rest", "there is no 'rest'"),
        ("vat", "there is no 'vat'"),
        ("table.a", "there is no 'a'"),
        ("orderIdd", "Did you mean orderId?"),
    ],
)
def test_where_the_emitter_declares_no_class_a_path_sees_what_the_consumers_accept(path: str, said: str) -> None:
    found = between(path, dict[str, Any] | None, Accepted)
    assert said in found
    assert bool(said) == bool(found)


def test_a_class_that_reads_names_only_has_no_aliases() -> None:
    assert between("order_id", None, NamesOnly) == ""
    assert "Did you mean order_id?" in between("orderId", None, NamesOnly)


def test_a_type_from_agents_and_from_outside_has_the_fields_of_both() -> None:
    for path in ("vat", "cost"):
        assert between(path, Written, Accepted, from_outside=True) == ""
    assert "there is no 'secret'" in between("secret", Written, Accepted, from_outside=True)


def test_a_plain_class_of_a_single_parameter_is_checked() -> None:
    assert between("city", None, Address) == ""
    assert "Did you mean city?" in between("cty", None, Address)
    assert between("cty", Address, Written).startswith("there is no 'cty'")


@pytest.mark.parametrize(
    ("hint", "path", "is_there"),
    [
        (list[int], (0,), True),
        (list[int], ("a",), False),
        (tuple[int, Address], (1, "city"), True),
        (tuple[int, Address], (2,), False),
        (tuple[Address, ...], (7, "city"), True),
        (tuple[Address, ...], (7, "town"), False),
        (dict[str, int], ("a",), True),
        (dict[str, int], ("a", "b"), False),
        (dict[str, Any], ("a",), None),
        (int | Address, ("city",), True),
        (int | Address, ("town",), False),
        (Any, ("a",), None),
        (int, (0,), False),
    ],
)
def test_steps_into_containers_are_looked_up(hint: Any, path: tuple[str | int, ...], is_there: bool | None) -> None:
    for written in (True, False):
        found = lookup(JsonSide(TypeAdapter(hint).core_schema, written=written), path)
        assert (False if isinstance(found, MissingField) else found) is is_there
