"""Each invariant is violated on purpose and found; what only looks like a violation is not."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest

from mesh.core.protocol.codec import event_headers
from mesh.core.protocol.event import CANCELLED, NO_USAGE, Fault
from mesh.core.protocol.record import NewRecord, StoredRecord, TopicPartition
from mesh.core.publishing.effect_records import dead_letter
from mesh.core.publishing.replacement_records import replacement_of
from mesh.core.run.dead_letter import dead_record
from mesh.core.state.partition_state import RULES
from mesh.core.task.result import failure_event
from mesh.core.verification.verifier import published_topics
from tests.builders import AT_MS, event
from tests.core.lived import (
    DEAD,
    INBOX,
    MESH,
    OUT,
    OUTCOMES,
    PLAN,
    SHIP,
    Lived,
    answered,
    as_new,
    gone_wrong,
    good,
    last_effects,
    live,
    open_run,
    published,
    rejected_request,
    requests,
    task_in,
)
from tests.core.world import World
from tests.log_check import REFUSED, Submission

# ------------------------------------------------------------------------------------------------------- what is well


@pytest.mark.parametrize("lived", [good, gone_wrong])
def test_a_log_that_says_what_was_decided_is_well(lived: Callable[[], Lived]) -> None:
    report = lived().check()
    assert report.violations == []
    assert report.good
    assert report.open == 0
    assert {"I2", "I3", "I4", "I5", "I6"} <= set(report.checked)


def test_a_run_that_ended_under_other_rules_is_not_decided_again() -> None:
    lived = good()
    old = orjson.loads(lived.records[OUTCOMES][0].value or b"")
    del old["rules"], old["unrouted"]  # as rules 1 wrote it
    lived.change(OUTCOMES, 0, value=orjson.dumps(old))
    report = lived.check()
    assert report.violations == []
    assert report.unchecked["runs that ended under other rules"] == 1
    old["rules"] = RULES
    lived.change(OUTCOMES, 0, value=orjson.dumps(old))
    assert lived.found()


def test_the_report_says_how_much_was_looked_at() -> None:
    report = good().check()
    assert report.records == {INBOX.topic: 9, PLAN: 3, SHIP: 3, OUT: 3, OUTCOMES: 3}
    assert (report.runs, report.endings, report.copies) == (3, {"completed": 3}, 0)
    assert report.checked["I6"] == 12
    assert not report.unchecked


@pytest.mark.parametrize("seed", range(40))
def test_random_meshes_are_well_however_often_their_records_come(seed: int) -> None:
    world = World(seed)
    world.live()
    lived = Lived(world.topology)
    for record, effects in zip(world.inbox, world.effects, strict=True):
        lived.records.setdefault(INBOX.topic, []).append(record)
        for _ in range(world.random.choice([1, 1, 2])):
            for effect in effects:
                new = published(effect, lived)
                if new is not None:
                    lived.append(new, record.timestamp)
    report = lived.check()
    assert {violation.got for violation in report.violations} <= {"boom"}, "a reason that only this world's agents give"
    assert report.checked["I6"]


def test_published_topics_are_all_on_which_the_orchestrator_writes() -> None:
    assert set(published_topics(MESH)) == {DEAD, OUTCOMES, PLAN, SHIP, OUT}


# --------------------------------------------------------------------------------------------- each invariant, violated


def lose(topic: str, n: int = 0) -> Callable[[Lived], None]:
    return lambda lived: lived.records[topic].pop(n) and None


def change(topic: str, n: int = 0, **changes: Any) -> Callable[[Lived], None]:
    return lambda lived: lived.change(topic, n, **changes)


def repeat(topic: str, n: int = 0, **changes: Any) -> Callable[[Lived], None]:
    return lambda lived: lived.repeat(topic, n, **changes)


def forge(topic: str, **headers: bytes) -> Callable[[Lived], None]:
    """Append a record that follows from no decision."""
    return repeat(topic, headers={"ce_id": b"forged:1", **headers})


def commit(offset: int) -> Callable[[Lived], None]:
    return lambda lived: (lived.committed or {}).update({INBOX: offset})


def swap(lived: Lived) -> None:
    """Two tasks of one run lie in the other order."""
    first, second = lived.records[PLAN][:2]
    lived.records[PLAN][:2] = [second._replace(offset=0), first._replace(offset=1)]


def two_requests() -> Lived:
    again = event(id="r1b", run_id="run-0", data=b'{"n":7}')
    return live(MESH, [*requests(1), again])


VIOLATED: dict[str, tuple[Callable[[Lived], Any], list[str]]] = {
    "an outcome is missing": (lose(OUTCOMES), ["I1", "I7"]),
    "a submission is not on the inbox": (lambda lived: lived.ledger.append(Submission("run-9", "r9")), ["I1"]),
    "a run ended twice": (forge(OUTCOMES), ["I2"]),
    "a run ended twice under the same id": (repeat(OUTCOMES, value=b"{}"), ["I2"]),
    "a run without a request ended": (forge(OUTCOMES, ce_correlationid=b"run-9"), ["I2"]),
    "a copy of a task differs": (repeat(PLAN, value=b'{"n":9}'), ["I3"]),
    "a copy differs in a header": (repeat(SHIP, headers={"ce_subject": b"x"}), ["I3"]),
    "a copy has another key": (repeat(PLAN, key=b"other"), ["I3"]),
    "a copy lies in another partition": (repeat(PLAN, partition=3), ["I3"]),
    "a task claims another depth": (change(SHIP, headers={"ce_meshdepth": b"1"}), ["I4", "I6"]),
    "a task claims another path": (change(SHIP, headers={"ce_meshpath": b"ship"}), ["I4", "I6"]),
    "a task lies too deep": (
        forge(SHIP, ce_meshdepth=b"17", ce_meshpath=b",".join([b"plan"] * 16 + [b"ship"])),
        ["I4", "I6"],
    ),
    "a task was never published": (lose(SHIP, -1), ["I7"]),
    "an event never left": (lose(OUT), ["I7"]),
    "a task differs": (change(PLAN, value=b'{"n":9}'), ["I6"]),
    "an event that left differs": (change(OUT, 2, value=b"9"), ["I6"]),
    "an outcome differs": (change(OUTCOMES, 1, value=b"{}"), ["I6", "I1"]),
    "an event left that follows from no decision": (forge(OUT), ["I6"]),
    "a commit lies beyond the end": (commit(99), ["I7"]),
    "a commit went back": (lambda lived: lived.commits.extend([(INBOX, 5), (INBOX, 6), (INBOX, 5)]), ["I7"]),
    "a run is still open": (open_run, ["I1", "I11"]),
    "the last records were not decided": (commit(8), ["I11"]),
    "a refused submission happened": (lambda lived: lived.ledger.append(Submission("run-1", "r1", REFUSED)), ["I14"]),
}


@pytest.mark.parametrize("name", VIOLATED)
def test_what_is_violated_is_found(name: str) -> None:
    spoil, invariants = VIOLATED[name]
    lived = good()
    spoil(lived)
    assert lived.found() == sorted(invariants), lived.check().violations


CORRUPTED: dict[str, Callable[[Lived, str, int], Any]] = {
    "lost": lambda lived, topic, n: lived.records[topic].pop(n),
    "another value": lambda lived, topic, n: lived.change(topic, n, value=b"null"),
    "no value": lambda lived, topic, n: lived.change(topic, n, value=None),
    "another key": lambda lived, topic, n: lived.change(topic, n, key=b"other"),
    "a header more": lambda lived, topic, n: lived.change(topic, n, headers={"x": b"y"}),
    "another id": lambda lived, topic, n: lived.change(topic, n, headers={"ce_id": b"z", "mesh-dlq-id": b"z"}),
}


@pytest.mark.parametrize("how", CORRUPTED)
@pytest.mark.parametrize("make", [good, gone_wrong])
def test_whatever_is_corrupted_wherever_is_found(make: Callable[[], Lived], how: str) -> None:
    places = [(topic, n) for topic in published_topics(MESH) for n in range(len(make().records.get(topic, ())))]
    assert len(places) >= 9
    for topic, n in places:
        lived = make()
        CORRUPTED[how](lived, topic, n)
        assert lived.found(), f"{topic} {n}"


@pytest.mark.parametrize("make", [good, gone_wrong])
def test_an_inbox_that_lost_a_record_is_not_that_which_was_decided(make: Callable[[], Lived]) -> None:
    for n in range(len(make().records[INBOX.topic])):
        lived = make()
        lived.records[INBOX.topic].pop(n)
        assert lived.found(), n


def test_without_commits_what_is_missing_differs_from_what_was_decided() -> None:
    lived = good()
    lived.committed = None
    lived.records[SHIP].pop()
    assert lived.found() == ["I6"]


def test_records_of_one_run_in_the_wrong_order_are_found() -> None:
    lived = two_requests()
    assert lived.found() == []
    swap(lived)
    (violation,) = lived.check().violations
    assert violation.invariant == "I9"
    assert violation.where == f"{PLAN}:0:0"


def test_a_batch_that_was_repeated_from_its_beginning_is_in_order() -> None:
    lived = two_requests()
    lived.records[PLAN] *= 2
    lived.records[PLAN] = [record._replace(offset=n) for n, record in enumerate(lived.records[PLAN])]
    report = lived.check()
    assert report.good
    assert report.copies == 2


def test_a_divergence_shows_both_sides() -> None:
    lived = good()
    lived.change(PLAN, 1, value=b'{"n":9}')
    (violation,) = lived.check().violations
    assert violation.invariant == "I6"
    assert violation.where == f"{INBOX.topic}:0:1"
    assert violation.run_id == "run-1"
    assert violation.record is not None
    assert violation.record.value == b'{"n":1}'
    assert violation.published == f"{PLAN}:0:1"


# --------------------------------------------------------------------------------------------------- tasks and answers


def test_a_place_that_passed_an_unanswered_task_is_found_though_its_run_ended() -> None:
    lived = live(MESH, [*requests(1)])
    forged = lived.records[INBOX.topic].pop()  # the answer of ship
    lived.records[OUTCOMES].clear()
    lived.records[OUT].clear()
    stopped = event(CANCELLED, id="c1", run_id="run-0")
    stored = lived.append(NewRecord(INBOX.topic, b"run-0", stopped.data, event_headers(stopped)), forged.timestamp)
    for effect in last_effects(lived):
        lived.append(effect, stored.timestamp)
    assert lived.found() == []
    lived.commits.append((TopicPartition(SHIP, 0), 1))
    (violation,) = lived.check().violations
    assert (violation.invariant, violation.where) == ("I7", f"{SHIP}:0:0")


def test_a_task_that_cannot_be_read_is_answered_by_its_dead_letter() -> None:
    lived = good()
    forged = lived.records[PLAN][0]
    lived.append(NewRecord(PLAN, forged.key, forged.value, (*forged.headers[:1], ("ce_id", b"x"))), forged.timestamp)
    letter = dead_letter(dead_record(lived.records[PLAN][-1], "missing_header", "it has no type"), MESH)
    lived.append(letter, forged.timestamp)
    lived.committed = {**(lived.committed or {}), TopicPartition(PLAN, 0): 4}
    report = lived.check()
    assert report.good
    assert report.unchecked == {f"not an event, on {PLAN}": 1}


# ------------------------------------------------------------------------------------------------------- dead letters


@pytest.mark.parametrize(
    ("headers", "invariants"),
    [
        ({"mesh-dlq-reason": b"because"}, ["I6", "I8"]),
        ({"mesh-dlq-reason": b"duplicate_request"}, ["I6", "I8"]),
        ({"mesh-dlq-id": None}, ["I6", "I6", "I8"]),
        ({"__dlq.errors.message": None}, ["I6", "I8"]),
    ],
)
def test_a_dead_letter_without_a_known_reason_is_found(headers: dict[str, Any], invariants: list[str]) -> None:
    lived = gone_wrong()
    lived.change(DEAD, 0, headers=headers)
    assert lived.found() == invariants


def test_a_second_dead_letter_that_differs_is_found() -> None:
    lived = gone_wrong()
    lived.repeat(DEAD, 0)
    assert lived.found() == []
    lived.repeat(DEAD, 0, value=b"other")
    assert lived.found() == ["I8"]


def test_a_dead_letter_holds_the_bytes_of_the_record_it_points_at() -> None:
    lived = rejected_request()
    report = lived.check()
    assert report.good
    assert report.checked["I8"] == 2
    for changes in ({"value": b"other"}, {"key": None}, {"headers": {"x": b"z"}}):
        lived = rejected_request()
        lived.change(DEAD, -1, **changes)
        assert lived.found() == ["I8"]


def test_a_dead_letter_whose_record_is_gone_is_counted_as_unchecked() -> None:
    lived = rejected_request()
    del lived.records["in.ask"]
    report = lived.check()
    assert report.good
    assert report.unchecked == {"records that dead letters point at": 1}


def test_what_the_log_refused_is_known_by_what_stands_for_it() -> None:
    lived = good()
    (task, event_out, outcome) = (lived.records[topic][0] for topic in (SHIP, OUT, OUTCOMES))
    lived.records[OUTCOMES][0] = stands_for(outcome)
    lived.records[OUT].pop(0)
    lived.append(replacement_of(as_new(event_out), "too_large", "at most 10", MESH), AT_MS)
    assert lived.found() == []
    lived.change(OUTCOMES, 0, value=(lived.records[OUTCOMES][0].value or b"").replace(b"completed", b"cancelled"))
    assert lived.found() == ["I1", "I6"]
    assert task_in(task).agent == "ship"


def test_a_refused_task_is_known_by_its_failure() -> None:
    def answer(task: Any) -> Any:
        if task.agent == "ship":
            fault = Fault("refused_too_large", "the log refused it", retryable=False)
            return replace(failure_event(task, fault, NO_USAGE), data=b"null", cause_id=task.cause_id, origin="")
        return answered(task)

    lived = live(MESH, requests(1), answer)
    lived.records[SHIP].clear()
    assert lived.found() == []
    lived.records[DEAD][0] = stands_for(lived.records[DEAD][0])
    assert lived.found() == []


def stands_for(record: StoredRecord) -> StoredRecord:
    new = replacement_of(as_new(record), "too_large", "at most 10", MESH)
    return record._replace(key=new.key, value=new.value, headers=tuple(new.headers))
