"""A dead letter becomes the records that send it again, or an obstacle that says why not."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from mesh.core.dead_letters.letter import Letter, letter_of
from mesh.core.dead_letters.patch import parse_patch
from mesh.core.dead_letters.redrive_log import (
    DONE,
    DROPPED,
    PLANNED,
    REFUSED,
    SENT,
    LetterStatus,
    RedriveEntry,
    successor_ids,
)
from mesh.core.dead_letters.redrive_log import NEW as FRESH
from mesh.core.dead_letters.redrive_plan import (
    HOP,
    NEW,
    TASK,
    TOPIC,
    AlreadyDone,
    Obstacle,
    RedriveOptions,
    RunContext,
    Sending,
    Step,
    plan_redrive,
)
from mesh.core.ingress.admission import admit
from mesh.core.protocol.codec import read_event
from mesh.core.protocol.event import Event, Fault
from mesh.core.protocol.partitioner import partition_of
from mesh.core.protocol.record import NewRecord, StoredRecord
from mesh.core.publishing.effect_records import dead_letter
from mesh.core.run.dead_letter import dead_record, dead_request, give_up, refuse
from mesh.core.run.effects import DeadLetter
from mesh.core.run.lineage import Refusal
from mesh.core.run.state import Task, Trouble
from mesh.operations.dead_letters.redrive_journal import planned_entry
from tests.builders import RUN_ID, event, run, topology

MESH = topology(plan_redrive="ask -> plan.ready", write="plan.ready -> text")
AT_MS = 2_000
TASK_ID = "t" * 32


def lying(dead: DeadLetter) -> Letter:
    record = dead_letter(dead, MESH)
    return letter_of(StoredRecord("mesh.dead", 0, 5, 1_000, record.key, record.value, record.headers))


def failed(agent: str = "write", type: str = "plan.ready", data: bytes = b'{"n":1}') -> Letter:
    task = Task(TASK_ID, agent, 2, ("plan", agent), (), "e7")
    told = event("failed", type=type, data=data, origin="mesh.tasks.write:0:3")
    return lying(give_up(run(), task, told, Fault("exception", "why")))


def refused(code: str, agent: str) -> Letter:
    refusal = Refusal(code, agent, ("plan",), 1, 2, f"{code}: no")
    return lying(refuse(run(), event(origin="in.ask:0:1"), refusal, "plan.ready", "application/json", b"{}"))


def rejected(value: bytes | None = b"{", code: str = "unparseable", **fields: Any) -> Letter:
    given: dict[str, Any] = {"topic": "in.ask", "partition": 2, "key": b"k", "headers": [("mine", b"1")]}
    given |= fields
    record = StoredRecord(offset=8, timestamp=900, value=value, **given)
    return lying(dead_record(record, code, "no"))


def step(
    letter: Letter, how: RedriveOptions | None = None, status: LetterStatus | None = None, heard: Sequence[Event] = ()
) -> Step:
    return plan_redrive(letter, status or LetterStatus(FRESH, 0), how or RedriveOptions(), MESH, heard, AT_MS)


def sending(*given: Any, **named: Any) -> Sending:
    found = step(*given, **named)
    assert isinstance(found, Sending), found
    return found


def obstacle(*given: Any, **named: Any) -> Obstacle:
    found = step(*given, **named)
    assert isinstance(found, Obstacle), found
    return found


def as_read(record: NewRecord, partition: int = 0) -> Event:
    found = read_event(StoredRecord(record.topic, partition, 0, 0, record.key, record.value, record.headers))
    assert isinstance(found, Event), found
    return found


def changed(text: str) -> RedriveOptions:
    return RedriveOptions(patches=(parse_patch(text),))


# --------------------------------------------------------------------------------------------------------------- tasks


def test_a_failed_task_goes_back_to_its_run_under_an_id_that_is_made_again() -> None:
    letter = failed()
    found = sending(letter)
    (record,) = found.records
    event = as_read(record)
    assert (found.way, found.topic, found.run_id, found.n, found.data) == (TASK, "mesh.inbox", RUN_ID, 1, None)
    assert found.partition == partition_of(RUN_ID.encode(), 6)
    assert (event.kind, event.id, event.run_id, record.key) == ("redriven", f"{letter.id}:r1", RUN_ID, b"run-1")
    assert (event.type, event.data, event.agent, event.task_id) == ("plan.ready", b'{"n":1}', "write", TASK_ID)
    assert (event.cause_id, event.origin) == (letter.id, "mesh.dead:0:5")
    assert dict(record.headers)["mesh-redrives"] == b"1"
    assert found.ids == (event.id,)
    assert sending(letter) == found


def test_a_refused_hop_goes_to_the_agent_that_would_have_got_it() -> None:
    for code in ("depth", "cycle", "visits", "budget_usd", "budget_tokens"):
        found = sending(refused(code, "write"))
        event = as_read(found.records[0])
        assert (found.way, event.kind, event.agent, event.task_id, event.type) == (
            *(HOP, "redriven", "write", ""),
            "plan.ready",
        )


def test_all_that_an_agent_answered_cannot_be_sent_to_it() -> None:
    for code in ("fanout", "tasks", "payload", "state", "undeclared_type", "bad_batch"):
        assert "all that 'write' answered" in obstacle(refused(code, "write")).message


def test_a_task_of_an_agent_that_is_gone_is_an_obstacle() -> None:
    assert "no agent 'unknown'" in obstacle(failed("unknown")).message


def test_a_payload_can_be_changed_but_not_beyond_the_limit() -> None:
    found = sending(failed(), changed("n=2"))
    assert (found.payload, found.data) == (b'{"n":2}', b'{"n":2}')
    assert sending(failed(), RedriveOptions(data=b"[]")).data == b"[]"
    limit = MESH.limits.payload_bytes_max
    assert f"at most {limit}" in obstacle(failed(), RedriveOptions(data=b" " * (limit + 1))).message
    assert sending(failed(data=b" " * (limit + 1))).payload is not None, "what it was before is not asked about"


def test_a_letter_without_its_bytes_says_where_they_are() -> None:
    headers = [*failed().record.headers, ("mesh-dlq-omitted", b"too large")]
    letter = letter_of(StoredRecord("mesh.dead", 0, 5, 0, None, None, headers))
    assert "it lies at mesh.tasks.write:0:3: too large" in obstacle(letter).message


# ------------------------------------------------------------------------------------------------------------- records


def test_a_rejected_record_goes_to_its_topic_again_once_it_would_be_taken() -> None:
    assert "intake would reject it again: unparseable" in obstacle(rejected()).message
    found = sending(rejected(), RedriveOptions(data=b'{"n":1}'))
    (record,) = found.records
    assert (found.way, record.topic, record.partition, record.key) == (TOPIC, "in.ask", 2, b"k")
    assert record.headers == [
        ("mine", b"1"),
        ("mesh-redrive", f"{rejected().id}:r1".encode()),
        ("mesh-redrives", b"1"),
    ]
    taken = admit(StoredRecord("in.ask", 2, 9, 0, record.key, record.value, record.headers), MESH)
    assert isinstance(taken, Event)
    assert taken.type == "ask"


def test_a_record_that_is_rejected_once_more_counts_on() -> None:
    headers = [("mesh-redrive", b"old:r1"), ("mesh-redrives", b"1"), ("mine", b"1")]
    letter = rejected(b"{}", headers=headers)
    found = sending(letter, status=LetterStatus(FRESH, 0, letter.redrives))
    assert found.records[0].headers == [
        ("mine", b"1"),
        ("mesh-redrive", f"{letter.id}:r1".encode()),
        ("mesh-redrives", b"2"),
    ]


def test_a_record_of_a_partition_that_is_no_more_goes_where_its_key_says() -> None:
    found = sending(rejected(b"{}", partition=77))
    assert found.partition == partition_of(b"k", 6)
    assert sending(rejected(b"{}", partition=77, key=None)).partition == 0


def test_a_record_of_a_foreign_topic_is_not_the_meshs_to_send() -> None:
    assert "orders is no ingress topic" in obstacle(rejected(b"{}", topic="orders")).message
    plain = letter_of(StoredRecord("some.dlq", 0, 1, 0, None, b"{}", ()))
    assert "original topic is unknown" in obstacle(plain).message


def test_a_letter_of_another_system_goes_to_the_ingress_topic_whence_it_came() -> None:
    headers = [("kafka_dlt-original-topic", b"in.ask"), ("kafka_dlt-original-partition", b"\0\0\0\1"), ("a", b"1")]
    found = sending(letter_of(StoredRecord("ask.DLT", 0, 1, 0, b"k", b"{}", headers)))
    assert (found.topic, found.partition, found.records[0].headers[0]) == ("in.ask", 1, ("a", b"1"))
    assert not any(name.startswith("kafka_dlt") for name, _ in found.records[0].headers)


# ---------------------------------------------------------------------------------------------------------------- anew


def test_a_run_begins_again_from_its_request() -> None:
    heard = event(data=b'{"why":1}', subject="s", expiry_ms=5)
    letter = failed()
    found = sending(letter, RedriveOptions(as_new=True), heard=[heard])
    request = as_read(found.records[0])
    assert (found.way, request.kind, request.id, request.type) == (NEW, "requested", f"{letter.id}:r1", "ask")
    assert (request.data, request.subject, request.expiry_ms, request.cause_id) == (b'{"why":1}', "s", None, "r1")
    assert found.run_id == request.run_id != RUN_ID
    assert len(found.run_id) == 24
    other = sending(letter, RedriveOptions(as_new=True, again=True), LetterStatus(SENT, 1), [heard])
    assert other.run_id != found.run_id, "each time another run"


def test_all_requests_of_a_run_are_consumed_by_the_new_one() -> None:
    heard = [event(id="r1"), event(id="r2")]
    found = sending(failed(), RedriveOptions(as_new=True), heard=heard)
    assert found.ids == (f"{failed().id}:r1", f"{failed().id}:r1.1")
    assert {as_read(record).run_id for record in found.records} == {found.run_id}
    assert "2 requests" in obstacle(failed(), RedriveOptions(as_new=True, data=b"{}"), heard=heard).message


def test_changes_of_a_run_that_begins_again_are_for_its_request() -> None:
    how = changed("n=2")._replace(as_new=True)
    assert sending(failed(), how, heard=[event(data=b'{"why":1}')]).data == b'{"why":1,"n":2}'
    how = RedriveOptions(as_new=True, data=b"[]")
    assert sending(failed(), how, heard=[event(data=b"{}")]).payload == b"[]"


def test_without_its_request_only_what_an_ingress_topic_takes_begins_a_run() -> None:
    assert "no longer on the log" in obstacle(failed(), RedriveOptions(as_new=True)).message
    assert as_read(sending(failed("plan", "ask"), RedriveOptions(as_new=True)).records[0]).type == "ask"


def test_a_request_that_its_run_could_not_consume_begins_another_run() -> None:
    late = lying(dead_request(event(data=b'{"n":1}', subject="s"), "already_terminal", "it had ended"))
    assert "--as-new" in obstacle(late).remedy
    request = as_read(sending(late, RedriveOptions(as_new=True), heard=[event()]).records[0])
    assert (request.data, request.subject, request.kind) == (b'{"n":1}', "s", "requested")
    nothing = lying(dead_request(event(type="odd"), "already_terminal", "it had ended"))
    assert "no longer on the log" in obstacle(nothing, RedriveOptions(as_new=True)).message


def test_a_rejected_record_may_begin_a_run_of_its_own() -> None:
    assert "intake would reject" in obstacle(rejected(), RedriveOptions(as_new=True)).message
    request = as_read(sending(rejected(), RedriveOptions(as_new=True, data=b'{"n":1}')).records[0])
    assert (request.type, request.data) == ("ask", b'{"n":1}')
    assert "no payload" in obstacle(rejected(None, "empty_value"), RedriveOptions(as_new=True)).message


def test_a_redrive_that_its_run_did_not_remember_begins_again() -> None:
    gone = lying(dead_request(event("redriven", id="d0:r1", task_id="t", agent="plan"), "unknown_run", "gone"))
    assert "--as-new" in obstacle(gone).remedy
    assert sending(gone, RedriveOptions(as_new=True), heard=[event(data=b"[1]")]).payload == b"[1]"


# ----------------------------------------------------------------------------------------------------------- statuses


def entry(state: str, **fields: Any) -> RedriveEntry:
    return RedriveEntry(failed().id, 1, state, "ann", 0, **{"way": TASK, **fields})


@pytest.mark.parametrize("state", [SENT, DONE, DROPPED])
def test_what_is_done_is_done_unless_it_is_wanted_again(state: str) -> None:
    status = LetterStatus(state, 1, 0, entry(state))
    assert isinstance(step(failed(), status=status), AlreadyDone)
    assert sending(failed(), RedriveOptions(again=True), status).ids == (f"{failed().id}:r2",)


def test_what_the_log_refused_may_be_sent_again() -> None:
    assert sending(failed(), status=LetterStatus(REFUSED, 1, 0, entry(REFUSED))).n == 2


def test_a_fourth_redrive_needs_a_reason() -> None:
    for status in (
        LetterStatus(FRESH, 0, 3),
        LetterStatus(SENT, 3, 0, entry(SENT)),
        LetterStatus(SENT, 1, 2, entry(SENT)),
    ):
        found = obstacle(failed(), RedriveOptions(again=True), status)
        assert (found.message, "--force --why TEXT" in found.remedy) == ("it was redriven 3 times", True)
        forced = sending(failed(), RedriveOptions(again=True, force="the model is back"), status)
        assert (forced.n, forced.before) == (status.n + 1, status.before)
    assert sending(failed(), status=LetterStatus(FRESH, 0, 2)).n == 1


def test_what_its_run_did_nothing_with_is_no_try() -> None:
    assert sending(failed(), RedriveOptions(again=True), LetterStatus(DONE, 3, 0, entry(DONE), without_effect=1)).n == 4


def test_a_task_that_was_taken_back_is_not_sent_again() -> None:
    """Whatever the reason: its run would do nothing."""
    letter, how = failed(), RedriveOptions(again=True, force="why")
    key = f"{letter.id}:r1"
    heir, other = (replace(letter, id=f"d{task}", task_id=task) for task in (successor_ids(RUN_ID, key)[1], "t7"))
    status = LetterStatus(SENT, 1, 0, entry(SENT))

    def met(trouble: Trouble, *letters: Letter, open: Sequence[str] = (), last: RedriveEntry | None = None) -> Step:
        told = run()
        told.trouble = trouble
        told.open = {id: Task(id, "write", 2, (), (), "e7") for id in open}
        return plan_redrive(letter, status, how, MESH, (), AT_MS, RunContext(told, letters, last))

    taken = Trouble(redrives=(key,))
    stands = met(taken._replace(dead=(Task(heir.task_id, "write", 2, (), (), key),)), letter, heir)
    assert isinstance(stands, Obstacle)
    assert f"letter {heir.id[:12]} stands for it now" in stands.message
    working = met(taken, letter, open=[successor_ids(RUN_ID, key)[0]])
    assert isinstance(working, Obstacle)
    assert working.message == "its task was sent again and is under way"
    newer = met(taken._replace(dead=(Task("t7", "write", 2, (), (), "e8"),)), letter, other)
    assert isinstance(newer, Obstacle)
    assert newer.message == "its task was sent again and is no failure of its run any more; letter dt7 is"
    gone = plan_redrive(letter, status, how, MESH, (), AT_MS, RunContext(None, (), entry(DONE, result="failed")))
    assert isinstance(gone, Obstacle), "of a run that the log has no more, the ledger tells"
    for last in (None, entry(SENT), entry(DONE, result="refused: unknown_run")):
        assert isinstance(met(Trouble(redrives=("d0:r1",)), letter, last=last), Sending)


def test_what_was_interrupted_goes_on_as_it_was_planned() -> None:
    last = entry(PLANNED, data=b'{"n":9}', before=3)
    status = LetterStatus(PLANNED, 1, 3, last)
    found = sending(failed(), status=status)
    assert (found.n, found.payload, found.interrupted, found.before) == (1, b'{"n":9}', last, 3)
    assert sending(failed(), changed("n=9"), status).ids == found.ids, "the same command once more"
    for how in (changed("n=8"), RedriveOptions(as_new=True)):
        assert "was interrupted" in obstacle(failed(), how, status).message


def test_a_run_that_was_about_to_begin_again_still_does() -> None:
    status = LetterStatus(PLANNED, 1, 0, entry(PLANNED, way=NEW))
    assert sending(failed(), status=status, heard=[event()], how=RedriveOptions(as_new=True)).way == NEW


def test_the_ledger_gets_all_that_is_needed_to_go_on() -> None:
    found = sending(failed(), changed("n=2"))
    noted = planned_entry(found, by="ann", at_ms=5, after=17, reason="why")
    assert noted == RedriveEntry(
        *(failed().id, 1, PLANNED, "ann", 5, TASK, 0, "mesh.inbox", found.partition, 17, RUN_ID, ""),
        *(b'{"n":2}', "why"),
    )
