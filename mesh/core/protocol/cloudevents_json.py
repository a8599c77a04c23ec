"""CloudEvents in structured mode: the whole event as one JSON object. The mesh reads it and never writes it."""

import re
from base64 import b64decode
from typing import Any, Final, NamedTuple

import orjson

from mesh.core.protocol.event import JSON
from mesh.core.protocol.json_check import Flaw, parse_strict

STRUCTURED: Final = "application/cloudevents+json"

_NAME = re.compile(r"[a-z0-9]+")
_NOT_ATTRIBUTES: Final = frozenset({"data", "data_base64", "datacontenttype"})
_TEXTS: Final = frozenset({"specversion", "id", "source", "type", "time", "subject", "dataschema"})


class StructuredEvent(NamedTuple):
    """The parts of a structured event. `attributes` are texts, as in headers; `data` is None when there is none."""

    attributes: dict[str, str]
    data: bytes | None
    content_type: str


def is_structured(content_type: str) -> bool:
    """Whether a value of this media type is a structured event or a batch of them, in any format."""
    return content_type.lower().startswith("application/cloudevents")


def unwrap(value: bytes, content_type: str) -> StructuredEvent | Flaw:
    """Return the parts of a structured event, or its flaw. Never raises."""
    bare = content_type.partition(";")[0].strip().lower()
    if bare != STRUCTURED:
        return Flaw("unparseable", f"content type {bare[:64]!r}; structured mode is read as {STRUCTURED}")
    document = parse_strict(value)
    if isinstance(document, Flaw):
        return document
    if not isinstance(document, dict):
        return Flaw("unparseable", f"a structured CloudEvent is a JSON object, got {type(document).__name__}")
    if document.get("specversion") != "1.0":
        return Flaw("not_cloudevents", f"specversion is {_value_text(document.get('specversion'))}; expected '1.0'")
    attributes = {}
    for name, given in document.items():
        if given is None or name in _NOT_ATTRIBUTES or not _NAME.fullmatch(name):
            continue
        text = _text(name, given)
        if text is None:
            code = "bad_id" if name == "id" else "bad_header"
            return Flaw(code, f"CloudEvents attribute {name!r} is {_value_text(given)}; expected text")
        attributes[name] = text
    inner = document.get("datacontenttype") or JSON
    if not isinstance(inner, str):
        return Flaw("bad_header", f"CloudEvents attribute 'datacontenttype' is {_value_text(inner)}; expected text")
    data = _data(document)
    return data if isinstance(data, Flaw) else StructuredEvent(attributes, data, inner)


def _text(name: str, value: Any) -> str | None:
    """Return a JSON value as header text; None for a value that CloudEvents does not allow."""
    if isinstance(value, str):
        return value
    if name in _TEXTS or not isinstance(value, int):
        return None
    return str(value).lower()


def _data(document: dict[str, Any]) -> bytes | Flaw | None:
    encoded = document.get("data_base64")
    if encoded is None:
        return orjson.dumps(document["data"]) if "data" in document else None
    if "data" in document:
        return Flaw("unparseable", "a structured CloudEvent has either data or data_base64, not both")
    try:
        return b64decode(encoded, validate=True)
    except (TypeError, ValueError) as error:
        return Flaw("unparseable", f"data_base64 is no base64: {error}")


def _value_text(value: Any) -> str:
    return repr(value)[:64] if isinstance(value, str | int | float | None) else f"a JSON {type(value).__name__}"
