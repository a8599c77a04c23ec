"""Whether an outcome answers a request."""

from dataclasses import replace
from typing import Any

import pytest

from mesh.core.history.request_match import outcome_so_far, why_not_answered
from mesh.core.protocol.event import fingerprint
from mesh.core.publishing.effect_records import outcome_body
from mesh.core.run.lineage import Refusal
from mesh.core.run.state import Run
from tests.builders import run

ONE, OTHER = fingerprint(b"1"), fingerprint(b"2")
FULL = Refusal("requests", "", (), 1, 2, "requests: enough")


def ended(**fields: Any) -> Run:
    return replace(run(), requests=("r1", ONE, "r2", OTHER), ending="completed", **fields)


@pytest.mark.parametrize("tell", [outcome_body, outcome_so_far])
def test_the_outcome_of_a_run_answers_each_request_that_it_consumed(tell: Any) -> None:
    assert why_not_answered(tell(ended()), "r1", ONE) is None
    assert why_not_answered(tell(ended()), "r2", OTHER) is None


@pytest.mark.parametrize("tell", [outcome_body, outcome_so_far])
def test_a_request_that_came_with_another_body_has_no_answer_in_it(tell: Any) -> None:
    why = why_not_answered(tell(ended()), "r1", OTHER)
    assert why is not None
    assert why.code == "idempotency_conflict"
    assert ONE in why.message
    assert OTHER in why.message


@pytest.mark.parametrize("tell", [outcome_body, outcome_so_far])
def test_a_request_that_came_after_the_end_has_no_answer_in_it(tell: Any) -> None:
    why = why_not_answered(tell(ended()), "r3", ONE)
    assert why is not None
    assert why.code == "already_terminal"
    assert "ended completed" in why.message


def test_a_run_with_too_many_requests_reports_it_itself() -> None:
    assert why_not_answered(outcome_body(ended(refused=1, refusals=(FULL,))), "r3", ONE) is None


@pytest.mark.parametrize("request_", [None, {}, {"ids": ["r1"]}, {"ids": ["r1"], "fingerprints": []}, "r1"])
def test_outcomes_without_a_list_of_requests_are_answers(request_: Any) -> None:
    assert why_not_answered({"request": request_, "ending": "completed"}, "r1", ONE) is None
