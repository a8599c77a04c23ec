"""Dead letters by themselves. What they explain is in test_verifier.py."""

from mesh.core.protocol.event import REQUESTED
from mesh.core.protocol.record import StoredRecord
from mesh.core.publishing.effect_records import dead_letter
from mesh.core.run.dead_letter import dead_record, dead_request
from mesh.core.verification.letters import LetterFacts, Letters
from mesh.core.verification.report import VerificationReport
from tests.builders import AT_MS, event, topology

MESH = topology(plan="ask -> plan.done")
FAILED = StoredRecord("orders", 0, 7, AT_MS, b"k", b"not JSON", (("h", b"v"),))


def letter_of(record: StoredRecord, code: str = "not_cloudevents", offset: int = 0) -> StoredRecord:
    sent = dead_letter(dead_record(record, code, "it is not JSON"), MESH)
    return StoredRecord(MESH.dead, 0, offset, AT_MS, sent.key, sent.value, tuple(sent.headers))


def taken(*records: StoredRecord) -> tuple[Letters, VerificationReport, list[LetterFacts]]:
    report = VerificationReport()
    letters = Letters(MESH, report)
    return letters, report, [letters.take(record) for record in records]


def test_a_letter_of_a_foreign_record_points_at_it_until_it_was_compared() -> None:
    letters, report, (letter,) = taken(letter_of(FAILED))
    assert (letter.whole, letter.from_outside, letter.of_refused, letter.repeated) == (True, True, False, False)
    assert letters.buried == {"orders:0:7"} == set(letters.origins)
    letters.take_original(FAILED)
    assert not letters.origins
    letters.take_original(FAILED)
    letters.finish()
    assert (report.good, report.unchecked) == (True, {})


def test_a_letter_with_other_bytes_is_a_violation_and_one_without_its_original_is_counted() -> None:
    letters, report, _ = taken(letter_of(FAILED))
    letters.take_original(FAILED._replace(value=b"other"))
    assert report.found == {"I8": 1}
    letters, report, _ = taken(letter_of(FAILED))
    letters.finish()
    assert report.unchecked == {"records that dead letters point at": 1}


def test_a_letter_of_the_inbox_follows_from_the_inbox() -> None:
    letters, _, (letter,) = taken(letter_of(FAILED._replace(topic=MESH.inbox)))
    assert (letter.whole, letter.from_outside) == (True, False)
    assert not letters.origins


def test_a_second_letter_for_the_same_record_is_a_repetition() -> None:
    _, _, (first, second) = taken(letter_of(FAILED), letter_of(FAILED, offset=1))
    assert (first.repeated, second.repeated) == (False, True)


def test_a_second_letter_for_the_same_late_request_is_a_repetition() -> None:
    late = dead_request(event(REQUESTED, id="r-1", run_id="run-1", origin="orders:0:7"), "already_terminal", "too late")
    sent = dead_letter(late, MESH)
    records = [StoredRecord(MESH.dead, 0, n, AT_MS, sent.key, sent.value, tuple(sent.headers)) for n in range(2)]
    _, _, (first, second) = taken(*records)
    assert (first.of_request, first.repeated, second.repeated) == (True, False, True)


def test_an_unknown_reason_and_a_missing_id_are_violations() -> None:
    _, report, _ = taken(letter_of(FAILED, "no_such_code"))
    assert report.found == {"I8": 1}
    nameless = letter_of(FAILED)
    _, report, _ = taken(nameless._replace(headers=tuple(h for h in nameless.headers if h[0] != "mesh-dlq-id")))
    assert report.found == {"I8": 1}
