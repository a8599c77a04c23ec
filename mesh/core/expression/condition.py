"""Conditions of `when:`, parsed once at load, evaluated in about a microsecond, never run as code.

    fraud.scored.score < 0.7 and not (order.country in ["KP", "IR"] or vip)

A path is `field.sub`; `[0]` takes an element of an array, `."odd name"` quotes a field. A path that begins with a known
event type (`fraud.scored.score`) reads that event's payload. Any other path reads the payload of the only event.

A condition is true or false for any JSON, and never raises.

| operator | true when |
|---|---|
| `a == b` | both null, both booleans, both numbers (`1 == 1.0`), both strings, both arrays or both objects, and equal |
| `a != b` | `a == b` is false; values of different kinds differ |
| `a < b` `<=` `>` `>=` | two numbers, or two strings (by code point), in that order; any other kinds: false |
| `a in b` | b is an array with an element equal to a, or both are strings and a is a part of b; otherwise false |
| `a not in b` | `a in b` is false |
| a path alone, or under `and`, `or`, `not` | the value is exactly `true` |

A missing field, an index past the end and a missing event are all `null`. Booleans are not numbers. The grammar is in
`grammar`, paths are in `field_path`.
"""

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mesh.core.expression.field_path import Path
from mesh.core.expression.grammar import Comparison, Junction, Literal, Node, Not, parse_tree, text_of

Payloads = Mapping[str, Any]
_Test = Callable[[Payloads], bool]
_Getter = Callable[[Payloads], Any]
_Relation = Callable[[Any, Any], bool]

_NUMBERS: Final = frozenset({int, float})
_ATOMS: Final = frozenset({str, bool, type(None)})
_ORDER: Final[dict[str, _Relation]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True, slots=True)
class Condition:
    """A parsed condition. `str()` is its canonical text. Equal when text and bound types are. Made by `parse`."""

    text: str
    bound: tuple[str | None, ...]
    """The type that each path is bound to, in the order of the text."""
    tree: Node = field(compare=False, repr=False)
    test: Callable[[Payloads], bool] = field(compare=False, repr=False)
    """The tree compiled to closures, which `holds` calls."""

    def __str__(self) -> str:
        return self.text

    def __reduce__(self) -> tuple[Callable[[Node], "Condition"], tuple[Node]]:
        return condition_of, (self.tree,)

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every path of the condition, in the order of the text."""
        return tuple(_paths(self.tree))

    def bind(self, types: Iterable[str]) -> "Condition":
        """Return the condition with each path bound to the longest of `types` that it begins with."""
        known = frozenset(types)
        return condition_of(_map_paths(self.tree, lambda path: path.bind(known)))

    def bind_rest(self, type: str) -> "Condition":
        """Return the condition with each path that has no type bound to `type`, with all of its steps."""
        return condition_of(
            _map_paths(self.tree, lambda path: path if path.type is not None else Path(path.segments, type))
        )

    def holds(self, payloads: Payloads) -> bool:
        """Whether the condition is true for these payloads: type → parsed JSON.

        A path without a type reads the only payload; with several payloads it is `null`. Never raises.
        """
        return self.test(payloads)


def parse(text: str, types: Iterable[str] = ()) -> Condition:
    """Read a condition and bind its paths to `types`. Raises ConditionInvalid with column and remedy."""
    return condition_of(parse_tree(text)).bind(types)


def condition_of(tree: Node) -> Condition:
    """Make the condition of a tree whose paths are bound."""
    return Condition(text_of(tree), tuple(path.type for path in _paths(tree)), tree, _compile(tree))


def _paths(node: Node) -> Iterator[Path]:
    if isinstance(node, Path):
        yield node
    elif isinstance(node, Comparison):
        yield from _paths(node.left)
        yield from _paths(node.right)
    elif isinstance(node, Not):
        yield from _paths(node.part)
    elif isinstance(node, Junction):
        for part in node.parts:
            yield from _paths(part)


def _map_paths(node: Node, change: Callable[[Path], Path]) -> Node:
    """Return the tree with each path changed."""
    if isinstance(node, Comparison):
        return Comparison(node.operator, _mapped_value(node.left, change), _mapped_value(node.right, change))
    if isinstance(node, Not):
        return Not(_map_paths(node.part, change))
    if isinstance(node, Junction):
        return Junction(node.word, tuple(_map_paths(part, change) for part in node.parts))
    return _mapped_value(node, change)


def _mapped_value(node: Path | Literal, change: Callable[[Path], Path]) -> Path | Literal:
    return change(node) if isinstance(node, Path) else node


# ---------------------------------------------------------------------------------------------------------- evaluation


def are_equal(a: Any, b: Any) -> bool:
    """Evaluate `a == b` of the language: JSON equality, with numbers compared by value. Not recursive."""
    pairs = [(a, b)]
    while pairs:
        a, b = pairs.pop()
        kind = a.__class__
        if kind in _NUMBERS:
            if b.__class__ not in _NUMBERS or a != b:
                return False
        elif kind is not b.__class__:
            return False
        elif kind in _ATOMS:
            if a != b:
                return False
        elif kind is list and len(a) == len(b):
            pairs.extend(zip(a, b, strict=True))
        elif kind is dict and a.keys() == b.keys():
            pairs.extend((value, b[name]) for name, value in a.items())
        else:
            return False
    return True


def is_in(a: Any, b: Any) -> bool:
    """Evaluate `a in b` of the language."""
    if b.__class__ is list:
        return any(are_equal(a, item) for item in b)
    return b.__class__ is str and a.__class__ is str and a in b


def _compile(node: Node) -> _Test:
    """Compile a tree to closures, at a fourth of the cost of walking it."""
    if isinstance(node, Comparison):
        return _compile_comparison(node)
    if isinstance(node, Not):
        part = _compile(node.part)
        return lambda payloads: not part(payloads)
    if isinstance(node, Junction):
        return _compile_junction(node.word, tuple(_compile(part) for part in node.parts))
    get = _getter(node)
    return lambda payloads: get(payloads) is True


def _compile_junction(word: str, parts: tuple[_Test, ...]) -> _Test:
    ending = word == "or"  # the first part with this answer decides

    def junction(payloads: Payloads) -> bool:
        for part in parts:
            if part(payloads) is ending:
                return ending
        return not ending

    return junction


def _compile_comparison(node: Comparison) -> _Test:
    left, right = _getter(node.left), _getter(node.right)
    if node.operator in _ORDER:
        return _compile_order(_ORDER[node.operator], left, node.right, right)
    if node.operator.endswith("in"):
        test = _membership(left, node.right, right)
    elif isinstance(node.right, Literal) and node.right.value.__class__ in _ATOMS:
        # An atom equals only values of its own class, for which Python's == is the same.
        atom, kind = node.right.value, node.right.value.__class__
        test = lambda payloads: (value := left(payloads)).__class__ is kind and value == atom  # noqa: E731
    else:
        test = lambda payloads: are_equal(left(payloads), right(payloads))  # noqa: E731
    if node.operator in ("!=", "not in"):
        return lambda payloads: not test(payloads)
    return test


def _compile_order(relation: _Relation, left: _Getter, limit: Path | Literal, right: _Getter) -> _Test:
    if isinstance(limit, Literal) and limit.value.__class__ in _NUMBERS:
        number = limit.value
        return lambda payloads: (value := left(payloads)).__class__ in _NUMBERS and relation(value, number)

    def ordered(payloads: Payloads) -> bool:
        a, b = left(payloads), right(payloads)
        if a.__class__ in _NUMBERS:
            return b.__class__ in _NUMBERS and relation(a, b)
        return a.__class__ is str and b.__class__ is str and relation(a, b)

    return ordered


def _membership(left: _Getter, among: Path | Literal, right: _Getter) -> _Test:
    if isinstance(among, Literal) and all(item.__class__ is str for item in among.value):
        texts = frozenset(among.value)
        return lambda payloads: (value := left(payloads)).__class__ is str and value in texts
    return lambda payloads: is_in(left(payloads), right(payloads))


def _getter(node: Path | Literal) -> _Getter:
    if isinstance(node, Literal):
        value = list(node.value) if isinstance(node.value, tuple) else node.value
        return lambda _: value
    if node.type is None or len(node.segments) != 1 or not isinstance(node.segments[0], str):
        return node.find
    kind, name = node.type, node.segments[0]

    def field_of(payloads: Payloads) -> Any:
        payload = payloads.get(kind)
        return payload.get(name) if payload.__class__ is dict else None

    return field_of
