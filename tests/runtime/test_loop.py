"""The loop's order: nothing is committed before it is acknowledged, nothing delivered before it is restored."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from mesh.adapters.ports import REVOKE_MS_MAX, Appended, Commit, Log, Refused, TopicSpec
from mesh.adapters.sqlite import SqliteLog
from mesh.app.wiring import open_log, topic_specs
from mesh.core.errors import LogUnavailable, WaitTimeout
from mesh.core.protocol.codec import Unreadable, event_headers, read_event
from mesh.core.protocol.event import OUTCOME, TASK, Event
from mesh.core.protocol.record import NewRecord, Record, TopicPartition
from mesh.core.topology.loader import load
from mesh.runtime.loop import Loop, append_all
from mesh.settings import Settings
from tests.services.conftest import append, read_all, read_until, settled, working

TOPOLOGY = load("""
mesh: {name: t, prefix: mesh, inbox: {partitions: 2}}
topics: {asks: {ingress: ask, partitions: 2}, answers: {egress: answer, partitions: 2}}
agents: {echo: {run: "x:y", on: ask, emits: answer}}
""")


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    log = open_log(Settings(log=f"sqlite:{tmp_path / 'mesh.db'}", record_bytes_max=20_000))
    await log.start()
    await log.create_topics([*topic_specs(TOPOLOGY), TopicSpec("in", 2), TopicSpec("out", 2)])
    yield log
    await log.close()


class Copy:
    """A stage that copies `in` to `out`, and may be told to wait or to fail."""

    def __init__(self) -> None:
        self.may_restore = asyncio.Event()
        self.may_restore.set()
        self.slow: set[TopicPartition] = set()
        """The partitions that wait for `may_restore`; empty: all of them."""
        self.places: dict[TopicPartition, int | None] = {}
        self.dropped: list[TopicPartition] = []
        self.fail: Exception | None = None
        self.copied = 0

    async def restore(self, partition: TopicPartition, commit: Commit | None) -> int | None:
        if not self.slow or partition in self.slow:
            await self.may_restore.wait()
        if self.fail is not None:
            raise self.fail
        self.places[partition] = commit and commit.offset
        return self.places[partition]

    async def step(self, partition: TopicPartition, records: Sequence[Record]) -> Sequence[NewRecord]:
        assert partition in self.places, "delivered before it was restored"
        self.copied += len(records)
        return [NewRecord("out", r.key, r.value, (), r.partition) for r in records]

    def drop(self, partition: TopicPartition) -> None:
        self.places.pop(partition, None)
        self.dropped.append(partition)


def loop(log: Log, stage: Copy) -> Loop:
    return Loop(log, stage, TOPOLOGY, group="copy", topics=["in"], session_timeout_ms=2_000)


class Says:
    """Notes that say the place and a word, and hear what was stored."""

    def __init__(self) -> None:
        self.word = "a"
        self.stored: list[tuple[TopicPartition, Commit]] = []
        self.rested: list[tuple[list[TopicPartition], bool]] = []

    def metadata(self, partition: TopicPartition, place: int) -> str:
        return f"{self.word}{place}"

    def committed(self, partition: TopicPartition, commit: Commit) -> None:
        self.stored.append((partition, commit))

    async def prepare_release(self, partitions: Sequence[TopicPartition], *, within_ms: float, last: bool) -> None:
        assert within_ms == REVOKE_MS_MAX / 2 or last, "the session timeout, 2 s here, does not shorten it"
        self.rested.append((sorted(partitions), last))


def noting(log: Log, stage: Copy, says: Says) -> Loop:
    return Loop(log, stage, TOPOLOGY, group="copy", topics=["in"], metadata=says, session_timeout_ms=2_000)


async def until_committed(log: Log, wanted: dict[int, Commit]) -> None:
    async with asyncio.timeout(20):
        while dict(await log.committed("copy", "in")) != wanted:  # noqa: ASYNC110  # the log sends no event
            await asyncio.sleep(0.005)


async def test_a_commit_carries_its_metadata_and_is_acknowledged(log: Log) -> None:
    says = Says()
    async with working(log, TOPOLOGY, noting(log, Copy(), says).run):
        await until_committed(log, {0: Commit(0, "a0"), 1: Commit(0, "a0")})
        await append(log, *(NewRecord("in", b"k", b"%d" % n, (), 0) for n in range(3)))
        await until_committed(log, {0: Commit(3, "a3"), 1: Commit(0, "a0")})
    assert says.stored[-1] == (TopicPartition("in", 0), Commit(3, "a3"))
    assert (TopicPartition("in", 1), Commit(0, "a0")) in says.stored


async def test_a_place_is_committed_once_more_when_there_is_something_new_to_say(log: Log) -> None:
    says = Says()
    service = noting(log, Copy(), says)
    async with working(log, TOPOLOGY, service.run):
        await service.ready.wait()  # the log shows a commit before the loop has heard that it is stored
        await until_committed(log, {0: Commit(0, "a0"), 1: Commit(0, "a0")})
        says.word = "b"
        service.recommit(TopicPartition("in", 1))
        service.recommit(TopicPartition("in", 9))  # not ours: nothing to say
        await until_committed(log, {0: Commit(0, "a0"), 1: Commit(0, "b0")})


async def test_what_a_restore_has_to_say_is_stored_before_anything_is_delivered(log: Log) -> None:
    await append(log, NewRecord("in", b"k", b"1", (), 0))

    class Watches(Copy):
        async def step(self, partition: TopicPartition, records: Sequence[Record]) -> Sequence[NewRecord]:
            assert (partition, Commit(0, "a0")) in says.stored
            return await super().step(partition, records)

    says = Says()
    async with working(log, TOPOLOGY, noting(log, Watches(), says).run):
        await read_until(log, "out", 1)
    says.stored.clear()
    async with working(log, TOPOLOGY, (service := noting(log, Copy(), says)).run):
        await service.ready.wait()
    assert says.stored == [], "what stands already is not stored again"


async def test_before_the_end_there_is_time_for_last_words_and_they_are_committed(log: Log) -> None:
    class Talks(Says):
        async def prepare_release(self, partitions: Sequence[TopicPartition], *, within_ms: float, last: bool) -> None:
            await super().prepare_release(partitions, within_ms=within_ms, last=last)
            if last:
                self.word = "last"
                for partition in partitions:
                    service.recommit(partition)

    says = Talks()
    service = noting(log, Copy(), says)
    async with working(log, TOPOLOGY, service.run):
        await append(log, NewRecord("in", b"k", b"1", (), 0))
        await settled(log, "copy", "in")
    both = [TopicPartition("in", 0), TopicPartition("in", 1)]
    assert says.rested == [(both, True), (both, False)]
    assert await log.committed("copy", "in") == {0: Commit(1, "last1"), 1: Commit(0, "last0")}


async def test_a_log_that_does_not_answer_does_not_prevent_a_stop(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Silent(SqliteLog):
        async def append(self, records: Sequence[NewRecord]) -> Sequence[Appended | Refused]:
            asked.set()
            await asyncio.Event().wait()
            return []

    monkeypatch.setattr("mesh.runtime.loop.STOP_MS_MAX", 50)
    asked = asyncio.Event()
    silent = Silent(tmp_path / "mesh.db")
    await silent.start()
    await append(log, NewRecord("in", b"k", b"1", (), 0))
    stop = asyncio.Event()
    running = asyncio.ensure_future(noting(silent, Copy(), Says()).run(stop))
    await asked.wait()
    stop.set()
    async with asyncio.timeout(10):
        await asyncio.wait([running])
    assert isinstance(running.exception(), WaitTimeout), "who let go of partitions in the middle says so"
    assert (await log.committed("copy", "in"))[0].offset == 0
    await silent.close()


async def test_a_loop_with_a_given_member_releases_only_revoked_partitions(log: Log) -> None:
    says = Says()
    first = noting(log, Copy(), says)
    async with working(log, TOPOLOGY, first.run):
        await first.ready.wait()
        async with working(log, TOPOLOGY, (second := noting(log, Copy(), Says())).run):
            await second.ready.wait()
            assert [(len(gone), last) for gone, last in says.rested] == [(1, False)]


async def test_what_a_watched_task_raises_ends_the_loop(log: Log) -> None:
    async def fails() -> None:
        raise LogUnavailable("the checkpoint is lost")

    service = loop(log, Copy())
    running = asyncio.ensure_future(service.run(asyncio.Event()))
    await service.ready.wait()
    service.watch(asyncio.ensure_future(fails()))
    with pytest.raises(LogUnavailable, match="the checkpoint is lost"):
        async with asyncio.timeout(10):
            await running


async def test_what_was_read_is_performed_and_then_committed(log: Log) -> None:
    async with working(log, TOPOLOGY, loop(log, Copy()).run):
        await append(log, *(NewRecord("in", b"k%d" % n, b"%d" % n) for n in range(50)))
        out = await read_until(log, "out", 50)
        await settled(log, "copy", "in")
    assert {r.value for r in out} == {b"%d" % n for n in range(50)}


async def test_nothing_is_delivered_before_the_restore_is_done(log: Log) -> None:
    stage = Copy()
    stage.may_restore.clear()
    service = loop(log, stage)
    async with working(log, TOPOLOGY, service.run):
        await append(log, NewRecord("in", b"k", b"1"))
        reader = log.reader({TopicPartition("out", 0): 0, TopicPartition("out", 1): 0})
        assert await reader.poll(records_max=10, wait_ms=300) == []
        await reader.close()
        assert not service.ready.is_set()
        stage.may_restore.set()
        await read_until(log, "out", 1)


async def test_a_loop_is_ready_when_the_partition_it_still_restored_is_revoked(log: Log) -> None:
    kept, moved = TopicPartition("in", 0), TopicPartition("in", 1)
    stage = Copy()
    stage.slow.add(moved)
    stage.may_restore.clear()
    service = loop(log, stage)
    async with working(log, TOPOLOGY, service.run):
        async with asyncio.timeout(20):
            await append(log, NewRecord("in", b"k", b"1", (), kept.partition))
            await read_until(log, "out", 1)
        assert not service.ready.is_set()
        await service.revoked([moved])
        assert service.ready.is_set()


async def test_a_restore_that_fails_ends_the_loop_with_its_reason(log: Log) -> None:
    stage = Copy()
    stage.fail = LogUnavailable("the checkpoint cannot be read")
    with pytest.raises(LogUnavailable, match="the checkpoint cannot be read"):
        async with asyncio.timeout(10):
            await loop(log, stage).run(asyncio.Event())


async def test_an_append_that_fails_commits_nothing_and_the_next_owner_does_it_again(log: Log, tmp_path: Path) -> None:
    class Broken(Copy):
        async def step(self, partition: TopicPartition, records: Sequence[Record]) -> Sequence[NewRecord]:
            raise LogUnavailable("the log is gone")

    await append(log, NewRecord("in", b"k", b"1"))
    with pytest.raises(LogUnavailable):
        async with asyncio.timeout(10):
            await loop(log, Broken()).run(asyncio.Event())
    assert await log.committed("copy", "in") == {}
    async with working(log, TOPOLOGY, loop(log, Copy()).run):
        await read_until(log, "out", 1)


async def test_partitions_move_without_a_gap_and_without_order_lost(log: Log) -> None:
    first, second = Copy(), Copy()
    one, two = loop(log, first), loop(log, second)
    async with working(log, TOPOLOGY, one.run):
        await append(log, *(NewRecord("in", b"k", b"%d" % n, (), n % 2) for n in range(100)))
        await settled(log, "copy", "in")
        async with working(log, TOPOLOGY, two.run):
            await two.ready.wait()
            await append(log, *(NewRecord("in", b"k", b"%d" % n, (), n % 2) for n in range(100, 200)))
            await settled(log, "copy", "in")
        await append(log, *(NewRecord("in", b"k", b"%d" % n, (), n % 2) for n in range(200, 300)))
        await settled(log, "copy", "in")
    assert second.copied
    out = await read_all(log, "out")
    for partition in (0, 1):
        values = [int(r.value or b"-1") for r in out if r.partition == partition]
        assert values == [n for n in range(300) if n % 2 == partition]


async def test_a_member_that_stalled_past_its_session_is_fenced_and_nothing_is_lost_or_out_of_order(
    log: Log, tmp_path: Path
) -> None:
    class Stalls(Copy):
        stalled = False

        async def step(self, partition: TopicPartition, records: Sequence[Record]) -> Sequence[NewRecord]:
            if not self.stalled:
                self.stalled = True
                time.sleep(2.5)  # noqa: ASYNC251  # longer than the session: no heartbeat leaves this loop
            return await super().step(partition, records)

    stalls, other = Stalls(), Copy()
    taken_over = threading.Thread(target=lambda: asyncio.run(_work_beside(tmp_path, other, stop)), daemon=True)
    stop = threading.Event()
    await append(log, *(NewRecord("in", b"k", b"%d" % n, (), n % 2) for n in range(100)))
    slow = Loop(log, stalls, TOPOLOGY, group="copy", topics=["in"], session_timeout_ms=1_000)
    async with working(log, TOPOLOGY, slow.run):
        taken_over.start()
        await settled(log, "copy", "in")
        await append(log, *(NewRecord("in", b"k", b"%d" % n, (), n % 2) for n in range(100, 200)))
        await settled(log, "copy", "in")
    stop.set()
    await asyncio.to_thread(taken_over.join)
    assert stalls.stalled
    out = await read_all(log, "out")
    for partition in (0, 1):
        values = [int(r.value or b"-1") for r in out if r.partition == partition]
        firsts = list(dict.fromkeys(values))
        assert firsts == [n for n in range(200) if n % 2 == partition], "each is there, first seen in order"


async def _work_beside(tmp_path: Path, stage: Copy, stop: threading.Event) -> None:
    """Another process's loop, in a thread with an event loop and a connection of its own."""
    log = open_log(Settings(log=f"sqlite:{tmp_path / 'mesh.db'}"))
    await log.start()
    stopping = asyncio.Event()
    running = asyncio.ensure_future(
        Loop(log, stage, TOPOLOGY, group="copy", topics=["in"], session_timeout_ms=1_000).run(stopping)
    )
    await asyncio.to_thread(stop.wait)
    stopping.set()
    await running
    await log.close()


def _event(kind: str, data: bytes) -> Event:
    return Event(
        "e1", "/mesh/t", "ask", kind, "r1", data, agent="echo", task_id="t1", depth=1, path=("echo",), attempt=2
    )


async def test_a_refused_task_becomes_a_failure_of_that_task(log: Log) -> None:
    task = _event(TASK, b'"' + b"x" * 30_000 + b'"')
    small = NewRecord("out", b"k", b"1")
    await append_all(log, [NewRecord(TOPOLOGY.tasks("echo"), b"r1", task.data, event_headers(task)), small], TOPOLOGY)
    (record,) = await read_all(log, TOPOLOGY.inbox)
    answer = read_event(record)
    assert not isinstance(answer, Unreadable)
    assert (answer.kind, answer.task_id, answer.attempt, record.key) == ("failed", "t1", 2, b"r1")
    assert answer.fault is not None
    assert (answer.fault.code, answer.fault.retryable) == ("refused_too_large", False)
    assert len(await read_all(log, "out")) == 1, "the others of the batch go in"


async def test_a_refused_outcome_is_sent_without_its_payloads(log: Log) -> None:
    result = {"type": "answer", "id": "i", "agent": "echo", "data": "x" * 30_000}
    outcome = _event(OUTCOME, orjson.dumps({"run": "r1", "ending": "completed", "results": [result]}))
    await append_all(log, [NewRecord(TOPOLOGY.outcomes, b"r1", outcome.data, event_headers(outcome))], TOPOLOGY)
    (record,) = await read_all(log, TOPOLOGY.outcomes)
    body = orjson.loads(record.value or b"")
    assert body["ending"] == "completed"
    assert "data" not in body["results"][0]
    assert body["results"][0]["omitted"] == "refused_too_large"
    assert "the limit is 20000" in body["omitted"]


async def test_anything_else_refused_is_a_dead_letter_that_points_at_it(log: Log) -> None:
    await append_all(log, [NewRecord("out", b"k", b"x" * 30_000)], TOPOLOGY)
    (record,) = await read_all(log, TOPOLOGY.dead)
    headers = dict(record.headers)
    assert record.value is None
    assert headers["mesh-dlq-reason"] == b"refused_too_large"
    assert headers["__dlq.errors.topic"] == b"out"


async def test_a_replacement_that_is_too_large_too_is_replaced_by_a_smaller_one(log: Log) -> None:
    """Neither the key nor any of the headers fits into a dead letter."""
    large = NewRecord("out", b"k" * 30_000, b"1", [(f"{n}" * 50, b"v" * 8_000) for n in range(9)])
    await append_all(log, [large, NewRecord("out", b"k", b"1")], TOPOLOGY)
    (record,) = await read_all(log, TOPOLOGY.dead)
    headers = dict(record.headers)
    assert (record.key, record.value) == (headers["mesh-dlq-id"], None)
    assert headers["mesh-dlq-reason"] == b"refused_too_large"
    assert len(await read_all(log, "out")) == 1


async def test_a_replacement_that_is_refused_for_another_reason_than_its_size_is_an_error(log: Log) -> None:
    elsewhere = replace(TOPOLOGY, prefix="another")
    with pytest.raises(LogUnavailable, match="refused even the record"):
        await append_all(log, [NewRecord("out", b"k", b"1" * 30_000)], elsewhere)
