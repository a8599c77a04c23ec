"""Records that are bad in one way: the ingredients of tests/bad_inputs.py."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from mesh.core.protocol.codec import event_headers
from mesh.core.protocol.event import SUCCEEDED, Event, Part, encode_batch
from mesh.core.protocol.record import Record, StoredRecord
from tests.builders import AT_MS, event, record

DEEP: Final = 100_000
BODY: Final = b'{"id": "o-1"}'
OTHER_RUN: Final = "run-b"
"""A run that is open, too."""


def incoming(value: bytes | None = BODY, **attributes: str | bytes | None) -> StoredRecord:
    """A record of the ingress topic; with attributes it is a CloudEvent in binary mode."""
    merged: dict[str, Any] = {"specversion": "1.0", "id": "o-1", "source": "/shop", "type": "ask", **attributes}
    headers = [(f"ce_{name}", text.encode() if isinstance(text, str) else text) for name, text in merged.items()]
    return StoredRecord("in.ask", 0, 5, AT_MS, b"\x00key", value, headers if attributes else [])


def answer(task: Event, **changes: Any) -> Event:
    """The answer of the task's agent, with changes."""
    given = event(
        SUCCEEDED,
        id=f"{task.id}:{SUCCEEDED}",
        type="checked",
        run_id=task.run_id,
        agent=task.agent,
        task_id=task.task_id,
        depth=task.depth,
        path=task.path,
        attempt=task.attempt,
    )
    return replace(given, **changes)


def headers(event: Event, **changes: bytes | None) -> Record:
    """The record of an event with headers changed (None: without it); `_` stands for `-` in plain ones."""
    merged = dict(event_headers(event))
    for name, value in changes.items():
        known = name if name.startswith("ce_") else name.replace("_", "-")
        if value is None:
            merged.pop(known)
        else:
            merged[known] = value
    return record(event, 1, headers=list(merged.items()))


def many(n: int, bytes_each: int = 1) -> bytes:
    """A batch of events."""
    return encode_batch(
        [Part("checked", b'"%s"' % (b"x" * bytes_each)) for _ in range(n)], source="/agents/check", event_id="t"
    )


def said(**changes: Any) -> Callable[[Event], Record]:
    """The record of an answer with changes, once the task is known."""
    return lambda task: record(answer(task, **changes), 1)


def asked(**changes: Any) -> Callable[[Event], Record]:
    """The record of a request."""
    return lambda task: record(event(**changes), 1)


def spoilt(**changes: bytes | None) -> Callable[[Event], Record]:
    """The record of a good answer with its headers spoilt."""
    return lambda task: headers(answer(task), **changes)
