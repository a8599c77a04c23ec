"""Index of a recording's file: the positions of records by partition. Flat in memory: one entry for many records.

The file is read once, line by line, for the places alone. A whole file ends with the line `end`. Otherwise it is cut:
the records before the cut count.
"""

import re
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, TypeGuard

import orjson

from mesh.core.errors import InvalidInput
from mesh.core.protocol.record import StoredRecord, TopicPartition
from mesh.core.replay.recording_format import RecordingHead, read_head, read_record

STRETCH_RECORDS_MAX: Final = 256
"""Records of one entry. A seek within a partition reads at most so many lines in vain."""
LINE_BYTES_MAX: Final = 64 * 1_048_576
_PLACE: Final = re.compile(
    rb'\{\s*"topic"\s*:\s*"([A-Za-z0-9._-]{1,249})"\s*,\s*"partition"\s*:\s*(\d{1,9})\s*,\s*"offset"\s*:\s*(\d{1,18})\s*[,}]'
)


class Stretch(NamedTuple):
    """Consecutive lines of one partition: its first offset, its byte position, its first line and their number."""

    offset: int
    position: int
    line: int
    records: int


class Stretches:
    """The stretches of one partition, in the order of their offsets."""

    def __init__(self) -> None:
        self._numbers = array("q")
        self.end = 0
        """Offset behind the last record."""

    def __len__(self) -> int:
        return len(self._numbers) // 4

    def __getitem__(self, index: int) -> Stretch:
        return Stretch(*self._numbers[4 * index : 4 * index + 4])

    def add(self, offset: int, position: int, line: int, *, joins: bool) -> None:
        """Add a record. `joins`: the line before is of the same partition."""
        if joins and self._numbers and self._numbers[-1] < STRETCH_RECORDS_MAX:
            self._numbers[-1] += 1
        else:
            self._numbers.extend((offset, position, line, 1))
        self.end = offset + 1

    def before(self, offset: int) -> int:
        """Return the index of the last stretch that begins at or before an offset; 0 if none does."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self._numbers[4 * middle] <= offset:
                low = middle + 1
            else:
                high = middle
        return max(0, low - 1)


def _is_number(value: Any) -> TypeGuard[int]:
    """Whether a value is a whole number that an offset may have."""
    return type(value) is int and 0 <= value < 2**63


class FileIndex:
    """The head of a recording, the places of its records, and what it lacks."""

    def __init__(self, path: Path) -> None:
        """Read the file. Raises OSError, InvalidInput with the line if it is no recording or damaged."""
        self.path = path
        self.partitions: dict[TopicPartition, Stretches] = {}
        self.cut = ""
        """Why the file is not whole; "" if it is."""
        self.end: dict[str, Any] = {}
        """What the last line says."""
        self.records = 0
        with path.open("rb") as file:
            self.head: RecordingHead = read_head(file.readline(LINE_BYTES_MAX), str(path))
            self._scan(file)

    def _scan(self, file: BinaryIO) -> None:
        before: TopicPartition | None = None
        number, position = 1, file.tell()
        for line in iter(lambda: file.readline(LINE_BYTES_MAX), b""):
            number += 1
            if line.strip() and (self.end or not line.endswith(b"\n")):
                self._close(line, number, file)
                if self.cut:
                    return
            elif line.strip():
                place = self._place(line, number)
                if place is not None:
                    before = self._add(*place, position, number, before)
            position += len(line)
        if not self.end:
            self.cut = f"it ends after line {number} without its last line"
        elif self.end.get("records") != self.records:
            raise self._damaged(
                number, f"the file has {self.records} records, its last line says {self.end['records']}"
            )

    def _close(self, line: bytes, number: int, file: BinaryIO) -> None:
        """Judge a line that is not ended, or that follows the last one."""
        if self.end:
            raise self._damaged(number, "a line follows the last one of the recording")
        try:
            found = orjson.loads(line)
        except orjson.JSONDecodeError:
            self.cut = f"it ends within line {number}"
            return
        if isinstance(found, dict) and "end" in found:
            self.end = self._end_of(found["end"], number)
        else:
            self.cut = f"it ends with line {number}, without its last line"

    def _place(self, line: bytes, number: int) -> tuple[TopicPartition, int] | None:
        """Return the place of a record; None for the last line, which is noted."""
        match = _PLACE.match(line)
        if match is not None:
            return TopicPartition(match[1].decode(), int(match[2])), int(match[3])
        try:
            found = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise self._damaged(number, f"the line is no JSON: {error}") from error
        if not isinstance(found, dict):
            raise self._damaged(number, "the line is no record: it is no JSON object")
        if "end" in found:
            self.end = self._end_of(found["end"], number)
            return None
        topic, partition, offset = (found.get(name) for name in ("topic", "partition", "offset"))
        if isinstance(topic, str) and _is_number(partition) and _is_number(offset):
            return TopicPartition(topic, partition), offset
        raise self._damaged(number, "the line is no record: it names no topic, partition and offset")

    def _end_of(self, found: Any, number: int) -> dict[str, Any]:
        """Return what the last line says. Raises InvalidInput if it says nothing that can be read."""
        end = {"records": self.records, "masked": {}, "gaps": [], **found} if isinstance(found, dict) else {}
        masked = end.get("masked")
        counted = isinstance(masked, dict) and all(map(_is_number, masked.values()))
        if counted and isinstance(end["gaps"], list) and _is_number(end["records"]):
            return end
        raise self._damaged(number, "the last line cannot be read")

    def _add(
        self, partition: TopicPartition, offset: int, position: int, number: int, before: TopicPartition | None
    ) -> TopicPartition:
        stretches = self.partitions.setdefault(partition, Stretches())
        place = f"{partition.topic}:{partition.partition}"
        if partition.partition >= len(self.head.bounds.get(partition.topic, ())):
            raise self._damaged(number, f"the head of the file names no partition {place[:300]}")
        if len(stretches) and offset < stretches.end:
            raise self._damaged(number, f"offset {offset} of {place} is out of order")
        stretches.add(offset, position, number, joins=partition == before)
        self.records += 1
        return partition

    def _damaged(self, line: int, what: str) -> InvalidInput:
        return InvalidInput(
            what,
            code="unparseable",
            where=f"{self.path}:{line}",
            expected="lines as `mesh run export` wrote them",
            remedy="Export the run again, or take the line back to what it was",
        )

    def read(self, file: BinaryIO, partition: TopicPartition, offset: int) -> Iterator[StoredRecord]:
        """Yield the records of a partition from an offset on. Raises InvalidInput for a damaged line."""
        stretches = self.partitions.get(partition)
        if stretches is None:
            return
        for index in range(stretches.before(offset), len(stretches)):
            stretch = stretches[index]
            position = stretch.position
            for line in range(stretch.line, stretch.line + stretch.records):
                file.seek(position)
                text = file.readline(LINE_BYTES_MAX)
                position += len(text)
                place = _PLACE.match(text)
                if place is not None and int(place[3]) < offset:
                    continue
                record = read_record(text, str(self.path), line)
                if record.offset >= offset:
                    yield record

    def first_at(self, file: BinaryIO, partition: TopicPartition, at_ms: int) -> int | None:
        """Return the first offset stamped at or after a time; None if there is none."""
        stretches = self.partitions.get(partition)
        if stretches is None:
            return None
        low, high = 0, len(stretches)
        while low < high:
            middle = (low + high) // 2
            first = next(self.read(file, partition, stretches[middle].offset))
            if first.timestamp < at_ms:
                low = middle + 1
            else:
                high = middle
        begin = stretches[max(0, low - 1)].offset
        found = (record.offset for record in self.read(file, partition, begin) if record.timestamp >= at_ms)
        return next(found, None)
