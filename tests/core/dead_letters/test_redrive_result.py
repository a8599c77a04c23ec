"""Results of a redrive follow from outcomes and dead letters."""

from typing import Any

import orjson
import pytest

from mesh.core.dead_letters.redrive_log import SENT, RedriveEntry
from mesh.core.dead_letters.redrive_result import RedriveResults
from mesh.core.ingress.admission import REJECTED_TYPE
from mesh.core.protocol.codec import event_headers
from mesh.core.protocol.event import OUTCOME, Event, Fault
from mesh.core.protocol.record import StoredRecord
from mesh.core.publishing.effect_records import dead_letter
from mesh.core.run.dead_letter import dead_record, dead_request, give_up, refuse
from mesh.core.run.effects import DeadLetter
from mesh.core.run.lineage import Refusal
from mesh.core.run.state import Task
from tests.builders import event, run, topology

MESH = topology(plan="ask -> plan.ready")
ENTRY = RedriveEntry("d1", 1, SENT, "ann", 0, "task", run_id="run-1")


def outcome(type: str = "mesh.run.completed", body: Any = None, run_id: str = "run-1") -> StoredRecord:
    told = Event("o1", "/mesh/test", type, OUTCOME, run_id, orjson.dumps({"ending": "completed"} | (body or {})))
    return StoredRecord("mesh.outcomes", 0, 0, 0, run_id.encode(), told.data, event_headers(told))


def dead(letter: DeadLetter) -> StoredRecord:
    record = dead_letter(letter, MESH)
    return StoredRecord("mesh.dead", 0, 0, 0, record.key, record.value, record.headers)


def test_the_outcome_of_its_run_is_the_end_of_a_redrive() -> None:
    other = ENTRY._replace(letter="d2", run_id="run-2")
    results = RedriveResults([ENTRY, other], MESH)
    assert results.take(outcome(run_id="run-3")) == {}
    assert results.take(outcome()) == {"d1:r1": "completed"}
    assert results.take(outcome()) == {}, "an outcome that is read twice tells nothing more"
    assert list(results.waiting) == ["d2:r1"]


def test_an_outcome_from_before_the_redrive_was_consumed_is_not_its_end() -> None:
    results = RedriveResults([ENTRY, ENTRY._replace(n=2)], MESH)
    assert results.take(outcome(body={"redrives": []})) == {}
    assert results.take(outcome("mesh.run.failed", {"redrives": ["d1:r1"]})) == {"d1:r1": "failed"}
    assert results.take(outcome(body={"redrives": ["d1:r1", "d1:r2"]})) == {"d1:r2": "completed"}


@pytest.mark.parametrize("way", ["new", "topic"])
def test_a_run_that_began_again_consumes_no_redrives(way: str) -> None:
    results = RedriveResults([ENTRY._replace(way=way)], MESH)
    assert results.take(outcome(body={"redrives": []})) == {"d1:r1": "completed"}


def test_a_request_that_is_rejected_again_is_an_end() -> None:
    assert RedriveResults([ENTRY], MESH).take(outcome(REJECTED_TYPE)) == {"d1:r1": "rejected"}


def test_an_answer_to_another_request_for_the_run_is_no_end() -> None:
    body = {"code": "duplicate_request", "message": "it came again", "ending": "failed"}
    assert RedriveResults([ENTRY], MESH).take(outcome(REJECTED_TYPE, body)) == {}


def test_an_event_that_no_agent_could_take_ends_the_run_with_a_reason() -> None:
    sent = event("redriven", id="d1:r1", task_id="t1", agent="plan")
    assert RedriveResults([ENTRY], MESH).take(dead(dead_request(sent, "unknown_run", "gone"))) == {
        "d1:r1": "refused: unknown_run"
    }
    refusal = Refusal("payload", "plan", (), 1, 2, "payload: too much")
    again = refuse(run(), sent, refusal, "ask", "application/json", b"{}")
    assert RedriveResults([ENTRY], MESH).take(dead(again)) == {"d1:r1": "refused: payload"}
    record = StoredRecord("asks", 0, 3, 0, None, b"{", [("mesh-redrive", b"d1:r1")])
    rejected = dead_record(record, "unparseable", "no JSON")
    assert RedriveResults([ENTRY], MESH).take(dead(rejected)) == {"d1:r1": "refused: unparseable"}


def test_a_task_that_failed_once_more_is_reported_by_the_outcome_of_its_run() -> None:
    task = Task("t2", "plan", 1, ("plan",), (), "d1:r1")
    letter = give_up(run(), task, event("failed"), Fault("exception", "why"))
    assert RedriveResults([ENTRY], MESH).take(dead(letter)) == {}


def test_a_record_that_is_no_outcome_is_ignored() -> None:
    results = RedriveResults([ENTRY], MESH)
    good = outcome()
    assert results.take(good._replace(headers=())) == {}
    assert results.take(good._replace(value=b"{")) == {}
    assert results.take(outcome("other")) == {}
    assert results.take(good._replace(key=None)) == {}
    assert results.take(good._replace(value=b"[]")) == {"d1:r1": "completed"}


def test_what_is_known_from_elsewhere_is_waited_for_no_longer() -> None:
    results = RedriveResults([ENTRY], MESH)
    assert results.resolve({"d1:r1": "why", "d9:r1": "other"}) == {"d1:r1": "why"}
    assert results.waiting == {}
    assert results.resolve({"d1:r1": "why"}) == {}
