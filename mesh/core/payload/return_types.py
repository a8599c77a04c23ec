"""Read return annotations: the event types that a function may emit, and a writer for each declared class."""

import typing
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Iterable, Iterator, Mapping, Sequence, Set
from types import NoneType, UnionType
from typing import Any, Final, NamedTuple

from mesh.core.payload.annotation import MakeError, adapters, event_type_of, has_metadata, union_members, unwrap_alias
from mesh.core.payload.json_encode import PayloadWriter, writer_of

_ONCE: Final = (Iterator, AsyncIterable, Awaitable)
"""Types whose values can be read only once."""
_SILENT: Final = (NoneType, typing.NoReturn, typing.Never)
_FREE: Final = (*_SILENT, Any, object, dict, list, tuple, Mapping, Sequence)
"""Annotations that say nothing about a payload."""


class Results(NamedTuple):
    """The content of a return annotation."""

    types: Mapping[str, PayloadWriter]
    """Event type → its writer. The key "" is for a payload whose class has no event type."""
    classes: Mapping[type, tuple[str, PayloadWriter]]
    """Class → its event type and its writer."""
    emits: tuple[str, ...] | None
    """Event types that may be emitted; None when the annotation does not name all of them."""


def results_of(hint: Any, refuse: MakeError, *, silent: Sequence[Any], unnamed: Sequence[Any]) -> Results:
    """Read a return annotation. `silent`: classes that emit nothing; `unnamed`: classes that may emit any type."""
    types: dict[str, PayloadWriter] = {}
    classes: dict[type, tuple[str, PayloadWriter]] = {}
    others = (*_FREE, *silent, *unnamed)
    complete = True
    for each in _payloads(hint, refuse, inside=False):
        found = [leaf for leaf in union_members(each) if leaf not in silent and leaf not in _SILENT]
        named = [leaf for leaf in found if leaf not in others and not _is_list(leaf) and not _is_free(leaf)]
        complete = complete and all(leaf in named or _is_list(leaf) for leaf in found)
        for event_type, adapter in adapters(each, "the result", refuse, only=named).items() if named else ():
            writer = PayloadWriter(adapter)
            types.setdefault(event_type, writer)
            for leaf in named:
                if event_type and event_type_of(leaf) == event_type:
                    classes.setdefault(leaf, (event_type, writer if _is_annotated(each) else writer_of(leaf)))
    return Results(types, classes, tuple(types) if complete and "" not in types else None)


def _payloads(hint: Any, refuse: MakeError, *, inside: bool) -> list[Any]:
    """Return the hint, and the hints of the items of every list in it."""
    found = [hint]
    for leaf in union_members(hint):
        _refuse_other_containers(leaf, refuse)
        if not _is_list(leaf):
            continue
        if inside or has_metadata(hint):
            what = (
                "a list in a list" if inside else "an annotation around a list of payloads, which would not be applied"
            )
            raise refuse(f"the result is {what}", "one list of payloads", "Annotate the payloads in it")
        for item in typing.get_args(leaf):
            if item is not Ellipsis:
                found += _payloads(item, refuse, inside=True)
    return found


def _is_annotated(hint: Any) -> bool:
    """Whether a hint, or a member of its union, has metadata other than text."""
    hint = unwrap_alias(hint)
    members = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, UnionType) else ()
    return has_metadata(hint) or any(map(_is_annotated, members))


def _is_list(leaf: Any) -> bool:
    return typing.get_origin(leaf) in (list, tuple, Sequence)


def _is_free(leaf: Any) -> bool:
    """Whether a hint is a mapping to any values."""
    return typing.get_origin(leaf) in (dict, Mapping) and typing.get_args(leaf)[1] in (Any, object)


def _refuse_other_containers(leaf: Any, refuse: MakeError) -> None:
    origin = typing.get_origin(leaf) or leaf
    if not isinstance(origin, type):
        return
    holds = any(event_type_of(inner) for item in typing.get_args(leaf) for inner in union_members(item))
    if issubclass(origin, _ONCE) or origin is Iterable or (holds and issubclass(origin, Set | deque)):
        raise refuse(
            f"the result is annotated as {origin.__name__}", "a payload or a list", "Return a list of payloads"
        )
