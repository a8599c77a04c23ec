"""A check of a mesh that is alive, of a log whose head is gone, and how a check is made."""

from dataclasses import replace
from typing import Any

import pytest

from mesh.core.ingress.admission import REJECTED_TYPE
from mesh.core.protocol.codec import event_headers
from mesh.core.protocol.partitioner import partition_of
from mesh.core.protocol.record import NewRecord, StoredRecord, TopicPartition
from mesh.core.publishing.effect_records import dead_letter
from mesh.core.run.dead_letter import dead_record
from mesh.core.state.partition_state import ENDED_OFFSETS_MAX, Partition
from mesh.core.state.topology_registry import Registry
from mesh.core.topology.model import Limits
from mesh.core.verification.replay_check import CheckScope
from mesh.core.verification.verifier import Verifier, published_topics
from tests.builders import AT_MS, event
from tests.core.lived import (
    INBOX,
    MESH,
    OUT,
    OUTCOMES,
    PLAN,
    SHIP,
    Lived,
    as_new,
    good,
    last_effects,
    live,
    open_run,
    rejected_request,
    requests,
)
from tests.log_check import REFUSED, UNKNOWN, Submission, check

# ------------------------------------------------------------------------------------------------ a mesh that is alive


def test_what_is_not_committed_need_not_be_published_yet() -> None:
    lived = good()
    lived.quiescent = False
    lived.committed = {INBOX: 6}
    for topic in (OUTCOMES, OUT):
        lived.records[topic].clear()
    report = lived.check()
    assert report.found == {}
    assert report.unchecked["decided, but not committed yet"] == 6


def test_a_submission_whose_run_is_open_is_neither_lost_nor_ended() -> None:
    lived = good()
    open_run(lived)
    lived.quiescent = False
    report = lived.check()
    assert report.good
    assert report.open == 1
    assert report.unchecked == {"submissions whose run is still open": 1}


@pytest.mark.parametrize("entry", [Submission("run-9", "r9", UNKNOWN), Submission("run-9", "r9", REFUSED)])
def test_a_submission_without_an_answer_may_have_happened_or_not(entry: Submission) -> None:
    lived = good()
    lived.ledger.append(entry)
    assert lived.found() == []


def test_a_rejected_submission_is_explained() -> None:
    lived = good()
    lived.ledger.append(Submission("run-9", "r9"))
    said = event("outcome", id="x", type=REJECTED_TYPE, run_id="run-9", data=b"{}")
    lived.append(NewRecord(OUTCOMES, b"run-9", said.data, event_headers(said)), AT_MS)
    assert lived.found() == []
    placed = rejected_request()
    placed.ledger.append(Submission("", place="in.ask:0:5"))
    assert placed.found() == []
    placed.ledger.append(Submission("", place="in.ask:0:6"))
    assert placed.found() == ["I1"]


def test_a_request_that_came_too_late_is_explained_by_its_dead_letter() -> None:
    lived = good()
    late = event(id="r-late", run_id="run-0", data=b"{}")
    lived.append(NewRecord(INBOX.topic, b"run-0", late.data, event_headers(late)), AT_MS + 100)
    for new in last_effects(lived):
        lived.append(new, AT_MS + 100)
    lived.committed = None
    lived.ledger.append(Submission("run-0", "r-late"))
    assert lived.found() == []


# ----------------------------------------------------------------------------------------------- a head that is gone


def trimmed(records: int) -> Lived:
    """Runs far apart in time, and an inbox without its first records."""
    lived = Lived(MESH)
    for n in range(4):
        request = event(id=f"r{n}", run_id=f"run-{n}", at_ms=AT_MS)
        one = live(MESH, [request], at_ms=AT_MS + n * 100_000)
        for stored in one.records.values():
            for record in stored:
                lived.append(as_new(record), record.timestamp)
    lived.records[INBOX.topic] = lived.records[INBOX.topic][records:]
    lived.heads = {TopicPartition(topic, 0): 0 for topic in lived.records}
    lived.heads[INBOX] = records
    return lived


@pytest.mark.parametrize("records", range(9))
def test_runs_that_began_before_the_head_of_the_inbox_are_not_judged(records: int) -> None:
    report = trimmed(records).check()
    assert report.violations == []
    assert bool(report.unchecked) == (records > 0)


def test_runs_after_a_lost_head_are_judged_all_the_same() -> None:
    lived = trimmed(2)
    lived.change(SHIP, 3, value=b"9")
    assert lived.found() == ["I6"]
    lived = trimmed(2)
    lived.repeat(SHIP, 3, headers={"ce_id": b"forged:1"})
    assert lived.found() == ["I6"]


def test_an_inbox_of_which_nothing_is_left_says_nothing() -> None:
    lived = trimmed(12)
    report = lived.check()
    assert report.good
    assert report.unchecked["published by runs that began before the head of the inbox"] == 16


def test_what_a_topic_has_lost_is_not_missing() -> None:
    lived = good()
    lived.heads = {TopicPartition(topic, 0): 0 for topic in lived.records}
    lived.heads[TopicPartition(SHIP, 0)] = 2
    lived.records[SHIP] = lived.records[SHIP][2:]
    report = lived.check()
    assert report.good
    assert report.unchecked == {f"records of {SHIP}, whose head was removed": 2}


def test_a_check_may_begin_with_a_restored_state() -> None:
    lived = good()
    inbox = lived.records[INBOX.topic]

    def restored(number: int) -> Any:
        state = lived.fresh(number)
        for record in inbox[:4]:
            state.step(record)
        return state

    verifier = Verifier(CheckScope(MESH, states=restored, heads={INBOX: 4}))
    for topic in published_topics(MESH):
        for record in lived.records.get(topic, ()):
            verifier.take_published(record)
    for record in inbox[4:]:
        verifier.take_inbox(record)
    report = verifier.report()
    assert report.violations == []
    assert report.endings == {"completed": 3}


# --------------------------------------------------------------------------------------------------- how it is called


def test_published_records_come_before_those_of_the_inbox() -> None:
    lived = good()
    verifier = Verifier(CheckScope(MESH, states=lived.fresh))
    verifier.take_inbox(lived.records[INBOX.topic][0])
    with pytest.raises(ValueError, match="before"):
        verifier.take_published(lived.records[PLAN][0])


def test_records_of_the_inbox_come_in_order() -> None:
    lived = good()
    verifier = Verifier(CheckScope(MESH, states=lived.fresh))
    verifier.take_inbox(lived.records[INBOX.topic][1])
    with pytest.raises(ValueError, match="after offset 1"):
        verifier.take_inbox(lived.records[INBOX.topic][0])


def test_a_request_repeated_after_the_memory_has_passed_is_a_run_of_its_own() -> None:
    first = live(MESH, requests(1))
    again = live(MESH, requests(1), at_ms=AT_MS + 10**6)
    for stored in again.records.values():
        for record in stored:
            first.append(as_new(record), record.timestamp)
    far = ENDED_OFFSETS_MAX + 10
    other = live(MESH, [event(id="z", run_id="run-z")], at_ms=AT_MS + 10**5)
    inbox = first.records[INBOX.topic]
    between = [r._replace(offset=far + n) for n, r in enumerate(other.records[INBOX.topic])]
    first.records[INBOX.topic] = [
        *inbox[:3],
        *between,
        *(record._replace(offset=far + 10 + n) for n, record in enumerate(inbox[3:])),
    ]
    for topic in (PLAN, SHIP, OUT, OUTCOMES):
        for record in other.records[topic]:
            first.append(as_new(record), record.timestamp)
    report = first.check()
    assert report.violations == []
    assert report.endings == {"completed": 3}


def test_a_log_without_records_is_well() -> None:
    report = check(MESH, {})
    assert report.good
    assert not report.records


# ------------------------------------------------------------------------------------------------------- what came in


def came_in(lived: Lived, committed: int) -> list[str]:
    """Return the violations for these records of an ingress topic: a request, a rejected one, and one that was lost."""
    request = event(id="r9", run_id="run-9", origin="in.ask:0:0")
    lived.append(NewRecord(INBOX.topic, b"run-9", request.data, event_headers(request)), AT_MS + 50)
    for new in last_effects(lived):
        lived.append(new, AT_MS + 50)
    letter = dead_record(StoredRecord("in.ask", 0, 1, AT_MS, None, b"x", ()), "unparseable", "no JSON")
    lived.append(dead_letter(letter, MESH), AT_MS)
    verifier = Verifier(
        CheckScope(MESH, states=lived.fresh, committed={TopicPartition("in.ask", 0): committed, INBOX: 99})
    )
    for topic in published_topics(MESH):
        for record in lived.records.get(topic, ()):
            verifier.take_published(record)
    for offset in range(3):
        verifier.take_ingress(StoredRecord("in.ask", 0, offset, AT_MS, None, b"x", ()))
    for record in lived.records[INBOX.topic]:
        verifier.take_inbox(record)
    return [v.where for v in verifier.report().violations if v.where.startswith("in.")]


def test_what_came_in_is_a_request_or_a_dead_letter_or_lost() -> None:
    assert came_in(good(), 3) == ["in.ask:0:2"]
    assert came_in(good(), 2) == []


# ----------------------------------------------------------------------------------------------------- older topologies

OLD = replace(MESH, digest="a" * 16, limits=Limits(usd_micros_max=100_000, deadline_ms=5_000))


def changed() -> Lived:
    """Two runs under an older topology with another deadline, and one under today's."""
    lived = Lived(MESH)
    for n, known in enumerate((OLD, OLD, MESH)):
        one = live(known, [event(id=f"r{n}", run_id=f"run-{n}")], at_ms=AT_MS + n * 1_000)
        for stored in one.records.values():
            for record in stored:
                lived.append(as_new(record), record.timestamp)
    return lived


def test_runs_opened_under_another_topology_diverge_from_todays() -> None:
    assert set(changed().found()) == {"I6"}


@pytest.mark.parametrize("until_ms", [AT_MS + 1_500, AT_MS - 1, AT_MS + 10**9], ids=["right", "too early", "too late"])
def test_each_run_is_decided_under_the_topology_that_explains_it(until_ms: int) -> None:
    lived = changed()
    kept = Registry(INBOX.topic)
    kept.topologies, kept.since_ms = {OLD.digest: OLD, MESH.digest: MESH}, {OLD.digest: 0, MESH.digest: until_ms}
    kept.current = dict.fromkeys(range(MESH.inbox_partitions), MESH.digest)  # an older version of the mesh changed it
    verifier = Verifier(CheckScope(MESH, kept=kept))
    for topic in published_topics(MESH, OLD):
        for record in lived.records.get(topic, ()):
            verifier.take_published(record)
    for record in lived.records[INBOX.topic]:
        home = partition_of(record.key or b"", MESH.inbox_partitions)
        verifier.take_inbox(record._replace(partition=home))
    report = verifier.report()
    assert report.violations == []
    assert report.endings == {"completed": 3}


# ---------------------------------------------------------------------------------------------------------- checkpoints


def as_of(lived: Lived, offset: int) -> Partition:
    """The state of the one partition of the inbox, as a checkpoint would hold it."""
    state = lived.fresh(INBOX.partition)
    for record in lived.records[INBOX.topic][:offset]:
        state.step(record)
    return state


@pytest.mark.parametrize("offset", [1, 5, len(good().records[INBOX.topic])])
def test_a_checkpoint_is_compared_with_what_the_inbox_gives(offset: int) -> None:
    lived = good()
    report = check(MESH, lived.records, states=lived.fresh, checkpoints={INBOX.partition: as_of(lived, offset)})
    assert report.violations == []
    assert report.checked["I13"] == 1
    other = as_of(lived, offset)
    for table in (other.runs, other.ended):
        for id in list(table.rows())[:1]:
            table.discard(id)
    (violation,) = check(MESH, lived.records, states=lived.fresh, checkpoints={INBOX.partition: other}).violations
    assert violation.invariant == "I13"
    assert f"as of offset {offset} is not what the inbox gives: run " in violation.what
