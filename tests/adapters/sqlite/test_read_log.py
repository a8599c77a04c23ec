"""The embedded log for readers answers as the log itself does."""

from pathlib import Path

import pytest

from mesh.adapters.ports import Commit, TopicSpec
from mesh.adapters.sqlite import SqliteLog, SqliteReadLog
from mesh.core.errors import NotFound
from mesh.core.protocol.record import NewRecord, TopicPartition
from tests.adapters.log_kit import read


async def test_both_answer_alike(path: Path, log: SqliteLog) -> None:
    await log.create_topics([TopicSpec("t", 2), TopicSpec("other", 1)])
    await log.append([NewRecord("t", b"k%d" % n, b"%d" % n, [("a", b"b")], n % 2) for n in range(9)])
    await log.commit_idle("group", {TopicPartition("t", 1): Commit(3, "note")})
    reading = SqliteReadLog(path)
    await reading.start()
    assert reading.url == log.url
    assert reading.knows_time
    assert abs(reading.now_ms() - log.now_ms()) < 1_000
    assert await reading.topics() == await log.topics()
    assert await reading.bounds("t") == await log.bounds("t")
    assert await reading.offsets_at("t", 0) == await log.offsets_at("t", 0) == {0: 0, 1: 0}
    assert await reading.offsets_at("t", log.now_ms() + 60_000) == {0: 5, 1: 4}
    assert await reading.committed("group", "t") == {1: Commit(3, "note")}
    both = [one.reader({TopicPartition("t", 0): 1, TopicPartition("t", 1): 0}) for one in (reading, log)]
    found = [sorted((r.partition, r.offset, r.value) for r in await read(one, 8)) for one in both]
    assert found[0] == found[1]
    for one in both:
        await one.close()
    with pytest.raises(NotFound):
        await reading.bounds("none")
    await reading.close()


async def test_a_reader_goes_on_with_what_is_written_later(path: Path, log: SqliteLog) -> None:
    await log.create_topics([TopicSpec("t", 1)])
    reading = SqliteReadLog(path)
    await reading.start()
    reader = reading.reader({TopicPartition("t", 0): 0})
    assert await reader.poll(records_max=10, wait_ms=0) == []
    await log.append([NewRecord("t", b"k", b"late", (), 0)])
    assert [record.value for record in await read(reader, 1)] == [b"late"]
    await reader.close()
    await reading.close()


async def test_the_time_is_that_of_the_file(path: Path, log: SqliteLog) -> None:
    ahead = 3_600_000
    await log.file.write(lambda connection: connection.execute("UPDATE clock SET ahead_ms = ahead_ms + ?", (ahead,)))
    reading = SqliteReadLog(path)
    await reading.start()
    assert abs(reading.now_ms() - log.now_ms() - ahead) < 10_000
    await reading.close()
