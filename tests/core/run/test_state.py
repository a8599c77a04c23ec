"""Endings and deadlines, and the tables of states walked: neither table nor code says what the other does not."""

import pytest

from mesh.core.protocol.event import ADOPTED, INBOX_KINDS, SWITCHED, Usage
from mesh.core.run.effects import Finish
from mesh.core.run.state import ENDINGS, RUN_STATES, TASK_STATES, Run
from mesh.core.topology.model import Limits, Retry
from tests.builders import AT_MS, agent, topology
from tests.core.states import run_state, task_state
from tests.playbook import (
    Move,
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

ECHO = topology(echo="ask -> answer")

# -------------------------------------------------------------------------------------------------- the tables, walked

DESK = topology(
    Limits(payload_bytes_max=12, cascade_max=1, tokens_max=100),
    plan=agent("ask -> plan.ready", retry=Retry(attempts_max=2)),
    write=agent("plan.ready -> draft", fallback=("write_slow", "write_by_hand")),
    write_slow=agent("-> draft"),
    write_by_hand=agent("-> draft"),
    check="draft & proof -> checked",
    count=agent("tally ->", when="go", visits_max=0),
    file=agent("note ->", when="urgent"),
    log="idea -> note",
    leaves=["plan.ready", "tally"],
    comes_in=["proof", "note", "idea"],
)
"""A mesh in which every transition can happen: a long draft is refused, a short one starves, a note that is not urgent
goes nowhere."""
LONG = ("draft", "more than twelve")
PLANNED = (requested(), succeeded("plan", "plan.ready"))
RETRIED = (requested(), failed("plan"), due("plan"))
TWICE = (requested(), requested(id="r2"), failed("plan", retryable=False))

PAUSED = (requested(), happens("paused", subject="let me look"))
LAST = (*PLANNED, happens("paused"))
WITH_IDEA = (*PLANNED, requested("idea", id="r2"), succeeded("write"))
IDEA = (requested("idea"),)
PAUSE = happens("paused")
FAILS = failed("plan", retryable=False)
DEAR = succeeded("write", usage=Usage(0, 101))

RUN_WALKS: dict[tuple[str, str, str], tuple[Move, ...]] = {
    ("(none)", "requested", "open"): (requested(),),
    ("(none)", "requested, nothing to do", "completed"): (requested("tally"),),
    ("(none)", "requested, something refused but a result", "partial"): (requested("tally", {"go": True}),),
    ("(none)", "requested, starved join", "partial"): (requested("proof"),),
    ("(none)", "requested, refused", "stopped"): (requested("nonsense"),),
    ("(none)", "requested, unrouted", "stopped"): (requested("note"),),
    ("open", "requested", "open"): (requested(), requested(id="r2")),
    ("open", "succeeded, more to do", "open"): PLANNED,
    ("open", "failed, attempts left", "open"): (requested(), failed("plan")),
    ("open", "failed for good, more to do", "open"): TWICE,
    ("open", "failed, cut short by the deadline", "open"): (requested(), failed("plan", "expired")),
    ("open", "due (retry)", "open"): RETRIED,
    ("open", "due (deadline), early", "open"): (requested(), due(early_ms=1)),
    ("open", "succeeded, nothing open", "completed"): (*PLANNED, succeeded("write")),
    ("open", "succeeded, nothing open, something refused but a result", "partial"): (
        *PLANNED,
        succeeded("write", LONG),
    ),
    ("open", "succeeded, nothing open, starved join", "partial"): (*PLANNED, succeeded("write", "draft")),
    ("open", "succeeded, nothing open, something refused and no result", "stopped"): (
        requested(),
        succeeded("plan", ("plan.ready", "more than twelve")),
    ),
    ("open", "succeeded, nothing open, something unrouted but a result", "partial"): (
        *WITH_IDEA,
        succeeded("log", "note"),
    ),
    ("open", "succeeded, nothing open, something unrouted and no result", "stopped"): (*IDEA, succeeded("log", "note")),
    ("open", "succeeded, nothing open, overspent", "partial"): (*PLANNED, DEAR),
    ("open", "succeeded, nothing open, failed task", "failed"): (*TWICE, succeeded("plan")),
    ("open", "failed for good, nothing open", "failed"): (*RETRIED, failed("plan")),
    ("open", "due (deadline)", "stopped"): (requested(), due()),
    ("open", "cancelled", "cancelled"): (requested(), cancelled()),
    ("open", "failed for good, a fallback left", "open"): (*PLANNED, failed("write", retryable=False)),
    ("open", "failed, tried later", "open"): (requested(), failed("plan", "later")),
    ("open", "redriven", "open"): (*TWICE, redriven()),
    ("open", "paused", "paused"): PAUSED,
    ("open", "failed for good, cascade", "paused"): (
        *PLANNED,
        failed("write", retryable=False),
        failed("write_slow", retryable=False),
    ),
    ("paused", "requested", "paused"): (*PAUSED, requested(id="r2")),
    ("paused", "succeeded, more to do", "paused"): (*PAUSED, succeeded("plan", "plan.ready")),
    ("paused", "failed, attempts left", "paused"): (*PAUSED, failed("plan")),
    ("paused", "failed for good, more to do", "paused"): (*TWICE[:-1], PAUSE, TWICE[-1]),
    ("paused", "failed for good, a fallback left", "paused"): (*LAST, failed("write", retryable=False)),
    ("paused", "failed, tried later", "paused"): (*PAUSED, failed("plan", "later")),
    ("paused", "failed, cut short by the deadline", "paused"): (*PAUSED, failed("plan", "expired")),
    ("paused", "due (retry)", "paused"): (*RETRIED[:-1], PAUSE, RETRIED[-1]),
    ("paused", "redriven", "paused"): (*TWICE, PAUSE, redriven()),
    ("paused", "succeeded, nothing open", "completed"): (*LAST, succeeded("write")),
    ("paused", "succeeded, nothing open, something refused but a result", "partial"): (*LAST, succeeded("write", LONG)),
    ("paused", "succeeded, nothing open, something refused and no result", "stopped"): (
        *PAUSED,
        succeeded("plan", ("plan.ready", "more than twelve")),
    ),
    ("paused", "succeeded, nothing open, something unrouted but a result", "partial"): (
        *WITH_IDEA,
        PAUSE,
        succeeded("log", "note"),
    ),
    ("paused", "succeeded, nothing open, something unrouted and no result", "stopped"): (
        *IDEA,
        PAUSE,
        succeeded("log", "note"),
    ),
    ("paused", "succeeded, nothing open, starved join", "partial"): (*LAST, succeeded("write", "draft")),
    ("paused", "succeeded, nothing open, overspent", "partial"): (*LAST, DEAR),
    ("paused", "succeeded, nothing open, failed task", "failed"): (*TWICE, PAUSE, succeeded("plan")),
    ("paused", "failed for good, nothing open", "failed"): (*PAUSED, failed("plan", retryable=False)),
    ("paused", "resumed", "open"): (*PAUSED, resumed()),
    ("paused", "due (deadline), pause not over", "paused"): (*PAUSED, due()),
    ("paused", "due (deadline), pause over", "stopped"): (*PAUSED, due(early_ms=-90_000_000)),
    ("paused", "cancelled", "cancelled"): (*PAUSED, cancelled()),
    ("failed", "redriven", "open"): (requested(), failed("plan", retryable=False), redriven()),
    ("partial", "redriven", "open"): (*PLANNED, succeeded("write", LONG), redriven("write")),
    ("stopped", "redriven", "open"): (*TWICE, due(), redriven()),
    ("cancelled", "redriven", "open"): (*TWICE, cancelled(), redriven()),
    ("failed", "redriven, ended while it was paused", "paused"): (*PAUSED, FAILS, redriven()),
    ("completed", "redriven, a refusal once more", "open"): (
        *PLANNED,
        succeeded("write", LONG),
        redriven("write"),
        succeeded("write"),
        redriven("write", n=2),
    ),
}

TASK_WALKS: dict[tuple[str, str, str], tuple[Move, ...]] = {
    ("(none)", "dispatched", "open"): (requested(),),
    ("open", "succeeded", "done"): PLANNED,
    ("open", "failed, attempts left", "waiting"): (requested(), failed("plan")),
    ("waiting", "due", "open"): RETRIED,
    ("open", "failed for good", "dead"): (*RETRIED, failed("plan")),
    ("open", "run ended", "dropped"): (requested(), cancelled()),
    ("waiting", "run ended", "dropped"): (requested(), failed("plan"), cancelled()),
}
# The other transitions are walked in test_failure and test_intervene: the id of the task is another one there.
ELSEWHERE = {
    ("open", "failed for good, a fallback left", "replaced"),
    ("(none)", "dispatched, breaker open or run paused", "waiting"),
    ("waiting", "resumed", "open"),
    ("dead", "redriven, as a new task", "replaced"),
}


def test_every_row_of_the_tables_is_walked_and_no_other() -> None:
    assert set(RUN_WALKS) == set(RUN_STATES)
    assert set(TASK_WALKS) | ELSEWHERE == set(TASK_STATES)


@pytest.mark.parametrize(
    ("row", "moves"), RUN_WALKS.items(), ids=lambda x: "-".join(x) if isinstance(x[0], str) else ""
)
def test_a_run_goes_as_its_table_says(row: tuple[str, str, str], moves: tuple[Move, ...]) -> None:
    play = Playbook(DESK).let(*moves[:-1])
    before = run_state(play.run)
    play.let(moves[-1])
    assert (before, run_state(play.run)) == (row[0], row[2])


@pytest.mark.parametrize(
    ("row", "moves"), TASK_WALKS.items(), ids=lambda x: "-".join(x) if isinstance(x[0], str) else ""
)
def test_a_task_goes_as_its_table_says(row: tuple[str, str, str], moves: tuple[Move, ...]) -> None:
    play = Playbook(DESK).let(requested())
    (id,) = play.state.open
    before = "(none)"
    for move in moves[1:]:
        before = task_state(play.run, id)
        play.let(move)
    assert (before, task_state(play.run, id)) == (row[0], row[2])


def test_the_tables_use_every_ending_and_every_kind_of_event() -> None:
    assert {after for _, _, after in RUN_STATES} == {"open", "paused", *ENDINGS}
    assert {said.replace(",", " ").split()[0] for _, said, _ in RUN_STATES} == INBOX_KINDS - {SWITCHED, ADOPTED}


# ------------------------------------------------------------------------------------------------------------- endings


def test_a_run_with_a_result_and_a_refusal_is_partial() -> None:
    play = Playbook(topology(Limits(payload_bytes_max=10), a="ask -> x", b="ask -> y"))
    play.on(requested(), task("a"), task("b"))
    play.on(succeeded("a", "x"), leaves("x"))
    play.on(succeeded("b", ("y", "more than ten")), dead("payload"), ended("partial", results=["x"]))


def test_a_failure_outweighs_refusals_and_starved_joins() -> None:
    play = Playbook(topology(Limits(payload_bytes_max=10), a="ask -> x", b="ask -> y", c="ask -> z", j="x & y -> k"))
    play.on(requested(), task("a"), task("b"), task("c"))
    play.on(succeeded("a", "x"))
    play.on(succeeded("b", ("y", "more than ten")), dead("payload"))
    play.on(
        failed("c", retryable=False),
        dead("boom"),
        ended("failed", refusals=["payload"], starved=["j: got x; missing y"], failures=["c"]),
    )


def test_an_event_that_nothing_took_leaves_a_run_partial_or_stopped() -> None:
    mesh = topology(a="ask -> x, y", b=agent("x -> z", when="n > 3"), leaves=["y"])
    told = "x from a: b takes it when n > 3"
    play = Playbook(mesh).on(requested(), task("a"))
    play.on(succeeded("a", ("x", {"n": 1}), "y"), leaves("y"), ended("partial", unrouted=[told]))
    play = Playbook(mesh).on(requested(), task("a"))
    play.on(succeeded("a", ("x", {"n": 1})), ended("stopped", unrouted=[told]))
    play = Playbook(mesh).on(requested(), task("a"))
    play.on(succeeded("a", ("x", {"m": 1})), ended("stopped", unrouted=[f"{told}; n is missing"]))


def test_a_run_that_used_more_than_its_budget_is_partial_and_says_so() -> None:
    mesh = topology(Limits(usd_micros_max=1_000_000, tokens_max=10), a="ask -> x")
    play = Playbook(mesh).on(requested(), task("a"))
    told = ["usd: 9.5 used, at most 1", "tokens: 11 used, at most 10"]
    play.on(
        succeeded("a", "x", usage=Usage(9_500_000, 11)),
        note("overspent"),
        leaves("x"),
        ended("partial", overspent=told),
    )
    play = Playbook(mesh).on(requested(), task("a"))
    play.on(succeeded("a", "x", usage=Usage(1_000_000, 10)), leaves("x"), ended("completed", overspent=[]))


def test_a_run_that_was_cancelled_says_what_it_overspent() -> None:
    mesh = topology(Limits(tokens_max=10), a="ask -> x", b="ask -> y")
    play = Playbook(mesh).on(requested(), task("a"), task("b"))
    play.on(succeeded("a", "x", usage=Usage(0, 11)), note("overspent"), leaves("x"))
    play.on(cancelled(), ended("cancelled", overspent=["tokens: 11 used, at most 10"]))


def test_an_outcome_has_the_same_id_however_the_run_ends() -> None:
    (first,) = Playbook(ECHO).on(requested(), task("echo")).on(cancelled(), ended("cancelled")).effects
    (second,) = Playbook(ECHO).on(requested(), task("echo")).on(due(), ended("stopped")).effects
    assert isinstance(first, Finish)
    assert isinstance(second, Finish)
    assert first.event_id == second.event_id


def test_a_cancelled_run_ends_at_once_with_what_it_has() -> None:
    play = Playbook(topology(a="ask -> x", b="ask -> y"))
    play.on(requested(), task("a"), task("b"))
    play.on(succeeded("a", "x"), leaves("x"))
    play.on(
        happens("cancelled", at_ms=AT_MS + 7), ended("cancelled", results=["x"], opened_ms=AT_MS, ended_ms=AT_MS + 7)
    )
    play.again(note("already_terminal"))
    play.on(succeeded("b", "y"), note("late_result"))


# ----------------------------------------------------------------------------------------------------------- deadlines


def test_the_deadline_is_that_of_the_mesh() -> None:
    Playbook(ECHO).on(requested(), task("echo"), deadline(AT_MS + 60_000))


def test_a_request_that_expires_earlier_has_the_earlier_deadline() -> None:
    Playbook(ECHO).on(requested(expiry_ms=AT_MS + 500), task("echo", expiry_ms=AT_MS + 500), deadline(AT_MS + 500))


def test_a_request_that_expires_later_has_the_deadline_of_the_mesh() -> None:
    Playbook(ECHO).on(requested(expiry_ms=AT_MS + 10**12), task("echo"), deadline(AT_MS + 60_000))


@pytest.mark.parametrize("expired_ms", [0, 1, 5_000])
def test_a_request_that_had_expired_when_it_arrived_is_refused(expired_ms: int) -> None:
    play = Playbook(ECHO)
    play.on(requested(expiry_ms=AT_MS - expired_ms), dead("bad_deadline"), ended("stopped", refusals=["bad_deadline"]))
    assert f"it passed {expired_ms} ms before" in play.state.refusals[0].message


def test_a_deadline_that_is_due_early_is_set_again() -> None:
    play = Playbook(ECHO).on(requested(), task("echo"))
    play.on(due(early_ms=1), deadline(AT_MS + 60_000))
    play.on(due(id="anything"), ended("stopped"))


def test_a_deadline_that_passed_stops_the_run_and_names_the_agents_it_waited_for() -> None:
    play = Playbook(topology(a="ask -> x", b="ask -> y", c="x -> z"))
    play.on(requested(), task("a"), task("b"))
    play.on(succeeded("a", "x"), task("c"))
    play.on(due(), ended("stopped", refusals=["deadline"], results=[]))
    said = "deadline: 60000 ms after its request the run still waits for b, c; at most 60000"
    assert play.state.refusals[0].message == said
    play.on(succeeded("c", "z"), note("late_result"))


def test_a_deadline_stops_a_run_while_a_task_waits_for_its_next_attempt() -> None:
    play = Playbook(topology(a=agent("ask ->", retry=Retry(first_ms=50_000, delay_ms_max=50_000, jitter=0))))
    play.on(requested(), task("a"))
    play.on(failed("a", after_ms=9_999), retry(due_ms=AT_MS + 59_999))
    play.on(due(), ended("stopped", refusals=["deadline"]))


def test_a_result_before_the_timer_wins_though_the_deadline_has_passed() -> None:
    play = Playbook(ECHO).on(requested(), task("echo"))
    play.on(succeeded("echo", "answer", after_ms=60_001), leaves("answer"), ended("completed"))
    play.on(happens("due", at_ms=AT_MS + 60_002), note("late_timer"))


# ------------------------------------------------------------------------------------------------------------- the copy


def test_a_copy_is_equal_and_shares_nothing_that_is_changed_in_place() -> None:
    play = Playbook(DESK).let(*PLANNED)
    run = play.state
    copy = run.copy()
    assert copy == run
    copy.open.clear()
    assert run.open


def test_a_copy_has_every_field() -> None:
    run = Playbook(DESK).let(*PLANNED, succeeded("write", LONG)).state
    copy = run.copy()
    assert [getattr(copy, name) for name in Run.__slots__] == [getattr(run, name) for name in Run.__slots__]
