"""`--where`: a condition in the language of `when:` over the payload of an event and over its attributes.

| path | reads |
|---|---|
| `order.placed.total` | `total` in the payload of type `order.placed`, a type of topics.yaml |
| `ce.agent` | the attribute `agent` |
| `total` | the payload; without such a field there, the attribute of that name |

The attributes of a record are those of `record_attributes`. An unknown name is `null`, as in `when:`.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from mesh.core.expression.condition import Condition, parse
from mesh.core.protocol.codec import plain_headers
from mesh.core.protocol.event import BATCH, Event, decode_batch, parse_json, rfc3339
from mesh.core.protocol.record import Record

ATTRIBUTES: Final = "ce"
"""First step of a path that reads an attribute even where the payload has a field of its name."""
_REST: Final = ""
"""The type of paths that name none. No event has it."""


class Where:
    """A condition over the payloads and the attributes of one thing. `str()` is its canonical text."""

    def __init__(self, text: str, types: Iterable[str] = ()) -> None:
        """Read a condition. `types`: those that a path may begin with. Raises ConditionInvalid with its column."""
        condition = parse(text, types)
        self._text = condition.text
        self._condition: Condition = condition.bind_rest(_REST)

    def __str__(self) -> str:
        return self._text

    def reads_only(self, attributes: Collection[str]) -> bool:
        """Whether every path names one of these attributes, so that no payload is needed."""
        firsts = [(path.type, path.segments[0]) for path in self._condition.paths if path.segments]
        return all(type == _REST and (first == ATTRIBUTES or first in attributes) for type, first in firsts)

    def holds(self, payloads: Mapping[str, Any], attributes: Mapping[str, Any]) -> bool:
        """Whether the condition is true. `payloads`: type → parsed JSON; several for the input of a join.

        A path without a type reads the only payload; with several it reads attributes alone. Never raises.
        """
        only = next(iter(payloads.values())) if len(payloads) == 1 else None
        fields = only if isinstance(only, dict) else {}
        return self._condition.holds({**payloads, _REST: {**attributes, **fields, ATTRIBUTES: attributes}})


def payloads_of(type: str, content_type: str, data: bytes) -> Mapping[str, Any]:
    """Return the payloads of an event for a condition, by type. A payload that is not JSON is null."""
    if content_type == BATCH:
        try:
            return {part.type: parse_json(part.data) for part in decode_batch(data)}
        except ValueError:
            return {type: None}
    return {type: parse_json(data)}


def record_attributes(record: Record, event: Event | None) -> dict[str, Any]:
    """Return what a condition may name of a record besides its payload. `event`: None if the record holds none."""
    headers = plain_headers(record.headers)
    attributes: dict[str, Any] = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "time": rfc3339(record.timestamp),
        "key": None if record.key is None else record.key.decode("utf-8", "backslashreplace"),
        "headers": {name: (value or b"").decode("utf-8", "backslashreplace") for name, value in headers},
    }
    return attributes if event is None else attributes | event_attributes(event)


def event_attributes(event: Event) -> dict[str, Any]:
    """Return what a condition may name of an event besides its payload."""
    usage, fault = event.usage, event.fault
    return {
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "kind": event.kind,
        "run": event.run_id,
        "subject": event.subject,
        "cause": event.cause_id,
        "agent": event.agent,
        "task": event.task_id,
        "depth": event.depth,
        "path": list(event.path),
        "attempt": event.attempt,
        "waited_ms": event.waited_ms,
        "usd": None if usage is None else usage.usd_micros / 1_000_000,
        "tokens": None if usage is None else usage.tokens,
        "code": None if fault is None else fault.code,
        "message": None if fault is None else fault.message,
    }
