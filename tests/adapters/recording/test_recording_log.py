"""A recording as a log: it answers as the log did, also for files that are cut or damaged."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from mesh.adapters.ports import Bounds, Commit
from mesh.adapters.recording import RecordingLog, recorded_head
from mesh.core.errors import InvalidInput, LogUnavailable, NotFound
from mesh.core.protocol.record import StoredRecord, TopicPartition
from mesh.core.replay.recording_format import RecordingHead, end_line, record_line
from mesh.runtime.log_reader import read_batches
from tests.adapters.log_kit import read
from tests.core.replay.test_recording_format import TOPOLOGY

INBOX = "desk.inbox"
HEAD = RecordingHead(
    mesh_version="0.1.0",
    topology=TOPOLOGY,
    log="sqlite:mesh.db",
    recorded_ms=5_000,
    bounds={INBOX: [(0, 1_000), (2, 9)], "desk.empty": [(4, 4)]},
    commits={"desk.orchestrator": {INBOX: {1: (9, "note")}}},
)
Write = Callable[..., Path]


def stored(partition: int, offset: int, at_ms: int = 0) -> StoredRecord:
    return StoredRecord(INBOX, partition, offset, at_ms or offset, b"k", b"%d" % offset, [])


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a recording of these records."""

    def write(records: list[StoredRecord], *, end: bool = True) -> Path:
        path = tmp_path / "run.jsonl"
        lines = [HEAD.line(), *map(record_line, records), *([end_line(len(records), {}, [])] if end else [])]
        path.write_bytes(b"".join(lines))
        return path

    return write


async def opened(path: Path) -> RecordingLog:
    log = RecordingLog(path)
    await log.start()
    return log


async def test_it_answers_as_the_log_did(write: Write) -> None:
    path = write([stored(0, 3), stored(0, 7), stored(1, 2)])
    log = await opened(path)
    assert log.url == f"recording:{path}"
    assert recorded_head(path) == log.head
    assert await log.topics() == {"desk.empty": 1, INBOX: 2}
    assert await log.bounds(INBOX) == {0: Bounds(0, 1_000), 1: Bounds(2, 9)}
    assert await log.offsets_at(INBOX, 4) == {0: 7, 1: 9}
    assert await log.offsets_at(INBOX, 0) == {0: 3, 1: 2}
    assert await log.offsets_at("desk.empty", 0) == {0: 4}
    assert await log.committed("desk.orchestrator", INBOX) == {1: Commit(9, "note")}
    assert await log.committed("desk.orchestrator", "desk.empty") == {}
    assert (log.now_ms(), log.knows_time, log.flaw) == (5_000, True, "")
    with pytest.raises(NotFound, match="no topic 'other'"):
        await log.bounds("other")
    with pytest.raises(NotFound, match="no partition"):
        log.reader({TopicPartition(INBOX, 2): 0})
    await log.close()
    with pytest.raises(LogUnavailable, match="not open"):
        await log.topics()


async def test_a_reader_reads_in_order_from_any_offset_and_reaches_the_end(write: Write) -> None:
    records = [stored(0, offset) for offset in range(0, 900, 3)] + [stored(1, 5)]
    log = await opened(write(records))
    first, second = TopicPartition(INBOX, 0), TopicPartition(INBOX, 1)
    reader = log.reader({first: 0, second: 0})
    found = await read(reader, len(records))
    assert [one.offset for one in found if one.partition == 0] == list(range(0, 900, 3))
    assert await reader.poll(records_max=10, wait_ms=0) == []
    assert (reader.position(first), reader.position(second)) == (1_000, 9)
    for offset in (0, 1, 400, 767, 768, 769, 897):
        reader.seek(first, offset)
        (one,) = await reader.poll(records_max=1, wait_ms=0)
        assert one.offset == -(-offset // 3) * 3
        assert reader.position(first) == one.offset + 1
    with pytest.raises(NotFound):
        reader.position(TopicPartition("desk.empty", 0))
    with pytest.raises(InvalidInput):
        reader.seek(first, -1)
    await log.close()
    with pytest.raises(LogUnavailable, match="closed"):
        await reader.poll(records_max=1, wait_ms=0)


async def test_a_time_is_found_in_a_long_partition(write: Write) -> None:
    log = await opened(write([stored(0, offset, at_ms=100 + 10 * (offset // 5)) for offset in range(1_000)]))
    for at_ms, offset in ((100, 0), (101, 5), (110, 5), (1_380, 640), (2_090, 995), (2_091, 1_000)):
        assert (await log.offsets_at(INBOX, at_ms))[0] == offset
    await log.close()


async def test_a_record_that_was_added_by_hand_is_read(write: Write) -> None:
    log = await opened(write([stored(1, 20)]))
    assert (await log.bounds(INBOX))[1] == Bounds(2, 21)
    await log.close()


@pytest.mark.parametrize("lines", [1, 2, 3])
async def test_a_file_that_is_cut_has_the_records_before_the_cut(write: Write, lines: int) -> None:
    path = write([stored(0, 1), stored(0, 2), stored(0, 3)], end=False)
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole[: lines + 1]))
    log = await opened(path)
    assert log.flaw == f"it ends after line {lines + 1} without its last line"
    assert len(await read(log.reader({TopicPartition(INBOX, 0): 0}), lines)) == lines
    await log.close()
    path.write_bytes(b"".join(whole[: lines + 1])[:-5])
    log = await opened(path)
    assert log.flaw == f"it ends within line {lines + 1}"
    await log.close()


async def test_every_cut_within_a_file_is_reported(write: Write) -> None:
    path = write([stored(0, 1), stored(1, 2)])
    whole, head = path.read_bytes(), len(HEAD.line())
    for size in range(head, len(whole) - 1):
        path.write_bytes(whole[:size])
        log = await opened(path)
        assert log.flaw.startswith("it ends")
        await log.close()
    path.write_bytes(whole[:-1])  # an editor may drop the end of the last line
    assert (await opened(path)).flaw == ""


def damage(path: Path, *lines: bytes) -> None:
    path.write_bytes(HEAD.line() + b"".join(lines))


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ([b"no JSON\n", record_line(stored(0, 1))], "2: the line is no JSON"),
        ([b'{"a":1}\n', record_line(stored(0, 1))], "2: the line is no record: it names no topic"),
        ([b"[1]\n"], "2: the line is no record: it is no JSON object"),
        ([b'{"topic":"desk.inbox","partition":0,"offset":"7"}\n'], "2: the line is no record: it names no topic"),
        ([b'{"topic":"desk.inbox","partition":0,"offset":%d}\n' % 10**25], "2: the line is no record: it names"),
        ([b'{"topic":"desk.inbox","partition":2,"offset":7}\n'], f"2: the head of the file names no .* {INBOX}:2"),
        ([b'{"topic":"other","partition":0,"offset":7}\n'], "2: the head of the file names no partition other:0"),
        ([b'{"end":[]}\n'], "2: the last line cannot be read"),
        ([b'{"end":{"records":"0"}}\n'], "2: the last line cannot be read"),
        ([b'{"end":{"masked":{"a":"x"}}}'], "2: the last line cannot be read"),
        ([b'{"end":{"gaps":7}}\n'], "2: the last line cannot be read"),
        ([record_line(stored(0, 2)), record_line(stored(0, 1))], f"3: offset 1 of {INBOX}:0 is out of order"),
        ([record_line(stored(0, 1)), end_line(2, {}, [])], "3: the file has 1 records, its last line says 2"),
        ([end_line(0, {}, []), record_line(stored(0, 1))], "3: a line follows the last one"),
    ],
)
async def test_a_damaged_file_is_refused_with_its_line(write: Write, lines: list[bytes], text: str) -> None:
    path = write([])
    damage(path, *lines)
    with pytest.raises(InvalidInput, match=rf"run\.jsonl:{text}"):
        await opened(path)


async def test_a_record_that_is_damaged_within_is_reported_when_it_is_read(write: Write) -> None:
    path = write([stored(0, 1), stored(0, 2)])
    path.write_bytes(path.read_bytes().replace(b'"data":2', b'"data":x'))
    log = await opened(path)
    with pytest.raises(InvalidInput, match=r"run\.jsonl:3: the line is no JSON"):
        await read(log.reader({TopicPartition(INBOX, 0): 0}), 2)
    await log.close()


async def test_spaces_and_the_order_of_fields_do_not_matter(write: Write) -> None:
    path = write([stored(0, 1)])
    before = b'{"topic":"desk.inbox","partition":0,"offset":1,'
    path.write_bytes(path.read_bytes().replace(before, b'{ "offset": 1, "topic": "desk.inbox", "partition": 0, '))
    log = await opened(path)
    (one,) = await read(log.reader({TopicPartition(INBOX, 0): 0}), 1)
    assert (one.offset, one.value) == (1, b"1")
    await log.close()


async def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file"):
        await opened(tmp_path / "none.jsonl")
    with pytest.raises(NotFound, match="no such file"):
        recorded_head(tmp_path / "none.jsonl")
    with pytest.raises(InvalidInput, match=r"expected one file, got a folder\. `mesh test FOLDER` takes all"):
        await opened(tmp_path)
    with pytest.raises(LogUnavailable, match="cannot be read"):
        await opened(tmp_path / ("x" * 300))  # longer than a name may be
    (tmp_path / "text").write_text("hello\n")
    with pytest.raises(InvalidInput, match="text:1: this is no recording"):
        await opened(tmp_path / "text")


@pytest.mark.parametrize(
    ("begin", "text"),
    [
        (b"\x1f\x8b", "the file is compressed.*gunzip"),
        (b"\xef\xbb\xbf", "begins with a byte order mark"),
        (b"\xff\xfe", "the file is UTF-16"),
        (b"SQLite format 3\0", "this is an embedded log.*--log sqlite:FILE"),
    ],
)
async def test_a_file_of_another_kind_is_named(write: Write, begin: bytes, text: str) -> None:
    path = write([])
    path.write_bytes(begin + path.read_bytes())
    with pytest.raises(InvalidInput, match=text):
        await opened(path)


async def test_a_poll_that_passes_a_gap_does_not_wait(write: Write) -> None:
    log = await opened(write([stored(0, 1)]))
    reader = log.reader({TopicPartition(INBOX, 1): 2})
    async with asyncio.timeout(10):
        assert await reader.poll(records_max=1, wait_ms=60_000) == []
    assert reader.position(TopicPartition(INBOX, 1)) == 9
    await log.close()


async def test_a_span_is_read_without_the_records_around_it(write: Write) -> None:
    """So that a look at each run of a long file does not read the file for each."""
    path = write([stored(0, 1), stored(0, 2), stored(0, 3)])
    for number in (b"1", b"3"):
        path.write_bytes(path.read_bytes().replace(b'"data":' + number, b'"data":x'))
    log = await opened(path)
    batches = [batch async for batch in read_batches(log, INBOX, {0: Bounds(2, 3)})]
    assert [record.offset for batch in batches for record in batch] == [2]
    await log.close()
