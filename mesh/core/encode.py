"""Values → JSON bytes, nothing lost in silence: serialisers write `null` for NaN and infinity, this refuses them."""

import math
from dataclasses import fields, is_dataclass
from typing import Any

import orjson
from pydantic import BaseModel

from mesh.core.strict import Flaw


def encode(value: Any) -> bytes | Flaw:
    """A pydantic model or JSON-able values as JSON; else the flaw: `unparseable`, or `bad_number` for NaN, infinity."""
    try:
        if isinstance(value, BaseModel):
            data = value.__pydantic_serializer__.to_json(value)
            doubtful = b"null" in data or b"NaN" in data or b"Infinity" in data  # a model chooses how it writes them
        else:
            data = orjson.dumps(value)
            doubtful = b"null" in data
    except (TypeError, ValueError, RecursionError) as error:
        return Flaw("unparseable", f"not JSON-able: {error}")
    if doubtful and _has_no_number(value):
        return Flaw("bad_number", "NaN and infinity are no JSON numbers")
    return data


def _has_no_number(value: Any) -> bool:
    """Whether there is a NaN or an infinity in it that is a number, not a text."""
    below = [value]
    while below:
        item = below.pop()
        if isinstance(item, float):
            if not math.isfinite(item):
                return True
        elif isinstance(item, BaseModel):
            below.append(item.model_dump())
        elif isinstance(item, dict):
            below.extend(item.values())
        elif isinstance(item, list | tuple | set | frozenset):
            below.extend(item)
        elif is_dataclass(item) and not isinstance(item, type):
            below.extend(getattr(item, field.name) for field in fields(item))
    return False
