"""A loss by pydantic is refused at any depth, with its path; deliberate serializers of a class are accepted."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass as plain_dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Annotated, Any

import pytest
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    Json,
    PlainSerializer,
    RootModel,
    Secret,
    SecretBytes,
    SecretStr,
    SerializeAsAny,
    TypeAdapter,
    WrapSerializer,
    computed_field,
    create_model,
    field_serializer,
    model_serializer,
)
from pydantic.dataclasses import dataclass
from typing_extensions import TypedDict

from mesh.core.payload.exact_serializer import exact_serializer
from mesh.core.payload.json_encode import PayloadWriter, encode
from mesh.core.protocol.json_check import Flaw

ODD = timezone(timedelta(hours=1, minutes=2, seconds=33))
FIRST = datetime(2026, 1, 1, tzinfo=ODD)
WEST = timezone(timedelta(hours=-3, minutes=-30))
BACK = timezone(-timedelta(minutes=30, microseconds=5))


JSON: Any = Json[Any]  # type: ignore[misc]


class Date(Secret[date]):
    """A subclass with asterisks of its own."""

    def _display(self) -> str:
        return "****/**/**"


class Extra(BaseModel):
    model_config = ConfigDict(extra="allow")


class TypedExtra(BaseModel):
    __pydantic_extra__: dict[str, Any]
    model_config = ConfigDict(extra="allow")


class Row(TypedDict):
    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]


class Rows(BaseModel):
    row: Row


class Root(RootModel[dict[str, Any]]):
    pass


@plain_dataclass
class Plain:
    value: Any


@dataclass
class Computed:
    held: Any

    @computed_field  # type: ignore[prop-decorator]
    @property
    def value(self) -> Any:
        return self.held.value if isinstance(self.held, Plain) else self.held


class Wrapped(BaseModel):
    inner: Extra

    @field_serializer("inner", mode="wrap")
    def wrapped(self, value: Any, handler: Any) -> Any:
        return {"data": [handler(value)]}


class Whole(BaseModel):
    value: Any

    @model_serializer(mode="wrap")
    def wrapped(self, handler: Any) -> Any:
        return {"data": handler(self)}


class Returned(BaseModel):
    value: int = 0
    _held: Any = None

    @field_serializer("value")
    def shown(self, value: int):  # type: ignore[no-untyped-def]
        return {"deep": self._held}


def returned(value: Any) -> Returned:
    found = Returned()
    found._held = value
    return found


def typed(hint: Any) -> Callable[[Any], BaseModel]:
    model = create_model("Typed", value=(hint, ...))
    return lambda value: model.model_construct(value=value)


class Base(BaseModel):
    pass


class More(Base):
    value: Any = None


AROUND: dict[str, tuple[Callable[[Any], Any], str]] = {
    "extra field": (lambda v: Extra.model_validate({"a": v}), "a"),
    "extra field deep down": (lambda v: Extra.model_validate({"a": {"b": [v]}}), "a.b.0"),
    "typed extra field": (lambda v: TypedExtra.model_validate({"a": v}), "a"),
    "extra key of a TypedDict": (lambda v: Rows.model_validate({"row": {"a": v}}), "row.a"),
    "RootModel": (lambda v: Root({"a": v}), "a"),
    "Any": (typed(Any), "value"),
    "Any with a model": (lambda v: typed(Any)([Extra.model_validate({"a": v})]), "value.0.a"),
    "Any with a dataclass": (lambda v: typed(Any)(Plain(v)), "value.value"),
    "object": (typed(object), "value"),
    "iterator of Any": (lambda v: typed(Iterable[Any])(iter([v])), "value"),
    "computed field of a dataclass": (lambda v: Computed(held=Plain(v)), "held.value"),
    "wrapping field serializer": (lambda v: Wrapped(inner=Extra.model_validate({"a": v})), "inner.a"),
    "wrapping model serializer": (lambda v: Whole(value=v), "value"),
    "serializer without a return annotation": (returned, "value"),
    "SerializeAsAny": (lambda v: typed(SerializeAsAny[Base])(More(value=v)), "value.value"),
    "Json": (typed(JSON), "value"),
    "dict among JSON values": (lambda v: {"a": [Extra.model_validate({"b": v})]}, "b"),
}
LOST: dict[str, tuple[Any, str]] = {
    "SecretStr": (SecretStr("k-1"), "bad_value"),
    "SecretBytes": (SecretBytes(b"k-1"), "bad_value"),
    "Secret": (Secret[str]("k-1"), "bad_value"),
    "subclass of Secret": (Date(date(2026, 1, 1)), "bad_value"),
    "NaN": (math.nan, "bad_number"),
    "infinity": (-math.inf, "bad_number"),
    "offset with seconds": (datetime(2026, 1, 1, tzinfo=ODD), "bad_value"),
    "offset with microseconds": (time(1, 2, tzinfo=BACK), "bad_value"),
}


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize("around", AROUND)
def test_what_is_not_carried_is_refused_with_its_place_wherever_it_stands(around: str, lost: str) -> None:
    value, code = LOST[lost]
    wrap, place = AROUND[around]
    flaw = encode(wrap(value))
    assert isinstance(flaw, Flaw)
    assert flaw.code == code
    assert place.rpartition(".")[2] in flaw.message or around.startswith("serializer")
    assert "k-1" not in flaw.message
    if code == "bad_value" and "serializer without" not in around:
        assert f"at {place!r}" in flaw.message


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (SecretStr, SecretStr("k-1")),
        (SecretBytes, SecretBytes(b"k-1")),
        (Date, Date(date(2026, 1, 1))),
        (Annotated[SecretStr, WrapSerializer(lambda value, handler: handler(value))], SecretStr("k-1")),
        (Annotated[SecretStr, WrapSerializer(lambda value, handler: {"a": handler(value)})], SecretStr("k-1")),
        (list[SecretStr], [SecretStr("k-1")]),
        (Iterable[SecretStr], iter([SecretStr("k-1")])),
        (dict[SecretStr, int], {SecretStr("k-1"): 1}),
        (dict[Any, int], {SecretStr("k-1"): 1}),
        (SecretStr | int, SecretStr("k-1")),
        (SecretStr | None, SecretStr("k-1")),
        (list[SecretStr] | int, [SecretStr("k-1")]),
        (datetime | int, datetime(2026, 1, 1, tzinfo=ODD)),
        (list[Any] | int, [SecretStr("k-1")]),
        (float, math.nan),
        (Iterable[float], iter([math.nan])),
        (list[float | None], [None, math.inf]),
        (datetime, datetime(2026, 1, 1, tzinfo=ODD)),
        (time, time(1, tzinfo=BACK)),
        (list[datetime], [datetime(2026, 1, 1, tzinfo=BACK)]),
        (dict[datetime, int], {datetime(2026, 1, 1, tzinfo=ODD): 1}),
        (dict[str | None, int], {None: 1}),
        (dict[tuple[int, int], int], {(1, 2): 1}),
    ],
)
def test_declared_types_lose_nothing_in_silence(hint: Any, value: Any) -> None:
    flaw = encode(typed(hint)(value))
    assert isinstance(flaw, Flaw)
    assert flaw.code in ("bad_value", "bad_number")
    assert "at 'value" in flaw.message
    assert "k-1" not in flaw.message


def generated() -> Iterator[Any]:
    yield from (1, "a")


@pytest.mark.parametrize(
    ("hint", "value", "data"),
    [
        (Annotated[SecretStr, PlainSerializer(lambda secret: "***")], SecretStr("k"), b'"***"'),
        (Annotated[SecretStr, PlainSerializer(lambda secret: "*" * 10)], SecretStr("k"), b'"**********"'),
        (Annotated[SecretStr, PlainSerializer(str)], SecretStr("k"), b'"**********"'),
        (Annotated[SecretStr, WrapSerializer(lambda secret, _: secret.get_secret_value())], SecretStr("k"), b'"k"'),
        (SecretStr, SecretStr(""), b'""'),
        (SecretStr, SecretStr("**********"), b'"**********"'),
        (SecretBytes, SecretBytes(b""), b'""'),
        (SecretStr | None, None, b"null"),
        (str, "NaN", b'"NaN"'),
        (Any, ["NaN", None, "Infinity"], b'["NaN",null,"Infinity"]'),
        (list[float | None], [None, 1.5], b"[null,1.5]"),
        (Iterable[int], iter([1, 2]), b"[1,2]"),
        (Any, generated(), b'[1,"a"]'),
        (datetime, datetime(2026, 1, 1, tzinfo=UTC), b'"2026-01-01T00:00:00Z"'),
        (
            datetime,
            datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
            b'"2026-01-01T00:00:00-03:30"',
        ),
        (
            Annotated[datetime, PlainSerializer(lambda at: at.isoformat())],
            datetime(2026, 1, 1, tzinfo=ODD),
            b'"2026-01-01T00:00:00+01:02:33"',
        ),
        (dict[int, int], {1: 2}, b'{"1":2}'),
        (Annotated[dict[None, int], PlainSerializer(lambda _: {"none": 1})], {None: 1}, b'{"none":1}'),
        (Json[list[int]], [1], b"[1]"),
        (JSON, {"a": 1}, b'{"a":1}'),
    ],
)
def test_what_is_carried_or_masked_on_purpose_is_written(hint: Any, value: Any, data: bytes) -> None:
    assert encode(typed(hint)(value)) == b'{"value":' + data + b"}"


class Shown(BaseModel):
    @computed_field(alias="whereTo")  # type: ignore[prop-decorator]
    @property
    def target(self) -> float:
        return math.nan


class Named(BaseModel):
    @computed_field(alias="whereTo")  # type: ignore[prop-decorator]
    @property
    def target(self) -> float:
        return 1.5


def test_a_computed_field_is_refused_with_its_place_and_written_by_its_alias() -> None:
    flaw = encode(Shown())
    assert isinstance(flaw, Flaw)
    assert "at 'target'" in flaw.message
    assert encode(Named()) == b'{"whereTo":1.5}'


def test_a_number_that_is_none_where_no_number_is_declared_is_refused() -> None:
    flaw = encode(typed(str)(math.nan))
    assert isinstance(flaw, Flaw)
    assert "at 'value'" in flaw.message


def test_a_value_of_no_type_that_holds_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    flaw = encode(typed(Any)(value))
    assert isinstance(flaw, Flaw)
    assert "holds itself" in flaw.message


def test_a_recursive_class_is_written() -> None:
    class Tree(BaseModel):
        at: datetime = datetime(2026, 1, 1, tzinfo=UTC)
        children: "list[Tree]" = Field(default_factory=list)

    assert exact_serializer(Tree.__pydantic_core_schema__).to_json(Tree(children=[Tree()])) == (
        Tree(children=[Tree()]).model_dump_json().encode()
    )
    wrong = Tree(children=[Tree(), Tree(at=datetime(2026, 1, 1, tzinfo=ODD))])
    flaw = PayloadWriter(TypeAdapter(Tree)).write(wrong)
    assert isinstance(flaw, Flaw)
    assert "at 'children.1.at'" in flaw.message
