"""Why each effect followed: every rule of `decide` that makes an effect has its sentence, with the numbers it read."""

from mesh.core.replay.reasons import skipped
from mesh.core.topology.model import BreakerRule, Limits, Retry
from tests.builders import AT_MS, agent, topology
from tests.core.replay.recorded import Recorded
from tests.playbook import cancelled, due, failed, happens, redriven, requested, resumed, succeeded

TWICE = Retry(attempts_max=2, first_ms=100, factor=1, jitter=0)
ONCE = Retry(attempts_max=1)


def test_a_task_follows_from_a_route_with_its_hop() -> None:
    recorded = Recorded(topology(price="ask -> priced")).let(requested())
    assert recorded.why("price") == "route: price is on ask; hop 1 of 16"
    assert recorded.why("deadline") == "deadline: limits.deadline is 60000 ms"


def test_a_task_follows_from_a_condition_with_the_values_that_it_read() -> None:
    mesh = topology(price=agent("ask -> priced", when="total > 5"), cheap=agent("ask -> priced", when="total <= 5"))
    recorded = Recorded(mesh).let(requested(payload={"total": 7}))
    assert recorded.why("price") == "when: price is on ask and total > 5 is true: total is 7; hop 1 of 16"
    (other,) = skipped(recorded.steps[-1])
    assert (other.name, other.text) == ("cheap", "total <= 5 is false: total is 7")


def test_a_task_follows_from_a_complete_join() -> None:
    mesh = topology(a="ask -> x", b="ask -> y", c="x & y -> done")
    recorded = Recorded(mesh).let(requested(), succeeded("a", "x"), succeeded("b", "y"))
    assert recorded.why("c") == "join: x + y are all there; hop 2 of 16"


def test_a_retry_reports_its_delay_and_its_number() -> None:
    recorded = Recorded(topology(price=agent("ask -> priced", retry=TWICE))).let(requested(), failed("price", "busy"))
    expected = "busy on attempt 1 of 2; again in 100 ms (100 ms × 1^0, at most 10000 ms, jitter 0)"
    assert recorded.why("price") == f"retry: {expected}"
    recorded.let(due("price", early_ms=-30))
    assert recorded.why("price") == "retry: attempt 2 of 2 is due, 30 ms after its time"


def test_an_agent_that_asks_for_later_uses_up_no_attempt() -> None:
    recorded = Recorded(topology(price=agent("ask -> priced", retry=TWICE))).let(requested())
    recorded.let(failed("price", "later", wait_ms=500))
    assert recorded.why("price") == "later: later: attempt 2 in 500 ms; no attempt is used up"


def test_a_dead_letter_reports_why_nothing_else_was_tried() -> None:
    mesh = topology(price=agent("ask -> priced", retry=ONCE))
    recorded = Recorded(mesh).let(requested(), failed("price", "busy"))
    assert recorded.why("price").startswith("busy: attempt 1 of 1, none is left; no fallback: ")
    assert recorded.why("failed") == "ending: nothing is open, and 1 failure"
    recorded = Recorded(topology(price="ask -> priced")).let(requested(), failed("price", "schema", retryable=False))
    assert "the input is at fault, so neither retry nor fallback helps" in recorded.why("price")
    recorded = Recorded(topology(price="ask -> priced")).let(requested(), failed("price", "x", retryable=False))
    assert "attempt 1 of 3, it is not retryable; no fallback" in recorded.why("price")


def test_a_fallback_reports_the_chain() -> None:
    mesh = topology(price=agent("ask -> priced", retry=ONCE, fallback=("cheap",)), cheap="other -> priced")
    recorded = Recorded(mesh).let(requested(), failed("price", "busy"))
    assert recorded.why("cheap") == (
        "fallback: price failed after 1 of 1 attempts (busy); chain price > cheap; hop 1 of 16"
    )


def test_an_open_breaker_moves_a_task_to_its_fallback() -> None:
    sick = agent("ask -> priced", retry=ONCE, fallback=("cheap",), breaker=BreakerRule(1, 5_000))
    mesh = topology(price=sick, cheap="other -> priced")
    recorded = Recorded(mesh).let(requested(), failed("price", "busy"), requested(id="r2", payload={"n": 2}))
    assert "price's breaker is open for 5000 ms more" in recorded.why("cheap")


def test_an_open_breaker_without_a_fallback_holds_a_task() -> None:
    mesh = topology(price=agent("ask -> priced", retry=ONCE, breaker=BreakerRule(1, 5_000)), plan="ask -> plan.ready")
    recorded = Recorded(mesh).let(requested(), failed("price", "busy"), requested(id="r2", payload={"n": 2}))
    (timer,) = (reason for reason in recorded.reasons() if reason.what == "timer")
    assert (timer.rule, timer.text) == ("breaker", "price's breaker is open: it is held for 5000 ms")


def test_a_refused_hop_reports_the_limit_and_the_number() -> None:
    mesh = topology(Limits(depth_max=1), plan="ask -> plan.ready", price="plan.ready -> priced")
    recorded = Recorded(mesh).let(requested(), succeeded("plan", "plan.ready"))
    assert recorded.why("price") == "depth: depth: plan > price is 2 hops deep, at most 1"
    assert recorded.why("stopped") == "ending: nothing is open, no result, and 1 refusal"


def test_a_refused_retry_is_shown_though_it_is_no_dead_letter() -> None:
    mesh = topology(Limits(deadline_ms=50), price=agent("ask -> priced", retry=TWICE))
    recorded = Recorded(mesh).let(requested(), failed("price", "busy"))
    (refused,) = (reason for reason in recorded.reasons() if reason.what == "refused")
    assert refused.rule == "deadline"
    assert refused.text.endswith("; limit 50, got 100")


def test_what_operators_did_is_a_reason() -> None:
    mesh = topology(price=agent("ask -> priced", retry=ONCE), plan="ask -> plan.ready")
    recorded = Recorded(mesh).let(requested(), failed("price"), redriven("price"))
    assert recorded.why("price").startswith("redrive: ")
    recorded = Recorded(mesh).let(
        requested(),
        happens("paused", id="p1", type="mesh.pause"),
        requested(id="r2", payload={"n": 2}),
        resumed(after_ms=40),
    )
    tasks = [reason for reason in recorded.reasons() if reason.what == "task"]
    assert {reason.rule for reason in tasks} == {"resume"}
    assert recorded.why("deadline").startswith("deadline: the run was paused: its deadline moved")
    recorded.let(cancelled())
    assert recorded.why("cancelled") == "ending: an operator cancelled it with 4 tasks open"


def test_an_event_that_leaves_and_an_ending_are_reported() -> None:
    recorded = Recorded(topology(price="ask -> priced")).let(requested(), succeeded("price", "priced"))
    assert recorded.why("priced") == "egress: topic out.priced lets it out"
    assert recorded.why("completed") == "ending: nothing is open, 1 result, nothing was lost"


def test_a_passed_deadline_ends_the_run() -> None:
    recorded = Recorded(topology(price="ask -> priced")).let(requested(), due(early_ms=-1))
    assert recorded.why("stopped") == "ending: the deadline passed with 1 task open"
    assert recorded.steps[-1].at_ms == AT_MS + 60_001


def test_a_note_says_what_its_code_means() -> None:
    recorded = Recorded(topology(price="ask -> priced")).let(
        requested(), happens("paused", id="p1", type="mesh.pause"), happens("paused", id="p1", type="mesh.pause")
    )
    assert recorded.why("already_paused").startswith("note: the run is paused already")
