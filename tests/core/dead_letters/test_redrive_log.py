"""The ledger of redrives, folded from its records."""

from typing import Any

import orjson
import pytest

from mesh.core.dead_letters.letter import Letter, letter_of
from mesh.core.dead_letters.redrive_log import (
    DONE,
    DROPPED,
    FALLBACKS_MAX,
    LEDGER_FIELDS,
    NOTHING_TO_REDRIVE,
    PLANNED,
    REFUSED,
    SENT,
    RedriveEntry,
    RedriveLedger,
    entry_of,
    entry_record,
    ledger_topic,
    successor_ids,
)
from mesh.core.protocol.event import derive_id
from mesh.core.protocol.record import StoredRecord
from mesh.core.publishing.effect_records import dead_letter
from mesh.core.run.effects import DeadLetter
from tests.builders import topology

MESH = topology(plan="ask -> plan.ready")
ENTRY = RedriveEntry(
    "d1", 1, SENT, "ann@host", 1_000, "task", 0, "mesh.inbox", 3, 17, "run-1", "mesh.inbox:3:18", b"\xff{"
)


def letter(id: str = "d1", task_id: str = "t1", cause: str = "e1", headers: Any = ()) -> Letter:
    own = [("ce_type", b"ask"), ("ce_causationid", cause.encode()), *headers]
    dead = DeadLetter(id, "exception", "why", b"{}", b"run-1", own, "x:0:1", "run-1", "plan", task_id)
    record = dead_letter(dead, MESH)
    return letter_of(StoredRecord("mesh.dead", 0, 0, 0, record.key, record.value, record.headers))


def record_of(entry: RedriveEntry, offset: int = 0) -> StoredRecord:
    new = entry_record(entry, MESH)
    return StoredRecord(new.topic, 0, offset, 0, new.key, new.value, new.headers)


def test_an_entry_comes_back_from_its_record() -> None:
    new = entry_record(ENTRY, MESH)
    assert (new.topic, new.partition, new.key) == ("mesh.redrives", 0, b"d1:r1")
    assert ledger_topic(MESH) == "mesh.redrives"
    assert entry_of(record_of(ENTRY)) == ENTRY
    assert entry_of(record_of(RedriveEntry("d1", 0, DROPPED, "ann", 5, reason="test data"))) is not None
    body = orjson.loads(new.value or b"")
    assert (body["by"], body["at"], body["state"]) == ("ann@host", "1970-01-01T00:00:01.000Z", "sent")


def test_the_table_of_fields_names_what_is_written() -> None:
    entry = ENTRY._replace(n=1, before=1, reason="why", result="completed")
    assert {name for name, _ in LEDGER_FIELDS} == orjson.loads(entry_record(entry, MESH).value or b"").keys() - {
        "at_ms"
    }


@pytest.mark.parametrize(
    "value",
    [
        *[None, b"", b"{", b"[]", b"{}", b'{"state":"sent"}', b'{"state":"odd","letter":"d1"}'],
        *[b'{"state":"sent","letter":"d1","n":"1"}', b'{"state":"sent","letter":"d1","n":true}'],
        *[b'{"state":"sent","letter":"d1","data":"?"}', b'{"state":"sent","letter":"d1","data":[]}'],
    ],
)
def test_what_is_no_entry_is_counted_and_passed_over(value: bytes | None) -> None:
    ledger = RedriveLedger([StoredRecord("mesh.redrives", 0, 0, 0, b"k", value, ()), record_of(ENTRY)])
    assert ledger.unreadable == (value is not None)
    assert ledger.of("d1") == (ENTRY,)


def test_a_letter_of_which_the_ledger_knows_nothing_is_new() -> None:
    status = RedriveLedger().status_of(letter())
    assert (status.state, status.n, status.before, status.open, str(status)) == ("new", 0, 0, True, "new")


@pytest.mark.parametrize(
    ("state", "result", "is_open", "text"),
    [
        (PLANNED, "", True, "redrive 1 interrupted"),
        (SENT, "", False, "redriven 1×, sent"),
        (REFUSED, "too_large: no", True, "redriven 1×, too_large: no"),
        (DONE, "completed", False, "redriven 1×, completed"),
    ],
)
def test_the_last_entry_of_a_key_gives_the_state_of_the_letter(
    state: str, result: str, is_open: bool, text: str
) -> None:
    last = ENTRY._replace(state=state, result=result)
    status = RedriveLedger(map(record_of, [ENTRY._replace(state=PLANNED), last])).status_of(letter())
    assert (status.state, status.n, status.last, status.open, str(status)) == (state, 1, last, is_open, text)


def test_a_dropped_letter_is_dropped_until_it_is_sent_again() -> None:
    drop = RedriveEntry("d1", 0, DROPPED, "ann", 5)
    ledger = RedriveLedger(map(record_of, [ENTRY, drop]))
    assert (ledger.status_of(letter()).state, ledger.status_of(letter()).n) == (DROPPED, 1)
    assert str(ledger.status_of(letter())) == "dropped"
    ledger.add(ENTRY._replace(n=2))
    assert (ledger.status_of(letter()).state, ledger.status_of(letter()).n) == (SENT, 2)


def test_a_task_that_a_redrive_made_and_that_failed_counts_the_redrives_before_it() -> None:
    ledger = RedriveLedger([record_of(ENTRY)])
    second = derive_id("run-1", "d1:r1")
    assert ledger.status_of(letter("d2", second)).before == 1
    assert str(ledger.status_of(letter("d2", second))) == "new, redriven 1× before"
    stand_in = derive_id("run-1", second, "fallback")
    assert ledger.status_of(letter("d2", stand_in)).before == 1, "nor does a fallback begin the count anew"
    ledger.add(ENTRY._replace(letter="d2", n=2, before=1))
    assert ledger.status_of(letter("d3", derive_id("run-1", "d2:r2"))).before == 3


def test_what_a_redrive_caused_counts_it_by_its_cause_or_its_header() -> None:
    ledger = RedriveLedger([record_of(ENTRY)])
    assert ledger.status_of(letter("d2", "t9", cause="d1:r1")).before == 1
    assert ledger.status_of(letter("d2", "t9", cause="d1:r2")).before == 0
    assert ledger.status_of(letter("d2", "t9", headers=[("ce_id", b"d1:r1")])).before == 1, "no worker could take it"
    assert ledger.status_of(letter("d2", "t9", headers=[("mesh-redrives", b"2")])).before == 2


def test_what_a_run_did_nothing_with_is_counted_apart() -> None:
    without_effect = ENTRY._replace(n=2, state=DONE, result=NOTHING_TO_REDRIVE)
    status = RedriveLedger(map(record_of, [ENTRY, without_effect])).status_of(letter())
    assert (status.n, status.without_effect, status.last) == (2, 1, without_effect)


def test_the_heirs_of_a_redrive_are_its_task_and_the_fallbacks_of_it() -> None:
    found = successor_ids("run-1", "d1:r1")
    assert found[:2] == [derive_id("run-1", "d1:r1"), derive_id("run-1", found[0], "fallback")]
    assert len(set(found)) == FALLBACKS_MAX + 1
