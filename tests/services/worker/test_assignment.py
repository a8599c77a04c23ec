"""What is known of a partition, and what a commit of it says."""

import asyncio

from mesh.core.protocol.record import TopicPartition
from mesh.core.task.poison import CLAIM_MIN, CommitMarks, PoisonDetector, decode
from mesh.services.worker.assignment import Held


def held(place: int = 5) -> Held:
    made = Held(TopicPartition("mesh.tasks.echo", 1))
    made.begin(PoisonDetector(CommitMarks(), place=place, end=100), place)
    return made


def test_the_first_commit_says_where_it_began_and_that_somebody_is_at_work() -> None:
    partition = held(5)
    saying = partition.saying(working=True)
    assert saying is not None
    assert saying.commit.offset == 5
    assert decode(saying.commit.metadata, 5) == CommitMarks(working=True, claimed=5 + CLAIM_MIN)
    assert partition.claimed == 0
    partition.was_said(saying)
    assert partition.claimed == 5 + CLAIM_MIN


def test_what_was_said_is_not_said_again_until_there_is_news() -> None:
    partition = held()
    first = partition.saying(working=True)
    assert first is not None
    assert partition.saying(working=True) is not None  # nobody has acknowledged it
    partition.was_said(first)
    assert partition.saying(working=True) is None
    partition.tracker.take(5)
    assert partition.saying(working=True) is None
    partition.tracker.finish(5)
    done = partition.saying(working=True)
    assert done is not None
    assert done.commit.offset == 6
    partition.was_said(done)
    partition.watch.mark(7)
    marked = partition.saying(working=True)
    assert marked is not None
    assert decode(marked.commit.metadata, 6).marked == {7}


def test_a_hand_over_is_said_even_when_nothing_else_is_new() -> None:
    partition = held()
    first = partition.saying(working=True)
    assert first is not None
    partition.was_said(first)
    last = partition.saying(working=False)
    assert last is not None
    assert decode(last.commit.metadata, 5) == CommitMarks()


def again(before: Held, place: int) -> Held:
    """The partition, back in the process."""
    before.live = False
    made = Held(before.partition, before)
    made.begin(PoisonDetector(CommitMarks(), place=place, end=100), place)
    return made


async def test_what_was_answered_here_and_not_committed_is_known_when_the_partition_comes_back() -> None:
    first = held(5)
    for offset in (5, 6, 7):
        first.tracker.take(offset)
    first.finish(6)
    second = again(first, 5)
    assert [await second.answered_before(offset) for offset in (4, 5, 6, 7, 8)] == [False, False, True, False, False]
    third = again(second, 5)
    first.on_its_way(7)
    waiting = asyncio.ensure_future(third.answered_before(7))
    await asyncio.sleep(0)
    assert not waiting.done()
    first.finish(7)
    assert await waiting


async def test_nothing_is_remembered_of_what_cannot_come_back() -> None:
    first = held(5)
    first.tracker.take(5)
    first.finish(5)
    assert again(first, 6).before is None
    assert again(again(first, 5), 6).before is None
    assert again(again(first, 5), 5).before is not None
