"""The brokers: partitions of records, places of groups. One state for all, as a cluster that never loses what it has
acknowledged; what reaches it and when is the world's business.

`moments` beside the records say when each was stored in the order of everything that happened: checks of "acknowledged
before committed" compare these numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b

from mesh.adapters.ports import Appended, Bounds, Refused, TopicSpec
from mesh.core.errors import NotFound
from mesh.core.protocol.codec import Unreadable, plain_headers, read_event
from mesh.core.protocol.event import Event
from mesh.core.protocol.partitioner import partition_of
from mesh.core.protocol.record import (
    RECORD_BYTES_MAX,
    NewRecord,
    StoredRecord,
    TopicPartition,
    record_bytes,
    too_large_message,
)
from tests.sim.clocks import BROKERS, BrokerClocks
from tests.sim.group import Group
from tests.sim.world import World

REFUSABLE = (b"task", b"egress", b"succeeded", b"outcome")


class Partition:
    """Records in order, with gaps if the broker makes some."""

    def __init__(self) -> None:
        self.records: list[StoredRecord] = []
        self.offsets: list[int] = []
        self.moments: list[int] = []
        self._read: list[tuple[StoredRecord, int, Event | Unreadable]] = []
        self.start = 0
        """Offset at which readers begin. Trimmed records are kept for the checks only."""
        self.end = 0
        self.waiting: dict[object, Callable[[], None]] = {}
        """Who is to be woken by the next record, once."""

    def read(self) -> Sequence[tuple[StoredRecord, int, Event | Unreadable]]:
        """All records, with their moments and what is in them: for the checks, which look at each several times."""
        done = len(self._read)
        for record, moment in zip(self.records[done:], self.moments[done:], strict=True):
            self._read.append((record, moment, read_event(record)))
        return self._read

    def index(self, offset: int) -> int:
        """Return the index of the first record at or after an offset."""
        offset = max(offset, self.start)
        low, high = 0, len(self.offsets)
        if self.end == high:  # no gaps
            return min(offset, high)
        while low < high:
            middle = (low + high) // 2
            if self.offsets[middle] < offset:
                low = middle + 1
            else:
                high = middle
        return low


class Broker:
    """See the module. `gap`: how often an offset holds no record; `refuse`: how often a record is refused for ever."""

    def __init__(
        self,
        world: World,
        *,
        gap: float = 0.0,
        refuse: float = 0.0,
        eager: bool = False,
        record_bytes_max: int = RECORD_BYTES_MAX,
        drifts: Sequence[float] | None = None,
    ) -> None:
        self.world = world
        self.record_bytes_max = record_bytes_max
        self.topics: dict[str, list[Partition]] = {}
        self.groups: dict[str, Group] = {}
        self.clocks = BrokerClocks(world, [0.0] * BROKERS if drifts is None else drifts)
        self._partitions: dict[TopicPartition, Partition] = {}
        """Topics that were created. They stay."""
        self._gap = gap
        self._refuse = refuse
        self._eager = eager
        self._keyless = 0

    def create(self, specs: Sequence[TopicSpec]) -> list[str]:
        made = []
        for spec in specs:
            if spec.name not in self.topics:
                self.topics[spec.name] = [Partition() for _ in range(spec.partitions)]
                made.append(spec.name)
        return made

    def partition(self, place: TopicPartition) -> Partition:
        """Raises NotFound."""
        found = self._partitions.get(place)
        if found is None:
            if not 0 <= place[1] < len(self.topics.get(place[0], ())):
                raise NotFound(f"no partition {place[0]}:{place[1]}", where="sim")
            found = self._partitions[place] = self.topics[place[0]][place[1]]
        return found

    def vanish(self) -> None:
        """Let go of everything: the world is over."""
        for group in self.groups.values():
            group.members.clear()
        for partitions in self.topics.values():
            for partition in partitions:
                partition.waiting.clear()
        self.topics.clear()
        self.groups.clear()
        self._partitions.clear()

    def group(self, name: str) -> Group:
        if name not in self.groups:
            self.groups[name] = Group(self, name, eager=self._eager)
        return self.groups[name]

    def home(self, record: NewRecord) -> TopicPartition | Refused:
        """Return the partition of a record, or why it has none."""
        count = len(self.topics.get(record.topic, ()))
        if not count:
            return Refused("unknown_topic", f"there is no topic {record.topic!r}")
        if record.partition is not None:
            if 0 <= record.partition < count:
                return TopicPartition(record.topic, record.partition)
            return Refused("invalid", f"{record.topic} has {count} partitions, no number {record.partition}")
        if record.key is None:
            self._keyless += 1
            return TopicPartition(record.topic, self._keyless % count)
        return TopicPartition(record.topic, partition_of(record.key, count))

    def refusal(self, record: NewRecord) -> Refused | None:
        """Why a record is never taken. The same record is refused again."""
        size = record_bytes(record)
        if size > self.record_bytes_max:
            return Refused("too_large", too_large_message(size, self.record_bytes_max))
        if self._refuse and "mesh-dlq-id" not in (
            headers := dict(plain_headers(record.headers))
        ):  # what replaces a refused record is taken
            kind = headers.get("ce_meshkind", b"")
            if kind in REFUSABLE and (kind != b"outcome" or b'"data"' in (record.value or b"")):
                digest = blake2b(headers.get("ce_id", b"") + kind, digest_size=4).digest()
                if int.from_bytes(digest, "big") / 2**32 < self._refuse:
                    return Refused("too_large", "this one is refused for ever")
        return None

    def store(self, place: TopicPartition, records: Sequence[NewRecord], by: str) -> list[Appended]:
        """Put records into a partition, for good."""
        partition = self.topics[place.topic][place.partition]
        at_ms = self.clocks.now_ms(place)
        done = []
        for record in records:
            if self._gap and self.world.random.random() < self._gap:
                partition.end += 1
            offset = partition.end
            headers = list(record.headers)
            names = dict(plain_headers(headers))
            moment = self.world.tell(
                by, "stores", place.topic, place.partition, offset, names.get("ce_id", b"?").decode("utf-8", "replace"),
                names.get("ce_meshkind", b"").decode("utf-8", "replace"),
            )  # fmt: skip
            stored = StoredRecord(place.topic, place.partition, offset, at_ms, record.key, record.value, headers)
            partition.records.append(stored)
            partition.offsets.append(offset)
            partition.moments.append(moment)
            partition.end = offset + 1
            done.append(Appended(place.partition, offset))
        waiting, partition.waiting = partition.waiting, {}
        for wake in waiting.values():
            wake()
        return done

    def bounds(self, topic: str) -> Mapping[int, Bounds]:
        """Raises NotFound."""
        if topic not in self.topics:
            raise NotFound(f"no topic {topic!r}", where="sim")
        return {n: Bounds(partition.start, partition.end) for n, partition in enumerate(self.topics[topic])}

    def offsets_at(self, topic: str, at_ms: int) -> Mapping[int, int]:
        """Raises NotFound."""
        self.bounds(topic)
        return {
            n: next(
                (r.offset for r in partition.records if r.timestamp >= at_ms and r.offset >= partition.start),
                partition.end,
            )
            for n, partition in enumerate(self.topics[topic])
        }

    def trim(self, place: TopicPartition, before: int) -> None:
        """Raises NotFound."""
        partition = self.partition(place)
        partition.start = max(partition.start, min(before, partition.end))
        self.world.tell("trim", place.topic, place.partition, partition.start)
