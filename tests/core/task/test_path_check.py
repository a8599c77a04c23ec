"""Paths of topics.yaml against payload classes: what no class has is a problem, what may hold anything is told."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import pytest
from pydantic import AliasPath, BaseModel, ConfigDict, Field, model_validator

from mesh.core.errors import Problem
from mesh.core.task.agent import Payload, describe
from mesh.core.task.path_check import UncheckedPath, check_paths
from mesh.core.topology.loader import load


class Line(BaseModel):
    sku: str
    prices: dict[str, float] = {}


class Card(BaseModel):
    by: Literal["card"] = "card"
    number: str


class Cash(BaseModel):
    by: Literal["cash"] = "cash"
    note: str


class Ask(Payload, type="ask"):
    order_id: str
    total: float
    lines: tuple[Line, ...] = ()
    pair: tuple[int, Line] | None = None
    paid: Annotated[Card | Cash, Field(discriminator="by")] | None = None
    extra: Any = None
    above: "Ask | None" = None
    vat: str = Field("", alias="vatId")


class Done(Payload, type="done"):
    model_config = ConfigDict(extra="allow")
    order_id: str


class Raw(Payload, type="raw"):
    name: str

    @model_validator(mode="before")
    @classmethod
    def moved(cls, found: Any) -> Any:
        return {"name": found["title"]}


async def work(ask: Ask) -> Done:
    return Done(order_id=ask.order_id)


async def free(ask: dict[str, Any]) -> Done:
    return Done(order_id=ask["order_id"])


async def raw(event: Raw) -> Done:
    return Done(order_id=event.name)


def found(
    words: str = "", topic: str = "", function: Callable[..., Any] = work, type: str = "ask"
) -> tuple[list[Problem], list[UncheckedPath]]:
    mesh = load(f"""
topics:
  asks:
    ingress: {type}
    {topic}
  ends: {{egress: done}}
agents:
  one:
    run: "tests:none"
    on: {type}
    emits: done
    {words}
""")
    return check_paths(mesh, {"one": describe(function)})


@pytest.mark.parametrize(
    "path",
    [
        *(
            "total",
            "ask.total",
            "lines[0].sku",
            "lines[7].prices.eur",
            "pair[0]",
            "pair[1].sku",
            "paid.by",
            "paid.note",
        ),
        *("above.above.above.total", "vatId"),
    ],
)
def test_a_path_to_a_field_is_right(path: str) -> None:
    assert found(f"when: {path} == 1") == ([], [])


@pytest.mark.parametrize(
    ("path", "lacking", "remedy"),
    [
        ("totl", "totl", "Did you mean total?"),
        ("lines[0].skuu", "skuu", "Did you mean sku?"),
        ("lines.sku", "sku", "Fields there: none"),
        ("total.eur", "eur", "Fields there: none"),
        ("pair[2]", "[2]", "Fields there: none"),
        ("paid.numbr", "numbr", "Did you mean number?"),
        ("above.totl", "totl", "Did you mean total?"),
        ("vat", "vat", "Did you mean vatId?"),
    ],
)
def test_a_path_to_no_field_is_a_problem_with_line_and_remedy(path: str, lacking: str, remedy: str) -> None:
    (problem,), unknown = found(f"when: {path} == 1")
    assert problem == Problem(8, f"agents.one.when: {path} names no field of ask: there is no {lacking!r}", remedy)
    assert unknown == []


@pytest.mark.parametrize(("topic", "place"), [("key: order", "topics.asks.key"), ("id: order", "topics.asks.id")])
def test_keys_and_ids_of_topics_are_checked(topic: str, place: str) -> None:
    (problem,), _ = found(topic=topic)
    assert (problem.line, problem.what) == (3, f"{place}: order names no field of ask: there is no 'order'")


def test_the_key_of_an_agent_is_checked() -> None:
    (problem,), _ = found("key: order")
    assert problem.what.startswith("agents.one.key: order names no field of ask")
    assert found("key: order_id") == ([], [])


@pytest.mark.parametrize(
    ("function", "type", "path"), [(free, "ask", "totl"), (work, "ask", "extra.a"), (raw, "raw", "title")]
)
def test_a_type_that_may_hold_any_field_is_reported_instead(function: Callable[..., Any], type: str, path: str) -> None:
    wrong, (unknown,) = found(f"when: {path} == 1", function=function, type=type)
    assert wrong == []
    assert str(unknown) == f"agents.one.when: {path} is not checked: a payload of {type} may have any field"


class Deep(Payload, type="deep"):
    sku: int = Field(0, validation_alias=AliasPath("order", "sku"))
    city: str = Field("", validation_alias=AliasPath("order", "address", "city"))
    code: str = Field("", validation_alias=AliasPath("order", "address", "code"))
    first: str = Field("", validation_alias=AliasPath("lines", 0, "sku"))


class DeepAndMore(Deep, type="deep"):
    model_config = ConfigDict(extra="allow")


async def deep(event: Deep) -> Done:
    return Done(order_id="")


async def deep_and_more(event: DeepAndMore) -> Done:
    return Done(order_id="")


@pytest.mark.parametrize("path", ["order.sku", "order.address.city", "order.address.code"])
def test_a_path_that_an_alias_path_reads_is_right(path: str) -> None:
    assert found(f"when: {path} == 1", function=deep, type="deep") == ([], [])


@pytest.mark.parametrize(
    ("path", "lacking", "remedy"),
    [
        ("order.skuu", "skuu", "Did you mean sku?"),
        ("order.sku.unit", "unit", "Fields there: none"),
        ("order.address.town", "town", "Fields there: city, code"),
    ],
)
def test_a_path_that_no_alias_path_reads_is_a_problem(path: str, lacking: str, remedy: str) -> None:
    (problem,), unknown = found(f"when: {path} == 1", function=deep, type="deep")
    what = f"agents.one.when: {path} names no field of deep: there is no {lacking!r}"
    assert (problem.what, problem.remedy, unknown) == (what, remedy, [])


@pytest.mark.parametrize(("function", "path"), [(deep, "lines[0].sku"), (deep_and_more, "order.skuu")])
def test_an_alias_path_to_an_item_or_of_an_open_class_is_not_checked(function: Callable[..., Any], path: str) -> None:
    wrong, unknown = found(f"when: {path} == 1", function=function, type="deep")
    assert (wrong, len(unknown)) == ([], 1)


def test_a_class_that_allows_more_fields_cannot_be_checked() -> None:
    mesh = load("""
topics: {asks: {ingress: ask}, ends: {egress: done, key: order}}
agents: {one: {run: "tests:none", on: ask, emits: done}}
""")
    wrong, unknown = check_paths(mesh, {"one": describe(work)})
    assert (wrong, [open.place for open in unknown]) == ([], ["topics.ends.key"])
