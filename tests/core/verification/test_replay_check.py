"""One inbox decided again beside what was published. The whole of it is in test_verify.py."""

import pytest

from mesh.core.verification.publish_index import PublishIndex
from mesh.core.verification.replay_check import MISSING_KEPT, CheckScope, ReplayCheck
from mesh.core.verification.report import Observer, VerificationReport
from tests.builders import AT_MS, event, record, topology
from tests.core.lived import INBOX, live
from tests.log_check import Submission, SubmissionLedger

MESH = topology(plan="ask -> plan.done")
ONE = topology(plan="ask -> plan.done")


def again(report: VerificationReport, **options: object) -> ReplayCheck:
    lived = live(MESH, [])
    scope = CheckScope(MESH, states=lived.fresh, **options)  # type: ignore[arg-type]
    return ReplayCheck(scope, PublishIndex(), Observer(), report)


def test_everything_that_is_missing_is_counted_and_the_first_of_it_kept_in_full() -> None:
    report = VerificationReport()
    replay = again(report)
    n = MISSING_KEPT + 10
    for i in range(n):
        replay.take(record(event(id=f"r{i}", run_id=f"run-{i}"), i))
    replay.finish()
    assert report.found == {"I6": n}
    assert report.violations[0].record is not None


def test_open_runs_are_known() -> None:
    report = VerificationReport()
    replay = again(report, committed={INBOX: 0})
    replay.take(record(event()))
    assert list(replay.partitions[0].state.runs) == ["run-1"]


@pytest.mark.parametrize(("at_ms", "unseen"), [(AT_MS, True), (AT_MS + 60_001, False)])
def test_a_request_near_a_lost_head_may_be_for_an_older_run(at_ms: int, unseen: bool) -> None:
    replay = again(VerificationReport(), heads={INBOX: 5})
    replay.take(record(event(id="first", run_id="run-0"), 5))
    replay.take(record(event(at_ms=at_ms), 6))
    assert replay.partitions[0].unseen == {"run-0", *(["run-1"] if unseen else [])}


def test_consumed_requests_reach_the_ledger() -> None:
    ledger = SubmissionLedger()
    ledger.take(Submission("run-1", "r1"))
    replay = ReplayCheck(CheckScope(MESH), PublishIndex(), ledger, VerificationReport())
    replay.take(record(event()))
    (violation,) = ledger.judge(lambda _: False)
    assert violation.got == "its run has no ending"
