"""What a wire must promise. `tests/adapters/` holds one contract suite a port, run against every implementation.

Log
    Topics of numbered partitions of records. Within a partition, offsets rise by at least one a record and
    readers see records in offset order, without gaps in what was acknowledged. Between partitions: no order.
Board
    Small shared values with versions. Nothing that the orchestrator needs for progress may live here.
Clock
    Wall time for comparing with stored times, monotonic waiting.

Every call that touches an outside system has a deadline of our own and raises `LogUnavailable` or
`BoardUnavailable` when it passes. Nothing here hangs, nothing is retried in silence for ever.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from mesh.core.protocol.record import NewRecord, Record, TopicPartition

# ---------------------------------------------------------------------------------------------------------- the log


class TopicSpec(NamedTuple):
    """A topic as declared. `config` uses Kafka's names (`retention.ms`, `cleanup.policy`, …) with text values."""

    name: str
    partitions: int
    config: Mapping[str, str] = {}


class Appended(NamedTuple):
    """The record is durable at this place."""

    partition: int
    offset: int


class Refused(NamedTuple):
    """The log will never take this record: `too_large`, `unauthorized`, `unknown_topic` or `invalid`."""

    code: str
    message: str


class Bounds(NamedTuple):
    """First offset still held, and the offset the next record will get."""

    start: int
    end: int


class Commit(NamedTuple):
    """A group's place in a partition: the next offset to read, and up to 4,096 bytes of text with it."""

    offset: int
    metadata: str = ""


SESSION_TIMEOUT_MS: Final = 6_000
"""The default. Kafka's brokers accept no less unless `group.min.session.timeout.ms` (default 6000) is lowered."""
REVOKE_MS_MAX: Final = 3_000
"""How long `Listener.revoked` may take. The whole group waits for it. Heartbeats go on meanwhile, so that it does not
depend on the session timeout."""


class Listener(Protocol):
    """Told about partitions by a `Member`."""

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """These are ours now, and *paused*: nothing of them is delivered until `Member.resume`.

        Must return at once (no heartbeat runs meanwhile); restore in a task, then `seek` and `resume`.
        """
        ...

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """These are about to go. Commits still work in here, and are closed when it returns.

        Must return within REVOKE_MS_MAX, or it is cancelled.
        """
        ...


class Member(Protocol):
    """One member of a consumer group. Used from one event loop."""

    @property
    def assignment(self) -> frozenset[TopicPartition]: ...

    async def poll(self, *, records_max: int, wait_ms: int) -> Mapping[TopicPartition, Sequence[Record]]:
        """Records of resumed partitions, in order per partition; empty after `wait_ms` without any.

        Delivers each record once per position. May take longer than `wait_ms` while the group rebalances: no
        timer of the caller may depend on it. Raises LogUnavailable when the log is gone for longer than its
        deadline, and any error that a listener raised.
        """
        ...

    async def commit(self, commits: Mapping[TopicPartition, Commit]) -> None:
        """Store the group's places. Fenced: raises `Fenced` (and stores nothing) if any of these partitions is no
        longer ours in this generation."""
        ...

    async def committed(self, partition: TopicPartition) -> Commit | None:
        """The stored place with its metadata; None if the group never committed here."""
        ...

    def position(self, partition: TopicPartition) -> int | None:
        """Offset of the next record `poll` will deliver; None before the first is known."""
        ...

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Deliver from `offset` on. Like `pause` and `resume`, raises Fenced for a partition that is not ours."""
        ...

    def pause(self, *partitions: TopicPartition) -> None: ...

    def resume(self, *partitions: TopicPartition) -> None:
        """Deliver from the position: where `seek` put it, else the committed offset, else the first record."""
        ...

    async def close(self) -> None:
        """Leave the group. Calls `revoked` for what was held. Returns within its deadline even if the log is gone."""
        ...


class Reader(Protocol):
    """Reads chosen partitions from chosen offsets, outside any group. Cannot publish, cannot commit."""

    async def poll(self, *, records_max: int, wait_ms: int) -> Sequence[Record]:
        """Next records, in order per partition; empty after `wait_ms` without any."""
        ...

    def position(self, partition: TopicPartition) -> int:
        """Next offset to read. Reaches the partition's end even where the last offsets hold no record."""
        ...

    def seek(self, partition: TopicPartition, offset: int) -> None: ...
    async def close(self) -> None: ...


class Log(Protocol):
    """Topics on SQLite or Kafka."""

    @property
    def url(self) -> str:
        """Where it is, for people; never with a secret."""
        ...

    @property
    def record_bytes_max(self) -> int:
        """Size of the largest record that is taken, as `core.protocol.record.record_bytes` counts; at least
        `RECORD_BYTES_MIN`. A topic may have a lower limit."""
        ...

    async def start(self) -> None: ...

    async def close(self) -> None:
        """Flush and stop; returns within its deadline even if the log is gone."""
        ...

    async def create_topics(self, specs: Sequence[TopicSpec]) -> Sequence[str]:
        """Create those that do not exist and answer their names. Existing topics are left as they are."""
        ...

    async def topics(self) -> Mapping[str, int]:
        """Every topic with its number of partitions."""
        ...

    def now_ms(self) -> int:
        """Log time: the time that the log would stamp a record with now, as well as this process knows. The wall time
        of this machine, as long as it knows nothing."""
        ...

    @property
    def knows_time(self) -> bool:
        """Whether this process has heard the log's time, so that `now_ms` is more than a guess."""
        ...

    async def stamped_by_producers(self, names: Sequence[str]) -> Sequence[str]:
        """Those of these topics whose records bear the time that their producer names, not that of the append."""
        ...

    async def append(self, records: Sequence[NewRecord]) -> Sequence[Appended | Refused]:
        """Append all, answer one verdict a record in the same order, when all verdicts are known.

        Records for the same partition keep their order. A refused record does not hold up the others. Raises
        LogUnavailable when verdicts are unknown after the deadline: then any subset may have been appended.
        """
        ...

    async def bounds(self, topic: str) -> Mapping[int, Bounds]:
        """First and next offset of each partition. Raises NotFound for an unknown topic."""
        ...

    async def offsets_at(self, topic: str, at_ms: int) -> Mapping[int, int]:
        """For each partition the first offset whose timestamp is at or after `at_ms`; the end if there is none."""
        ...

    async def trim(self, partition: TopicPartition, before: int) -> None:
        """Remove records before an offset, for ever; some of them may stay for a while (`bounds` tells).

        Raises NotFound for an unknown partition, LogUnavailable when the log does not answer or does not allow it.
        """
        ...

    async def committed(self, group: str, topic: str) -> Mapping[int, Commit]:
        """Places of a group in a topic, read from outside the group; partitions without one are left out."""
        ...

    async def idle_groups(self, groups: Sequence[str]) -> Sequence[str]:
        """Those of these groups that have no member now. One of which that cannot be told is not among them."""
        ...

    async def commit_idle(self, group: str, commits: Mapping[TopicPartition, Commit]) -> None:
        """Store places of a group that has no member. Raises Fenced (and stores nothing) if it has one."""
        ...

    def reader(self, positions: Mapping[TopicPartition, int]) -> Reader: ...

    async def join(
        self, group: str, topics: Sequence[str], listener: Listener, *, session_timeout_ms: int = SESSION_TIMEOUT_MS
    ) -> Member:
        """Become a member of `group`. A group without a commit begins at the first record. A member that sends no
        heartbeat for `session_timeout_ms` is removed."""
        ...


# -------------------------------------------------------------------------------------------------------- the board

ANY = "*"
ABSENT = ""
Limit = int | None
"""A bound of a counter; None: there is none."""


class Entry(NamedTuple):
    """A value on the board. `value` is JSON; `version` is `incarnation:counter`; `by` names who wrote it."""

    key: str
    value: bytes
    version: str
    at_ms: int
    by: str


@dataclass(frozen=True, slots=True)
class Count:
    """A counter after an attempt to add: its value, and whether the amount was taken."""

    value: int
    applied: bool
    version: str = field(default="", compare=False)
    """The version that the sum stands under, as in an Entry; "" when the amount was not taken."""
    at_ms: int = field(default=0, compare=False)


class Completeness(NamedTuple):
    """Whether a store holds all that its earlier incarnations acknowledged."""

    complete: bool
    before: str = ""
    """The incarnation before this one, if that one was complete; "" if not, or if it is not known."""
    since: int = 0
    """The counter at which this incarnation began: later versions of `before` were lost."""


class Board(Protocol):
    """Shared values for agents. Keys are `[A-Za-z0-9._:/-]{1,256}`; values at most 64 KiB of JSON.

    Every write may carry `op_id` (spelled like a key): repeating a write with the same `op_id` on the same key
    answers as the first time did and changes nothing, so that a client which lost the reply may simply ask again.
    Answers are remembered for a day, the latest 10,000 a key; an error is not an answer (after a Conflict the same
    `op_id` may be tried with another version). Another kind of write under the same `op_id` is InvalidInput.
    The *incarnation* names one life of the store: after a rollback (failover, restore) it differs, so no version
    from before passes compare-and-set. Raises BoardUnavailable within 250 ms by default when the store is gone,
    `Conflict` when a version differs, InvalidInput for a bad key or value.
    """

    @property
    def url(self) -> str: ...
    async def start(self) -> None: ...
    async def close(self) -> None: ...
    async def incarnation(self) -> str: ...

    async def completeness(self) -> Completeness:
        """While a store is incomplete, `add`, `append` and `put(expect=ABSENT)` raise BoardIncomplete: they depend on
        a value that may have been lost. Writes with an `op_id` that begins with `rebuild/` are let through."""
        ...

    async def mark_complete(self, incarnation: str) -> bool:
        """Say that this incarnation holds all that earlier ones acknowledged. False: another one began meanwhile."""
        ...

    async def get(self, key: str) -> Entry | None: ...

    async def put(self, key: str, value: bytes, *, expect: str = ANY, by: str = "", op_id: str = "") -> Entry:
        """Write; `expect` is the version that must stand: ANY, ABSENT (no value yet), or one from an Entry."""
        ...

    async def delete(self, key: str, *, expect: str = ANY, by: str = "", op_id: str = "") -> bool:
        """Remove the value (its history stays, ended by an entry whose value is `null`). False if there was none."""
        ...

    async def append(self, key: str, item: bytes, *, items_max: int, by: str = "", op_id: str = "") -> Entry:
        """Add an item to the end of the JSON array at `key`, dropping the oldest beyond `items_max`.

        Commutes between writers: never conflicts. The new array must fit the value limit, else InvalidInput.
        """
        ...

    async def add(
        self, key: str, amount: int, *, value_max: Limit = None, value_min: Limit = None, by: str = "", op_id: str = ""
    ) -> Count:
        """Add to the counter at `key` (0 at first) unless the sum would leave the limits."""
        ...

    async def lease(self, key: str, value: bytes, *, ttl_ms: int, expect: bytes = b"") -> bytes:
        """Write a value that passes by itself after `ttl_ms`, if `expect` stands there (b"": nothing does). Answers
        the value that stands then: `value`, or another one and nothing was written.

        A world of its own beside the values: no versions, no history, not among `keys`, not watched. For leases and
        caches, whose loss costs time or money and nothing else.
        """
        ...

    async def history(self, key: str, *, limit: int = 100) -> Sequence[Entry]:
        """Past values of `key`, newest first (the value that stands is the first); at most 1,000 and 1 MiB are kept."""
        ...

    async def keys(self, pattern: str = "*") -> Sequence[str]:
        """Keys with a value that match a glob (`*` any run of characters, `?` one), sorted."""
        ...

    async def watch(self, pattern: str = "*") -> AsyncGenerator[Entry, None]:
        """Changes of matching keys in the order they happened for each key: all that begin after this has returned
        (`async for entry in await board.watch("risk/*")`). A deletion is an entry whose value is `null`. Outlives a
        store that is gone for a moment; `aclose` it when done."""
        ...


# -------------------------------------------------------------------------------------------------------- the clock


class Clock(Protocol):
    """Time, so that a simulation can own it."""

    def now_ms(self) -> int:
        """Wall time of this machine, milliseconds since the epoch: for people, and to say how far it is from log time
        (`Log.now_ms`). Nothing is decided by it, since machines disagree and people set clocks."""
        ...

    def monotonic_ms(self) -> float:
        """For durations within this process. Stands still while the machine sleeps."""
        ...

    def uptime_ms(self) -> float:
        """For durations in the world. Goes on while the machine sleeps, and is the same for all its processes."""
        ...

    async def sleep_ms(self, delay_ms: float) -> None: ...
