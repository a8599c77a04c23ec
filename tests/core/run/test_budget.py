"""Money and tokens: set aside before, settled after, refused in the order of the log."""

import pytest

from mesh.core.protocol.event import Usage
from mesh.core.run.effects import Note
from mesh.core.topology.model import Limits, Retry
from tests.builders import agent, topology
from tests.playbook import Playbook, cancelled, dead, due, ended, failed, leaves, requested, retry, succeeded, task

DEAR = agent("ask -> answer", reserve_usd_micros=100, reserve_tokens=10, retry=Retry(jitter=0))


def desk(**limits: int) -> Playbook:
    return Playbook(topology(Limits(**limits), dear=DEAR))


def spent(play: Playbook) -> tuple[int, int, int, int]:
    """Money and tokens spent, money and tokens set aside."""
    run = play.state
    return run.usd_micros, run.tokens, run.reserved_usd_micros, run.reserved_tokens


def test_a_task_sets_its_reservation_aside_and_is_charged_what_it_used() -> None:
    play = desk().on(requested(), task("dear"))
    assert spent(play) == (0, 0, 100, 10)
    play.on(requested(id="r2"), task("dear"))
    assert spent(play) == (0, 0, 200, 20)
    play.on(succeeded("dear", "answer", usage=Usage(70, 3)), leaves("answer"))
    assert spent(play) == (70, 3, 100, 10)
    play.on(succeeded("dear", "answer", usage=Usage(170, 30)), leaves("answer"), ended("completed"))
    assert spent(play) == (240, 33, 0, 0)


def test_a_task_whose_report_is_no_usage_is_charged_its_reservation() -> None:
    play = desk().on(requested(), task("dear"))
    play.on(succeeded("dear", "answer", usage=None), leaves("answer"), ended("completed"))
    assert spent(play) == (100, 10, 0, 0)


def test_a_refused_result_is_charged_too() -> None:
    play = desk().on(requested(), task("dear"))
    play.on(succeeded("dear", "nonsense", usage=Usage(7, 1)), dead("undeclared_type"), ended("stopped"))
    assert spent(play) == (7, 1, 0, 0)


def test_a_result_that_does_not_count_is_not_charged() -> None:
    play = desk().on(requested(), task("dear"))
    play.let(succeeded("dear", "answer", usage=Usage(7, 1), attempt=5))
    assert spent(play) == (0, 0, 100, 10)


@pytest.mark.parametrize(
    ("limits", "code", "said"),
    [
        ({"usd_micros_max": 199}, "budget_usd", "reserves 100 millionths of a dollar where 100 are spent or reserved"),
        ({"tokens_max": 19}, "budget_tokens", "reserves 10 tokens where 10 are spent or reserved already, at most 19"),
    ],
)
def test_a_task_that_the_budget_cannot_bear_is_refused(limits: dict[str, int], code: str, said: str) -> None:
    play = desk(**limits).on(requested(), task("dear"))
    play.on(requested(id="r2"), dead(code, agent="dear"))
    assert play.state.refusals[0].message.startswith(f"{code}: dear {said}")
    assert (play.state.refusals[0].limit, play.state.refusals[0].actual) == (
        next(iter(limits.values())),
        next(iter(limits.values())) + 1,
    )


def test_a_task_that_exactly_fits_is_made() -> None:
    desk(usd_micros_max=200, tokens_max=20).on(requested(), task("dear")).on(requested(id="r2"), task("dear"))


def test_what_was_set_aside_and_not_used_can_be_spent_again() -> None:
    plan, dear = agent("ask -> x", reserve_usd_micros=100), agent("x ->", reserve_usd_micros=100)
    play = Playbook(topology(Limits(usd_micros_max=199), plan=plan, dear=dear)).on(requested(), task("plan"))
    play.on(succeeded("plan", "x", usage=Usage(99, 0)), task("dear"))


@pytest.mark.parametrize(
    ("limits", "usage", "unit"),
    [
        ({"tokens_max": 10}, Usage(0, 10), "budget_tokens: free > then reserves 0 tokens"),
        ({"usd_micros_max": 10}, Usage(10, 0), "budget_usd: free > then reserves 0 millionths of a dollar"),
    ],
)
def test_an_agent_that_reserves_nothing_is_refused_once_the_budget_is_used_up(
    limits: dict[str, int], usage: Usage, unit: str
) -> None:
    play = Playbook(topology(Limits(**limits), free="ask -> x", then="x -> y")).on(requested(), task("free"))
    play.on(succeeded("free", "x", usage=usage), dead(unit.partition(":")[0]), ended("stopped"))
    assert play.state.refusals[0].message == f"{unit} where 10 are spent or reserved already, at most 10"


def test_fifty_parallel_tasks_at_the_limit_are_refused_in_the_order_of_the_log() -> None:
    split = topology(
        Limits(usd_micros_max=1_000), split="ask -> part", work=agent("part -> done", reserve_usd_micros=30)
    )
    made = [task("work", data=b"%d" % n) for n in range(33)]
    refused = [dead("budget_usd", value=b"%d" % n) for n in range(33, 50)]
    play = Playbook(split).on(requested(), task("split"))
    play.on(succeeded("split", *(("part", n) for n in range(50))), *made, *refused)
    assert spent(play)[2] == 990
    for _ in range(33):
        play.let(succeeded("work", "done", usage=Usage(30, 0)))
    assert (play.state.ending, spent(play)) == ("partial", (990, 0, 0, 0))


# ------------------------------------------------------------------------------------------------------------- retries


def test_every_attempt_is_charged_and_the_next_one_sets_its_own_reservation_aside() -> None:
    play = desk().on(requested(), task("dear"))
    play.on(failed("dear", usage=Usage(60, 5)), retry())
    assert spent(play) == (60, 5, 100, 10)
    play.on(due("dear"), task("dear"))
    assert spent(play) == (60, 5, 100, 10)
    play.on(succeeded("dear", "answer", usage=Usage(40, 4)), leaves("answer"), ended("completed"))
    assert spent(play) == (100, 9, 0, 0)


def test_an_attempt_that_the_budget_cannot_bear_any_more_is_not_made() -> None:
    play = desk(usd_micros_max=150).on(requested(), task("dear"))
    play.on(failed("dear", usage=Usage(60, 5)), dead("boom", attempts=1), ended("failed", refusals=["budget_usd"]))
    assert spent(play) == (60, 5, 0, 0)


def test_the_last_failure_is_charged_and_gives_its_reservation_back() -> None:
    play = desk().on(requested(), task("dear"))
    play.on(failed("dear", retryable=False, usage=None), dead("boom"), ended("failed"))
    assert spent(play) == (100, 10, 0, 0)


# -------------------------------------------------------------------------------------------------- what is in flight


def test_a_run_that_is_ended_is_charged_what_its_tasks_in_flight_had_reserved() -> None:
    play = (
        desk().on(requested(), task("dear")).on(requested(id="r2"), task("dear")).on(requested(id="r3"), task("dear"))
    )
    play.on(failed("dear", usage=Usage(1, 1)), retry())
    play.on(cancelled(), ended("cancelled"))
    assert spent(play) == (201, 21, 0, 0)


# ------------------------------------------------------------------------------------------------------ forged amounts


@pytest.mark.parametrize("way", ["succeeded", "failed"])
def test_an_attempt_is_charged_no_more_than_it_might_spend(way: str) -> None:
    """The money that other attempts have reserved, and what was spent before, is not its to spend."""
    play = desk(usd_micros_max=1_000, tokens_max=100).on(requested(), task("dear")).on(requested(id="r2"), task("dear"))
    claim = Usage(10**15 - 1, 10**15 - 1)
    play.let(succeeded("dear", "answer", usage=claim) if way == "succeeded" else failed("dear", usage=claim))
    said = [effect for effect in play.effects if isinstance(effect, Note) and effect.code == "overspent"]
    assert [effect.security for effect in said] == [True]
    assert "claims 999999999999999 millionths" in said[0].message
    assert spent(play)[:2] == (900, 90)


def test_the_last_attempt_may_spend_what_is_left_and_no_more() -> None:
    play = desk(usd_micros_max=1_000).on(requested(), task("dear"))
    play.let(succeeded("dear", "answer", usage=Usage(1_000_000, 7)))
    assert (play.state.ending, spent(play)) == ("partial", (1_000, 7, 0, 0))
    assert play.state.overspent == ("usd: 1 used, at most 0.001",), "what was not charged counts for the ending"


def test_an_attempt_that_spends_more_than_it_reserved_is_charged_that_while_the_budget_lasts() -> None:
    play = desk(usd_micros_max=1_000, tokens_max=1_000).on(requested(), task("dear"))
    play.on(succeeded("dear", "answer", usage=Usage(999, 1_000)), leaves("answer"), ended("completed"))
    assert spent(play) == (999, 1_000, 0, 0)
