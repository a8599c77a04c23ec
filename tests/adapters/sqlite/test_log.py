"""The embedded log: the contract, and what only a file can do."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mesh.adapters.ports import Appended, Log, Member, Refused, TopicSpec
from mesh.adapters.sqlite import SqliteFile, SqliteLog
from mesh.adapters.sqlite.groups.group import SqliteMember
from mesh.core.errors import InvalidInput, LogUnavailable
from mesh.core.protocol.record import NewRecord, TopicPartition
from tests.adapters.log_contract import LogContract
from tests.adapters.log_kit import OpenLog, Recorder, append, numbered, partitions_of, read, resumed


class TestSqliteLog(LogContract):
    session_timeout_ms = 1_000

    @pytest.fixture
    async def open_log(self, tmp_path: Path) -> AsyncIterator[OpenLog]:
        logs: list[SqliteLog] = []

        async def open_log() -> Log:
            log = SqliteLog(tmp_path / "mesh.db")
            await log.start()
            logs.append(log)
            return log

        yield open_log
        for log in logs:
            await log.close()

    async def abandon(self, member: Member) -> None:
        assert isinstance(member, SqliteMember)
        assert member._task is not None
        member._heartbeat.stop()
        member._task.cancel()
        member._closing = True


async def test_a_log_says_where_its_file_is(log: SqliteLog, path: Path) -> None:
    assert log.url == f"sqlite:{path}"
    assert log.record_bytes_max == 1_048_576


async def test_records_without_key_go_round(log: SqliteLog) -> None:
    await log.create_topics([TopicSpec("t", 3)])
    verdicts = await append(log, [NewRecord("t", None, b"x") for _ in range(9)])
    assert sorted(v.partition for v in verdicts) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


async def test_one_bad_spec_and_no_topic_is_made(log: SqliteLog) -> None:
    with pytest.raises(InvalidInput, match="topic name"):
        await log.create_topics([TopicSpec("good", 1), TopicSpec("not good", 1)])
    assert await log.topics() == {}


async def test_what_is_no_record_is_refused_alone(log: SqliteLog) -> None:
    await log.create_topics([TopicSpec("t", 1)])
    records: list[Any] = numbered("t", range(300))
    records[7] = NewRecord("t", b"k", "text", (), 0)  # type: ignore[arg-type]
    records[8] = NewRecord("t", "k", b"v")  # type: ignore[arg-type]
    records[299] = NewRecord("t", b"k", b"v", (("h", 7),), 0)
    verdicts = await log.append(records)
    assert [index for index, v in enumerate(verdicts) if isinstance(v, Refused)] == [7, 8, 299]
    assert {v.code for v in verdicts if isinstance(v, Refused)} == {"invalid"}
    assert "str" in str(verdicts[8])
    assert [v.offset for v in verdicts if isinstance(v, Appended)] == list(range(297))


@pytest.mark.parametrize("extra", [0, 1])
async def test_the_limit_counts_key_value_and_headers_exactly(path: Path, extra: int) -> None:
    log = SqliteLog(path, record_bytes_max=1_000)
    await log.start()
    await log.create_topics([TopicSpec("t", 1)])
    record = NewRecord("t", b"k" * 10, b"v" * (899 + extra), (("é", b"x" * 10), ("abc", b"\0\0")))
    small = NewRecord("t", b"k", b"v")
    verdicts = await log.append([small, record, small])
    assert [type(v) for v in verdicts] == [Appended, Refused if extra else Appended, Appended]
    if extra:
        text = "the record takes 1001 bytes with key, headers and framing, the limit is 1000"
        assert verdicts[1] == Refused("too_large", text)
    await log.close()


async def test_many_megabytes_in_one_call_keep_their_order(log: SqliteLog) -> None:
    await log.create_topics([TopicSpec("t", 2)])
    records = [NewRecord("t", b"k", b"%06d" % n + b"x" * 60_000, (), n % 2) for n in range(300)]
    verdicts = await append(log, records)
    assert [v.offset for v in verdicts] == [n // 2 for n in range(300)]
    found = await read(log.reader({TopicPartition("t", 1): 0}), 150)
    assert [(r.value or b"")[:6] for r in found] == [b"%06d" % n for n in range(1, 300, 2)]


async def test_a_locked_file_ends_an_append_at_its_deadline(path: Path) -> None:
    log = SqliteLog(path, append_timeout_ms=150)
    await log.start()
    await log.create_topics([TopicSpec("t", 1)])
    with sqlite3.connect(path, isolation_level=None) as lock:
        lock.execute("BEGIN IMMEDIATE")
        with pytest.raises(LogUnavailable, match="append was not acknowledged within 150 ms") as caught:
            await log.append(numbered("t", range(1_000)))
        lock.execute("ROLLBACK")
    lock.close()
    assert str(path) in str(caught.value)
    await append(log, numbered("t", [1]))
    assert (await log.bounds("t"))[0].end == 1
    await log.close()


async def test_a_log_that_is_not_open_says_so(path: Path) -> None:
    log = SqliteLog(path)
    with pytest.raises(LogUnavailable, match="not open"):
        await log.topics()
    with pytest.raises(LogUnavailable, match="not open"):
        await log.join("g", ["t"], Recorder())
    await log.close()
    await log.start()
    await log.close()
    await log.close()
    with pytest.raises(LogUnavailable, match="not open"):
        await log.append([NewRecord("t", b"k", b"v")])


async def test_log_and_another_user_share_one_file(path: Path) -> None:
    file = SqliteFile(path)
    log = SqliteLog(file)
    await file.start()
    await log.start()
    await log.create_topics([TopicSpec("t", 1)])
    await log.close()
    assert file.read(lambda connection: connection.execute("SELECT name FROM topics").fetchall()) == [("t",)]
    await file.close()


async def test_ten_members_that_wait_cost_next_to_nothing(log: SqliteLog) -> None:
    await log.create_topics([TopicSpec("t", 16)])
    listeners = [Recorder() for _ in range(10)]
    members = [await log.join(f"g{number}", ["t"], listener) for number, listener in enumerate(listeners)]
    for member, listener in zip(members, listeners, strict=True):
        await resumed(member, listener, partitions_of("t", 16))
    polls = [asyncio.ensure_future(member.poll(records_max=10, wait_ms=1_500)) for member in members]
    await asyncio.sleep(0.1)
    begun, cpu = time.monotonic(), time.process_time()
    assert await asyncio.gather(*polls) == [{}] * 10
    # About 0.3 % on an idle machine (bench/wire_sqlite.py); a busy one adds to it.
    assert (time.process_time() - cpu) / (time.monotonic() - begun) < 0.03
