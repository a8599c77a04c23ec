"""What the source does with records of Faust. The app itself is tested in `tests/live/test_faust_window_source.py`."""

from types import SimpleNamespace
from typing import Any

from faust.exceptions import PartitionsMismatch

from mesh.adapters.faust.window_source import FaustSource
from mesh.core.metrics.windows import PartitionWindows, Restart
from mesh.core.protocol.record import Record, TopicPartition
from tests.core.metrics.scenario import INBOX, MESH, scenario


class Counts:
    """Counts as a monitor does, and begins again behind the last record, so each may be acknowledged."""

    def __init__(self) -> None:
        self._parts: dict[TopicPartition, PartitionWindows] = {}

    def begin(self, partition: TopicPartition, restart: Restart) -> None:
        self._parts[partition] = PartitionWindows(MESH, partition, next_offset=restart.offset)

    def take(self, partition: TopicPartition, records: Any) -> None:
        self._parts[partition].take(records)

    def restart(self, partition: TopicPartition) -> Restart | None:
        return Restart(self._parts[partition].next_offset, 0)

    def drop(self, partition: TopicPartition) -> None:
        del self._parts[partition]


class Table(dict[bytes, bytes]):
    """A table of Faust, whose changelog topic has no partitions until `known`."""

    known = False

    def __missing__(self, key: bytes) -> bytes:
        return b""

    def __setitem__(self, key: bytes, value: bytes) -> None:
        if not self.known:
            raise PartitionsMismatch("the changelog topic has 0 partitions")
        super().__setitem__(key, value)


def event(record: Record, acknowledged: list[int]) -> Any:
    def ack(consumer: object) -> None:
        acknowledged.append(record.offset)

    message = SimpleNamespace(
        **{name: getattr(record, name) for name in ("topic", "partition", "offset", "key", "value", "headers")},
        timestamp=record.timestamp / 1_000,
        ack=ack,
    )
    return SimpleNamespace(message=message, app=SimpleNamespace(consumer=None))


def test_nothing_is_acknowledged_until_the_changelog_topic_is_known() -> None:
    records = scenario()[INBOX]
    source, counts, table, acknowledged = FaustSource("broker:9092", MESH), Counts(), Table(), list[int]()
    source._take(event(records[0], acknowledged), table, counts)
    assert acknowledged == []
    table.known = True
    source._take(event(records[1], acknowledged), table, counts)
    assert acknowledged == [record.offset for record in records[:2]]
    assert len(table) == 1
