"""The rules of `decide`, each as a script. Endings are in test_run, limits in emission, lineage, budget and join."""

from dataclasses import replace
from typing import Any

import pytest

from mesh.core.protocol.event import BATCH, INBOX_KINDS, REDRIVEN, REQUESTED, Usage
from mesh.core.run.decide import decide
from mesh.core.run.effects import DeadLetter, Note, PublishTask
from mesh.core.run.state import Held
from mesh.core.topology.model import Limits, Retry
from tests.builders import AT_MS, agent, event, json, topology
from tests.playbook import (
    Playbook,
    dead,
    deadline,
    due,
    ended,
    failed,
    happens,
    leaves,
    note,
    requested,
    retry,
    succeeded,
    task,
)

PIPELINE = topology(plan="ask -> plan.ready", write="plan.ready -> draft")
ECHO = topology(echo="ask -> answer")
PATIENT = topology(
    Limits(deadline_ms=60_000), echo=agent("ask -> answer", retry=Retry(attempts_max=3, first_ms=100, jitter=0))
)

# --------------------------------------------------------------------------------------------- how a run goes its way


def test_a_pipeline_runs_to_its_end() -> None:
    play = Playbook(PIPELINE)
    play.on(requested(), task("plan", depth=1, path="plan", attempt=1))
    play.on(succeeded("plan", "plan.ready"), task("write", depth=2, path="plan > write"))
    play.on(succeeded("write", "draft"), leaves("draft"), ended("completed", results=["draft"], tasks=2))


def test_any_of_several_types_wakes_an_agent() -> None:
    play = Playbook(topology(triage="ask -> bug, wish", reply="bug | wish -> answer"))
    play.on(requested(), task("triage"))
    play.on(succeeded("triage", "wish"), task("reply", type="wish"))
    play.on(succeeded("reply", "answer"), leaves("answer"), ended("completed"))


def test_an_agent_that_consumes_two_types_of_one_result_works_twice() -> None:
    play = Playbook(topology(triage="ask -> bug, wish", reply="bug | wish -> answer"))
    play.on(requested(), task("triage"))
    play.on(succeeded("triage", "bug", "wish"), task("reply", type="bug"), task("reply", type="wish"))
    play.on(succeeded("reply", "answer"), leaves("answer"))
    play.on(succeeded("reply", "answer"), leaves("answer"), ended("completed", results=["answer", "answer"]))


def test_several_agents_consume_one_type_in_the_order_of_declaration() -> None:
    play = Playbook(topology(stock="order ->", price="order ->", fraud="order ->"))
    play.on(requested("order"), task("stock"), task("price"), task("fraud"))
    play.on(succeeded("fraud"))
    play.on(succeeded("stock"))
    play.on(succeeded("price"), ended("completed", results=[]))


def test_a_type_that_is_consumed_and_leaves_does_both() -> None:
    play = Playbook(topology(plan="ask -> plan.ready", write="plan.ready -> draft", leaves=["plan.ready"]))
    play.on(requested(), task("plan"))
    play.on(succeeded("plan", "plan.ready"), leaves("plan.ready"), task("write"))
    play.on(succeeded("write", "draft"), leaves("draft"), ended("completed", results=["plan.ready", "draft"]))


def test_an_agent_that_emits_nothing_ends_its_branch_early() -> None:
    play = Playbook(PIPELINE)
    play.on(requested(), task("plan"))
    play.on(succeeded("plan"), ended("completed", results=[], tasks=1))


def test_a_request_may_leave_as_it_came() -> None:
    play = Playbook(topology(echo="ask -> answer", leaves=["ask"]))
    play.on(requested(payload={"n": 1}), leaves("ask", data=b'{"n":1}', source="/tests"), task("echo"))


def test_the_lineage_of_a_task_is_the_tables_and_its_trace_the_runs() -> None:
    play = Playbook(PIPELINE)
    play.on(requested(subject="o-1", traceparent="00-a-b-01", tracestate="x=1"), task("plan"))
    play.on(
        succeeded("plan", ("plan.ready", {"n": 1}), id="answer-1"),
        task(
            "write",
            source="/mesh/test",
            run_id="run-1",
            cause_id="answer-1",
            data=b'{"n":1}',
            subject="o-1",
            traceparent="00-a-b-01",
            tracestate="x=1",
            expiry_ms=AT_MS + 60_000,
        ),
    )


# ------------------------------------------------------------------------------------------------------- rule 1: runs


@pytest.mark.parametrize("kind", sorted(INBOX_KINDS - {REQUESTED, REDRIVEN}))
def test_only_a_request_opens_a_run(kind: str) -> None:
    play = Playbook(ECHO).on(happens(kind), note("unknown_run"))
    assert play.run is None


def test_the_same_request_again_is_noted() -> None:
    play = Playbook(ECHO).on(requested(), task("echo"))
    play.again(note("duplicate_request"))
    play.on(succeeded("echo", "answer"), leaves("answer"), ended("completed", tasks=1))


def test_the_same_request_with_another_body_is_a_dead_letter() -> None:
    play = Playbook(ECHO).on(requested(payload={"n": 1}), task("echo"))
    play.on(requested(payload={"n": 2}), dead("idempotency_conflict", value=b'{"n":2}'))
    play.on(requested("ask", {"n": 3}, id="r2"), task("echo"))
    play.on(requested("ask", {"n": 4}, id="r2"), dead("idempotency_conflict", value=b'{"n":4}'))
    play.on(requested("ask", {"n": 3}, id="r2"), note("duplicate_request"))


def test_another_request_under_the_same_correlation_joins_the_open_run() -> None:
    play = Playbook(ECHO)
    play.on(requested(), task("echo"), deadline(AT_MS + 60_000))
    play.on(requested(id="r2", after_ms=500), task("echo"))
    play.on(succeeded("echo", "answer"), leaves("answer"))
    play.on(succeeded("echo", "answer"), leaves("answer"), ended("completed", roots=("r1", "r2"), tasks=2))


def test_a_request_of_a_type_that_does_not_come_in_ends_its_run_stopped() -> None:
    play = Playbook(PIPELINE)
    play.on(requested("plan.ready"), dead("unknown_type"), ended("stopped", refusals=["unknown_type"], tasks=0))
    assert "no ingress topic declares 'plan.ready'; declared: ask" in play.effects[0].message  # type: ignore[union-attr]


def test_a_refused_request_does_not_undo_the_run_it_wanted_to_join() -> None:
    play = Playbook(ECHO).on(requested(), task("echo"))
    play.on(requested("nonsense", id="r2"), dead("unknown_type"))
    play.on(requested(id="r3"), task("echo"))
    play.on(succeeded("echo", "answer"), leaves("answer"))
    play.on(succeeded("echo", "answer"), leaves("answer"), ended("partial", refusals=["unknown_type"]))


def test_a_request_is_one_event_and_no_batch() -> None:
    inside = json([{"type": "plan.ready", "data": {}}])
    play = Playbook(PIPELINE)
    play.on(requested(data=inside, content_type=BATCH), dead("bad_batch", value=inside), ended("stopped"))


def test_an_open_run_consumes_no_more_requests_than_it_may_have_tasks() -> None:
    play = Playbook(topology(Limits(tasks_max=2), echo=agent("ask -> answer", when="go")))
    play.on(requested("ask", {"go": True}), task("echo"))
    play.on(requested("ask", id="r2"))
    play.on(requested("ask", id="r3"), dead("requests"))
    play.on(succeeded("echo", "answer"), leaves("answer"), ended("partial", roots=("r1", "r2")))


@pytest.mark.parametrize(
    ("kind", "code"),
    [("succeeded", "late_result"), ("failed", "late_result"), ("due", "late_timer"), ("cancelled", "already_terminal")],
)
def test_what_comes_for_a_run_that_ended_is_noted(kind: str, code: str) -> None:
    play = (
        Playbook(ECHO)
        .on(requested(), task("echo"))
        .on(succeeded("echo", "answer"), leaves("answer"), ended("completed"))
    )
    play.on(happens(kind), note(code))


def test_a_new_request_for_a_run_that_ended_is_a_dead_letter() -> None:
    play = Playbook(ECHO).on(requested(), task("echo")).on(succeeded("echo"), ended("completed"))
    play.on(requested(), note("duplicate_request"))
    play.on(requested(payload={"n": 2}), dead("idempotency_conflict"))
    play.on(requested(id="r2", payload={"n": 3}), dead("already_terminal", value=b'{"n":3}'))


def test_a_kind_that_changes_no_run_is_noted() -> None:
    Playbook(ECHO).on(requested(), task("echo")).on(happens("called"), note("unknown_kind"))


# ---------------------------------------------------------------------------------------------------- rule 2: results


def test_a_result_counts_once() -> None:
    play = Playbook(PIPELINE).on(requested(), task("plan"))
    play.on(succeeded("plan", "plan.ready"), task("write"))
    play.again(note("unknown_task"))


def test_a_result_for_an_unknown_task_is_noted() -> None:
    play = Playbook(ECHO).on(requested(), task("echo"))
    play.on(succeeded("echo", "answer", task_id="f" * 32), note("unknown_task"))


def test_the_answer_of_another_agent_is_a_matter_of_security() -> None:
    play = Playbook(ECHO).on(requested(), task("echo"))
    play.on(succeeded("echo", "answer", agent="mallory"), note("wrong_agent", security=True))


@pytest.mark.parametrize("claim", [{"depth": 0}, {"path": ("root",)}, {"path": ()}, {"depth": 7, "path": ("x", "y")}])
def test_claimed_lineage_is_noted_and_the_table_stands(claim: dict[str, Any]) -> None:
    play = Playbook(PIPELINE).on(requested(), task("plan"))
    play.on(
        succeeded("plan", "plan.ready", **claim),
        note("claimed_lineage", security=True),
        task("write", depth=2, path="plan > write"),
    )


def test_results_with_the_same_message_id_make_tasks_with_different_ids() -> None:
    play = Playbook(topology(a="ask -> x", b="ask -> x", c="x ->"))
    play.on(requested(), task("a"), task("b"))
    play.on(succeeded("a", "x", id="1"), task("c"))
    play.on(succeeded("b", "x", id="1"), task("c"))
    assert len(play.state.open) == 2


def test_an_older_attempt_counts_no_more() -> None:
    play = Playbook(PATIENT).on(requested(), task("echo"))
    play.on(failed("echo"), retry(attempt=2))
    play.again(note("late_result"))
    play.on(due("echo"), task("echo", attempt=2))
    play.on(succeeded("echo", "answer", attempt=1), note("late_result"))


def test_an_attempt_that_was_never_made_counts_nothing() -> None:
    Playbook(PATIENT).on(requested(), task("echo")).on(succeeded("echo", "answer", attempt=9), note("late_result"))


# --------------------------------------------------------------------------------------------------- rule 3: failures


def test_a_failure_is_repeated_after_a_while_with_the_same_task_id() -> None:
    play = Playbook(PATIENT)
    play.on(requested(payload={"n": 1}), task("echo", attempt=1))
    assert isinstance(play.effects[0], PublishTask)
    first = play.effects[0].event
    play.on(failed("echo", after_ms=10), retry(attempt=2, due_ms=AT_MS + 110, task_id=first.task_id))
    play.on(due("echo"), task("echo", attempt=2, task_id=first.task_id, data=b'{"n":1}', at_ms=AT_MS + 110))
    play.on(failed("echo"), retry(attempt=3, due_ms=AT_MS + 310))
    play.on(due("echo"), task("echo", attempt=3, id=f"{first.task_id}:3"))
    play.on(succeeded("echo", "answer"), leaves("answer"), ended("completed", tasks=1))


def test_the_last_failure_is_a_dead_letter_with_the_tasks_input_and_fails_the_run() -> None:
    play = Playbook(topology(echo=agent("ask -> answer", retry=Retry(attempts_max=2))))
    play.on(requested(payload={"n": 1}), task("echo"))
    play.on(failed("echo"), retry())
    play.on(due("echo"), task("echo"))
    play.on(
        failed("echo", "boom", origin="mesh.tasks.echo:3:17"),
        dead("boom", value=b'{"n":1}', attempts=2, agent="echo", origin="mesh.tasks.echo:3:17"),
        ended("failed", failures=["echo"], results=[]),
    )


def test_a_failure_that_may_not_be_repeated_is_final_at_once() -> None:
    play = Playbook(PATIENT).on(requested(), task("echo"))
    play.on(failed("echo", "schema", retryable=False), dead("schema", attempts=1), ended("failed"))


def test_a_failure_without_a_reason_is_final() -> None:
    play = Playbook(PATIENT).on(requested(), task("echo"))
    play.on(failed("echo", fault=None), dead("unknown"), ended("failed"))


def test_the_other_branches_of_a_failed_run_go_on() -> None:
    play = Playbook(topology(a="ask -> x", b="ask -> y"))
    play.on(requested(), task("a"), task("b"))
    play.on(failed("a", retryable=False), dead("boom"))
    play.on(succeeded("b", "y"), leaves("y"), ended("failed", results=["y"], failures=["a"]))


def test_a_timer_that_fires_early_is_set_again() -> None:
    play = Playbook(PATIENT).on(requested(), task("echo")).on(failed("echo"), retry(attempt=2))
    play.on(due("echo", early_ms=1), retry(attempt=2, due_ms=AT_MS + 100))
    play.on(due("echo"), task("echo", attempt=2))


def test_a_timer_that_fires_twice_or_for_an_older_attempt_is_noted() -> None:
    play = Playbook(PATIENT).on(requested(), task("echo")).on(failed("echo"), retry(attempt=2))
    play.on(due("echo", attempt=1), note("late_timer"))
    play.on(due("echo"), task("echo", attempt=2))
    play.again(note("late_timer"))
    play.on(happens("due", task_id="f" * 32), note("late_timer"))


def test_a_task_that_the_deadline_cut_short_leaves_the_end_to_the_deadline() -> None:
    play = Playbook(topology(Limits(deadline_ms=4_000), echo=agent("ask -> answer"))).on(requested(), task("echo"))
    play.on(failed("echo", "expired", retryable=False, after_ms=3_999), note("expired"))
    play.on(due(), ended("stopped", refusals=["deadline"]))


def test_a_retry_that_would_come_after_the_deadline_is_not_waited_for() -> None:
    slow = agent("ask -> answer", retry=Retry(first_ms=5_000, jitter=0))
    play = Playbook(topology(Limits(deadline_ms=4_000), echo=slow)).on(requested(), task("echo"))
    play.on(failed("echo"), dead("boom", attempts=1), ended("failed", refusals=["deadline"]))
    assert (
        play.state.refusals[0].message == "deadline: echo could be tried again 5000 ms after the request, at most 4000"
    )


def test_the_input_of_a_waiting_task_counts_among_the_bytes_held() -> None:
    play = Playbook(PATIENT).on(requested(payload="x" * 98), task("echo")).on(failed("echo"), retry())
    assert play.state.state_bytes == 100
    play.on(due("echo"), task("echo"))
    assert play.state.state_bytes == 0


def test_a_task_whose_input_the_run_cannot_hold_is_not_repeated() -> None:
    mesh = replace(PATIENT, limits=Limits(state_bytes_max=1_000))
    play = Playbook(mesh).on(requested(), task("echo"))
    play.on(failed("echo", data=b"x" * 1_001), dead("boom"), ended("failed", refusals=["state"]))


def test_a_batch_that_a_failure_garbled_is_sent_again_as_it_is() -> None:
    keyed = agent("ask -> answer", key="customer", retry=Retry(jitter=0))
    play = Playbook(topology(echo=keyed)).on(requested(payload={"customer": "c-1"}), task("echo", key=b"c-1"))
    play.on(failed("echo", content_type=BATCH, data=b"["), retry())
    play.on(due("echo"), task("echo", data=b"[", key=b"run-1"))


# ------------------------------------------------------------------------------------------------------------- purity


def test_decide_answers_with_another_run_and_leaves_the_one_it_got() -> None:
    before = Playbook(ECHO).on(requested(), task("echo")).state
    answer = event("succeeded", type="answer", task_id=next(iter(before.open)), agent="echo", usage=Usage(5, 7))
    after, _ = decide(before, answer, ECHO)
    assert after is not None
    assert (after.ending, after.usd_micros, len(after.open)) == ("completed", 5, 0)
    assert (before.ending, before.usd_micros, len(before.open)) == ("", 0, 1)


def test_a_note_is_all_that_a_drop_leaves() -> None:
    play = Playbook(ECHO).on(requested(), task("echo"))
    kept = play.run
    play.on(happens("succeeded", task_id="unknown"), note("unknown_task"))
    assert play.run == kept


def test_every_drop_and_every_dead_letter_says_why_in_a_sentence() -> None:
    play = Playbook(ECHO).on(requested(), task("echo"))
    play.on(requested("nonsense", id="r2"), dead("unknown_type"))
    assert all(e.message and e.run_id == "run-1" for e in play.effects if isinstance(e, Note | DeadLetter))


def test_a_waiting_task_is_a_value_too() -> None:
    play = Playbook(PATIENT).on(requested(), task("echo")).on(failed("echo"), retry())
    (waiting,) = play.state.open.values()
    assert waiting.held == Held("ask", "application/json", b"{}", AT_MS + 100)
