"""Declarations in topics.yaml against functions: one problem for each difference, with both places."""

from collections.abc import Callable
from typing import Any

import pytest

from mesh.core.task.agent import Payload, describe
from mesh.core.task.signature_check import signature_problems
from mesh.core.topology.model import AgentSpec


class Ask(Payload, type="ask"): ...


class Priced(Payload, type="order.priced"): ...


class Refused(Payload, type="order.refused"): ...


class Note(Payload): ...


def price(ask: Ask) -> Priced | Refused:
    return Priced()


def note(ask: Ask) -> Note:
    return Note()


def anything(ask: dict[str, Any]) -> None: ...


def found(function: Callable[..., Any], given: str, *emits: str) -> list[tuple[str, str]]:
    spec = AgentSpec("one", "m:f", (given,), emits, line=7)
    return [(problem.what, problem.remedy) for problem in signature_problems(spec, (given,), describe(function))]


def at(function: Callable[..., Any]) -> str:
    code = function.__code__
    return f"{__name__}:{function.__name__} ({code.co_filename}:{code.co_firstlineno})"


def test_what_agrees_has_no_problem() -> None:
    assert found(price, "ask", "order.priced", "order.refused") == []
    assert found(anything, "whatever") == []
    assert found(note, "ask", "noted") == []


@pytest.mark.parametrize(
    ("emits", "allowed", "remedy"),
    [
        ((), "nothing", "Add 'order.priced' to `emits` of one, or change what m:f returns"),
        (
            ("order.prices", "order.refused"),
            "'order.prices', 'order.refused'",
            "Did you mean 'order.prices'? Otherwise add 'order.priced' to `emits` of one, or change what m:f returns",
        ),
    ],
)
def test_a_type_that_is_missing_in_emits_is_reported_with_what_is_allowed(
    emits: tuple[str, ...], allowed: str, remedy: str
) -> None:
    (what, told), *_ = found(price, "ask", *emits)
    missing = [repr(type) for type in ("order.priced", "order.refused") if type not in emits]
    assert what == (
        f"one: its function emits {', '.join(missing)}, which is not declared; `emits` allows {allowed}, "
        f"{at(price)} returns it"
    )
    assert told == remedy


def test_types_that_the_function_does_not_emit_or_take_are_reported() -> None:
    whats = [what for what, _ in found(price, "asks", "order.priced", "order.refused", "more")]
    assert whats == [
        f"one: its function takes no 'asks'; {at(price)} takes 'ask'",
        f"one: its function takes 'ask', to which it does not subscribe; see {at(price)}",
        f"one: declares 'more', which its function never emits; see {at(price)}",
    ]


def test_a_payload_without_a_type_needs_one_declared_type() -> None:
    ((what, remedy),) = found(note, "ask", "a", "b")
    assert "returns a payload whose class names no event type, and `emits` lists 2 types" in what
    assert "class X(Payload" in remedy
