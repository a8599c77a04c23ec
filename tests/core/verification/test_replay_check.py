"""One inbox decided again beside what was published. The whole of it is in test_verify.py."""

import pytest

from mesh.core.verification.publish_index import PublishIndex
from mesh.core.verification.replay_check import MISSING_KEPT, ReplayCheck
from mesh.core.verification.report import Submission, VerificationReport
from mesh.core.verification.submissions import SubmissionLedger
from tests.builders import AT_MS, event, record, topology
from tests.core.lived import INBOX, live

MESH = topology(plan="ask -> plan.done")
ONE = topology(plan="ask -> plan.done")


def again(report: VerificationReport, **options: object) -> ReplayCheck:
    lived = live(MESH, [])
    return ReplayCheck(MESH, PublishIndex(), SubmissionLedger(), report, states=lived.fresh, **options)  # type: ignore[arg-type]


def test_everything_that_is_missing_is_counted_and_the_first_of_it_kept_in_full() -> None:
    report = VerificationReport()
    redecided = again(report)
    n = MISSING_KEPT + 10
    for i in range(n):
        redecided.take(record(event(id=f"r{i}", run_id=f"run-{i}"), i))
    redecided.judge(quiescent=False)
    assert report.found == {"I6": n}
    assert report.violations[0].record is not None


def test_open_runs_are_known_and_told_at_rest() -> None:
    report = VerificationReport()
    redecided = again(report, committed={INBOX: 0})
    redecided.take(record(event()))
    assert redecided.is_open("run-1")
    assert not redecided.is_open("run-2")
    redecided.judge(quiescent=True)
    assert report.found == {"I11": 2}
    (lag, still_open) = report.violations
    assert (lag.where, lag.got) == ("mesh.inbox:0", "0")
    assert still_open.got == "it waits for plan"


@pytest.mark.parametrize(("at_ms", "unseen"), [(AT_MS, True), (AT_MS + 60_001, False)])
def test_a_request_near_a_lost_head_may_be_for_an_older_run(at_ms: int, unseen: bool) -> None:
    redecided = again(VerificationReport(), heads={INBOX: 5})
    redecided.take(record(event(id="first", run_id="run-0"), 5))
    redecided.take(record(event(at_ms=at_ms), 6))
    assert redecided.is_unseen("run-0")
    assert redecided.is_unseen("run-1") == unseen


def test_requests_heard_reach_the_ledger() -> None:
    ledger = SubmissionLedger()
    ledger.asked(Submission("run-1", "r1"))
    redecided = ReplayCheck(MESH, PublishIndex(), ledger, VerificationReport(), states=live(MESH, []).fresh)
    redecided.take(record(event()))
    (violation,) = ledger.judge(lambda _: False)
    assert violation.got == "its run has no ending"
