"""Agents from signatures of functions, and every signature that is invalid."""

import functools
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Optional, Union

import pytest
from pydantic import AfterValidator, BaseModel, ValidationError

import mesh
import mesh.core.task.agent as agent_module
from mesh.context import Context
from mesh.core.errors import InvalidInput
from mesh.core.task.agent import Agent, Emit, Payload, Reject, RetryLater, agent, agent_of, describe


class Placed(Payload, type="order.placed"):
    order_id: str


class Priced(Payload, type="order.priced"):
    total: float


class Rejected(Payload, type="order.rejected"):
    why: str = ""


class PlacedToo(Payload, type="order.placed"):
    pass


class Plain(BaseModel):
    x: int = 0


class Untyped(Payload):
    x: int = 0


# ---------------------------------------------------------------------------------------------------------- payloads


def test_a_payload_knows_its_type_and_ignores_what_upstream_adds() -> None:
    assert Placed.event_type == "order.placed"
    assert Placed.model_validate_json('{"order_id":"o-1","new":1}') == Placed(order_id="o-1")


def test_a_payload_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Placed(order_id="o-1").order_id = "o-2"  # type: ignore[misc]


def test_a_subclass_keeps_the_type_unless_it_names_its_own() -> None:
    class Same(Placed):
        pass

    class Other(Placed, type="order.changed"):
        pass

    assert (Same.event_type, Other.event_type, Untyped.event_type) == ("order.placed", "order.changed", "")


# -------------------------------------------------------------------------------------------------- good signatures


def test_the_decorator_leaves_the_function_as_it_is_and_describes_it() -> None:
    @agent
    async def price(order: Placed, ctx: Context) -> Priced | Rejected | None:
        return None

    described: Agent = price.__mesh_agent__  # type: ignore[attr-defined]
    assert described.function is price
    assert described.consumes == ("order.placed",)
    assert described.context == "ctx"
    assert described.emits == ("order.priced", "order.rejected")
    assert described.is_async
    assert described.where.endswith(
        "test_agent:test_the_decorator_leaves_the_function_as_it_is_and_describes_it.<locals>.price"
    )


def one(event: Placed) -> Priced:
    raise NotImplementedError


def any_of(event: Placed | Priced) -> None: ...


def old_union(event: Union[Placed, Priced]) -> Optional[Rejected]: ...  # noqa: UP007, UP045


def joined(order: Placed, price: Priced, ctx: Context) -> list[Rejected]:
    raise NotImplementedError


def plain(event: Plain) -> Emit:
    raise NotImplementedError


def anything(event: dict[str, Any]):  # type: ignore[no-untyped-def]
    return None


def annotated(event: Annotated[Placed, "with a note"]) -> tuple[Priced, Rejected]:
    raise NotImplementedError


def by_name(*, event: Placed) -> Sequence[Priced | Rejected]:
    raise NotImplementedError


def optional(order: Placed, price: Priced | None = None) -> tuple[Priced, ...]:
    raise NotImplementedError


def quoted(event: "Placed") -> "Priced":
    raise NotImplementedError


def untyped(event: Untyped) -> Untyped:
    raise NotImplementedError


def declining(order: Placed) -> Priced | RetryLater | Reject | None: ...


@functools.wraps(one)
def wrapped(*args: Any, **kwargs: Any) -> Any:
    return one(*args, **kwargs)


@pytest.mark.parametrize(
    ("function", "hears", "emits"),
    [
        (one, ("order.placed",), ("order.priced",)),
        (any_of, ("order.placed", "order.priced"), ()),
        (old_union, ("order.placed", "order.priced"), ("order.rejected",)),
        (joined, ("order.placed", "order.priced"), ("order.rejected",)),
        (plain, (), None),
        (anything, (), None),
        (annotated, ("order.placed",), ("order.priced", "order.rejected")),
        (by_name, ("order.placed",), ("order.priced", "order.rejected")),
        (optional, ("order.placed", "order.priced"), ("order.priced",)),
        (quoted, ("order.placed",), ("order.priced",)),
        (untyped, (), None),
        (wrapped, ("order.placed",), ("order.priced",)),
        (declining, ("order.placed",), ("order.priced",)),
    ],
)
def test_a_signature_says_what_is_consumed_and_emitted(
    function: Callable[..., Any], hears: tuple[str, ...], emits: tuple[str, ...] | None
) -> None:
    described = describe(function)
    assert (described.consumes, described.emits) == (hears, emits)
    assert not described.is_async


def test_a_parameter_without_a_type_of_event_takes_any() -> None:
    (parameter,) = describe(anything).parameters
    assert list(parameter.adapters) == [""]
    assert parameter.adapters[""].validate_json(b'{"a":1}') == {"a": 1}


def test_a_union_of_untyped_payloads_takes_each() -> None:
    def either(event: Placed | int | str) -> None: ...

    (parameter,) = describe(either).parameters
    assert parameter.types == ("order.placed",)
    assert parameter.adapters[""].validate_json(b"5") == 5
    assert parameter.adapters[""].validate_json(b'"x"') == "x"


def test_an_annotation_keeps_its_validators() -> None:
    def upper(
        event: Annotated[Placed, AfterValidator(lambda order: Placed(order_id=order.order_id.upper()))],
    ) -> None: ...

    (parameter,) = describe(upper).parameters
    assert parameter.adapters["order.placed"].validate_json(b'{"order_id":"o-1"}') == Placed(order_id="O-1")


def test_a_return_annotation_that_names_not_all_types_names_none() -> None:
    def some(event: Placed) -> list[Priced | Plain]:
        raise NotImplementedError

    def untold(event: Placed) -> Priced | dict[str, Any]:
        raise NotImplementedError

    for function in (some, untold):
        assert describe(function).emits is None


def test_a_parameter_with_a_default_is_not_required() -> None:
    assert [p.required for p in describe(optional).parameters] == [True, False]


class Tree(Payload, type="tree.grown"):
    below: Optional["Twig"] = None


class Misspelt(Payload, type="tree.felled"):
    below: Optional["Twgi"] = None  # type: ignore[name-defined]  # noqa: F821


@agent
async def grow(tree: Tree) -> None: ...


async def fell(tree: Misspelt) -> None: ...


async def plant(tree: Tree) -> list[Misspelt]:
    return []


class Twig(BaseModel):
    length: int


def test_a_payload_may_name_what_its_module_defines_further_down() -> None:
    (parameter,) = agent_of(grow).parameters
    found = parameter.adapters["tree.grown"].validate_json(b'{"below": {"length": 3}}')
    assert found.below == Twig(length=3)


@pytest.mark.parametrize("function", [fell, plant])
def test_a_payload_that_names_what_its_module_does_not_define_is_refused(function: Any) -> None:
    with pytest.raises(InvalidInput, match="'Twgi' is not defined") as caught:
        agent_of(function)
    assert caught.value.code == "bad_agent"


# --------------------------------------------------------------------------------------------------- bad signatures


def refused(function: Any) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        describe(function)
    assert caught.value.code == "bad_agent"
    assert caught.value.where
    assert caught.value.expected or caught.value.remedy
    return caught.value


def test_an_agent_without_an_event_is_refused() -> None:
    def no_event(ctx: Context) -> None: ...

    def nothing() -> None: ...

    for function in (no_event, nothing):
        assert "at least one event" in str(refused(function))


def test_a_parameter_without_annotation_is_named() -> None:
    def bare(order: Placed, other) -> None: ...  # type: ignore[no-untyped-def]

    error = refused(bare)
    assert "'other'" in error.what
    assert error.remedy == "Annotate it: `other: SomePayload`"


def test_parameters_that_cannot_be_given_by_name_are_refused() -> None:
    def rest(*events: Placed) -> None: ...

    def options(event: Placed, **more: Placed) -> None: ...

    def positional(event: Placed, /) -> None: ...

    for function, name in ((rest, "*events"), (options, "**more"), (positional, "event")):
        assert repr(name) in refused(function).what


def test_a_name_that_cannot_be_resolved_is_refused() -> None:
    def missing(event: "Missing") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    def no_member(event: "agent_module.Missing") -> None: ...  # type: ignore[name-defined]

    def no_syntax(event: "1 +") -> None: ...  # type: ignore[valid-type]  # noqa: F722

    for function in (missing, no_member, no_syntax):
        assert "cannot be resolved" in refused(function).what


def test_two_contexts_are_refused() -> None:
    def twice(event: Placed, a: Context, b: Context) -> None: ...

    assert "'a' and 'b'" in refused(twice).what


def test_a_context_among_others_is_refused() -> None:
    def maybe(event: Placed, ctx: Context | None) -> None: ...

    def mixed(event: Placed | Context) -> None: ...

    for function in (maybe, mixed):
        assert "Context" in refused(function).what


def test_one_type_for_two_parameters_is_refused() -> None:
    def twice(a: Placed, b: Priced | PlacedToo) -> None: ...

    assert "a and b both take 'order.placed'" in refused(twice).what


def test_one_type_as_two_classes_is_refused() -> None:
    def twice(event: Placed | PlacedToo) -> None: ...

    assert "'order.placed' as two classes" in refused(twice).what


def test_what_pydantic_cannot_read_is_refused() -> None:
    def path_like(event: Iterator[AsyncIterator[Any]]) -> None: ...

    def foreign(event: type(sys)) -> None: ...  # type: ignore[valid-type]

    for function in (path_like, foreign):
        assert "'event' cannot be read from JSON" in refused(function).what


def test_an_agent_that_yields_is_refused() -> None:
    def several(event: Placed) -> Iterator[Priced]:
        yield Priced(total=1)

    async def streaming(event: Placed) -> AsyncIterator[Priced]:
        yield Priced(total=1)

    for function in (several, streaming):
        assert refused(function).remedy == "Return a list of payloads"


class Callables:
    def method(self, event: Placed) -> None: ...

    def __call__(self, event: Placed) -> None: ...


@pytest.mark.parametrize(
    "thing", [Callables, Callables(), Callables().method, functools.partial(one), print, Path, 5, None, "one"]
)
def test_only_functions_are_agents(thing: Any) -> None:
    assert "is not a function" in refused(thing).what


def test_the_decorator_refuses_at_import() -> None:
    with pytest.raises(InvalidInput):

        @agent
        def bare(event) -> None: ...  # type: ignore[no-untyped-def]


def test_what_wraps_an_agent_is_another_function() -> None:
    @agent
    async def inner(order: Placed) -> None: ...

    @functools.wraps(inner)
    async def outer(order: Placed) -> None:
        await inner(order)

    assert agent_of(inner).function is inner
    assert agent_of(outer).function is outer
    assert agent_of(outer).consumes == agent_of(inner).consumes


def test_the_old_name_of_retry_later_stays_importable() -> None:
    assert mesh.Later is mesh.RetryLater
