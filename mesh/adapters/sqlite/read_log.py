"""The embedded log for readers: topics, bounds, commits and records of one SQLite file."""

from collections.abc import Mapping
from pathlib import Path

from mesh.adapters.ports import Bounds, Clock, Commit
from mesh.adapters.sqlite.groups import roster
from mesh.adapters.sqlite.partitions import catalog
from mesh.adapters.sqlite.partitions.catalog import Catalog, Topic
from mesh.adapters.sqlite.partitions.fetch import SqliteReader
from mesh.adapters.sqlite.storage.file import ReadableFile
from mesh.adapters.sqlite.storage.read_only_file import ReadOnlyFile
from mesh.core.protocol.record import TopicPartition


class StoredTopics:
    """The reading half of the embedded log, on a file that is open."""

    def __init__(self, file: ReadableFile, clock: Clock) -> None:
        self._readable = file
        self._clock = clock
        self._catalog = Catalog()

    @property
    def url(self) -> str:
        return f"sqlite:{self._readable.path}"

    @property
    def readable(self) -> ReadableFile:
        """The file, for a reader of its other tables."""
        return self._readable

    async def topics(self) -> Mapping[str, int]:
        self._readable.read(self._catalog.load, operation="list topics")
        return {name: topic.partitions for name, topic in sorted(self._catalog.topics.items())}

    def now_ms(self) -> int:
        """See `Log.now_ms`: the clock of the file."""
        return self._clock.now_ms()

    @property
    def knows_time(self) -> bool:
        """Always true: the processes that share the file have agreed on its time when they opened it."""
        return True

    async def bounds(self, topic: str) -> Mapping[int, Bounds]:
        """Return the first and next offset of each partition. Raises NotFound, LogUnavailable."""
        found = self._topic(topic)
        return self._readable.read(lambda connection: catalog.bounds(connection, found), operation="bounds")

    async def offsets_at(self, topic: str, at_ms: int) -> Mapping[int, int]:
        """Return the first offset of each partition at or after a time. Raises NotFound, LogUnavailable."""
        found = self._topic(topic)
        return self._readable.read(
            lambda connection: catalog.offsets_at(connection, found, at_ms), operation="offsets at"
        )

    async def committed(self, group: str, topic: str) -> Mapping[int, Commit]:
        """Return the commits of a group. Raises NotFound for an unknown topic, LogUnavailable."""
        found = self._topic(topic)
        places = self._readable.read(
            lambda connection: roster.committed(connection, group, found.first, found.partitions),
            operation="committed",
        )
        return {number - found.first: place for number, place in places.items()}

    def reader(self, positions: Mapping[TopicPartition, int]) -> SqliteReader:
        """Read partitions from positions. Raises NotFound for an unknown one, InvalidInput for a bad offset."""
        partitions = [TopicPartition(*partition) for partition in positions]
        numbers = self._readable.read(lambda connection: [self._catalog.number(connection, p) for p in partitions])
        return SqliteReader(self._readable, positions, numbers)

    def _topic(self, name: str) -> Topic:
        return self._readable.read(
            lambda connection: self._catalog.topic(connection, name), operation="look up the topic"
        )


class SqliteReadLog(StoredTopics):
    """`ports.ReadLog` in a SQLite file that is opened read-only (`ReadOnlyFile`)."""

    def __init__(self, path: str | Path) -> None:
        self._file = ReadOnlyFile(path)
        super().__init__(self._file, self._file.clock)

    async def start(self) -> None:
        """Open the file. Raises NotFound, LogUnavailable, ConfigInvalid for a file of another version."""
        await self._file.start()
        self._file.read(
            lambda connection: self._file.clock.follow(connection, newest_ms=catalog.newest_ms(connection)),
            operation="read the time",
        )

    async def close(self) -> None:
        """Close the file."""
        await self._file.close()
