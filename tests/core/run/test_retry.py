"""Reactions to a failed attempt: later, retry, fallback, pause, give up; each within the limits."""

from dataclasses import replace

import pytest

from mesh.core.protocol.event import TASK_TIME, Event, Usage
from mesh.core.topology.model import BreakerRule, Limits, Retry, Topology
from tests.builders import AT_MS, agent, topology
from tests.core.states import task_state
from tests.playbook import (
    Move,
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

NOTHING_LEFT = Retry(attempts_max=1)


def desk(limits: Limits | None = None, **fraud: object) -> Topology:
    """`fraud` scores, `rules` stands in for it, `person` for both."""
    return topology(
        limits,
        fraud=agent("ask -> scored", **{"retry": NOTHING_LEFT, "fallback": ("rules", "person"), **fraud}),  # type: ignore[arg-type]
        rules=agent("-> scored", retry=NOTHING_LEFT),
        person=agent("-> scored", retry=NOTHING_LEFT),
        report="scored -> reported",
    )


# ---------------------------------------------------------------------------------------------------------------- later


def test_later_waits_as_long_as_the_agent_wants_and_uses_up_no_attempt() -> None:
    play = Playbook(topology(a=agent("ask -> b", retry=NOTHING_LEFT))).on(requested(), task("a", attempt=1))
    for attempt in (2, 3, 4):
        due_ms = play.at_ms + 5_000
        play.on(failed("a", "later", wait_ms=5_000), retry(due_ms=due_ms, attempt=attempt))
        play.on(due("a"), task("a", attempt=attempt))
    play.on(failed("a"), dead("boom"), ended("failed"))


@pytest.mark.parametrize(("named", "carried"), [("2026-11-30T12:00:00.123Z", True), ("x" * 65, False)])
def test_the_next_attempt_has_the_time_of_the_first_one(named: str, carried: bool) -> None:
    play = Playbook(topology(a=agent("ask -> b", retry=Retry(attempts_max=3)))).let(requested())
    for attempt in (2, 3):
        play.let(failed("a", extensions=(TASK_TIME, named), after_ms=5))
        play.on(due("a"), task("a", attempt=attempt, time=named if carried else ""))


def test_the_fallback_of_an_agent_that_asks_for_a_time_beyond_the_deadline_stands() -> None:
    play = Playbook(desk()).on(requested(), task("fraud"))
    play.on(failed("fraud", "later", wait_ms=60_000), note("fell_back"), task("rules"), note("deadline"))
    play.let(succeeded("rules", "scored"))
    play.on(succeeded("report", "reported"), leaves("reported"), ended("completed", refusals=[], refused=0))


def test_the_fallback_of_an_agent_that_the_deadline_lets_try_no_more_stands() -> None:
    slow = Retry(attempts_max=3, first_ms=50_000, delay_ms_max=50_000)
    play = Playbook(desk(retry=slow)).let(requested(), failed("fraud", after_ms=30_000))
    play.let(succeeded("rules", "scored"))
    play.on(succeeded("report", "reported"), leaves("reported"), ended("completed", refusals=[]))


def test_the_fallback_of_an_agent_that_the_budget_lets_try_no_more_stands() -> None:
    mesh = topology(
        Limits(tokens_max=10),
        fraud=agent("ask -> scored", reserve_tokens=6, fallback=("rules",)),
        rules=agent("-> scored", reserve_tokens=1),
    )
    play = Playbook(mesh).on(requested(), task("fraud"))
    play.on(failed("fraud", usage=Usage(0, 6)), note("fell_back"), task("rules"), note("budget_tokens"))
    play.on(succeeded("rules", "scored"), leaves("scored"), ended("completed", refusals=[]))


def test_later_than_the_deadline_is_never() -> None:
    play = Playbook(topology(a="ask -> b")).on(requested(), task("a"))
    play.on(failed("a", "later", wait_ms=60_000), dead("later"), ended("failed", refusals=["deadline"]))


# ---------------------------------------------------------------------------------------------------------------- final


def test_an_error_that_is_declared_final_is_not_tried_again() -> None:
    for final in ("boom", "ValueError", "builtins.ValueError"):
        play = Playbook(topology(a=agent("ask -> b", retry=Retry(final=(final,))))).on(requested(), task("a"))
        play.on(raised("builtins.ValueError"), dead("boom"), ended("failed"))


def test_another_error_is_tried_again() -> None:
    play = Playbook(topology(a=agent("ask -> b", retry=Retry(final=("KeyError", "lues.ValueError"))))).on(
        requested(), task("a")
    )
    play.on(raised("builtins.ValueError"), retry())


def test_a_group_is_final_where_all_exceptions_in_it_are() -> None:
    group = "builtins.ExceptionGroup[a.b.Broken, builtins.ValueError]"
    for final in (("ValueError", "a.b.Broken"), ("ExceptionGroup",), ("Broken", "builtins.ValueError", "x")):
        play = Playbook(topology(a=agent("ask -> b", retry=Retry(final=final)))).on(requested(), task("a"))
        play.on(raised(group), dead("boom"), ended("failed"))
    for final in (("ValueError",), ("Broken", "KeyError")):
        play = Playbook(topology(a=agent("ask -> b", retry=Retry(final=final)))).on(requested(), task("a"))
        play.on(raised(group), retry())


def raised(cls: str) -> Move:
    """The attempt of `a` fails with an exception of this class."""

    def move(play: Playbook) -> Event:
        answer = failed("a")(play)
        assert answer.fault is not None
        return replace(answer, fault=answer.fault._replace(cls=cls))

    return move


# ------------------------------------------------------------------------------------------------------------- fallback


def test_a_fallback_gets_the_same_input_in_the_same_place() -> None:
    play = Playbook(desk()).on(requested(payload={"n": 1}), task("fraud", path="fraud"))
    play.on(failed("fraud"), note("fell_back"), task("rules", path="rules", depth=1, attempt=1, data=b'{"n":1}'))
    play.on(succeeded("rules", "scored"), task("report", path="rules > report"))
    play.on(succeeded("report", "reported"), leaves("reported"), ended("completed", failures=[], tasks=3))


def test_the_chain_is_gone_through_in_order_and_then_it_is_a_dead_letter() -> None:
    play = Playbook(desk()).on(requested(), task("fraud"))
    play.on(failed("fraud"), note("fell_back"), task("rules"))
    play.on(failed("rules"), note("fell_back"), task("person"))
    play.on(failed("person"), dead("boom", agent="person"), ended("failed", failures=["person"]))


def test_attempts_come_before_fallbacks() -> None:
    play = Playbook(desk(retry=Retry(attempts_max=2))).on(requested(), task("fraud"))
    play.on(failed("fraud"), retry())
    play.on(due("fraud"), task("fraud", attempt=2))
    play.on(failed("fraud"), note("fell_back"), task("rules"))


@pytest.mark.parametrize("code", ["rejected", "schema", "bad_batch"])
def test_an_input_that_is_at_fault_itself_is_not_given_to_another(code: str) -> None:
    play = Playbook(desk()).on(requested(), task("fraud"))
    play.on(failed("fraud", code, retryable=False), dead(code), ended("failed", failures=["fraud"]))


def test_an_answer_of_the_agent_that_was_replaced_comes_too_late() -> None:
    play = Playbook(desk()).on(requested(), task("fraud"))
    (given,) = play.unanswered
    late = succeeded("fraud", "scored")(play)
    play.unanswered.append(given)  # it is answered twice
    play.on(failed("fraud"), note("fell_back"), task("rules"))
    play.take(late, note("unknown_task"))


def test_a_fallback_is_a_task_within_the_limits_of_the_run() -> None:
    play = Playbook(desk(Limits(tasks_max=1))).on(requested(), task("fraud"))
    play.on(failed("fraud"), dead("boom"), ended("failed", refusals=["tasks"], failures=["fraud"]))


def test_a_fallback_that_the_budget_cannot_pay_is_refused() -> None:
    mesh = topology(
        Limits(tokens_max=10),
        fraud=agent("ask -> scored", retry=NOTHING_LEFT, fallback=("rules",)),
        rules=agent("-> scored", reserve_tokens=11),
    )
    play = Playbook(mesh).on(requested(), task("fraud"))
    play.on(failed("fraud"), dead("boom"), ended("failed", refusals=["budget_tokens"]))


# -------------------------------------------------------------------------------------------------------------- cascade


def test_too_many_errors_one_after_another_pause_the_run_before_the_next_is_asked() -> None:
    play = Playbook(desk(Limits(cascade_max=1))).on(requested(), task("fraud"))
    play.on(failed("fraud"), note("fell_back"), task("rules"))
    play.on(failed("rules"), note("fell_back"), note("cascade"))
    assert play.state.trouble.paused == "cascade: fraud, rules failed one after another, at most 1 may"
    play.on(happens("resumed"), deadline(play.state.deadline_ms), task("person"))


# -------------------------------------------------------------------------------------------------------------- breaker


def test_an_agent_that_fails_again_and_again_is_left_alone_and_its_tasks_wait() -> None:
    rule = BreakerRule(failures_max=2, open_ms=1_000)
    play = Playbook(topology(a=agent("ask -> b", breaker=rule, retry=Retry(first_ms=0, jitter=0, attempts_max=9))))
    play.on(requested(), task("a"))
    play.on(failed("a"), retry(due_ms=AT_MS))
    play.on(due("a"), task("a", attempt=2))
    play.on(failed("a"), retry(due_ms=AT_MS))
    (id,) = play.state.open
    play.on(due("a"), retry(due_ms=AT_MS + 1_000, attempt=3))
    assert task_state(play.run, id) == "waiting"
    play.on(requested(id="r2"), retry(due_ms=AT_MS + 1_000))
    play.on(due("a"), task("a", attempt=3))  # half-open: one is let through
    play.on(due("a"), retry(due_ms=AT_MS + 2_000))  # and no other
    play.on(succeeded("a", "b"), leaves("b"))
    assert play.breakers == {}
    play.on(due("a"), task("a", attempt=1))


def test_while_a_breaker_is_open_tasks_go_to_the_fallback() -> None:
    play = Playbook(desk(breaker=BreakerRule(failures_max=1, open_ms=1_000))).on(requested(), task("fraud"))
    play.on(failed("fraud"), note("fell_back"), task("rules"))
    play.on(requested(id="r2"), task("rules", path="rules"))
    play.at_ms += 1_000
    play.on(requested(id="r3"), task("fraud"))  # half-open


def test_a_waiting_attempt_goes_to_the_fallback_when_the_breaker_opened_meanwhile() -> None:
    rule = BreakerRule(failures_max=2, open_ms=60_000)
    play = Playbook(desk(breaker=rule, retry=Retry(attempts_max=9, first_ms=500, jitter=0)))
    play.on(requested(), task("fraud"))
    play.on(requested(id="r2"), task("fraud"))
    play.on(failed("fraud"), retry())
    play.on(failed("fraud"), retry())
    play.on(due("fraud"), note("fell_back"), task("rules"))


# -------------------------------------------------------------------------------------------------------------- expired


def test_a_task_that_expired_by_a_deadline_that_was_moved_is_handed_out_again() -> None:
    play = Playbook(topology(a="ask -> b")).on(requested(), task("a", expiry_ms=AT_MS + 60_000))
    play.let(happens("paused"))
    play.at_ms += 60_000
    play.on(failed("a", "expired", retryable=False), retry(due_ms=play.at_ms + 1_000))
    play.on(due("a"))
    play.on(happens("resumed"), deadline(AT_MS + 121_000), task("a", attempt=2, expiry_ms=AT_MS + 121_000))


def test_a_worker_whose_clock_is_ahead_is_not_asked_again_at_wire_speed() -> None:
    play = Playbook(topology(a="ask -> b")).on(requested(), task("a"))
    for attempt in (2, 3, 4):
        play.on(failed("a", "expired", retryable=False), retry(due_ms=play.at_ms + 1_000, attempt=attempt))
        play.on(due("a"), task("a", attempt=attempt))
    play.on(failed("a", "expired", retryable=False, after_ms=56_500), note("expired"))
    play.on(due(), ended("stopped", refusals=["deadline"]))


# ------------------------------------------------------------------------------------------ left alone by a worker

SHUT = BreakerRule(5, 10_000)


def test_a_task_that_a_worker_left_alone_goes_to_the_fallback_at_once() -> None:
    play = Playbook(topology(a=agent("ask -> x", breaker=SHUT, fallback=("b",)), b=agent("-> x")))
    play.on(requested(), task("a"))
    play.on(failed("a", "left_alone", wait_ms=9_000), note("fell_back"), task("b"))
    play.on(succeeded("b", "x"), leaves("x"), ended("completed"))


def test_without_a_fallback_it_waits_and_uses_up_no_attempt() -> None:
    mesh = topology(a=agent("ask -> x", breaker=SHUT, retry=Retry(attempts_max=1)))
    play = Playbook(mesh).on(requested(), task("a"))
    for attempt in (2, 3, 4):
        play.on(failed("a", "left_alone", wait_ms=400), retry(attempt=attempt, due_ms=play.at_ms + 400))
        play.on(due("a"), task("a", attempt=attempt))
    play.on(succeeded("a", "x"), leaves("x"), ended("completed"))


def test_a_fallback_that_may_not_be_asked_is_noted_where_the_agent_itself_does_the_work() -> None:
    mesh = topology(Limits(tasks_max=1), a=agent("ask -> x", breaker=SHUT, fallback=("b",)), b=agent("-> x"))
    play = Playbook(mesh).on(requested(), task("a"))
    play.on(failed("a", "left_alone", wait_ms=400), retry(attempt=2), note("tasks"))
    play.on(due("a"), task("a", attempt=2))
    play.on(succeeded("a", "x"), leaves("x"), ended("completed", refusals=[]))


def test_a_fallback_that_may_not_be_asked_is_refused_once_where_the_task_is_given_up() -> None:
    mesh = topology(Limits(tasks_max=1), a=agent("ask -> x", breaker=SHUT, fallback=("b",)), b=agent("-> x"))
    play = Playbook(mesh).on(requested(), task("a"))
    play.on(failed("a", "left_alone", wait_ms=90_000), dead("left_alone"), ended("failed"))
    assert [refusal.code for refusal in play.state.refusals] == ["tasks", "deadline"]


def test_one_that_would_wait_beyond_the_deadline_is_given_up_by_its_name() -> None:
    play = Playbook(topology(a=agent("ask -> x", breaker=SHUT))).on(requested(), task("a"))
    play.on(failed("a", "left_alone", wait_ms=90_000), dead("left_alone"), ended("failed", refusals=["deadline"]))
