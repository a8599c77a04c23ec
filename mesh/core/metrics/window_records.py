"""Windows as records of mesh.windows: one for each scope, window and source partition. The last one of a key counts.

A part holds all that its partition has for the window so far, so writing it again is harmless, and readers add the
parts of all partitions.
"""

from typing import Final, NamedTuple

import orjson

from mesh.core.metrics.aggregate import Aggregate
from mesh.core.metrics.windows import BASE_MS
from mesh.core.protocol.codec import Unreadable, event_headers, read_event
from mesh.core.protocol.event import MEASURED, Event, derive_id
from mesh.core.protocol.record import NewRecord, Record, TopicPartition
from mesh.core.run.control import ALL
from mesh.core.topology.model import Topology

WINDOW_TYPE: Final = "mesh.window"
WINDOW_FIELDS: Final[tuple[tuple[str, str], ...]] = (
    ("scope", "`mesh`, `agent:<agent>` or `type:<type>`"),
    ("start_ms", "start of the window, in milliseconds since the epoch; log time"),
    ("length_ms", "its length"),
    ("source", "the partition that was counted, as `topic:partition`"),
    ("next", "the first offset of it that is not counted"),
    ("counts", "sums by name"),
    ("histograms", "values by name, as pairs of bucket and count (`mesh/core/metrics/histogram.py`)"),
)
"""Every field of a record of mesh.windows, with its meaning."""


class WindowPart(NamedTuple):
    """The numbers of one scope in one window, from one source partition."""

    place: TopicPartition
    start_ms: int
    scope: str
    next_offset: int
    aggregate: Aggregate


def window_record(part: WindowPart, topology: Topology) -> NewRecord:
    """Return the record of a part."""
    source = f"{part.place.topic}:{part.place.partition}"
    body = {
        "scope": part.scope,
        "start_ms": part.start_ms,
        "length_ms": BASE_MS,
        "source": source,
        "next": part.next_offset,
        **part.aggregate.to_json(),
    }
    event = Event(
        derive_id("window", source, part.start_ms, part.scope, part.next_offset),
        f"/mesh/{topology.name}",
        WINDOW_TYPE,
        MEASURED,
        ALL,
        orjson.dumps(body),
        part.start_ms,
        subject=part.scope,
    )
    key = f"{part.scope}|{part.start_ms}|{source}".encode()
    return NewRecord(topology.windows, key, event.data, event_headers(event))


def read_window(record: Record) -> WindowPart | None:
    """Read a part; None for another record, or one of another version."""
    event = read_event(record)
    if isinstance(event, Unreadable) or event.type != WINDOW_TYPE:
        return None
    try:
        body = orjson.loads(event.data)
        topic, _, partition = body["source"].rpartition(":")
        if body["length_ms"] != BASE_MS:
            return None
        place, aggregate = TopicPartition(topic, int(partition)), Aggregate.from_json(body)
        return WindowPart(place, int(body["start_ms"]), str(body["scope"]), int(body["next"]), aggregate)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return None
