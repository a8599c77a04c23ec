"""Convert topologies to bytes and back. Pure.

A run continues under the topology that it was opened with, even if topics.yaml has changed since. A topology is stored
whole, with all derived fields, so reading it needs neither validation nor the rules of the language. It keeps the
digest that it was stored under, even if the present code computes another.
"""

from dataclasses import replace
from typing import Any, Final

import orjson

from mesh.core.errors import in_plain_words
from mesh.core.expression.condition import Condition, parse
from mesh.core.topology.model import Topology
from mesh.core.topology.shape import Shapes, ShapeUnknown, Special

FORMAT: Final = 1


def pinned_bytes(topology: Topology) -> bytes:
    """Write a topology as JSON."""
    shapes = Shapes(special=_SPECIAL)
    plain = shapes.plain(Topology)(topology)
    return orjson.dumps({"format": FORMAT, "topology": plain, "fields": shapes.fields})


def pinned_topology(data: bytes, digest: str) -> Topology:
    """Read the topology stored under a digest. Raises ValueError if this version cannot read it."""
    try:
        kept = orjson.loads(data)
        if kept["format"] != FORMAT:
            raise ValueError(f"it is of format {kept['format']!r}, known is {FORMAT}")
        found: Topology = Shapes(fields=kept["fields"], special=_SPECIAL).value(Topology)(kept["topology"])
    except (ShapeUnknown, KeyError, TypeError, IndexError, orjson.JSONDecodeError) as error:
        raise ValueError(f"no topology that this version knows: {in_plain_words(error)}") from error
    return replace(found, digest=digest)


def _condition_plain(condition: Condition) -> list[Any]:
    return [condition.text, sorted({type for type in condition.bound if type is not None})]


def _condition(plain: list[Any]) -> Condition:
    return parse(plain[0], plain[1])


_SPECIAL: Final[Special] = {Condition: (_condition_plain, _condition)}
