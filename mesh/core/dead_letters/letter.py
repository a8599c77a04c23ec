"""A dead letter as it is read: what failed, byte for byte, and why. Of the mesh, and of its neighbours.

Understood are the mesh's own (`mesh-dlq-…` beside the names of KIP-1191), share groups (KIP-1191, `__dlq.errors.…`),
Kafka Streams (KIP-1034, `__streams.errors.…`), Kafka Connect (`__connect.errors.…`) and Spring (`kafka_dlt-…`, whose
numbers are big-endian bytes). A record without any of these is a letter all the same: somebody put it there.

What people read of it is masked, whoever wrote it; the bytes are as they were.

`headers` are those of the record that failed, without what a dead letter queue added. In a letter of the mesh the
added ones stand at the end in one piece (`records.dead_letter`), so even a record that had been a dead letter before
keeps all of its own.
"""

from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from mesh.core.protocol.event import BATCH, JSON, decode_batch, derive_id, fingerprint, parse_json
from mesh.core.protocol.record import Headers, Record, StoredRecord, coordinates
from mesh.core.redaction import mask

MESH: Final = "mesh"
DIALECTS: Final[dict[str, str]] = {
    MESH: "mesh-dlq-",
    "share group": "__dlq.errors.",
    "streams": "__streams.errors.",
    "connect": "__connect.errors.",
    "spring": "kafka_dlt-",
}
"""Who wrote it → how the names of its headers begin. The first that fits counts."""
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
"""Spring writes a Java int and long, not text."""
REDRIVE: Final = "mesh-redrive"
"""On a record that a redrive put on an ingress topic: the id under which the ledger has it."""
REDRIVES: Final = "mesh-redrives"
"""On every record that a redrive sent: how often that was done with what it holds."""


class Origin(NamedTuple):
    """Where the record lay that failed. -1: not told."""

    topic: str
    partition: int = -1
    offset: int = -1

    def __str__(self) -> str:
        known = [str(number) for number in (self.partition, self.offset) if number >= 0]
        return ":".join([self.topic, *known])


@dataclass(frozen=True, slots=True)
class Letter:
    """See the module. Texts are "" where they are not told."""

    id: str
    """The same whenever the same failure is written again; made from its place where the writer gave none."""
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
    """How often it was tried. Grows when it was sent again and failed again."""
    omitted: str
    """Why the value is not here, where that is so."""
    origin: Origin | None
    type: str
    content_type: str
    kind: str
    """`ce_meshkind` of a record of the mesh's own topics that could not be used; "" of everything else."""
    redrives: int
    """How often what it holds had been redriven before it came here."""
    key: bytes | None
    value: bytes | None
    headers: Headers
    record: Record
    """As it lies on the dead letters' topic."""

    @property
    def position(self) -> str:
        """Where it lies itself: `topic:partition:offset`."""
        return coordinates(self.record)

    @property
    def at_ms(self) -> int:
        """When it got there."""
        return self.record.timestamp

    def header(self, name: str) -> str:
        """A header of the record that failed, as text; the last one of a name counts."""
        return _text(dict(self.headers).get(name))

    def payloads(self) -> Mapping[str, Any]:
        """What a condition can be asked about: type → payload; several for the input of a join."""
        if self.value is None:
            return {self.type: None}
        if self.content_type == BATCH:
            try:
                return {part.type: parse_json(part.data) for part in decode_batch(self.value)}
            except ValueError:
                return {self.type: None}
        return {self.type: parse_json(self.value)}


def letter_of(record: Record) -> Letter:
    """Read a dead letter. Total: whatever cannot be understood is left empty."""
    names = [name for name, _ in record.headers]
    dialect = next((d for d, mark in DIALECTS.items() if any(name.startswith(mark) for name in names)), "plain")
    own, added = _split(record.headers, dialect)
    headers = dict(own)
    told = {fact: _first(added, names) for fact, names in _NAMES.items()}
    shown = str if dialect == MESH else mask  # what the mesh writes is masked already
    reason = _text(added.get("mesh-dlq-reason"))
    origin = None
    if told["topic"]:
        origin = Origin(told["topic"], _whole(told["partition"], -1), _whole(told["offset"], -1))
    return Letter(
        id=_text(added.get("mesh-dlq-id")) or derive_id("dead", coordinates(record)),
        dialect=dialect,
        reason=reason or told["class"].rpartition(".")[2],
        message=shown(told["message"]).removeprefix(f"{reason}: "),
        cls=told["class"],
        stack=shown(told["stack"]),
        agent=_text(added.get("mesh-dlq-agent")),
        run_id=_text(added.get("mesh-dlq-run")),
        task_id=_text(added.get("mesh-dlq-task")),
        attempts=_whole(told["attempts"], 1),
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
    """All of a letter as JSON-able values, from which `letter_from` makes it again, byte for byte.

    Names are those of `kcat -J`. Bytes that are UTF-8 are text, others go as `…_base64`. `payload_was` tells
    whether somebody changed the payload.
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
        **_bytes_json("key", record.key),
        **_bytes_json("payload", record.value),
        "payload_was": fingerprint(record.value or b""),
        "headers": [{"name": name, **_bytes_json("value", value)} for name, value in record.headers],
    }


def letter_from(found: Any) -> tuple[Letter, bool]:
    """The letter in such values, and whether its payload was changed since. Raises ValueError saying what is wrong."""
    if not isinstance(found, dict):
        raise ValueError(f"a letter is a JSON object, got {type(found).__name__}")
    place = [found.get(name) for name in ("partition", "offset", "ts")]
    if not isinstance(found.get("topic"), str) or not all(type(number) is int for number in place):
        raise ValueError("`topic`, `partition`, `offset` and `ts` name the letter and must be there")
    listed = found.get("headers")
    if not isinstance(listed, list) or not all(isinstance(h, dict) and isinstance(h.get("name"), str) for h in listed):
        raise ValueError("`headers` is a list of objects with `name` and `value` or `value_base64`")
    # Kafka allows headers without a value, and what came so goes so.
    headers: Any = [(header["name"], _bytes_from("value", header)) for header in listed]
    value = _bytes_from("payload", found)
    record = StoredRecord(
        found["topic"], found["partition"], found["offset"], found["ts"], _bytes_from("key", found), value, headers
    )
    return letter_of(record), found.get("payload_was") != fingerprint(value or b"")


def _split(headers: Headers, dialect: str) -> tuple[Headers, dict[str, bytes | None]]:
    """Headers of the record that failed, and those that a dead letter queue added, the last one of a name."""
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


def _bytes_json(name: str, value: bytes | None) -> dict[str, str | None]:
    try:
        return {name: None if value is None else value.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": b64encode(value or b"").decode()}


def _bytes_from(name: str, found: Mapping[str, Any]) -> bytes | None:
    text, coded = found.get(name), found.get(f"{name}_base64")
    if isinstance(coded, str) and text is None:
        return b64decode(coded, validate=True)
    if coded is not None or not isinstance(text, str | None):
        raise ValueError(f"`{name}` is a text or null; bytes that are no text stand in `{name}_base64` instead")
    return None if text is None else text.encode()
