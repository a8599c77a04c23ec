"""The index of a recording: few entries for many records, whatever their order in the file."""

from pathlib import Path

from mesh.adapters.recording.file_index import STRETCH_RECORDS_MAX, FileIndex, Stretch, Stretches
from mesh.core.protocol.record import TopicPartition
from mesh.core.replay.recording_format import end_line, record_line
from tests.adapters.recording.test_recording_log import HEAD, INBOX, stored

FIRST, SECOND = TopicPartition(INBOX, 0), TopicPartition(INBOX, 1)


def test_records_that_lie_together_share_an_entry() -> None:
    stretches, count = Stretches(), STRETCH_RECORDS_MAX + 10
    for offset in range(count):
        stretches.add(2 * offset, 100 * offset, 2 + offset, joins=True)
    assert len(stretches) == 2
    assert stretches[0] == Stretch(0, 0, 2, STRETCH_RECORDS_MAX)
    assert stretches[1].records == 10
    assert stretches.end == 2 * count - 1
    border = stretches[1].offset
    assert [stretches.before(offset) for offset in (0, border - 1, border, border + 99)] == [0, 0, 1, 1]


def test_partitions_that_alternate_are_read_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    records = [stored(n % 2, n) for n in range(20)]
    path.write_bytes(HEAD.line() + b"".join(map(record_line, records)) + end_line(20, {}, []))
    index = FileIndex(path)
    assert index.records == 20
    with path.open("rb") as file:
        both = index.read(file, FIRST, 0), index.read(file, SECOND, 8)
        assert [one.offset for pair in zip(*both, strict=False) for one in pair] == [
            0,
            9,
            2,
            11,
            4,
            13,
            6,
            15,
            8,
            17,
            10,
            19,
        ]
        assert index.first_at(file, SECOND, 10) == 11
        assert index.first_at(file, FIRST, 100) is None
        assert index.first_at(file, TopicPartition("other", 0), 0) is None
