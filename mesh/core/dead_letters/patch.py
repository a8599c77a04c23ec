"""Patches of a refused payload: `order.total=12` sets that field and leaves the rest unchanged."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from mesh.core.errors import InvalidInput
from mesh.core.expression.field_path import ConditionInvalid, Path, parse_path
from mesh.core.protocol.event import BATCH
from mesh.core.protocol.json_check import has_long_digits


class Patch(NamedTuple):
    """One change: the field and its new JSON value."""

    path: Path
    value: Any

    def __str__(self) -> str:
        return f"{self.path}={orjson.dumps(self.value).decode()}"


def parse_patch(text: str) -> Patch:
    """Parse `path=value`; a value that is no JSON is a text. Raises InvalidInput."""
    found = -1
    while (found := text.find("=", found + 1)) >= 0:
        try:
            path = parse_path(text[:found])
        except ConditionInvalid:
            continue  # an `=` inside a quoted name
        return Patch(path, _value(text[found + 1 :]))
    raise InvalidInput(
        "invalid change of a field",
        code="bad_value",
        where="--set",
        expected="path=value, such as order.total=12 or note='\"a text\"'",
        got=text[:128],
    )


def apply_patches(data: bytes, content_type: str, patches: Sequence[Patch]) -> bytes:
    """Return the payload with these fields set, in order; missing objects on the path are created.

    In a batch (the input of a join) a path begins with the event type that it is for. Raises InvalidInput.
    """
    if not patches:
        return data
    if has_long_digits(data):
        raise InvalidInput(
            "the payload has an integer beyond 64 bits, which would be rounded",
            code="bad_number",
            where="--set",
            remedy="Change it with --edit, which keeps all digits",
        )
    try:
        payload = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(
            f"the payload is no JSON document: {error}",
            code="unparseable",
            where="--set",
            remedy="Write another one with --edit",
        ) from error
    for patch in patches:
        if content_type == BATCH:
            _in_batch(payload, patch)
        else:
            payload = _with(payload, patch.path.segments, patch)
    try:
        return orjson.dumps(payload)
    except TypeError as error:
        raise InvalidInput(f"the payload cannot be written: {error}", code="bad_value", where="--set") from error


def added_fields(data: bytes, content_type: str, patches: Sequence[Patch]) -> list[str]:
    """Return the paths of the fields that these patches, which fit, add to a payload: it does not have them yet."""
    added = []
    for n, patch in enumerate(patches):
        payload: Any = orjson.loads(apply_patches(data, content_type, patches[:n]))
        path = patch.path
        if content_type == BATCH:
            path = path.bind(item["type"] for item in payload)
            payload = next(item.get("data") for item in payload if item["type"] == path.type)
        if not path.exists_in(payload):
            added.append(str(patch.path))
    return added


def _in_batch(items: Any, patch: Patch) -> None:
    found = [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    types = [item["type"] for item in found if isinstance(item.get("type"), str)]
    path = patch.path.bind(types)
    if path.type is None:
        raise _impossible(patch, f"the payload holds several events; begin with a type: {', '.join(types)}")
    for item in found:
        if item.get("type") == path.type:
            item["data"] = _with(item.get("data"), path.segments, patch)
            item.pop("data_base64", None)
            return


def _with(payload: Any, segments: Sequence[str | int], patch: Patch) -> Any:
    if not segments:
        return patch.value
    step, rest = segments[0], segments[1:]
    if isinstance(step, str):
        if payload is None:
            payload = {}
        if not isinstance(payload, dict):
            raise _impossible(patch, f"{step!r} is to be a field of {_kind(payload)}, not of an object")
        return {**payload, step: _with(payload.get(step), rest, patch)}
    if not isinstance(payload, list) or step > len(payload):
        there = f"an array of {len(payload)}" if isinstance(payload, list) else _kind(payload)
        raise _impossible(patch, f"[{step}] needs an array of at least {step}, there is {there}")
    below = payload[step] if step < len(payload) else None
    return [*payload[:step], _with(below, rest, patch), *payload[step + 1 :]]


def _kind(value: Any) -> str:
    """Name the kind of a JSON value."""
    if value is None:
        return "null"
    names = {dict: "an object", list: "an array", str: "a text", bool: "true or false"}
    return names.get(type(value), "a number")


def _value(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _impossible(patch: Patch, what: str) -> InvalidInput:
    return InvalidInput(what, code="bad_value", where=f"--set {patch.path}")
