"""Conditions on incomplete payloads: with missing fields, or with events that have not arrived yet.

`Condition.holds` treats missing values as null. Deciding whether a run completed needs more: a missing field may be a
misspelt one, and a join whose condition is already false waits in vain.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from mesh.core.expression.condition import Condition, condition_of
from mesh.core.expression.field_path import Path
from mesh.core.expression.grammar import Comparison, Junction, Literal, Node, Not

Payloads = Mapping[str, Any]


def missing_paths(condition: Condition, payloads: Payloads) -> list[str]:
    """Return the paths of a condition that name no field of these payloads. Paths of missing events are omitted.

    A path that the condition compares with `null` may be missing: its author expects that.
    """
    optional = set(_compared_with_null(condition.tree))
    found = [path for path in condition.paths if path not in optional and not _is_there(path, payloads)]
    return list(dict.fromkeys(map(str, found)))


def is_refuted(condition: Condition, payloads: Payloads) -> bool:
    """Whether a condition is false whatever the missing events contain, and the present ones lack no field."""
    return _verdict(condition.tree, payloads) is False and not missing_paths(condition, payloads)


def _is_there(path: Path, payloads: Payloads) -> bool:
    if path.type is not None:
        return path.type not in payloads or path.exists_in(payloads[path.type])
    return len(payloads) == 1 and path.exists_in(next(iter(payloads.values())))


def _compared_with_null(node: Node) -> Iterator[Path]:
    if isinstance(node, Not):
        yield from _compared_with_null(node.part)
    elif isinstance(node, Junction):
        for part in node.parts:
            yield from _compared_with_null(part)
    elif isinstance(node, Comparison):
        sides = (node.left, node.right)
        if any(isinstance(side, Literal) and _holds_null(side.value) for side in sides):
            yield from (side for side in sides if isinstance(side, Path))


def _holds_null(value: Any) -> bool:
    return value is None or (isinstance(value, tuple) and None in value)


def _verdict(node: Node, payloads: Payloads) -> bool | None:
    """Evaluate a tree; None where the result depends on missing events."""
    if isinstance(node, Not):
        part = _verdict(node.part, payloads)
        return None if part is None else not part
    if isinstance(node, Junction):
        ending = node.word == "or"  # a part with this value decides
        parts = [_verdict(part, payloads) for part in node.parts]
        if ending in parts:
            return ending
        return None if None in parts else not ending
    sides = (node.left, node.right) if isinstance(node, Comparison) else (node,)
    if any(isinstance(side, Path) and side.type not in payloads for side in sides):
        return None
    return condition_of(node).holds(payloads)
