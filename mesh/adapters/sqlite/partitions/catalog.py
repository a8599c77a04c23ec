"""The log's tables, its topics, and the bounds of their partitions.

Every partition of every topic has a number. A batch's row id is `number << 40 | offset of its first record`, so that
appends to and reads of a partition walk the table in its stored order.
"""

import json
import re
import sqlite3
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mesh.adapters.ports import Bounds, TopicSpec
from mesh.core.errors import InvalidInput, NotFound
from mesh.core.protocol.record import TopicPartition

OFFSET_BITS = 40
OFFSET_MASK = (1 << OFFSET_BITS) - 1

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS topics (name TEXT PRIMARY KEY, first INTEGER NOT NULL, partitions INTEGER NOT NULL,"
    " config TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS partitions (number INTEGER PRIMARY KEY, start INTEGER NOT NULL DEFAULT 0,"
    " last_ms INTEGER NOT NULL DEFAULT 0)",
    "CREATE TABLE IF NOT EXISTS batches (id INTEGER PRIMARY KEY, records INTEGER NOT NULL, at_ms INTEGER NOT NULL,"
    " keys BLOB NOT NULL, bodies BLOB NOT NULL, shapes BLOB NOT NULL, headers BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS groups (number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE,"
    " generation INTEGER NOT NULL DEFAULT 0)",
    "CREATE TABLE IF NOT EXISTS members (member TEXT PRIMARY KEY, grp INTEGER NOT NULL, seq INTEGER NOT NULL,"
    " topics TEXT NOT NULL, opener TEXT NOT NULL, session_timeout_ms INTEGER NOT NULL, beat_ms INTEGER NOT NULL)"
    " WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS owners (grp INTEGER NOT NULL, partition INTEGER NOT NULL, owner TEXT, target TEXT,"
    " PRIMARY KEY (grp, partition)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS commits (grp INTEGER NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL,"
    " metadata TEXT NOT NULL, PRIMARY KEY (grp, partition)) WITHOUT ROWID",
)

# The last batch of each partition in the JSON list, or its start if all batches were removed.
_ENDS = """
SELECT p.number, p.start, p.last_ms, b.id, b.records, b.at_ms
FROM json_each(?) AS wanted
JOIN partitions AS p ON p.number = wanted.value
LEFT JOIN batches AS b ON b.id =
    (SELECT max(id) FROM batches WHERE id >= p.number << 40 AND id < (p.number + 1) << 40)
"""

_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")


class Topic(NamedTuple):
    """A topic of this file. Its partitions' numbers are `first` to `first + partitions - 1`."""

    name: str
    first: int
    partitions: int
    retention_ms: int | None


class PartitionEnd(NamedTuple):
    """The bounds of a partition, and the time of its last record (0: never had one)."""

    start: int
    end: int
    last_ms: int


class Catalog:
    """A cache of the topics. They are never changed or removed, so only an unknown one is read again."""

    def __init__(self) -> None:
        self.topics: dict[str, Topic] = {}
        self._partitions: dict[int, TopicPartition] = {}

    def load(self, connection: sqlite3.Connection) -> None:
        for name, first, partitions, config in connection.execute("SELECT * FROM topics").fetchall():
            if name not in self.topics:
                self.topics[name] = Topic(name, first, partitions, _retention_ms(name, json.loads(config)))
                for partition in range(partitions):
                    self._partitions[first + partition] = TopicPartition(name, partition)

    def topic(self, connection: sqlite3.Connection, name: str) -> Topic:
        """Return a topic. Raises NotFound."""
        if name not in self.topics:
            self.load(connection)
        if name not in self.topics:
            raise NotFound(
                f"unknown topic {name!r}",
                expected=f"one of: {', '.join(sorted(self.topics)[:20]) or '(none exist)'}",
                remedy="Create it first: `mesh topics create`",
            )
        return self.topics[name]

    def number(self, connection: sqlite3.Connection, partition: TopicPartition) -> int:
        """Return the number of a partition. Raises NotFound for an unknown topic or partition."""
        topic = self.topic(connection, partition.topic)
        if not 0 <= partition.partition < topic.partitions:
            raise NotFound(
                f"topic {topic.name!r} has no partition {partition.partition}",
                expected=f"0 to {topic.partitions - 1}",
            )
        return topic.first + partition.partition

    def partition(self, connection: sqlite3.Connection, number: int) -> TopicPartition:
        if number not in self._partitions:
            self.load(connection)
        return self._partitions[number]


def create(connection: sqlite3.Connection, specs: Sequence[TopicSpec]) -> list[str]:
    """Create the topics that do not exist and return their names. Existing ones take the settings of their spec."""
    created = []
    for spec in specs:
        known = connection.execute("SELECT config FROM topics WHERE name = ?", (spec.name,)).fetchone()
        if known is not None:
            config = json.dumps({**json.loads(known[0]), **spec.config})
            if config != known[0]:
                connection.execute("UPDATE topics SET config = ? WHERE name = ?", (config, spec.name))
            continue
        first = connection.execute("SELECT coalesce(max(number), 0) + 1 FROM partitions").fetchone()[0]
        connection.executemany(
            "INSERT INTO partitions (number) VALUES (?)", [(first + i,) for i in range(spec.partitions)]
        )
        config = json.dumps(dict(spec.config))
        connection.execute("INSERT INTO topics VALUES (?, ?, ?, ?)", (spec.name, first, spec.partitions, config))
        created.append(spec.name)
    return created


def check(spec: TopicSpec) -> None:
    """Raise InvalidInput for an invalid name, partition count or setting."""
    if not _NAME.fullmatch(spec.name) or spec.name in (".", ".."):
        raise InvalidInput(
            f"invalid topic name {spec.name!r}", code="invalid", expected="1 to 249 letters, digits, `.`, `_` or `-`"
        )
    if not 1 <= spec.partitions <= 10_000:
        raise InvalidInput(
            f"topic {spec.name!r}: invalid number of partitions",
            code="invalid",
            expected="1 to 10000",
            got=str(spec.partitions),
        )
    _retention_ms(spec.name, spec.config)


def ends(connection: sqlite3.Connection, numbers: Sequence[int]) -> dict[int, PartitionEnd]:
    """Return the bounds of the partitions with these numbers."""
    found = {}
    for number, start, last_ms, last_id, records, at_ms in connection.execute(
        _ENDS, (json.dumps(list(numbers)),)
    ).fetchall():
        if last_id is None:
            found[number] = PartitionEnd(start, start, last_ms)
        else:
            found[number] = PartitionEnd(start, (last_id & OFFSET_MASK) + records, at_ms)
    return found


def newest_ms(connection: sqlite3.Connection) -> int:
    """Return the time of the newest record of all; 0 without any."""
    numbers = [number for (number,) in connection.execute("SELECT number FROM partitions").fetchall()]
    return max((end.last_ms for end in ends(connection, numbers).values()), default=0)


def bounds(connection: sqlite3.Connection, topic: Topic) -> dict[int, Bounds]:
    """Return the bounds by partition."""
    found = ends(connection, range(topic.first, topic.first + topic.partitions))
    return {number - topic.first: Bounds(end.start, end.end) for number, end in sorted(found.items())}


def offsets_at(connection: sqlite3.Connection, topic: Topic, at_ms: int) -> dict[int, int]:
    """Return by partition the first offset at or after `at_ms`, by bisection: times never fall in a partition."""
    found = ends(connection, range(topic.first, topic.first + topic.partitions))
    return {number - topic.first: first_at(connection, number, end, at_ms) for number, end in sorted(found.items())}


def first_at(connection: sqlite3.Connection, number: int, end: PartitionEnd, at_ms: int) -> int:
    """Return the first offset of a partition at or after `at_ms`; its end if there is none."""
    low, high = end.start, end.end
    while low < high:
        middle = (low + high) // 2
        row = connection.execute(
            "SELECT id, records, at_ms FROM batches WHERE id <= ? ORDER BY id DESC LIMIT 1",
            (number << OFFSET_BITS | middle,),
        ).fetchone()
        if row is None or row[0] >> OFFSET_BITS != number:
            low = middle + 1  # retention has removed it meanwhile
        elif row[2] >= at_ms:
            high = row[0] & OFFSET_MASK
        else:
            low = (row[0] & OFFSET_MASK) + row[1]
    return max(low, end.start)


def _retention_ms(name: str, config: Mapping[str, str]) -> int | None:
    """Return `retention.ms` of a topic; None: no limit."""
    text = config.get("retention.ms", "-1")
    try:
        retention_ms = int(text)
    except ValueError:
        retention_ms = -2
    if retention_ms < -1:
        raise InvalidInput(
            f"topic {name!r}: invalid retention.ms",
            code="invalid",
            expected="milliseconds, or -1 for no limit",
            got=repr(text),
        )
    return None if retention_ms == -1 else retention_ms
