"""The state of an assigned partition, and the metadata of its commits."""

import asyncio

from mesh.core.protocol.record import TopicPartition
from mesh.core.task.poison import CLAIM_MIN, CommitMarks, PoisonDetector, decode
from mesh.services.worker.assignment import PartitionAssignment


def assignment(offset: int = 5) -> PartitionAssignment:
    made = PartitionAssignment(TopicPartition("mesh.tasks.echo", 1))
    made.start(PoisonDetector(CommitMarks(), place=offset, end=100), offset)
    return made


def test_the_first_commit_says_where_it_began_and_that_a_worker_is_at_work() -> None:
    partition = assignment(5)
    commit = partition.next_commit(working=True)
    assert commit is not None
    assert commit.commit.offset == 5
    assert decode(commit.commit.metadata, 5) == CommitMarks(working=True, claimed=5 + CLAIM_MIN)
    assert partition.claimed == 0
    partition.record_commit(commit)
    assert partition.claimed == 5 + CLAIM_MIN


def test_what_was_said_is_not_said_again_until_there_is_news() -> None:
    partition = assignment()
    first = partition.next_commit(working=True)
    assert first is not None
    assert partition.next_commit(working=True) is not None  # the log has not acknowledged it
    partition.record_commit(first)
    assert partition.next_commit(working=True) is None
    partition.tracker.take(5)
    assert partition.next_commit(working=True) is None
    partition.tracker.finish(5)
    done = partition.next_commit(working=True)
    assert done is not None
    assert done.commit.offset == 6
    partition.record_commit(done)
    partition.watch.mark(7)
    marked = partition.next_commit(working=True)
    assert marked is not None
    assert decode(marked.commit.metadata, 6).marked == {7}


def test_a_hand_over_is_said_even_when_nothing_else_is_new() -> None:
    partition = assignment()
    first = partition.next_commit(working=True)
    assert first is not None
    partition.record_commit(first)
    last = partition.next_commit(working=False)
    assert last is not None
    assert decode(last.commit.metadata, 5) == CommitMarks()


def again(before: PartitionAssignment, offset: int) -> PartitionAssignment:
    """The partition, back in the process."""
    before.is_owned = False
    made = PartitionAssignment(before.partition, before)
    made.start(PoisonDetector(CommitMarks(), place=offset, end=100), offset)
    return made


async def test_what_was_answered_here_and_not_committed_is_known_when_the_partition_comes_back() -> None:
    first = assignment(5)
    for offset in (5, 6, 7):
        first.tracker.take(offset)
    first.finish(6)
    second = again(first, 5)
    assert [await second.answered_before(offset) for offset in (4, 5, 6, 7, 8)] == [False, False, True, False, False]
    third = again(second, 5)
    first.mark_answered(7)
    waiting = asyncio.ensure_future(third.answered_before(7))
    await asyncio.sleep(0)
    assert not waiting.done()
    first.finish(7)
    assert await waiting


async def test_nothing_is_remembered_of_what_cannot_come_back() -> None:
    first = assignment(5)
    first.tracker.take(5)
    first.finish(5)
    assert again(first, 6).previous is None
    assert again(again(first, 5), 6).previous is None
    assert again(again(first, 5), 5).previous is not None
