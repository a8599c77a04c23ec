"""A ledger against what the log tells of it."""

import pytest

from tests.log_check import REFUSED, UNKNOWN, Submission, SubmissionLedger, board_history_violations


def judged(ledger: SubmissionLedger, *under_way: str) -> list[str]:
    return [violation.invariant for violation in ledger.judge(lambda run_id: run_id in under_way)]


def asked(*entries: Submission) -> SubmissionLedger:
    ledger = SubmissionLedger()
    for entry in entries:
        ledger.take(entry)
    return ledger


def test_an_acknowledged_submission_without_a_request_on_the_inbox_is_lost() -> None:
    ledger = asked(Submission("run-1", "r1"))
    (violation,) = ledger.judge(lambda _: False)
    assert violation.invariant == "I1"
    assert violation.got == "it is not on the inbox"
    assert len(ledger) == 1


def test_a_consumed_submission_that_did_not_end_is_lost_too() -> None:
    ledger = asked(Submission("run-1", "r1"))
    ledger.see_request("run-1", "r1", "")
    (violation,) = ledger.judge(lambda _: False)
    assert violation.got == "its run has no ending"
    assert judged(ledger, "run-1") == []


def test_an_ending_or_an_explanation_satisfies_it() -> None:
    for told in ("ended", "explained", "answered"):
        ledger = asked(Submission("run-1", "r1"))
        if told == "ended":
            ledger.see_ending("run-1")
        else:
            ledger.see_refusal("run-1", "r1" if told == "explained" else "", "")
        assert judged(ledger) == []


def test_an_explanation_of_another_request_does_not() -> None:
    ledger = asked(Submission("run-1", "r1"), Submission("run-1", "r2"))
    ledger.see_refusal("run-1", "r2", "")
    ledger.see_refusal("run-2", "r1", "")
    assert judged(ledger) == ["I1"]


@pytest.mark.parametrize(("answer", "found"), [(REFUSED, ["I14"]), (UNKNOWN, [])])
def test_a_refused_submission_must_not_happen_and_an_unknown_one_may(answer: str, found: list[str]) -> None:
    ledger = asked(Submission("run-1", "r1", answer))
    assert judged(ledger) == []
    ledger.see_request("run-1", "r1", "")
    ledger.see_ending("run-1")
    assert judged(ledger) == found


def test_a_submission_by_place_is_known_by_the_place_that_its_request_names() -> None:
    ledger = asked(
        Submission("", place="in.ask:0:5"), Submission("", place="in.ask:0:6"), Submission("", place="in.ask:0:7")
    )
    ledger.see_request("run-1", "r1", "in.ask:0:5")
    ledger.see_ending("run-1")
    ledger.see_refusal("", "", "in.ask:0:6")
    assert judged(ledger) == ["I1"]


# ---------------------------------------------------------------------------------------------------------- the board


def history(*versions: str) -> list[tuple[str, bytes]]:
    return [(version, b"1") for version in versions]


@pytest.mark.parametrize(
    ("versions", "written", "good"),
    [
        (("a:1", "a:2", "a:5"), ("a:2",), True),
        (("a:1", "b:1", "b:2"), ("a:7",), False),
        (("a:1", "b:1"), ("c:1",), True),
        (("a:2", "a:1"), (), False),
        (("a:1", "a:1"), (), False),
        (("a:1", "b:2", "a:3"), (), False),
        (("a:1", "a:3"), ("a:2",), False),
    ],
)
def test_versions_of_a_board_key_form_a_chain(versions: tuple[str, ...], written: tuple[str, ...], good: bool) -> None:
    violations = list(board_history_violations("k", history(*versions), written))
    assert [violation.invariant for violation in violations] == ([] if good else ["I10"])


def test_what_a_history_has_forgotten_is_not_missed() -> None:
    assert list(board_history_violations("k", history("a:5", "a:6"), ["a:1", "a:6"], whole=False)) == []
    assert len(list(board_history_violations("k", history("a:5", "a:7"), ["a:6"], whole=False))) == 1
