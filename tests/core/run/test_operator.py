"""Pause, resume and redrive: what waits, what goes on, and that everything comes only once."""

from dataclasses import replace

from mesh.core.publishing.effect_records import outcome_body
from mesh.core.run.dead_letter import redriven_refusals
from mesh.core.run.effects import DeadLetter, Finish
from mesh.core.topology.model import Limits, Retry
from tests.builders import AT_MS, agent, topology
from tests.core.states import task_state
from tests.playbook import (
    Playbook,
    cancelled,
    dead,
    deadline,
    due,
    ended,
    failed,
    happens,
    leaves,
    note,
    redriven,
    requested,
    resumed,
    retry,
    succeeded,
    task,
)

ONCE = Retry(attempts_max=1)
LINE = topology(plan=agent("ask -> plan.ready", retry=ONCE), write=agent("plan.ready -> draft", retry=ONCE))
PAUSE = happens("paused", subject="let me look")


# ---------------------------------------------------------------------------------------------------------------- pause


def test_a_paused_run_takes_in_answers_and_begins_nothing() -> None:
    play = Playbook(LINE).on(requested(), task("plan"))
    play.on(PAUSE)
    assert play.state.trouble.paused == "let me look"
    play.on(succeeded("plan", "plan.ready"))
    (id,) = play.state.open
    assert task_state(play.run, id) == "waiting"
    play.on(resumed(after_ms=5_000), deadline(AT_MS + 65_000), task("write"))
    play.on(succeeded("write", "draft"), leaves("draft"), ended("completed"))


def test_a_retry_that_comes_due_in_a_pause_waits_for_its_end() -> None:
    play = Playbook(topology(a=agent("ask -> b", retry=Retry(jitter=0)))).on(requested(), task("a"))
    play.on(failed("a"), retry(due_ms=AT_MS + 200)).on(PAUSE)
    play.on(due("a"))
    play.on(resumed(), deadline(AT_MS + 60_200), task("a", attempt=2))


def test_a_retry_that_comes_due_after_the_pause_keeps_its_time() -> None:
    play = Playbook(topology(a=agent("ask -> b", retry=Retry(jitter=0)))).on(requested(), task("a"))
    play.on(failed("a"), retry(due_ms=AT_MS + 200)).on(PAUSE)
    play.on(resumed(after_ms=50), deadline(AT_MS + 60_050))
    play.on(due("a"), task("a", attempt=2))


def test_the_deadline_stands_still_while_a_run_is_paused() -> None:
    play = Playbook(topology(Limits(pause_ms=100_000), a="ask -> b")).on(requested(), task("a")).on(PAUSE)
    play.on(due(), deadline(AT_MS + 100_000))
    play.on(resumed(after_ms=10_000), deadline(AT_MS + 130_000))
    play.on(due(), ended("stopped", refusals=["deadline"]))


def test_a_pause_has_an_end() -> None:
    play = Playbook(topology(Limits(pause_ms=100_000), a="ask -> b")).on(requested(), task("a")).on(PAUSE)
    play.on(due(early_ms=-40_000), ended("stopped", refusals=["deadline"]))
    said = "deadline: the run was paused for 100000 ms (let me look); at most 100000"
    assert play.state.refusals[0].message == said


def test_pause_and_resume_count_once() -> None:
    play = Playbook(LINE).on(requested(), task("plan")).on(PAUSE)
    play.again(note("already_paused"))
    play.on(resumed(), deadline(AT_MS + 60_000))
    play.again(note("not_paused"))


def test_a_paused_run_can_be_cancelled() -> None:
    Playbook(LINE).on(requested(), task("plan")).on(PAUSE).on(cancelled(), ended("cancelled"))


def test_what_waits_in_a_pause_counts_towards_the_bytes_of_the_run() -> None:
    play = Playbook(LINE).on(requested(), task("plan")).on(PAUSE)
    play.on(succeeded("plan", ("plan.ready", "12345678")))
    assert play.state.state_bytes == 10
    play.on(resumed(), deadline(AT_MS + 60_000), task("write"))
    assert play.state.state_bytes == 0


# -------------------------------------------------------------------------------------------------------------- redrive


def test_a_redrive_takes_a_failure_back_and_the_run_goes_on_where_it_stood() -> None:
    play = Playbook(topology(a=agent("ask -> x", retry=ONCE), b=agent("ask -> y", retry=ONCE), j="x & y -> z"))
    play.on(requested(), task("a"), task("b"))
    play.on(succeeded("a", "x"))
    play.on(failed("b"), dead("boom"), ended("failed", failures=["b"]))
    play.at_ms += 500_000
    play.on(redriven(payload={"mended": True}), deadline(play.at_ms + 60_000), task("b", data=b'{"mended":true}'))
    play.on(succeeded("b", "y"), task("j"))
    play.on(succeeded("j", "z"), leaves("z"), ended("completed", failures=[], tasks=4))


def test_a_run_that_is_opened_again_ends_under_another_id() -> None:
    play = Playbook(LINE).on(requested(), task("plan")).on(failed("plan"), dead("boom"), ended("failed"))
    (_, first) = play.effects
    play.let(redriven()).on(failed("plan"), dead("boom"), ended("failed"))
    (_, second) = play.effects
    assert isinstance(first, Finish)
    assert isinstance(second, Finish)
    assert first.event_id != second.event_id
    assert second.run.trouble.generation == 1


def test_the_same_redrive_again_has_no_effect() -> None:
    play = Playbook(LINE).on(requested(), task("plan")).on(failed("plan"), dead("boom"), ended("failed"))
    play.on(redriven(), deadline(AT_MS + 60_000), task("plan"))
    play.again(note("duplicate_redrive"))
    play.on(succeeded("plan"), ended("completed"))
    play.again(note("late_result"))


def test_another_redrive_of_what_is_redriven_already_has_no_effect() -> None:
    play = Playbook(LINE).on(requested(), task("plan")).on(requested(id="r2"), task("plan"))
    play.on(failed("plan"), dead("boom"))
    (lost,) = play.state.trouble.dead
    play.on(redriven(), task("plan"))
    play.on(redriven(n=2, task_id=lost.id, agent="plan"), note("nothing_to_redrive"))


def test_a_redrive_begins_the_chain_of_fallbacks_again() -> None:
    mesh = topology(a=agent("ask -> x", retry=ONCE, fallback=("b",)), b=agent("-> x", retry=ONCE))
    play = Playbook(mesh).on(requested(), task("a"))
    play.on(failed("a"), note("fell_back"), task("b"))
    play.on(failed("b"), dead("boom", agent="b"), ended("failed"))
    play.on(redriven(), deadline(AT_MS + 60_000), task("a"))


def test_a_refused_hop_can_be_sent_again() -> None:
    mesh = topology(Limits(payload_bytes_max=12), plan="ask -> plan.ready", write="plan.ready -> draft")
    play = Playbook(mesh).on(requested(), task("plan"))
    play.on(succeeded("plan", ("plan.ready", "more than twelve")), dead("payload"), ended("stopped"))
    play.on(redriven("write", payload=1), deadline(AT_MS + 60_000), task("write"))
    play.on(succeeded("write", "draft"), leaves("draft"), ended("completed"))


# Three hops that each reserve more than half of the budget: one is done, two are refused.
DEAR = {"reserve_usd_micros": 600_000}
SHORT = topology(
    Limits(usd_micros_max=1_000_000),
    a="ask -> mid, done",
    **{name: agent("mid ->", **DEAR) for name in "bcd"},  # type: ignore[arg-type]
)


def two_refused() -> Playbook:
    play = Playbook(SHORT).on(requested(), task("a"))
    play.on(succeeded("a", "mid", "done"), leaves("done"), task("b"), dead("budget_usd"), dead("budget_usd"))
    return play.on(succeeded("b"), ended("partial", refusals=["budget_usd", "budget_usd"], results=["done"]))


def told(play: Playbook) -> tuple[int, list[str]]:
    """Return the refusals of the outcome: their number, and the agents of the hops."""
    body = outcome_body(play.state)
    return body["refused"], [refusal["agent"] for refusal in body["refusals"]]


def test_a_refused_hop_that_is_redriven_twice_takes_only_its_own_refusal_back() -> None:
    play = two_refused()
    play.let(redriven("c", refusal=1)).on(succeeded("c"), ended("partial"))
    assert told(play) == (1, ["d"])
    play.let(redriven("c", refusal=1, n=2)).on(succeeded("c"), ended("partial"))
    assert told(play) == (1, ["d"])
    play.let(redriven("c", refusal=1, n=3)).on(succeeded("c"), ended("partial"))
    assert told(play) == (1, ["d"])
    play.let(redriven("d", refusal=2)).on(succeeded("d"), ended("completed"))
    assert told(play) == (0, [])


def test_a_redrive_that_names_no_refusal_of_the_run_does_nothing() -> None:
    play = two_refused()
    play.on(redriven("c", id="elsewhere:r1"), note("nothing_to_redrive"))
    assert told(play) == (2, ["c", "d"])


def test_a_redrive_that_is_refused_counts_nothing_and_its_letter_stands_for_the_first_one() -> None:
    play = Playbook(SHORT).on(requested(), task("a"))
    play.on(succeeded("a", "mid", "done"), leaves("done"), task("b"), dead("budget_usd"), dead("budget_usd"))
    play.on(redriven("c", refusal=1), dead("budget_usd", agent="c"))
    (denied,) = play.effects
    assert isinstance(denied, DeadLetter)
    play.again(note("duplicate_redrive"))
    assert play.state.refused == 2
    play.on(succeeded("b"), ended("partial"))
    play.let(redriven("c", id=f"{denied.id}:r1")).on(succeeded("c"), ended("partial"))
    assert told(play) == (1, ["d"])


def test_the_letter_of_a_refused_redrive_of_a_failure_takes_that_failure_back() -> None:
    budget = Limits(usd_micros_max=1_200_000)
    mesh = topology(budget, a=agent("ask -> x", retry=ONCE, **DEAR), b=agent("ask ->", **DEAR))  # type: ignore[arg-type]
    play = Playbook(mesh).on(requested(), task("a"), task("b"))
    play.on(failed("a"), dead("boom"))
    play.on(requested(id="r2"), task("a"), dead("budget_usd"))
    play.on(redriven("a"), dead("budget_usd"))
    (denied,) = play.effects
    assert isinstance(denied, DeadLetter)
    play.on(succeeded("b")).on(succeeded("a", "x"), leaves("x"), ended("failed"))
    play.let(redriven("a", id=f"{denied.id}:r1", task_id="")).on(succeeded("a", "x"), leaves("x"), ended("partial"))
    assert (play.state.failures, told(play)) == ((), (1, ["b"]))


def test_a_run_of_rules_1_that_counted_a_refusal_too_often_counts_it_by_name() -> None:
    play = two_refused()
    play.let(redriven("c", refusal=1)).on(succeeded("c"), ended("partial"))
    (heard,) = play.state.trouble.redrives
    old = play.state.trouble._replace(
        forgiven=3, redrives=(heard, heard.replace(":r1", ":r2"), heard.replace(":r1", ":r3"))
    )
    play.run = replace(play.state, trouble=old)
    assert told(play) == (1, ["d"])


def test_a_redrive_is_within_the_limits_of_the_run() -> None:
    mesh = topology(Limits(tasks_max=1), plan=agent("ask -> plan.ready", retry=ONCE))
    play = Playbook(mesh).on(requested(), task("plan")).on(failed("plan"), dead("boom"), ended("failed"))
    play.on(redriven(), dead("tasks"))
    assert play.state.ending == "failed"


def test_a_redrive_for_an_agent_that_is_not_there_is_a_dead_letter() -> None:
    play = Playbook(LINE).on(requested("nonsense"), dead("unknown_type"), ended("stopped"))
    play.on(redriven(agent="unknown"), dead("unknown_agent"))


def test_a_redrive_of_an_unknown_run_is_a_dead_letter() -> None:
    Playbook(LINE).on(happens("redriven", id="dead-1:r1", task_id="t"), dead("unknown_run"))


def test_what_waits_in_a_pause_is_within_the_bytes_that_a_run_may_hold() -> None:
    mesh = topology(Limits(state_bytes_max=12), plan="ask -> plan.ready", write="plan.ready -> draft")
    play = Playbook(mesh).on(requested(), task("plan")).on(PAUSE)
    play.on(succeeded("plan", ("plan.ready", "12345678901")), dead("state"), ended("stopped", tasks=1))


def test_a_redrive_that_would_wait_takes_nothing_back_where_the_run_may_not_hold_it() -> None:
    mesh = topology(
        Limits(state_bytes_max=12, depth_max=1), plan="ask -> plan.ready, note", write="plan.ready -> draft"
    )
    play = Playbook(mesh).let(requested(), requested(id="r2")).let(succeeded("plan", "plan.ready")).on(PAUSE)
    play.on(redriven("write", refusal=1, payload="12345678901"), dead("state", agent="write"))
    assert (play.state.refused, play.state.trouble.redrives, play.state.state_bytes) == (1, (), 0)
    play.on(redriven("write", refusal=1, payload="123456789", n=2))
    assert (play.state.refused, set(redriven_refusals(play.state)), play.state.state_bytes) == (1, {1}, 11)
