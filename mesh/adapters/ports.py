"""Promises of the adapters. `tests/adapters/` has one contract suite for each port, run against every implementation.

Log
    Topics of numbered partitions of records. Within a partition, offsets rise by at least one for each record.
    Readers see records in offset order, without gaps in what was acknowledged. Between partitions there is no order.
Board
    Small shared values with versions. The progress of the orchestrator never depends on it.
Clock
    Wall time for comparison with stored times, and monotonic waits.

Every call to an outside system has its own deadline, and raises `LogUnavailable` or `BoardUnavailable` when that
passes. No call hangs, and none is retried silently without end.
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
    """The verdict for a record that is durable at this position."""

    partition: int
    offset: int


class Refused(NamedTuple):
    """The verdict for a record that the log never takes: `too_large`, `unauthorized`, `unknown_topic` or `invalid`."""

    code: str
    message: str


class Bounds(NamedTuple):
    """The first offset that is still stored, and the offset of the next record."""

    start: int
    end: int


class Commit(NamedTuple):
    """A group's offset in a partition: the next one to read, with up to 4,096 bytes of metadata as text."""

    offset: int
    metadata: str = ""


SESSION_TIMEOUT_MS: Final = 6_000
"""Default session timeout. Kafka's brokers accept no less by default (`group.min.session.timeout.ms` is 6000)."""
REVOKE_MS_MAX: Final = 3_000
"""Longest time that `Listener.revoked` may take. The whole group waits for it. Heartbeats go on meanwhile, so it does
not depend on the session timeout."""


class Listener(Protocol):
    """A receiver of assignments from a `Member`."""

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """Take over partitions. They are *paused*: no record of them is delivered before `Member.resume`.

        Must return at once, since no heartbeat is sent meanwhile. Restore in a task, then `seek` and `resume`.
        """
        ...

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Give up partitions. Commits for them are accepted until this returns.

        Must return within REVOKE_MS_MAX, or it is cancelled.
        """
        ...


class Member(Protocol):
    """A member of a consumer group. Use it from one event loop."""

    @property
    def assignment(self) -> frozenset[TopicPartition]: ...

    async def poll(self, *, records_max: int, wait_ms: int) -> Mapping[TopicPartition, Sequence[Record]]:
        """Return records of resumed partitions, in order per partition; empty after `wait_ms` without any.

        Delivers each record once per position. May take longer than `wait_ms` during a rebalance: no timer of the
        caller may depend on it. Raises LogUnavailable when the log is unavailable for longer than its deadline, and any
        error that a listener raised.
        """
        ...

    async def commit(self, commits: Mapping[TopicPartition, Commit]) -> None:
        """Store the group's offsets.

        Raises `Fenced`, and stores nothing, if another member owns any of these partitions in this generation.
        """
        ...

    async def committed(self, partition: TopicPartition) -> Commit | None:
        """Return the stored commit; None if the group never committed here."""
        ...

    def position(self, partition: TopicPartition) -> int | None:
        """Return the offset of the next record of `poll`; None before the first is known."""
        ...

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Deliver from `offset` on. Like `pause` and `resume`, raises Fenced for a partition that is not assigned."""
        ...

    def pause(self, *partitions: TopicPartition) -> None: ...

    def resume(self, *partitions: TopicPartition) -> None:
        """Deliver from the position: the offset of `seek`, else the committed offset, else the first record."""
        ...

    async def close(self) -> None:
        """Leave the group, after `revoked` for all partitions. Returns within its deadline even without a log."""
        ...


class Reader(Protocol):
    """A reader of chosen partitions from chosen offsets, outside any group. It cannot append or commit."""

    async def poll(self, *, records_max: int, wait_ms: int) -> Sequence[Record]:
        """Return the next records, in order per partition; empty after `wait_ms` without any."""
        ...

    def position(self, partition: TopicPartition) -> int:
        """Return the next offset to read. It reaches the partition's end even if the last offsets hold no record."""
        ...

    def seek(self, partition: TopicPartition, offset: int) -> None: ...
    async def close(self) -> None: ...


class ReadLog(Protocol):
    """Topics of one backend, for reading. It has no way to write: no append, no commit, no group, no topic.

    A recording in a file is one, too.
    """

    @property
    def url(self) -> str:
        """The address, without secrets."""
        ...

    async def start(self) -> None: ...

    async def close(self) -> None:
        """Flush and stop; returns within its deadline even without a log."""
        ...

    async def topics(self) -> Mapping[str, int]:
        """Return every topic with its number of partitions."""
        ...

    def now_ms(self) -> int:
        """Return log time: the stamp that a record would get now, as far as this process knows.

        It is the wall time of this machine until the first acknowledgement.
        """
        ...

    @property
    def knows_time(self) -> bool:
        """Whether this process knows the log's time, so that `now_ms` is not the wall time of this machine."""
        ...

    async def bounds(self, topic: str) -> Mapping[int, Bounds]:
        """Return the first and the next offset of each partition. Raises NotFound for an unknown topic."""
        ...

    async def offsets_at(self, topic: str, at_ms: int) -> Mapping[int, int]:
        """Return for each partition the first offset stamped at or after `at_ms`; the end if there is none."""
        ...

    async def committed(self, group: str, topic: str) -> Mapping[int, Commit]:
        """Read the commits of a group in a topic, from outside the group. Partitions without one are left out."""
        ...

    def reader(self, positions: Mapping[TopicPartition, int]) -> Reader: ...


class Groups(Protocol):
    """Consumer groups that can be joined: those of a log, or that of a Faust app."""

    async def join(
        self, group: str, topics: Sequence[str], listener: Listener, *, session_timeout_ms: int = SESSION_TIMEOUT_MS
    ) -> Member:
        """Become a member of `group`. A group without a commit begins at the first record. A member that sends no
        heartbeat for `session_timeout_ms` is removed."""
        ...


class Log(ReadLog, Groups, Protocol):
    """Topics of one backend."""

    @property
    def record_bytes_max(self) -> int:
        """Size of the largest record that the log takes, as `core.protocol.record.record_bytes` counts.

        At least `RECORD_BYTES_MIN`. A topic may have a lower limit.
        """
        ...

    async def create_topics(self, specs: Sequence[TopicSpec]) -> Sequence[str]:
        """Create the topics that do not exist and return their names. Existing topics are left as they are."""
        ...

    async def stamped_by_producers(self, names: Sequence[str]) -> Sequence[str]:
        """Return the topics of these whose records have the time of their producer, not that of the append."""
        ...

    async def append(self, records: Sequence[NewRecord]) -> Sequence[Appended | Refused]:
        """Append all records; return one verdict for each, in the same order, when all verdicts are known.

        Records for the same partition keep their order. A refused record does not delay the others. Raises
        LogUnavailable when verdicts are unknown after the deadline: then any subset may have been appended.
        """
        ...

    async def trim(self, partition: TopicPartition, before: int) -> None:
        """Remove records before an offset. Some of them may stay for a while, as `bounds` shows.

        Raises NotFound for an unknown partition, LogUnavailable when the log does not answer or does not allow it.
        """
        ...

    async def idle_groups(self, groups: Sequence[str]) -> Sequence[str]:
        """Return the groups of these that have no member now. A group of unknown state is left out."""
        ...

    async def commit_idle(self, group: str, commits: Mapping[TopicPartition, Commit]) -> None:
        """Store offsets of a group that has no member. Raises Fenced, and stores nothing, if it has one."""
        ...


# -------------------------------------------------------------------------------------------------------- the board

ANY = "*"
ABSENT = ""
Limit = int | None
"""A bound of a counter; None: no bound."""


class Entry(NamedTuple):
    """A value on the board. `value` is JSON; `version` is `incarnation:counter`; `by` names the writer."""

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
    """Version of the sum, as in an Entry; "" when the amount was not taken."""
    at_ms: int = field(default=0, compare=False)


class Completeness(NamedTuple):
    """Whether a store holds all that its earlier incarnations acknowledged."""

    complete: bool
    before: str = ""
    """The incarnation before this one, if it was complete; "" if it was not, or if that is unknown."""
    since: int = 0
    """Counter at which this incarnation began: later versions of `before` were lost."""


class Board(Protocol):
    """Shared values for agents. Keys are `[A-Za-z0-9._:/-]{1,256}`; values at most 64 KiB of JSON.

    Every write may carry `op_id` (spelled like a key). A second write with the same `op_id` on the same key returns the
    first answer and changes nothing, so that a client which lost the reply may repeat it. The latest 10,000 answers of
    a key are kept, for a day. An error is not an answer: after a Conflict the same `op_id` may be tried with another
    version. Another kind of write under the same `op_id` is InvalidInput.

    The *incarnation* of the store changes with every rollback (failover, restore), so that no version from before
    passes compare-and-set. Raises BoardUnavailable within 250 ms by default when the store does not answer, `Conflict`
    when a version differs, InvalidInput for an invalid key or value.
    """

    @property
    def url(self) -> str: ...
    async def start(self) -> None: ...
    async def close(self) -> None: ...
    async def incarnation(self) -> str: ...

    async def completeness(self) -> Completeness:
        """Return whether the store is complete.

        In an incomplete store, `add`, `append` and `put(expect=ABSENT)` raise BoardIncomplete: they depend on a value
        that may have been lost. Writes with an `op_id` that begins with `rebuild/` are accepted.
        """
        ...

    async def mark_complete(self, incarnation: str) -> bool:
        """Mark this incarnation as complete. Returns False if another incarnation began meanwhile."""
        ...

    async def get(self, key: str) -> Entry | None: ...

    async def put(self, key: str, value: bytes, *, expect: str = ANY, by: str = "", op_id: str = "") -> Entry:
        """Write a value. `expect`: the version that must be current, ANY, or ABSENT (no value yet)."""
        ...

    async def delete(self, key: str, *, expect: str = ANY, by: str = "", op_id: str = "") -> bool:
        """Remove the value; False if there was none. Its history stays, and ends with an entry of value `null`."""
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
        """Write a value that expires after `ttl_ms`, if the current one is `expect` (b"": there is none).

        Returns the value that is current then: `value`, or another one if nothing was written. Leases are separate from
        values: without versions and history, not among `keys`, not watched. They serve for leases and caches, whose
        loss costs only time or money.
        """
        ...

    async def history(self, key: str, *, limit: int = 100) -> Sequence[Entry]:
        """Return the values of `key`, the current one first. At most 1,000 values and 1 MiB are kept."""
        ...

    async def keys(self, pattern: str = "*") -> Sequence[str]:
        """Return the keys with a value that match a glob (`*` any run of characters, `?` one), sorted."""
        ...

    async def watch(self, pattern: str = "*") -> AsyncGenerator[Entry, None]:
        """Follow the changes of matching keys that begin after this has returned, in order for each key.

        Use it as `async for entry in await board.watch("risk/*")`, and `aclose` it when done. A deletion is an entry
        whose value is `null`. It survives a short outage of the store.
        """
        ...


# -------------------------------------------------------------------------------------------------------- the clock


class Clock(Protocol):
    """A source of time that a simulation can replace."""

    def now_ms(self) -> int:
        """Return the wall time of this machine in milliseconds since the epoch.

        It is for display, and for its difference from log time (`Log.now_ms`). It decides nothing, since clocks of
        machines differ and may be set.
        """
        ...

    def monotonic_ms(self) -> float:
        """Return a time for durations within this process. It stands still while the machine sleeps."""
        ...

    def uptime_ms(self) -> float:
        """Return a time for real durations, the same in all processes. It goes on while the machine sleeps."""
        ...

    async def sleep_ms(self, delay_ms: float) -> None: ...
