"""Pieces of a checkpoint on a log: wherever one is broken off, the next owner begins where the last commit says."""

import asyncio

import pytest

from mesh.adapters.ports import Commit, Log
from mesh.core.state.checkpoint import read_note
from mesh.core.state.partition_state import Partition
from mesh.runtime.checkpoint_manager import CheckpointManager, Costs
from tests.runtime.checkpoint_kit import INBOX, OLD, cancel, folded, log, request, requested
from tests.runtime.test_checkpoint_manager import fold_on, manager
from tests.services.conftest import append

__all__ = ["log"]
NEVER = Costs(tail_us_min=10**12)
OFTEN = Costs(record_us=1_000, row_us=0, write_us=0, tail_us_min=3_000)
"""A piece every three records."""
RUNS = 40


async def lived(log: Log) -> int:
    """Many runs, of which some end later: each record a batch of its own. Answers the end of the inbox."""
    await append(log, *(request(f"r{n}") for n in range(RUNS)))
    for n in range(0, 18, 3):
        for one in (cancel(f"r{n}"), request(f"s{n}"), cancel(f"r{n + 1}")):
            await append(log, one)
    return RUNS + 18


def everything(state: Partition) -> object:
    order = [(at, id) for at, id in state._ended_order if (one := state.ended.get(id)) and one.offset == at]
    return state.runs, state.ended, state.offset, state.control, state.breakers, state.forgotten, order


async def chained(log: Log, made: CheckpointManager, state: Partition, until: int) -> Commit:
    """Leave a piece of what was folded until there, and name it."""
    await fold_on(log, made, state, until)
    await made.prepare_release([INBOX], within_ms=60_000, last=True)
    commit = Commit(until, made.metadata(INBOX, until))
    made.committed(INBOX, commit)
    return commit


async def restored(log: Log, commit: Commit) -> Partition:
    """Restore as another process does."""
    made, _ = await manager(log)
    state, start = await made.restore(INBOX, commit)
    assert start == commit.offset
    return state


async def test_every_commit_ever_made_is_a_place_to_begin_from(log: Log) -> None:
    end = await lived(log)
    made, calls = await manager(log, costs=OFTEN)
    state, _ = await made.restore(INBOX, None)
    await chained(log, made, state, RUNS)
    lengths = set()
    for place in range(RUNS, end + 1):
        await fold_on(log, made, state, place)
        if calls.tasks:
            await asyncio.wait(calls.tasks)
        commit = Commit(place, made.metadata(INBOX, place))
        lengths.add(len(read_note(commit.metadata).checkpoint))
        assert everything(await restored(log, commit)) == everything(await folded(log, until=place))
        if place % 2:
            made.committed(INBOX, commit)
    assert max(lengths) >= 3


async def test_a_piece_that_is_broken_off_anywhere_is_as_if_it_had_never_been_begun(log: Log) -> None:
    await lived(log)
    first, _ = await manager(log)
    state, _ = await first.restore(INBOX, None)
    commit = await chained(log, first, state, RUNS)
    broken_off = 0
    for turns in range(1_000):
        made, _ = await manager(log, costs=NEVER)
        state, _ = await made.restore(INBOX, commit)
        await fold_on(log, made, state, RUNS + 5)
        resting = asyncio.ensure_future(made.prepare_release([INBOX], within_ms=60_000, last=True))
        for _ in range(turns):
            await asyncio.sleep(0)
        done = resting.done()
        resting.cancel()
        await asyncio.wait([resting])
        for place in (RUNS, RUNS + 5):
            now = Commit(place, made.metadata(INBOX, place))
            assert everything(await restored(log, now)) == everything(await folded(log, until=place))
        if done:
            break
        broken_off += 1
    assert len(read_note(made.metadata(INBOX, RUNS + 5)).checkpoint) == 2
    assert broken_off > 3


async def test_what_a_zombie_adds_to_the_same_chain_is_no_part_of_it(log: Log) -> None:
    await lived(log)
    first, _ = await manager(log)
    state, _ = await first.restore(INBOX, None)
    commit = await chained(log, first, state, RUNS)
    heir, _ = await manager(log)
    state_of_heir, _ = await heir.restore(INBOX, commit)
    await fold_on(log, first, state, RUNS + 9)
    await asyncio.gather(
        first.prepare_release([INBOX], within_ms=60_000, last=True), chained(log, heir, state_of_heir, RUNS + 6)
    )
    now = await chained(log, heir, state_of_heir, RUNS + 12)
    mine, theirs = read_note(first.metadata(INBOX, RUNS + 9)).checkpoint, read_note(now.metadata).checkpoint
    assert set(mine) & set(theirs) == {mine[0]}
    assert everything(await restored(log, now)) == everything(await folded(log, until=RUNS + 12))


async def test_only_what_lies_before_the_first_piece_is_trimmed(log: Log) -> None:
    end = await lived(log) + 10
    await append(log, *(cancel(f"r{n}") for n in range(20, 30)))
    made, calls = await manager(log, costs=NEVER)
    state, _ = await made.restore(INBOX, None)
    starts = []
    for place in (RUNS, RUNS + 2, RUNS + 4, end):
        chain = read_note((await chained(log, made, state, place)).metadata).checkpoint
        await asyncio.wait(calls.tasks)
        assert (await log.bounds(OLD.checkpoints))[0].start == chain[0].first
        starts.append(chain[0].first)
    assert starts[0] == starts[1] == starts[2] < starts[3], "the last one was written whole"


async def test_what_changed_before_a_piece_in_no_commit_is_in_the_next_one(log: Log) -> None:
    await lived(log)
    made, _ = await manager(log, costs=NEVER)
    state, _ = await made.restore(INBOX, None)
    commit = await chained(log, made, state, RUNS)
    made.drop(INBOX)
    state, _ = await made.restore(INBOX, commit)
    await fold_on(log, made, state, RUNS + 3)
    await made.prepare_release([INBOX], within_ms=60_000, last=True)
    unnamed = read_note(made.metadata(INBOX, RUNS + 3)).checkpoint
    behind = Commit(RUNS + 3, commit.metadata)  # its commit went out before the piece was durable
    made.committed(INBOX, behind)
    made.drop(INBOX)
    state_again, _ = await made.restore(INBOX, behind)
    assert state_again is state
    now = await chained(log, made, state, RUNS + 4)
    assert set(read_note(now.metadata).checkpoint).isdisjoint(unnamed[1:])
    assert everything(await restored(log, now)) == everything(await folded(log, until=RUNS + 4))


async def test_what_changed_before_a_piece_that_could_not_be_written_is_in_the_next_one(log: Log) -> None:
    await lived(log)
    made, calls = await manager(log, costs=OFTEN)
    state, _ = await made.restore(INBOX, None)
    await chained(log, made, state, RUNS)
    await asyncio.wait(calls.tasks)
    made._checkpoints._topic = "nosuch"
    await fold_on(log, made, state, RUNS + 3)
    await asyncio.wait(calls.tasks)
    made._checkpoints._topic = OLD.checkpoints
    now = await chained(log, made, state, RUNS + 4)
    assert everything(await restored(log, now)) == everything(await folded(log, until=RUNS + 4))


async def test_what_is_touched_is_forgotten_once_it_is_named(log: Log) -> None:
    await lived(log)
    made, _ = await manager(log, costs=NEVER)
    state, _ = await made.restore(INBOX, None)
    await fold_on(log, made, state, RUNS)
    await made.prepare_release([INBOX], within_ms=60_000, last=True)
    await fold_on(log, made, state, RUNS + 2)
    assert len(state.touched or ()) == RUNS + 1
    made.committed(INBOX, Commit(RUNS, made.metadata(INBOX, RUNS)))
    assert state.touched == {"r0": RUNS, "s0": RUNS + 1}


async def test_a_checkpoint_of_an_older_schema_is_none(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    end = await lived(log)
    old = '{"v":1,"rules":1,"topology":"d","offset":3,"checkpoint":{"first":0,"last":1,"records":2}}'
    state = await restored(log, Commit(end, old))
    assert everything(state) == everything(await folded(log, until=end))
    assert "the note is of version 1, known is 2" in caplog.text


async def test_runs_that_were_loaded_lie_still_until_something_comes_for_them(log: Log) -> None:
    end = await lived(log)
    made, _ = await manager(log)
    state, _ = await made.restore(INBOX, None)
    again = await restored(log, await chained(log, made, state, end))
    assert (len(again.runs.cold), again.runs.warm, len(again.ended.cold), again.ended.warm) == (34, {}, 12, {})


async def test_a_short_tail_is_checkpointed_after_a_while(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesh.runtime.checkpoint_manager.AGED_CHECKPOINT_INTERVAL_MS", 10)
    await requested(log, "r1")
    made, calls = await manager(log, costs=Costs())
    state, _ = await made.restore(INBOX, None)
    await fold_on(log, made, state, 1)
    assert not calls.tasks, "one record is not worth a checkpoint"
    running = asyncio.create_task(made.run())
    async with asyncio.timeout(10):
        while not calls.asked:  # noqa: ASYNC110  # the loop would commit then
            await asyncio.sleep(0.005)
        note = read_note(made.metadata(INBOX, 1))
        made.committed(INBOX, Commit(1, note.text()))
        assert (note.offset, len(note.checkpoint)) == (1, 1)
        written = len(calls.tasks)
        for _ in range(5):
            await asyncio.sleep(0.01)
        assert len(calls.tasks) <= written + 1, "nothing new: only the old pieces are trimmed"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await made.close()
