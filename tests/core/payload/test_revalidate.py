"""Instances that contradict their declared type are found, and no others are refused."""

import re
from collections.abc import Callable, Iterable
from dataclasses import InitVar
from dataclasses import dataclass as plain_dataclass
from dataclasses import field as dataclass_field
from datetime import date
from functools import cached_property
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, NamedTuple, Self

import pytest
from pydantic import (
    AfterValidator,
    Base64Bytes,
    Base64Str,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Json,
    OnErrorOmit,
    PlainSerializer,
    PlainValidator,
    RootModel,
    Secret,
    SecretStr,
    SerializeAsAny,
    TypeAdapter,
    WrapValidator,
    computed_field,
    field_validator,
    model_validator,
)
from pydantic.dataclasses import dataclass
from typing_extensions import TypedDict

from mesh.core.payload.json_encode import PayloadWriter
from mesh.core.protocol.json_check import Flaw


class Animal(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["animal"] = Field("animal", alias="Kind")
    legs: int = Field(4, alias="Legs")


class Wolf(Animal):
    teeth: int = 42


class Plant(BaseModel):
    kind: Literal["plant"] = Field("plant", alias="Kind")


class Tree(BaseModel):
    name: str = Field("", serialization_alias="Name")
    children: "list[Tree]" = []


@dataclass
class Stamp:
    number: int = dataclass_field(default=1, init=False)
    by: str = "x"
    at: InitVar[int] = 3

    def __post_init__(self, at: int) -> None:
        self.number = at


@dataclass(slots=True)
class Slotted:
    by: str = Field("x", alias="By")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def size(self) -> int:
        return len(self.by)


@plain_dataclass
class Plain:
    on: date


class Pair(NamedTuple):
    left: int
    right: str


class Row(TypedDict, total=False):
    number: Annotated[int, Field(alias="Number")]


class Titled(BaseModel):
    name: str

    @model_validator(mode="before")
    @classmethod
    def moved(cls, found: Any) -> Any:
        return {"name": found["title"]}


class Made(BaseModel):
    """Its constructor takes other arguments than it has fields."""

    name: str

    def __init__(self, first: str, last: str) -> None:
        super().__init__(name=f"{first} {last}")


class Words(RootModel[list[str]]):
    pass


def split(text: str) -> list[str]:
    return text.split(",")


class Zoo(BaseModel):
    """Reads something else than it writes, in all ways that pydantic has."""

    model_config = ConfigDict(validate_assignment=True)
    order_id: str = Field("o", serialization_alias="orderId", validation_alias="id")
    animal: Animal = Animal()
    either: Annotated[Animal | Plant, Field(discriminator="kind")] = Plant()
    tree: Tree = Tree(name="a", children=[Tree(name="b")])
    stamp: Stamp = Field(default_factory=Stamp)
    slotted: Slotted = Field(default_factory=lambda: Slotted(By="x"))
    plain: Plain = Plain(date(2026, 1, 1))
    row: Row = {"number": 1}
    pair: Pair = Pair(1, "b")
    titled: Titled = Titled.model_validate({"title": "t"})
    made: Made = Made("a", "b")
    words: Words = Words(["a"])
    text: Json[list[int]] = [1]
    any_text: Json[Any] = Field(default_factory=dict)
    parts: Annotated[list[str], BeforeValidator(split)] = ["a", "b"]
    length: Annotated[int, WrapValidator(lambda text, _: len(text))] = 3
    shape: Annotated[int, PlainValidator(lambda text: len(text))] = 3
    base64: Base64Bytes = b"a-b"
    base64_text: Base64Str = "a-b"
    numbers: Iterable[int] = (1, 2)
    kept: list[OnErrorOmit[int]] = [1]
    secret: Annotated[SecretStr, PlainSerializer(lambda secret: "***")] = SecretStr("k")
    code: Annotated[Secret[int], PlainSerializer(lambda secret: "***")] = Secret[int](5)
    where: PurePosixPath = PurePosixPath("/a")
    like: re.Pattern[str] = re.compile("a")
    many: SerializeAsAny[Animal] = Wolf()
    hidden: int = Field(0, exclude=True)
    total: Annotated[int, AfterValidator(abs), Field(le=9)] = 9

    @computed_field  # type: ignore[prop-decorator]
    @property
    def size(self) -> Annotated[int, Field(ge=0)]:
        return len(self.like.pattern)

    @computed_field  # type: ignore[prop-decorator]
    @cached_property
    def first(self) -> Tree:
        return Tree(name="c")

    @field_validator("order_id")
    @classmethod
    def lower(cls, id: str) -> str:
        if id != id.lower():
            raise ValueError("not lower case")
        return id

    @model_validator(mode="after")
    def agreeing(self) -> Self:
        if self.hidden > self.total:
            raise ValueError("hidden is above total")
        return self


def said(value: BaseModel) -> str:
    """Why it is refused; "" when it is not."""
    found = PayloadWriter(TypeAdapter(type(value))).checked(value)
    return found.message if isinstance(found, Flaw) else ""


def test_a_value_that_was_made_by_its_class_is_never_refused() -> None:
    assert said(Zoo()) == ""
    assert said(Zoo.model_validate({"id": "q", "total": -3, "parts": "a,b", "text": "[5]", "numbers": ["7"]})) == ""


@pytest.mark.parametrize(
    ("update", "place"),
    [
        ({"order_id": 5}, "order_id: "),
        ({"order_id": "ABC"}, "order_id: Value error, not lower case"),
        ({"total": 10}, "total: "),
        ({"total": "many"}, "total: "),
        ({"hidden": 12}, "(document): Value error, hidden is above total"),
        ({"animal": Animal.model_construct(legs="x")}, "animal.legs: "),  # type: ignore[arg-type]
        ({"animal": {"legs": 4}}, "animal: "),
        ({"animal": Plant()}, "animal: "),
        ({"animal": Wolf.model_construct(legs="x")}, "animal.legs: "),  # type: ignore[arg-type]
        ({"either": Plant.model_construct(kind="animal")}, "either."),  # type: ignore[arg-type]
        ({"tree": Tree(children=[Tree.model_construct(name=5)])}, "tree.children.0.name: "),  # type: ignore[arg-type]
        ({"plain": Plain("x")}, "plain.on: "),  # type: ignore[arg-type]
        ({"row": {"number": "x"}}, "row.number: "),
        ({"pair": Pair("x", "b")}, "pair.left: "),  # type: ignore[arg-type]
        ({"titled": Titled.model_construct(name=[])}, "titled.name: "),  # type: ignore[arg-type]
        ({"made": Made.model_construct(name=[])}, "made.name: "),  # type: ignore[arg-type]
        ({"words": Words.model_construct([5])}, "words.0: "),  # type: ignore[list-item]
        ({"text": ["x"]}, "text.0: "),
        ({"parts": [5]}, "parts.0: "),
        ({"length": "x"}, "length: "),
        ({"kept": ["x"]}, "kept.0: "),
        ({"code": "x"}, "code: "),
        ({"many": Wolf.model_construct(legs="x")}, "many.legs: "),  # type: ignore[arg-type]
    ],
)
def test_a_value_that_contradicts_its_type_is_refused_with_its_place(update: dict[str, Any], place: str) -> None:
    found = said(Zoo().model_copy(update=update))
    assert f"not of its declared type: {place}" in found


def test_slots_and_fields_without_init_are_looked_into() -> None:
    for name in ("stamp", "slotted"):
        zoo = Zoo()
        object.__setattr__(getattr(zoo, name), "by", [])
        assert f"{name}.by: Input should be a valid string" in said(zoo)


class Wrong(BaseModel):
    name: str = Field("a", serialization_alias="Name")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def size(self) -> int:
        return self.name  # type: ignore[return-value]


def test_a_computed_field_is_of_the_type_that_it_declares() -> None:
    assert "size: Input should be a valid integer" in said(Wrong())
    assert said(Wrong(name="5")) == ""


class Route:
    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


class Routed(BaseModel):
    route: Annotated[str, AfterValidator(Route), PlainSerializer(str)]


def test_an_object_that_a_validator_made_stands_and_a_plain_value_in_its_place_does_not() -> None:
    assert said(Routed.model_validate({"route": "a-b"})) == ""
    assert "route: " in said(Routed.model_construct(route=5))  # type: ignore[arg-type]


def broken(value: str) -> str:
    raise KeyError(value)


class Broken(BaseModel):
    name: Annotated[str, AfterValidator(broken)] = "k-1"


def test_a_validator_that_raises_something_else_is_a_refusal() -> None:
    assert "a validator raised KeyError" in said(Broken())
    assert "k-1" not in said(Broken())


CONTRADICTIONS: list[tuple[Any, Callable[[], Any]]] = [
    (Annotated[Zoo, AfterValidator(lambda zoo: zoo)], lambda: Zoo().model_copy(update={"total": "x"})),
    (dict[str, int], lambda: {"a": "x"}),
    (list[Zoo], lambda: [Zoo().model_copy(update={"total": "x"})]),
]


@pytest.mark.parametrize(("hint", "value"), CONTRADICTIONS)
def test_annotations_and_containers_are_validated(hint: Any, value: Callable[[], Any]) -> None:
    assert isinstance(PayloadWriter(TypeAdapter(hint)).checked(value()), Flaw)
