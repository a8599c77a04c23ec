"""A recording in a file as a log for readers: topics, bounds, commits and records as they were when it was made."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from mesh.adapters.ports import Bounds, Commit
from mesh.adapters.recording.file_index import LINE_BYTES_MAX, FileIndex
from mesh.core.errors import InvalidInput, LogUnavailable, NotFound
from mesh.core.protocol.record import Record, StoredRecord, TopicPartition
from mesh.core.replay.recording_format import RecordingHead, read_head

MASKED_SHOWN_MAX: Final = 5


def recorded_head(path: str | Path) -> RecordingHead:
    """Return the head of a recording. Raises NotFound, LogUnavailable, InvalidInput if the file is none."""
    with _readable(Path(path)), Path(path).open("rb") as file:
        return read_head(file.readline(LINE_BYTES_MAX), str(path))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Raise what the operating system says about a file as an error of the mesh."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound("there is no such file", where=str(path), expected="a recording") from error
    except IsADirectoryError as error:
        what, remedy = "this is no recording", "`mesh test FOLDER` takes all recordings of a folder"
        raise InvalidInput(
            what, code="usage", where=str(path), expected="one file", got="a folder", remedy=remedy
        ) from error
    except OSError as error:
        what = "the recording cannot be read"
        raise LogUnavailable(what, where=str(path), got=error.strerror or str(error)) from error


class RecordingLog:
    """`ports.ReadLog` over a file of `mesh run export`. Offsets without a record hold what was not exported."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._index: FileIndex | None = None
        self._readers: list[RecordingReader] = []

    @property
    def url(self) -> str:
        return f"recording:{self._path}"

    @property
    def head(self) -> RecordingHead:
        """The first line of the file."""
        return self._started().head

    @property
    def flaw(self) -> str:
        """Why the file is not whole; "" if it is."""
        return self._started().cut

    @property
    def is_masked(self) -> bool:
        """Whether values in it may be masked. A file that is cut does not tell."""
        index = self._started()
        return bool(index.cut or index.end.get("masked"))

    @property
    def notes(self) -> list[str]:
        """Return notes about the recording: a cut, gaps, masked values."""
        index = self._started()
        masked = index.end.get("masked") or {}
        paths = ", ".join(list(masked)[:MASKED_SHOWN_MAX]) + (" …" if len(masked) > MASKED_SHOWN_MAX else "")
        return [
            *([f"it is cut: {index.cut}; only the records before that are read"] if index.cut else []),
            *map(str, index.end.get("gaps") or ()),
            *([f"{sum(masked.values())} values in it are masked: {paths}"] if masked else []),
        ]

    async def start(self) -> None:
        """Read the places of all records. Raises NotFound, LogUnavailable, InvalidInput for a damaged file."""
        if self._index is not None:
            return
        with _readable(self._path):
            self._index = await asyncio.to_thread(FileIndex, self._path)

    async def close(self) -> None:
        """Close the readers that were left open."""
        readers, self._readers, self._index = self._readers, [], None
        for reader in readers:
            await reader.close()

    async def topics(self) -> Mapping[str, int]:
        return {topic: len(bounds) for topic, bounds in sorted(self._started().head.bounds.items())}

    def now_ms(self) -> int:
        """Return the log time at which the recording was made: an age counts from then."""
        return self._started().head.recorded_ms

    @property
    def knows_time(self) -> bool:
        return True

    async def bounds(self, topic: str) -> Mapping[int, Bounds]:
        """Return the bounds that the log had. Raises NotFound for a topic that was not recorded."""
        index = self._started()
        if topic not in index.head.bounds:
            raise NotFound(
                f"the recording has no topic {topic!r}",
                where=str(self._path),
                expected=f"one of: {', '.join(sorted(index.head.bounds)[:20])}",
            )
        found = {number: Bounds(*each) for number, each in enumerate(index.head.bounds[topic])}
        for number, each in found.items():
            there = index.partitions.get(TopicPartition(topic, number))
            if there is not None and there.end > each.end:
                found[number] = Bounds(each.start, there.end)  # a record was added by hand
        return found

    async def offsets_at(self, topic: str, at_ms: int) -> Mapping[int, int]:
        """Return the first offset at or after a time; the end if there is none. Raises NotFound."""
        index, found = self._started(), {}
        with self._path.open("rb") as file:
            for number, each in (await self.bounds(topic)).items():
                first = index.first_at(file, TopicPartition(topic, number), at_ms)
                found[number] = each.end if first is None else first
        return found

    async def committed(self, group: str, topic: str) -> Mapping[int, Commit]:
        """Return the commits that the group had."""
        stored = self._started().head.commits.get(group, {}).get(topic, {})
        return {number: Commit(*place) for number, place in sorted(stored.items())}

    def reader(self, positions: Mapping[TopicPartition, int]) -> "RecordingReader":
        """Read partitions from positions. Raises NotFound for an unknown one."""
        index = self._started()
        for topic, number in positions:
            if not 0 <= number < len(index.head.bounds.get(topic, ())):
                raise NotFound(f"the recording has no partition {topic}:{number}", where=str(self._path))
        reader = RecordingReader(index, {TopicPartition(*tp): at for tp, at in positions.items()})
        self._readers = [*(one for one in self._readers if not one.closed), reader]
        return reader

    def _started(self) -> FileIndex:
        if self._index is None:
            raise LogUnavailable("the recording is not open", where=str(self._path), remedy="Call start first")
        return self._index


class RecordingReader:
    """`ports.Reader` of a recording. A recording never grows, so a poll that begins at the end only waits."""

    def __init__(self, index: FileIndex, positions: dict[TopicPartition, int]) -> None:
        self._index = index
        self._positions = positions
        self._sources: dict[TopicPartition, Iterator[StoredRecord]] = {}
        self._file: BinaryIO = index.path.open("rb")
        self.closed = False

    async def poll(self, *, records_max: int, wait_ms: int) -> Sequence[Record]:
        """Return the next records, in order per partition; empty after `wait_ms` without any."""
        if self.closed:
            raise LogUnavailable("the reader is closed", where=str(self._index.path))
        found: list[Record] = []
        before = dict(self._positions)
        for partition in self._positions:
            if len(found) < records_max:
                found += self._take(partition, records_max - len(found))
        if not found and self._positions == before:
            await asyncio.sleep(wait_ms / 1_000)
        return found

    def _take(self, partition: TopicPartition, records_max: int) -> list[Record]:
        source = self._sources.get(partition)
        if source is None:
            source = self._index.read(self._file, partition, self._positions[partition])
            self._sources[partition] = source
        found: list[Record] = []
        for record in source:
            found.append(record)
            if len(found) == records_max:
                break
        else:
            bounds = self._index.head.bounds[partition.topic][partition.partition]
            self._positions[partition] = max(self._positions[partition], bounds[1])
        if found:
            self._positions[partition] = max(found[-1].offset + 1, self._positions[partition])
        return found

    def position(self, partition: TopicPartition) -> int:
        """Return the next offset to read. Raises NotFound for a partition that is not read here."""
        self._require(partition)
        return self._positions[partition]

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read on from `offset`. Raises NotFound for a partition that is not read here, InvalidInput."""
        self._require(partition)
        if offset < 0:
            raise InvalidInput("the offset is negative", code="invalid", expected="0 or more", got=str(offset))
        self._positions[partition] = offset
        self._sources.pop(partition, None)

    def _require(self, partition: TopicPartition) -> None:
        if partition not in self._positions:
            raise NotFound(f"{partition[0]}:{partition[1]} is not read here", remedy="Name it in `Log.reader`")

    async def close(self) -> None:
        """Close the file."""
        self.closed = True
        self._file.close()
