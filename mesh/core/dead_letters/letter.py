"""Read dead letters: the failed record, byte for byte, and the reason. Letters of the mesh and of other systems.

Known formats: the mesh's own (`mesh-dlq-…` beside the names of KIP-1191), share groups (KIP-1191, `__dlq.errors.…`),
Kafka Streams (KIP-1034, `__streams.errors.…`), Kafka Connect (`__connect.errors.…`) and Spring (`kafka_dlt-…`, whose
numbers are big-endian bytes). A record without any of these headers is read as a letter, too.

Texts of other systems are masked for display; the bytes stay unchanged.

`headers` are those of the failed record, without those that a dead letter queue added. The mesh adds its own in one
piece at the end (`effect_records.dead_letter`), so a record that was a dead letter before keeps all of its headers.
"""

from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from mesh.core.protocol.event import JSON, derive_id, fingerprint, rfc3339
from mesh.core.protocol.record import Headers, Record, StoredRecord, coordinates
from mesh.core.protocol.record_json import bytes_json
from mesh.core.redaction import mask
from mesh.core.selection.where import payloads_of

MESH: Final = "mesh"
DIALECTS: Final[dict[str, str]] = {
    MESH: "mesh-dlq-",
    "share group": "__dlq.errors.",
    "streams": "__streams.errors.",
    "connect": "__connect.errors.",
    "spring": "kafka_dlt-",
}
"""Writer of a letter → prefix of its headers. The first that fits counts."""
_FOREIGN: Final = (*DIALECTS.values(),)
_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "topic": ("__dlq.errors.topic", "__streams.errors.topic", "__connect.errors.topic", "kafka_dlt-original-topic"),
    "partition": (
        *("__dlq.errors.partition", "__streams.errors.partition", "__connect.errors.partition"),
        "kafka_dlt-original-partition",
    ),
    "offset": (
        *("__dlq.errors.offset", "__streams.errors.offset", "__connect.errors.offset"),
        "kafka_dlt-original-offset",
    ),
    "attempts": ("__dlq.errors.delivery.count",),
    "message": (
        *("__dlq.errors.message", "__streams.errors.message", "__connect.errors.exception.message"),
        "kafka_dlt-exception-message",
    ),
    "class": (
        *("__connect.errors.exception.class.name", "__streams.errors.exception"),
        *("kafka_dlt-exception-cause-fqcn", "kafka_dlt-exception-fqcn"),
    ),
    "stack": (
        *("__connect.errors.exception.stacktrace", "__streams.errors.stacktrace"),
        "kafka_dlt-exception-stacktrace",
    ),
}
_INTEGERS: Final = frozenset({"kafka_dlt-original-partition", "kafka_dlt-original-offset"})
"""Headers that Spring writes as a Java int or long, not as text."""
REDRIVE: Final = "mesh-redrive"
"""Header of a record that a redrive put on an ingress topic: its key in the ledger."""
REDRIVES: Final = "mesh-redrives"
"""Header of every record that a redrive sent: the number of redrives of its content."""


class Origin(NamedTuple):
    """Position of the failed record. -1: unknown."""

    topic: str
    partition: int = -1
    offset: int = -1

    def __str__(self) -> str:
        known = [str(number) for number in (self.partition, self.offset) if number >= 0]
        return ":".join([self.topic, *known])


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter; see the module. Unknown texts are ""."""

    id: str
    """Stable id of the failure; made from the letter's position if the writer gave none."""
    dialect: str
    """One of DIALECTS, or `plain`."""
    reason: str
    message: str
    cls: str
    stack: str
    agent: str
    run_id: str
    task_id: str
    attempts: int
    """Number of attempts, those after redrives included."""
    omitted: str
    """Reason for a missing value; "" if the value is here."""
    origin: Origin | None
    type: str
    content_type: str
    kind: str
    """`ce_meshkind` of an unusable record of the mesh's own topics; "" for other letters."""
    redrives: int
    """Number of earlier redrives of its content."""
    key: bytes | None
    value: bytes | None
    headers: Headers
    record: Record
    """The record on the dead letters' topic."""

    @property
    def position(self) -> str:
        """Position of the letter itself: `topic:partition:offset`."""
        return coordinates(self.record)

    @property
    def at_ms(self) -> int:
        """Log time of the letter."""
        return self.record.timestamp

    def header(self, name: str) -> str:
        """Return a header of the failed record as text; the last one of a name counts."""
        return _text(dict(self.headers).get(name))

    def payloads(self) -> Mapping[str, Any]:
        """Return the payloads for a condition, by type; several for the input of a join."""
        if self.value is None:
            return {self.type: None}
        return payloads_of(self.type, self.content_type, self.value)

    def attributes(self) -> dict[str, Any]:
        """Return what a condition may name of the letter besides its payload."""
        return {
            "id": self.id,
            "reason": self.reason,
            "message": self.message,
            "agent": self.agent,
            "run": self.run_id,
            "task": self.task_id,
            "type": self.type,
            "attempts": self.attempts,
            "class": self.cls,
            "time": rfc3339(self.at_ms),
            "headers": {name: (value or b"").decode("utf-8", "backslashreplace") for name, value in self.headers},
        }


def letter_of(record: Record) -> Letter:
    """Read a dead letter. Total: unreadable parts stay empty."""
    names = [name for name, _ in record.headers]
    dialect = next((d for d, mark in DIALECTS.items() if any(name.startswith(mark) for name in names)), "plain")
    own, added = _split(record.headers, dialect)
    headers = dict(own)
    facts = {fact: _first(added, names) for fact, names in _NAMES.items()}
    shown = str if dialect == MESH else mask  # what the mesh writes is masked already
    reason = _text(added.get("mesh-dlq-reason"))
    origin = None
    if facts["topic"]:
        origin = Origin(facts["topic"], _whole(facts["partition"], -1), _whole(facts["offset"], -1))
    return Letter(
        id=_text(added.get("mesh-dlq-id")) or derive_id("dead", coordinates(record)),
        dialect=dialect,
        reason=reason or facts["class"].rpartition(".")[2],
        message=shown(facts["message"]).removeprefix(f"{reason}: "),
        cls=facts["class"],
        stack=shown(facts["stack"]),
        agent=_text(added.get("mesh-dlq-agent")),
        run_id=_text(added.get("mesh-dlq-run")),
        task_id=_text(added.get("mesh-dlq-task")),
        attempts=_whole(facts["attempts"], 1),
        omitted=_text(added.get("mesh-dlq-omitted")),
        origin=origin,
        type=_text(headers.get("ce_type")),
        content_type=_text(headers.get("content-type")) or JSON,
        kind=_text(headers.get("ce_meshkind")),
        redrives=_whole(_text(headers.get(REDRIVES)), 0),
        key=record.key,
        value=record.value,
        headers=own,
        record=record,
    )


def letter_json(letter: Letter) -> dict[str, Any]:
    """Return a letter as JSON-able values, from which `letter_from` restores it, byte for byte.

    Names are those of `kcat -J`. UTF-8 bytes become text, others `…_base64`. `payload_was` is the fingerprint of the
    payload, which reveals later changes.
    """
    record = letter.record
    return {
        "id": letter.id,
        "reason": letter.reason,
        "message": letter.message,
        "agent": letter.agent,
        "run": letter.run_id,
        "task": letter.task_id,
        "type": letter.type,
        "origin": str(letter.origin or ""),
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "ts": record.timestamp,
        **bytes_json("key", record.key),
        **bytes_json("payload", record.value),
        "payload_was": fingerprint(record.value or b""),
        "headers": [{"name": name, **bytes_json("value", value)} for name, value in record.headers],
    }


def letter_from(found: Any) -> tuple[Letter, bool]:
    """Restore a letter from such values; also return whether its payload was changed. Raises ValueError."""
    if not isinstance(found, dict):
        raise ValueError(f"a letter is a JSON object, got {type(found).__name__}")
    place = [found.get(name) for name in ("partition", "offset", "ts")]
    if not isinstance(found.get("topic"), str) or not all(type(number) is int for number in place):
        raise ValueError("`topic`, `partition`, `offset` and `ts` name the letter and must be there")
    listed = found.get("headers")
    if not isinstance(listed, list) or not all(isinstance(h, dict) and isinstance(h.get("name"), str) for h in listed):
        raise ValueError("`headers` is a list of objects with `name` and `value` or `value_base64`")
    # Kafka allows headers without a value; they stay without one.
    headers: Any = [(header["name"], _bytes_from("value", header)) for header in listed]
    value = _bytes_from("payload", found)
    record = StoredRecord(
        found["topic"], found["partition"], found["offset"], found["ts"], _bytes_from("key", found), value, headers
    )
    return letter_of(record), found.get("payload_was") != fingerprint(value or b"")


def _split(headers: Headers, dialect: str) -> tuple[Headers, dict[str, bytes | None]]:
    """Split headers into those of the failed record, and those that a dead letter queue added (the last of a name)."""
    if dialect != MESH:
        added: dict[str, bytes | None] = {name: value for name, value in headers if name.startswith(_FOREIGN)}
        return [(name, value) for name, value in headers if not name.startswith(_FOREIGN)], added
    names = [name for name, _ in headers]
    begin = len(names) - 1 - names[::-1].index("mesh-dlq-id") if "mesh-dlq-id" in names else 0
    before = ("message", "delivery.count", "offset", "partition", "topic")  # as they stand, backwards
    for part in before:
        if begin and names[begin - 1] == f"__dlq.errors.{part}":
            begin -= 1
    return list(headers[:begin]), dict(headers[begin:])


def _first(headers: Mapping[str, bytes | None], names: tuple[str, ...]) -> str:
    for name in names:
        value = headers.get(name)
        if value:
            return str(int.from_bytes(value, "big", signed=True)) if name in _INTEGERS else _text(value)
    return ""


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace")


def _whole(text: str, otherwise: int) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else otherwise


def _bytes_from(name: str, found: Mapping[str, Any]) -> bytes | None:
    text, coded = found.get(name), found.get(f"{name}_base64")
    if isinstance(coded, str) and text is None:
        return b64decode(coded, validate=True)
    if coded is not None or not isinstance(text, str | None):
        raise ValueError(f"`{name}` is a text or null; bytes that are no text stand in `{name}_base64` instead")
    return None if text is None else text.encode()
