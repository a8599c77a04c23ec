"""A ledger against what the log tells of it."""

import pytest

from mesh.core.verification.report import REFUSED, UNKNOWN, Submission
from mesh.core.verification.submissions import SubmissionLedger


def judged(ledger: SubmissionLedger, *under_way: str) -> list[str]:
    return [violation.invariant for violation in ledger.judge(lambda run_id: run_id in under_way)]


def asked(*entries: Submission) -> SubmissionLedger:
    ledger = SubmissionLedger()
    for entry in entries:
        ledger.asked(entry)
    return ledger


def test_an_acknowledged_submission_that_nobody_heard_is_lost() -> None:
    ledger = asked(Submission("run-1", "r1"))
    (violation,) = ledger.judge(lambda _: False)
    assert violation.invariant == "I1"
    assert violation.got == "it is not on the inbox"
    assert len(ledger) == 1


def test_one_that_was_heard_and_did_not_end_is_lost_too() -> None:
    ledger = asked(Submission("run-1", "r1"))
    ledger.heard("run-1", "r1", "")
    (violation,) = ledger.judge(lambda _: False)
    assert violation.got == "its run has no ending"
    assert judged(ledger, "run-1") == []


def test_an_ending_or_an_explanation_satisfies_it() -> None:
    for told in ("ended", "explained", "answered"):
        ledger = asked(Submission("run-1", "r1"))
        if told == "ended":
            ledger.ended("run-1")
        else:
            ledger.explained("run-1", "r1" if told == "explained" else "", "")
        assert judged(ledger) == []


def test_an_explanation_of_another_request_does_not() -> None:
    ledger = asked(Submission("run-1", "r1"), Submission("run-1", "r2"))
    ledger.explained("run-1", "r2", "")
    ledger.explained("run-2", "r1", "")
    assert judged(ledger) == ["I1"]


@pytest.mark.parametrize(("answer", "found"), [(REFUSED, ["I14"]), (UNKNOWN, [])])
def test_a_refused_submission_must_not_happen_and_an_unknown_one_may(answer: str, found: list[str]) -> None:
    ledger = asked(Submission("run-1", "r1", answer))
    assert judged(ledger) == []
    ledger.heard("run-1", "r1", "")
    ledger.ended("run-1")
    assert judged(ledger) == found


def test_a_submission_by_place_is_known_by_the_place_that_its_request_names() -> None:
    ledger = asked(
        Submission("", place="in.ask:0:5"), Submission("", place="in.ask:0:6"), Submission("", place="in.ask:0:7")
    )
    ledger.heard("run-1", "r1", "in.ask:0:5")
    ledger.ended("run-1")
    ledger.explained("", "", "in.ask:0:6")
    assert judged(ledger) == ["I1"]
