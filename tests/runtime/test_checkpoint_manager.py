"""The restore of a partition: from the checkpoint that stands, exactly; loudly at the first record; else nowhere."""

import asyncio
import logging
from dataclasses import replace

import pytest

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Commit, Log
from mesh.core.errors import NotRestorable
from mesh.core.protocol.record import TopicPartition
from mesh.core.state.checkpoint import CommitNote, Snapshot, read_note
from mesh.core.state.partition_state import RULES, Partition
from mesh.core.topology.model import Topology
from mesh.runtime.checkpoint_manager import CheckpointManager, Costs
from mesh.runtime.checkpoint_store import CheckpointStore
from mesh.runtime.topology_store import TopologyStore
from tests.runtime.checkpoint_kit import INBOX, NEW, OLD, cancel, folded, log, requested
from tests.services.conftest import append

__all__ = ["log"]
CHECKPOINTS = TopicPartition(OLD.checkpoints, 0)
CHEAP = Costs(record_us=1_000, row_us=1_500, write_us=3_000, tail_us_min=2_000)
"""A tail of two records is worth a checkpoint, if it is one and a half times as long as there are runs."""


class Recommits:
    """Notes the partitions to commit again, and the tasks begun."""

    def __init__(self) -> None:
        self.asked: list[TopicPartition] = []
        self.tasks: list[asyncio.Task[None]] = []


async def manager(log: Log, *, topology: Topology = OLD, costs: Costs = CHEAP) -> tuple[CheckpointManager, Recommits]:
    calls = Recommits()
    made = CheckpointManager(
        log, topology, SystemClock(), recommit=calls.asked.append, watch=calls.tasks.append, costs=costs
    )
    await made.start()
    return made, calls


async def note_at(log: Log, until: int, *, rules: int = RULES) -> CommitNote:
    """A checkpoint of the first records, durable, as its note."""
    await TopologyStore(log, OLD, SystemClock()).keep()
    state = await folded(log, until=until)
    place = await CheckpointStore(log, OLD, SystemClock()).write(Snapshot(state), 0)
    return CommitNote(OLD.digest, until, (place,), rules)


def same(state: Partition, other: Partition) -> bool:
    return (state.runs, state.ended, state.offset) == (other.runs, other.ended, other.offset)


async def test_a_partition_that_comes_back_untouched_goes_on_with_the_state_it_had(log: Log) -> None:
    await requested(log, "r1", "r2")
    made, _ = await manager(log)
    state, _ = await made.restore(INBOX, None)
    await fold_on(log, made, state, 2)
    mine = Commit(2, made.metadata(INBOX, 2))
    made.committed(INBOX, mine)
    made.drop(INBOX)
    await log.trim(INBOX, 2)  # so that it could not be folded again
    again, start = await made.restore(INBOX, mine)
    assert again is state
    assert (start, made.metadata(INBOX, 2)) == (2, mine.metadata)


@pytest.mark.parametrize("touched", ["place", "note", "ahead"])
async def test_a_partition_that_another_process_owned_meanwhile_is_restored_again(log: Log, touched: str) -> None:
    await requested(log, "r1", "r2", "r3")
    made, _ = await manager(log)
    state, _ = await made.restore(INBOX, None)
    await fold_on(log, made, state, 3 if touched == "ahead" else 2)
    mine = Commit(2, made.metadata(INBOX, 2))
    made.committed(INBOX, mine)
    made.drop(INBOX)
    theirs = {"place": Commit(3, mine.metadata), "note": Commit(2, (await note_at(log, 1)).text()), "ahead": mine}
    again, _ = await made.restore(INBOX, theirs[touched])
    assert again is not state
    assert same(again, await folded(log, until=theirs[touched].offset))


async def test_the_state_of_a_revoked_partition_is_not_kept_without_limit(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mesh.runtime.checkpoint_manager.REVOKED_S_MAX", 0.0)
    made, _ = await manager(log)
    await made.restore(INBOX, None)
    made.committed(INBOX, Commit(0, made.metadata(INBOX, 0)))
    made.drop(INBOX)
    async with asyncio.timeout(20):
        while made._revoked:  # noqa: ASYNC110  # a timer of the event loop sets no event
            await asyncio.sleep(0)


# -------------------------------------------------------------------------------------------------------------- restore


async def test_a_group_that_never_committed_begins_at_the_first_record_with_nothing(log: Log) -> None:
    await requested(log, "r1", "r2")
    await log.trim(INBOX, 1)
    made, _ = await manager(log)
    state, start = await made.restore(INBOX, None)
    assert (list(state.runs), state.offset, start) == ([], 1, 1)
    assert read_note(made.metadata(INBOX, 1)) == CommitNote(OLD.digest, 1)


async def test_what_was_begun_without_a_checkpoint_is_folded_from_where_it_began(log: Log) -> None:
    await requested(log, "r1", "r2", "r3")
    made, _ = await manager(log)
    state, start = await made.restore(INBOX, Commit(2, CommitNote(OLD.digest, 0).text()))
    assert (list(state.runs), state.offset, start) == (["r1", "r2"], 2, 2)


async def test_a_checkpoint_and_the_tail_are_the_state_though_the_head_of_the_inbox_is_gone(log: Log) -> None:
    await requested(log, "r1", "r2", "r3", "r4")
    await append(log, cancel("r1"))
    whole = await folded(log, until=5)
    note = await note_at(log, 3)
    await log.trim(INBOX, 3)
    made, _ = await manager(log)
    state, start = await made.restore(INBOX, Commit(5, note.text()))
    assert same(state, whole)
    assert (start, read_note(made.metadata(INBOX, 5))) == (5, note)


async def test_an_idle_inbox_that_was_emptied_is_restored_from_the_checkpoint_alone(log: Log) -> None:
    await requested(log, "r1")
    whole = await folded(log)
    note = await note_at(log, 1)
    await log.trim(INBOX, 1)
    made, _ = await manager(log)
    state, start = await made.restore(INBOX, Commit(1, note.text()))
    assert same(state, whole)
    assert start == 1


async def test_a_restore_may_be_broken_off_anywhere_and_begun_again(log: Log) -> None:
    await requested(log, *(f"r{n}" for n in range(10)))
    whole = await folded(log)
    commit = Commit(10, (await note_at(log, 5)).text())
    made, _ = await manager(log, topology=NEW)  # so that it ends with writing a checkpoint
    broken_off = 0
    for turns in range(1_000):
        restoring = asyncio.ensure_future(made.restore(INBOX, commit))
        for _ in range(turns):
            await asyncio.sleep(0)
        if restoring.done():
            break
        restoring.cancel()
        await asyncio.wait([restoring])
        made.drop(INBOX)
        broken_off += 1
    state, start = await restoring
    assert same(state, whole)
    assert start == 10
    assert broken_off > 5


@pytest.mark.parametrize("metadata", ["", "written by another program", "gone", "beyond"])
async def test_without_its_checkpoint_a_whole_inbox_is_folded_and_that_is_said_loudly(
    log: Log, metadata: str, caplog: pytest.LogCaptureFixture
) -> None:
    await requested(log, "r1", "r2", "r3")
    whole = await folded(log, until=2)
    note = await note_at(log, 1)
    if metadata == "gone":
        await log.trim(CHECKPOINTS, 100)
    calls = {"gone": note.text(), "beyond": replace(note, offset=3).text()}
    made, _ = await manager(log)
    with caplog.at_level(logging.WARNING):
        state, start = await made.restore(INBOX, Commit(2, calls.get(metadata, metadata)))
    assert same(state, whole)
    assert start == 2
    assert "no checkpoint to begin from: the whole inbox is folded" in caplog.text
    stands = read_note(made.metadata(INBOX, 2))
    assert stands.checkpoint, "the next owner finds one again"
    assert stands.offset == 2


async def test_what_a_newer_version_has_decided_is_not_decided_again(log: Log) -> None:
    await requested(log, "r1", "r2", "r3")
    note = await note_at(log, 1)
    made, _ = await manager(log)
    with pytest.raises(NotRestorable, match="a newer version of the mesh worked here: the note is of version 9"):
        await made.restore(INBOX, Commit(2, note.text().replace('"v":2', '"v":9')))


async def test_without_its_checkpoint_and_with_the_head_of_the_inbox_gone_nothing_is_made_up(log: Log) -> None:
    await requested(log, "r1", "r2", "r3")
    note = await note_at(log, 1)
    await log.trim(CHECKPOINTS, 100)
    await log.trim(INBOX, 1)
    made, _ = await manager(log)
    with pytest.raises(NotRestorable, match=r"no checkpoint to begin from .*are gone.* first 1 records are removed"):
        await made.restore(INBOX, Commit(2, note.text()))
    with pytest.raises(NotRestorable, match=r"mesh\.inbox:0"):
        await made.restore(INBOX, Commit(2, ""))


async def test_a_tail_with_a_hole_is_no_tail(log: Log) -> None:
    await requested(log, "r1", "r2", "r3")
    note = await note_at(log, 1)
    await log.trim(INBOX, 2)
    made, _ = await manager(log)
    with pytest.raises(NotRestorable, match="it ends at offset 1, and the inbox begins at 2"):
        await made.restore(INBOX, Commit(3, note.text()))


async def test_records_that_were_removed_before_they_were_read_are_reported(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    await requested(log, "r1", "r2", "r3")
    note = await note_at(log, 1)
    await log.trim(INBOX, 2)
    made, _ = await manager(log)
    state, start = await made.restore(INBOX, Commit(1, note.text()))
    assert (list(state.runs), state.offset, start) == (["r1"], 2, 2)
    assert "records were removed before they were read" in caplog.text


async def test_a_group_sent_back_to_the_beginning_decides_everything_again(log: Log) -> None:
    await requested(log, "r1", "r2")
    await log.trim(INBOX, 1)
    made, _ = await manager(log)
    state, start = await made.restore(INBOX, Commit(1, ""))
    assert (list(state.runs), start) == ([], 1)


# ----------------------------------------------------------------------------------------------------------- boundaries


async def test_other_rules_never_fold_what_these_decided(log: Log) -> None:
    await requested(log, "r1", "r2")
    note = await note_at(log, 1, rules=RULES + 1)
    made, _ = await manager(log)
    with pytest.raises(NotRestorable, match=f"records 1 to 1 were decided by rules {RULES + 1}, these are {RULES}"):
        await made.restore(INBOX, Commit(2, note.text()))
    state, _ = await made.restore(INBOX, Commit(1, note.text()))
    assert list(state.runs) == ["r1"]
    stands = read_note(made.metadata(INBOX, 1))
    assert (stands.rules, stands.checkpoint == note.checkpoint) == (RULES, False)


async def test_a_topology_that_is_not_stored_stops_a_restore_that_needs_it(log: Log) -> None:
    await requested(log, "r1", "r2")
    note = replace(await note_at(log, 1), topology="f" * 16)
    made, _ = await manager(log)
    with pytest.raises(NotRestorable, match="topology ffffffffffffffff is not kept"):
        await made.restore(INBOX, Commit(2, note.text()))


# --------------------------------------------------------------------------------------------------------------- naming


async def test_a_checkpoint_is_named_only_by_a_place_that_has_reached_it(log: Log) -> None:
    await requested(log, "r1", "r2", "r3")
    made, calls = await manager(log, costs=CHEAP._replace(row_us=0, write_us=0))
    state, _ = await made.restore(INBOX, None)
    first = made.metadata(INBOX, 0)
    await fold_on(log, made, state, 3)
    await asyncio.wait(calls.tasks)
    assert calls.asked == [INBOX]
    assert [made.metadata(INBOX, place) for place in (0, 1)] == [first] * 2
    assert [read_note(made.metadata(INBOX, place)).offset for place in (2, 3)] == [2, 2]


async def test_what_a_stored_commit_names_stands_and_older_ones_are_trimmed(log: Log) -> None:
    await requested(log, "r1", "r2")
    note = await note_at(log, 1)
    made, calls = await manager(log)
    await made.restore(INBOX, Commit(2, note.text()))
    await made.prepare_release([INBOX], within_ms=60_000, last=True)
    made.committed(INBOX, Commit(2, note.text()))
    assert calls.tasks == [], "a commit that names the old one changes nothing"
    named = read_note(made.metadata(INBOX, 2))
    made.committed(INBOX, Commit(2, named.text()))
    await asyncio.wait(calls.tasks)
    assert (await log.bounds(OLD.checkpoints))[0].start == named.checkpoint[0].first


async def fold_on(log: Log, made: CheckpointManager, state: Partition, until: int) -> None:
    """Do what the orchestrator does with each record."""
    reader = log.reader({INBOX: state.offset})
    while state.offset < until:
        for record in await reader.poll(records_max=1, wait_ms=100):
            state.step(record)
            made.folded(INBOX)
    await reader.close()


async def test_a_checkpoint_is_written_when_the_tail_costs_more_than_the_state(log: Log) -> None:
    await requested(log, "r1", "r2")
    made, calls = await manager(log)
    state, _ = await made.restore(INBOX, None)
    await fold_on(log, made, state, 2)
    assert calls.tasks == [], "two runs cost as much to load as three records to fold"
    await append(log, cancel("r1"))
    await fold_on(log, made, state, 3)
    assert len(calls.tasks) == 1, "one is open, one is remembered: three records"
    await asyncio.wait(calls.tasks)
    assert read_note(made.metadata(INBOX, 3)).offset == 3
    await append(log, cancel("r1"))
    await fold_on(log, made, state, 4)
    assert len(calls.tasks) == 1, "the tail begins anew"


async def test_a_tail_that_was_long_at_the_restore_is_shortened_soon(log: Log) -> None:
    await requested(log, "r1", "r2", "r3")
    made, calls = await manager(log, costs=CHEAP._replace(row_us=0, write_us=0, tail_us_min=3_000))
    state, _ = await made.restore(INBOX, Commit(2, CommitNote(OLD.digest, 0).text()))
    await fold_on(log, made, state, 3)
    await asyncio.wait(calls.tasks)
    assert read_note(made.metadata(INBOX, 3)).offset == 3


async def test_a_checkpoint_that_cannot_be_written_is_reported_and_nothing_else_happens(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    await requested(log, "r1", "r2")
    made, calls = await manager(log, costs=CHEAP._replace(row_us=0, write_us=0))
    made._checkpoints._topic = "nosuch"
    state, _ = await made.restore(INBOX, None)
    await fold_on(log, made, state, 2)
    await asyncio.wait(calls.tasks)
    assert "no checkpoint could be written" in caplog.text
    assert (calls.asked, read_note(made.metadata(INBOX, 2))) == ([], CommitNote(OLD.digest, 0))


# ------------------------------------------------------------------------------------------------------- the last words


async def test_the_last_words_are_a_checkpoint_of_the_last_record(log: Log) -> None:
    await requested(log, "r1")
    made, calls = await manager(log)
    state, _ = await made.restore(INBOX, None)
    await fold_on(log, made, state, 1)
    await made.prepare_release([INBOX], within_ms=60_000, last=True)
    assert read_note(made.metadata(INBOX, 1)).offset == 1
    assert calls.asked == [INBOX]
    await made.prepare_release([INBOX], within_ms=60_000, last=True)
    assert calls.asked == [INBOX], "it is there already"


async def test_a_partition_that_only_moves_is_written_where_that_saves_the_next_owner_time(log: Log) -> None:
    await requested(log, "r1", "r2")
    for costs, written in ((CHEAP, False), (CHEAP._replace(row_us=0, write_us=0), True), (Costs(), False)):
        made, _ = await manager(log, costs=costs._replace(tail_us_min=max(costs.tail_us_min, 8_000)))
        state, _ = await made.restore(INBOX, None)
        await fold_on(log, made, state, 2)
        await made.prepare_release([INBOX], within_ms=60_000, last=False)
        assert (read_note(made.metadata(INBOX, 2)).checkpoint != ()) is written


async def test_the_last_words_are_cut_short_at_the_deadline(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    await requested(log, "r1")
    made, _ = await manager(log)
    await made.restore(INBOX, Commit(1, CommitNote(OLD.digest, 0).text()))
    await made.prepare_release([INBOX], within_ms=0, last=True)
    assert "no checkpoint was written before the end" in caplog.text
    assert read_note(made.metadata(INBOX, 1)) == CommitNote(OLD.digest, 0)


async def test_a_partition_that_was_lost_is_not_written_any_further(log: Log) -> None:
    await requested(log, "r1", "r2")
    made, calls = await manager(log, costs=CHEAP._replace(row_us=0, write_us=0))
    state, _ = await made.restore(INBOX, None)
    await fold_on(log, made, state, 2)
    made.drop(INBOX)
    (writing,) = calls.tasks
    await asyncio.wait([writing])
    assert writing.cancelled()
    assert calls.asked == []
    made.committed(INBOX, Commit(2, "whatever"))
    await made.prepare_release([INBOX], within_ms=100, last=True)
    await made.close()
