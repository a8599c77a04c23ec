"""The Event: a fact, with its lineage. One class for everything on the mesh's own topics.

An event is never changed once made. Times are milliseconds since the epoch; `at_ms` is the time at which the log
took the record, the only time that decisions know. Ids are deterministic (DESIGN §4): deciding twice makes the
same ids, so a duplicate is recognisable for ever.
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import orjson

from mesh.core.protocol.json_check import has_long_digits

ID_PATTERN: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)

REQUESTED: Final = "requested"
SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"
DUE: Final = "due"
CANCELLED: Final = "cancelled"
PAUSED: Final = "paused"
RESUMED: Final = "resumed"
SWITCHED: Final = "switched"
REDRIVEN: Final = "redriven"
ADOPTED: Final = "adopted"
TASK: Final = "task"
EGRESS: Final = "egress"
OUTCOME: Final = "outcome"

KINDS: Final[dict[str, str]] = {
    REQUESTED: "somebody asks for a run, or for more of one",
    SUCCEEDED: "a task went well; the value is what its agent emitted",
    FAILED: "an attempt of a task failed; the value is the task's input, `mesh-error-…` say why",
    DUE: "a timer has come: a retry, or the deadline of the run",
    CANCELLED: "somebody wants the run to end",
    PAUSED: "somebody wants the run to wait: nothing more of it is begun",
    RESUMED: "somebody wants the run to go on",
    SWITCHED: "who is stopped has changed: what mesh.control says, told to every partition under the run id `*`",
    REDRIVEN: "somebody sends a dead letter of the run again; the value is the input for its agent",
    ADOPTED: "from here on this partition opens runs under the topology of `ce_meshtopology`; under the run id `*`",
    TASK: "one attempt of a task, for an agent",
    EGRESS: "an event that leaves the mesh",
    OUTCOME: "how a run ended, or why a request opened none",
}
"""Every value of `ce_meshkind`, with its meaning."""

INBOX_KINDS: Final = frozenset(
    {REQUESTED, SUCCEEDED, FAILED, DUE, CANCELLED, PAUSED, RESUMED, SWITCHED, REDRIVEN, ADOPTED}
)
"""What may happen to a run; anything else on the inbox is refused as `unknown_kind`."""

JSON: Final = "application/json"
BATCH: Final = "application/cloudevents-batch+json"
"""Content type of a value that holds several events, so that a result is never torn."""


class Part(NamedTuple):
    """One event inside a value: its type and its payload as JSON bytes."""

    type: str
    data: bytes


class Usage(NamedTuple):
    """What a task used. Money in millionths of a dollar."""

    usd_micros: int = 0
    tokens: int = 0


class Fault(NamedTuple):
    """Why a task failed. `code` is a reason code, `cls` the exception's class, `stack` capped text, secrets masked."""

    code: str
    message: str
    cls: str = ""
    retryable: bool = True
    stack: str = ""
    retry_after_ms: int = 0
    """With code `later` or `left_alone`: how long the task is to wait."""


RETRY_AFTER_MS_MAX: Final = 366 * 86_400_000
"""The longest time that an agent may want to wait."""


NO_USAGE: Final = Usage()
DEADLINE_S_MAX: Final = 366 * 86_400
"""The longest deadline that a request may ask for; the mesh's own limit comes first."""


@dataclass(slots=True)
class Event:
    """See the module. `path` lists the agents crossed so far, the running one last."""

    id: str
    source: str
    type: str
    kind: str
    run_id: str
    data: bytes
    at_ms: int = 0
    cause_id: str = ""
    agent: str = ""
    task_id: str = ""
    depth: int = 0
    path: tuple[str, ...] = ()
    attempt: int = 1
    content_type: str = JSON
    time: str = ""
    subject: str = ""
    expiry_ms: int | None = None
    """Absolute deadline. Negative, on a request that is to be written: that many milliseconds after it is stored, so
    that the clock of its sender does not matter; the reader of the record gets the absolute time."""
    traceparent: str = ""
    tracestate: str = ""
    usage: Usage | None = NO_USAGE
    """None when what the agent reported is not a usage (negative, NaN, text): the reservation is charged."""
    fault: Fault | None = None
    origin: str = ""
    """Coordinates of the record this one answers or was read from: `topic:partition:offset`."""
    topology: str = ""
    """Digest of the topology by which a request was admitted, or which a partition adopts."""
    extensions: tuple[str, ...] = ()
    """Of a request and of what leaves the mesh: names and values of further CloudEvents attributes, by turns."""
    waited_ms: int = 0
    """Of a result: how long the task lay on its topic before its function was called. 0 for short times."""

    def parts(self) -> Sequence[Part]:
        """The events in the value. Raises ValueError when a batch is not one."""
        return decode_batch(self.data) if self.content_type == BATCH else (Part(self.type, self.data),)


_IDS: Final = blake2b(b"v1", digest_size=16)
_FINGERPRINTS: Final = blake2b(digest_size=8)
"""Begun once and copied, which takes a third of the time of beginning."""


def expiry_in(seconds: float) -> int:
    """A deadline that counts from when the log takes the request, as `Event.expiry_ms`; one that is over is in 1970."""
    return -max(1, round(min(seconds, DEADLINE_S_MAX) * 1_000)) if seconds > 0 else 0


def derive_id(*parts: str | int) -> str:
    """A deterministic id: 32 hex digits of BLAKE2b over the parts, kept apart by NUL, which no id holds."""
    hash = _IDS.copy()
    hash.update(("\0%s" * len(parts) % parts).encode())
    return hash.hexdigest()


def run_id_of(source: str, event_id: str, ordering_key: bytes | None = None) -> str:
    """The run that a request opens when it names none: CloudEvents makes (source, id) unique.

    With an ordering key the id ends with the home of the run, which decides about its partition (`partition.home_of`).
    """
    run_id = blake2b(f"{source}\0{event_id}".encode(), digest_size=12).hexdigest()
    if ordering_key is None:
        return run_id
    return f"{run_id}:k{blake2b(ordering_key, digest_size=8).hexdigest()}"


def fingerprint(data: bytes) -> str:
    """Short hash of a body, to tell a repeated request from another one under the same id."""
    hash = _FINGERPRINTS.copy()
    hash.update(data)
    return hash.hexdigest()


def encode_batch(parts: Sequence[Part], *, source: str, event_id: str) -> bytes:
    """Several events as one CloudEvents batch (a JSON array). Total: payloads that JSON cannot carry go as base64."""
    items = []
    for n, part in enumerate(parts):
        item: dict[str, Any] = {"specversion": "1.0", "id": f"{event_id}:{n}", "source": source, "type": part.type}
        if _embeddable(part.data):
            item["datacontenttype"] = JSON
            item["data"] = orjson.Fragment(part.data)
        else:
            item["data_base64"] = b64encode(part.data).decode()
        items.append(item)
    return orjson.dumps(items)


def decode_batch(data: bytes) -> list[Part]:
    """The events of a batch. Raises ValueError when it is not a list of structured events with JSON data."""
    items = orjson.loads(data)
    if not isinstance(items, list):
        raise ValueError(f"a CloudEvents batch is a JSON array, got {type(items).__name__}")
    parts = []
    for n, item in enumerate(items):
        kind = item.get("type") if isinstance(item, dict) else None
        if not isinstance(kind, str) or not kind or ("data" in item) == ("data_base64" in item):
            raise ValueError(f"item {n} of the batch is no structured CloudEvent with `type` and `data`")
        if "data" in item:
            try:
                parts.append(Part(kind, orjson.dumps(item["data"])))
            except TypeError as error:
                raise ValueError(f"item {n} of the batch is nested too deep: {error}") from error
        elif isinstance(item["data_base64"], str):
            parts.append(Part(kind, b64decode(item["data_base64"], validate=True)))
        else:
            raise ValueError(f"item {n} of the batch has a data_base64 that is no text")
    return parts


def _embeddable(data: bytes) -> bool:
    """Whether reading and writing it as JSON keeps its meaning: integers beyond 64 bits would become floats."""
    try:
        orjson.dumps(orjson.loads(data))
    except (orjson.JSONDecodeError, TypeError):  # no JSON, or nested deeper than orjson writes
        return False
    return not has_long_digits(data)


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


@lru_cache(maxsize=4_096)  # several records of many runs bear the same millisecond
def rfc3339(at_ms: int) -> str:
    """`2026-11-20T12:00:00.123Z`; years beyond 9999 are shown as the last one that exists."""
    seconds, ms = divmod(min(max(at_ms, 0), 253_402_300_799_999), 1000)
    return f"{_second(seconds)}.{ms:03d}Z"


def parse_json(data: bytes) -> Any:
    """A payload as Python values, None where it is no JSON: a condition then finds every field missing."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
