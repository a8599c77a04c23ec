"""Several processes on one file: killed, stopped, woken, all at once."""

import asyncio
import signal
import sqlite3
import time
from pathlib import Path
from statistics import median

import pytest

from mesh.adapters.ports import Commit, TopicSpec
from mesh.adapters.sqlite import SqliteLog
from mesh.core.protocol.record import NewRecord, TopicPartition
from tests.adapters.log_kit import Recorder, append, numbered, partitions_of, read, resumed, take, until, values
from tests.adapters.sqlite.conftest import Spawn

SESSION_TIMEOUT_MS = 1_000


async def test_what_was_acknowledged_survives_kill_9_and_the_file_is_sound(
    log: SqliteLog, path: Path, spawn: Spawn
) -> None:
    await log.create_topics([TopicSpec("t", 3)])
    children = [await spawn("append", path, "t") for _ in range(2)]
    acknowledged = []
    for child in children:
        said = [int((await child.line())[0]) for _ in range(150)]
        child.signal(signal.SIGKILL)
        while line := await child.line():
            said += [int(line[0])]
        assert await child.end() == -signal.SIGKILL
        acknowledged.append(said)
    bounds = await log.bounds("t")
    total = sum(b.end - b.start for b in bounds.values())
    records = await read(log.reader(dict.fromkeys(partitions_of("t", 3), 0)), total)
    held = [record.value for record in records]
    for number in {n for said in acknowledged for n in said}:
        writers = sum(number in said for said in acknowledged)
        assert min(held.count(b"%d.%d" % (number, part)) for part in (0, 1)) >= writers
    for partition, bound in bounds.items():
        offsets = [r.offset for r in records if r.partition == partition]
        assert offsets == list(range(bound.start, bound.end))
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


async def test_a_log_whose_every_process_was_killed_opens_again(path: Path, spawn: Spawn) -> None:
    log = SqliteLog(path)
    await log.start()
    await log.create_topics([TopicSpec("t", 1)])
    await log.close()
    place, end = TopicPartition("t", 0), 0
    for _ in range(3):
        start = end
        child = await spawn("append", path, "t")
        for _ in range(30):
            last = int((await child.line())[0])
        child.signal(signal.SIGKILL)
        await child.end()
        log = SqliteLog(path)
        await log.start()
        end = (await log.bounds("t"))[0].end
        written = await read(log.reader({place: start}), end - start)
        assert {b"%d.0" % last, b"%d.1" % last} <= set(values(written))
        await append(log, numbered("t", [1]))
        await log.close()


async def test_the_partitions_of_a_killed_process_go_to_the_others(log: SqliteLog, path: Path, spawn: Spawn) -> None:
    await log.create_topics([TopicSpec("t", 4)])
    child = await spawn("member", path, "t", "--session-timeout-ms", 3_600_000)
    await child.hear("assigned", "0", "1", "2", "3")
    child.order("commit", "2", "17")
    await child.hear("committed")
    listener = Recorder()
    member = await log.join("group", ["t"], listener, session_timeout_ms=SESSION_TIMEOUT_MS)
    await until(lambda: len(listener.held) == 2, "hand-over")
    child.signal(signal.SIGKILL)
    # The next heartbeat sees that the process is gone; no process waits for its session timeout.
    await until(lambda: listener.held == partitions_of("t", 4), "all of them")
    assert await member.committed(TopicPartition("t", 2)) == Commit(17)


async def test_a_process_that_starts_again_after_a_kill_has_its_partitions_at_once(
    log: SqliteLog, path: Path, spawn: Spawn
) -> None:
    await log.create_topics([TopicSpec("t", 2)])
    for _ in range(2):
        child = await spawn("member", path, "t", "--session-timeout-ms", 3_600_000)
        await child.hear("assigned", "0", "1")
        child.signal(signal.SIGKILL)
        await child.end()


async def test_a_process_that_was_stopped_too_long_is_fenced_and_joins_again(
    log: SqliteLog, path: Path, spawn: Spawn
) -> None:
    await log.create_topics([TopicSpec("t", 2)])
    child = await spawn("member", path, "t", "--session-timeout-ms", SESSION_TIMEOUT_MS)
    await child.hear("assigned", "0", "1")
    child.order("commit", "0", "1")
    await child.hear("committed")
    child.signal(signal.SIGSTOP)
    listener = Recorder()
    member = await log.join("group", ["t"], listener, session_timeout_ms=SESSION_TIMEOUT_MS)
    await resumed(member, listener, partitions_of("t", 2))
    await member.commit({TopicPartition("t", 0): Commit(5)})
    child.order("commit", "0", "2")
    child.signal(signal.SIGCONT)
    heard: list[list[str]] = []
    while ["fenced"] not in heard or not any(words[0] == "assigned" for words in heard):
        heard.append(await child.line())
        assert heard[-1] not in ([], ["committed"])
    assert any(words[0] == "revoked" and set(words[1:]) == {"0", "1"} for words in heard)
    assert await member.committed(TopicPartition("t", 0)) == Commit(5)
    await until(lambda: len(listener.held) == 1, "a share for both")


async def test_an_append_wakes_a_reader_in_another_process_at_once(log: SqliteLog, path: Path, spawn: Spawn) -> None:
    await log.create_topics([TopicSpec("t", 1)])
    child = await spawn("read", path, "t")
    await child.hear("ready")
    took_ms = []
    for number in range(50):
        begun = time.monotonic_ns()
        await append(log, numbered("t", [number]))
        took_ms.append((int((await child.line())[0]) - begun) / 1_000_000)
    # The safety poll would take 50 ms on average; what it takes on an idle machine is measured in bench/wire_sqlite.py.
    assert median(took_ms) < 20


async def test_processes_that_open_a_new_file_at_once_all_succeed(path: Path, spawn: Spawn) -> None:
    children = [await spawn("open", path, "t") for _ in range(4)]
    for child in children:
        await child.hear("closed")
        assert await child.end() == 0
    log = SqliteLog(path)
    await log.start()
    assert await log.topics() == {}
    await log.close()


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGSTOP])
async def test_pipes_of_the_dead_do_no_harm(log: SqliteLog, path: Path, spawn: Spawn, stop: signal.Signals) -> None:
    await log.create_topics([TopicSpec("t", 1)])
    child = await spawn("read", path, "t")
    await child.hear("ready")
    child.signal(stop)
    if stop is signal.SIGKILL:
        await child.end()
    listener = Recorder()
    member = await log.join("group", ["t"], listener)
    await resumed(member, listener, partitions_of("t", 1))
    await asyncio.gather(*(append(log, [NewRecord("t", None, b"x" * 10)]) for _ in range(200)))
    assert len(await take(member, 200)) == 200
