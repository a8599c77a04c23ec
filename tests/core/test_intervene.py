"""Pause, resume and redrive: what waits, what goes on, and that everything comes only once."""

from mesh.core.effect import Finish
from mesh.core.topology import Limits, Retry
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
    play.on(redriven(id="dead-1:r2", task_id=lost.id, agent="plan"), note("nothing_to_redrive"))


def test_a_redrive_begins_the_chain_of_fallbacks_anew() -> None:
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


def test_a_redrive_is_within_the_limits_of_the_run() -> None:
    mesh = topology(Limits(tasks_max=1), plan=agent("ask -> plan.ready", retry=ONCE))
    play = Playbook(mesh).on(requested(), task("plan")).on(failed("plan"), dead("boom"), ended("failed"))
    play.on(redriven(), dead("tasks"))
    assert play.state.ending == "failed"


def test_a_redrive_for_an_agent_that_is_not_there_is_a_dead_letter() -> None:
    play = Playbook(LINE).on(requested(), task("plan")).on(failed("plan"), dead("boom"), ended("failed"))
    play.on(redriven(agent="nobody", task_id=""), dead("unknown_agent"))


def test_a_redrive_of_a_run_that_nobody_knows_is_a_dead_letter() -> None:
    Playbook(LINE).on(happens("redriven", id="dead-1:r1", task_id="t"), dead("unknown_run"))


def test_what_waits_in_a_pause_is_within_the_bytes_that_a_run_may_hold() -> None:
    mesh = topology(Limits(state_bytes_max=12), plan="ask -> plan.ready", write="plan.ready -> draft")
    play = Playbook(mesh).on(requested(), task("plan")).on(PAUSE)
    play.on(succeeded("plan", ("plan.ready", "12345678901")), dead("state"), ended("stopped", tasks=1))
