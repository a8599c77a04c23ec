"""`on` and `emits` from signatures: what is added, what is left, and that the rest of the file stays as it is."""

from collections.abc import Callable
from typing import Any

import pytest

from mesh import Payload
from mesh.core.task.agent import agent_of
from mesh.operations.signature_fill import Filled, fill, runs_of


class First(Payload, type="first"):
    n: int = 0


class Second(Payload, type="second"):
    n: int = 0


class Third(Payload, type="third"):
    n: int = 0


async def one(event: First) -> Third: ...  # type: ignore[empty-body]
async def any_of(event: First | Second) -> list[Third]: ...  # type: ignore[empty-body]
async def join(first: First, second: Second) -> Third | None: ...
async def optional(first: First, second: Second | None = None) -> None: ...
async def untyped(event: dict[str, Any]) -> dict[str, Any]: ...  # type: ignore[empty-body]
async def silent(event: First) -> None: ...
async def two(event: First) -> Second | Third: ...  # type: ignore[empty-body]


def filled(text: str, function: Callable[..., Any]) -> Filled:
    """Fill the agent `a`; a second call changes nothing, and a result is the text with additions only."""
    found = fill(text, {"a": agent_of(function)})
    again = fill(found.text, {"a": agent_of(function)})
    assert (again.text, list(again.changes), again.left) == (found.text, [], found.left)
    return found


CASES: dict[str, tuple[str, Callable[..., Any], str]] = {
    "a block": (
        'agents:\n  a: # why\n    run: "m:f" # here\n    timeout: 5s\n',
        one,
        'agents:\n  a: # why\n    run: "m:f" # here\n    on: first\n    emits: third\n    timeout: 5s\n',
    ),
    "a block at the end of the file": (
        "agents:\n  a:\n    run: m:f",
        one,
        "agents:\n  a:\n    run: m:f\n    on: first\n    emits: third",
    ),
    "braces": (
        'agents: {a: {run: "m:f", timeout: 5s}}',
        one,
        'agents: {a: {run: "m:f", on: first, emits: third, timeout: 5s}}',
    ),
    "any of two": ("agents:\n  a: {run: m:f}", any_of, "agents:\n  a: {run: m:f, on: [first, second], emits: third}"),
    "a join": ("agents:\n  a: {run: m:f}", join, "agents:\n  a: {run: m:f, on: {all: [first, second]}, emits: third}"),
    "a join of which one is there": (
        "agents:\n  a: {run: m:f, on: second, emits: third}",
        join,
        "agents:\n  a: {run: m:f, on: {all: [first, second]}, emits: third}",
    ),
    "a join below `all`": (
        "agents:\n  a:\n    run: m:f\n    on:\n      all:\n        - first # one\n    emits: third\n",
        join,
        "agents:\n  a:\n    run: m:f\n    on:\n      all:\n        - first # one\n        - second\n    emits: third\n",
    ),
    "a key without a value": (
        "agents:\n  a:\n    on:\n    run: m:f\n    emits: third\n",
        one,
        "agents:\n  a:\n    on: first\n    run: m:f\n    emits: third\n",
    ),
    "a list in lines": (
        "agents:\n  a:\n    run: m:f\n    on: first\n    emits:\n      - second # kept\n    # end\n",
        two,
        "agents:\n  a:\n    run: m:f\n    on: first\n    emits:\n      - second # kept\n      - third\n    # end\n",
    ),
    "a list in brackets": (
        "agents:\n  a: {run: m:f, on: first, emits: [third]}",
        two,
        "agents:\n  a: {run: m:f, on: first, emits: [third, second]}",
    ),
    "one type": (
        "agents:\n  a: {run: m:f, on: first, emits: second}",
        two,
        "agents:\n  a: {run: m:f, on: first, emits: [second, third]}",
    ),
    "nothing is emitted": ("agents:\n  a: {run: m:f}", silent, "agents:\n  a: {run: m:f, on: first}"),
    "what agrees": (
        "agents:\n  a: {run: m:f, on: [first], emits: [third]}",
        any_of,
        "agents:\n  a: {run: m:f, on: [first], emits: [third]}",
    ),
    "a type that the function does not take": (
        "agents:\n  a: {run: m:f, on: other}",
        silent,
        "agents:\n  a: {run: m:f, on: other}",
    ),
    "a fallback": (
        "agents:\n  b: {run: m:g, fallback: a}\n  a: {run: m:f}",
        silent,
        "agents:\n  b: {run: m:g, fallback: a}\n  a: {run: m:f}",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_types_are_added_and_nothing_else_changes(case: str) -> None:
    before, function, after = CASES[case]
    assert filled(before, function).text == after


UNTYPED = "agents:\n  a: {run: m:f, "
SHARED = "x: &t [first]\nagents:\n  a: {run: m:f, on: *t, emits: third}"
COMMENTED = "agents:\n  a:\n    run: m:f\n    on: [first,\n      # why\n      ]\n    emits: third\n"
LEFT: dict[str, tuple[str, Callable[..., Any], str, str]] = {
    "several combinations": ("agents:\n  a: {run: m:f}", optional, "on", "several combinations of first, second"),
    "no types": (f"{UNTYPED}emits: third}}", untyped, "on", "its parameters name no event type"),
    "no result types": (f"{UNTYPED}on: first}}", untyped, "emits", "its return annotation names no event type"),
    "an alias": (SHARED, join, "on", "an alias or an anchor; write `on: {all: [first, second]}`"),
    "an agent behind an anchor": ("agents:\n  a: &x {run: m:f, on: first}", one, "emits", "write `emits: third`"),
    "a comment in the value": (COMMENTED, join, "on", "holds a comment"),
}


@pytest.mark.parametrize("case", LEFT)
def test_types_that_cannot_be_determined_are_named_and_left(case: str) -> None:
    text, function, key, why = LEFT[case]
    found = filled(text, function)
    assert found.text == text
    (left,) = [each for each in found.left if each.key == key]
    assert why in left.why
    assert (left.agent, left.line) == ("a", text[: text.index("  a:")].count("\n") + 1)


def test_changes_name_lines_of_the_new_text() -> None:
    found = filled('agents:\n  a:\n    run: "m:f"\n', two)
    lines = found.text.splitlines()
    assert [lines[change.line - 1].strip() for change in found.changes] == ["on: first", "emits: [second, third]"]


def test_names_that_yaml_would_read_otherwise_are_quoted() -> None:
    class Odd(Payload, type="1.0"):
        n: int = 0

    async def odd(event: Odd) -> None: ...

    assert filled("agents:\n  a: {run: m:f}", odd).text == 'agents:\n  a: {run: m:f, on: "1.0"}'


def test_a_text_that_is_no_yaml_is_left() -> None:
    for text in ("", "agents: [", "agents: [a]", "- a"):
        assert fill(text, {"a": agent_of(one)}).text == text
        assert runs_of(text) == {}
