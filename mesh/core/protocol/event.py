"""The Event: a fact, with its lineage. One class for everything on the mesh's own topics.

Events are immutable by convention. Times are milliseconds since the epoch. `at_ms` is the time at which the log stored
the record; decisions know no other time. Ids are deterministic: deciding the same record again derives the same ids, so
every duplicate can be recognised.
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import blake2b
from operator import attrgetter
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
MEASURED: Final = "measured"

KINDS: Final[dict[str, str]] = {
    REQUESTED: "a client requests a run, or adds to one",
    SUCCEEDED: "a task succeeded; the value is what its agent emitted",
    FAILED: "an attempt of a task failed; the value is the task's input, `mesh-error-…` give the reason",
    DUE: "a timer is due: a retry, or the deadline of the run",
    CANCELLED: "an operator cancels the run",
    PAUSED: "an operator pauses the run: it starts no further tasks",
    RESUMED: "an operator resumes the run",
    SWITCHED: "a switch of mesh.control changed; relayed to every partition under the run id `*`",
    REDRIVEN: "an operator redrives a dead letter of the run; the value is the input for its agent",
    ADOPTED: "this partition opens further runs under the topology of `ce_meshtopology`; under the run id `*`",
    TASK: "one attempt of a task, for an agent",
    EGRESS: "an event that leaves the mesh",
    OUTCOME: "how a run ended, or why a request opened none",
    MEASURED: "the numbers of a window of time",
}
"""Every value of `ce_meshkind`, with its meaning."""
FOREIGN: Final = "foreign"
"""Kind of an event that another sender wrote, as a reader shows it. No record has it."""

INBOX_KINDS: Final = frozenset(
    {REQUESTED, SUCCEEDED, FAILED, DUE, CANCELLED, PAUSED, RESUMED, SWITCHED, REDRIVEN, ADOPTED}
)
"""Kinds of events that a run consumes; any other kind on the inbox is refused as `unknown_kind`."""

JSON: Final = "application/json"
BATCH: Final = "application/cloudevents-batch+json"
"""Content type of a value that holds several events: all events of a result are stored together or not at all."""


class Part(NamedTuple):
    """One event inside a value: its type and its payload as JSON bytes."""

    type: str
    data: bytes


class Usage(NamedTuple):
    """Money and tokens that a task used. Money is in millionths of a dollar."""

    usd_micros: int = 0
    tokens: int = 0


class Fault(NamedTuple):
    """The reason of a failure. `code`: a reason code; `cls`: the exception's class; `stack`: capped, secrets masked."""

    code: str
    message: str
    cls: str = ""
    retryable: bool = True
    stack: str = ""
    retry_after_ms: int = 0
    """With code `later` or `left_alone`: how long the task is to wait."""


TASK_TIME: Final = "meshtasktime"
"""Name of the extension attribute by which a failure returns the `time` of its task."""
RETRY_AFTER_MS_MAX: Final = 366 * 86_400_000
"""The longest wait that an agent may ask for."""
FAULT_TEXT_BYTES_MAX: Final = 4_000
"""Limit for a failure's code, class and message when they are read; a worker writes at most 1,000 characters."""
STACK_BYTES_MAX: Final = 8_192
LIFETIME_DIGITS_MAX: Final = 12
"""Limit for the lifetime of a request in milliseconds: 31 years."""
TIME_MS_MAX: Final = 253_402_300_799_999
"""The last millisecond of the year 9999, the last year of RFC 3339."""
NUMBER_END: Final = 10**15
"""Usages and durations are below this."""
NO_USAGE: Final = Usage()
DEADLINE_S_MAX: Final = 366 * 86_400
"""The longest deadline that a request may ask for; the mesh's own limit may be shorter."""


@dataclass(slots=True, init=False)
class Event:
    """A fact, with its lineage. `path` lists the agents crossed so far, the running one last."""

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
    """Absolute deadline. A negative value, on a request to be written, counts milliseconds from when the log stores it.
    So the clock of its sender does not matter. A reader of the record gets the absolute time."""
    traceparent: str = ""
    tracestate: str = ""
    usage: Usage | None = NO_USAGE
    """None when the agent reported an invalid usage (negative, NaN, text): the reservation is charged."""
    fault: Fault | None = None
    origin: str = ""
    """Coordinates (`topic:partition:offset`) of the record that this event answers or was read from."""
    topology: str = ""
    """Digest of the topology by which a request was admitted, or which a partition adopts."""
    extensions: tuple[str, ...] = ()
    """On requests and on events that leave the mesh: further CloudEvents attributes, name and value alternating. On
    failures: `TASK_TIME`."""
    waited_ms: int = 0
    """On results: how long the task waited on its topic before its function was called. 0 for short times."""

    def __init__(
        self,
        id: str,
        source: str,
        type: str,
        kind: str,
        run_id: str,
        data: bytes,
        at_ms: int = 0,
        cause_id: str = "",
        agent: str = "",
        task_id: str = "",
        depth: int = 0,
        path: tuple[str, ...] = (),
        attempt: int = 1,
        content_type: str = JSON,
        time: str = "",
        subject: str = "",
        expiry_ms: int | None = None,
        traceparent: str = "",
        tracestate: str = "",
        usage: Usage | None = NO_USAGE,
        fault: Fault | None = None,
        origin: str = "",
        topology: str = "",
        extensions: tuple[str, ...] = (),
        waited_ms: int = 0,
    ) -> None:
        self.id = id
        self.source = source
        self.type = type
        self.kind = kind
        self.run_id = run_id
        self.data = data
        self.at_ms = at_ms
        self.cause_id = cause_id
        self.agent = agent
        self.task_id = task_id
        self.depth = depth
        self.path = path
        self.attempt = attempt
        self.content_type = content_type
        self.time = time
        self.subject = subject
        self.expiry_ms = expiry_ms
        self.traceparent = traceparent
        self.tracestate = tracestate
        self.usage = usage
        self.fault = fault
        self.origin = origin
        self.topology = topology
        self.extensions = extensions
        self.waited_ms = waited_ms

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what pickle needs: a compiled object has no fields that it finds by itself."""
        return Event, _FIELD_VALUES(self)

    def parts(self) -> Sequence[Part]:
        """Return the events in the value. Raises ValueError for an invalid batch."""
        return decode_batch(self.data) if self.content_type == BATCH else (Part(self.type, self.data),)


_FIELD_VALUES: Final = attrgetter(*(field.name for field in fields(Event)))
_IDS: Final = blake2b(b"v1", digest_size=16)
_FINGERPRINTS: Final = blake2b(digest_size=8)
"""Copying a hash takes a third of the time of making one."""


def expiry_in(seconds: float) -> int:
    """Return `Event.expiry_ms` for a deadline that counts from when the log stores the request; 0 if it has passed."""
    return -max(1, round(min(seconds, DEADLINE_S_MAX) * 1_000)) if seconds > 0 else 0


def read_usage(usd_micros: int, tokens: int) -> Usage | None:
    """Return the usage on a result; None if a number is out of range."""
    fits = 0 <= usd_micros < NUMBER_END and 0 <= tokens < NUMBER_END
    return Usage(usd_micros, tokens) if fits else None


def read_duration(ms: int) -> int:
    """Return a duration on a result. One out of range counts as 0, so that the result is not lost."""
    return min(ms, RETRY_AFTER_MS_MAX) if 0 <= ms < NUMBER_END else 0


def derive_id(*parts: str | int) -> str:
    """Derive a deterministic id: 32 hex digits of BLAKE2b over the parts, separated by NUL, which no id contains."""
    hash = _IDS.copy()
    hash.update(("\0%s" * len(parts) % parts).encode())
    return hash.hexdigest()


def run_id_of(source: str, event_id: str, ordering_key: bytes | None = None) -> str:
    """Return the id of the run that a request opens when it names none: CloudEvents makes (source, id) unique.

    With an ordering key the id ends with the home of the run, which determines its partition (`partitioner.home_of`).
    """
    run_id = blake2b(f"{source}\0{event_id}".encode(), digest_size=12).hexdigest()
    if ordering_key is None:
        return run_id
    return f"{run_id}:k{blake2b(ordering_key, digest_size=8).hexdigest()}"


def fingerprint(data: bytes) -> str:
    """Return a short hash of a body. It separates a repeated request from another one under the same id."""
    hash = _FINGERPRINTS.copy()
    hash.update(data)
    return hash.hexdigest()


def encode_batch(parts: Sequence[Part], *, source: str, event_id: str) -> bytes:
    """Write several events as one CloudEvents batch, a JSON array. Payloads that JSON cannot carry become base64."""
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
    """Read the events of a batch. Raises ValueError when it is not a list of structured events with data."""
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
    """Whether the payload survives reading and writing as JSON: integers beyond 64 bits would become floats."""
    try:
        orjson.dumps(orjson.loads(data))
    except (orjson.JSONDecodeError, TypeError):  # invalid, or nested deeper than orjson writes
        return False
    return not has_long_digits(data)


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


@lru_cache(maxsize=4_096)  # many records share a millisecond
def rfc3339(at_ms: int) -> str:
    """Format a time like `2026-11-20T12:00:00.123Z`. Times after the year 9999 become its last millisecond."""
    seconds, ms = divmod(min(max(at_ms, 0), TIME_MS_MAX), 1000)
    return f"{_second(seconds)}.{ms:03d}Z"


def parse_json(data: bytes) -> Any:
    """Parse a payload; None when it is invalid JSON, so that a condition finds every field missing."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
