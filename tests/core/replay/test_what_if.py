"""Recorded events under another topology: the endings are those of a mesh that ran the same requests under it."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.protocol.event import NO_USAGE, Event, Fault, Part, Usage, fingerprint
from mesh.core.publishing.effect_records import outcome_body
from mesh.core.replay.endings import UNKNOWN, RunWhatIf
from mesh.core.replay.what_if import Variants, WhatIf
from mesh.core.run.effects import Finish
from mesh.core.run.state import Run
from mesh.core.state.topology_registry import Registry
from mesh.core.topology.digest import digest_of
from mesh.core.topology.model import Limits, Retry, Topology
from tests.builders import agent, json, record, topology
from tests.core.replay.played import Answer, Played, sole
from tests.playbook import Playbook, failed, redriven, requested, succeeded

MESH = sole(
    topology(
        Limits(depth_max=6, deadline_ms=60_000),
        plan="ask -> part, whole",
        cut=agent("part -> part, cutting", visits_max=100),
        price=agent("cutting -> priced", retry=Retry(attempts_max=2, first_ms=5, factor=1, jitter=0)),
        stock=agent("whole -> stocked", when="n > 2"),
        ship="priced & stocked -> shipped",
        leaves=("priced",),
    )
)


def limited(mesh: Topology, **limits: Any) -> Topology:
    other = replace(mesh, limits=replace(mesh.limits, **limits))
    return replace(other, digest=digest_of(other))


def behave(task: Event) -> Answer:
    """Return an answer that follows from the input alone."""
    chance = int(fingerprint(task.data + task.agent.encode())[:4], 16)
    payload = {"n": chance % 9, "deep": task.depth}
    match task.agent:
        case "plan":
            return [Part("part", json({**payload, "part": n})) for n in range(chance % 3 + 1)] + [
                Part("whole", json(payload))
            ]
        case "cut":
            return [Part("part" if chance % 3 else "cutting", json(payload)), Part("cutting", json(payload))]
        case "price" if chance % 5 == 0:
            return Fault("boom", "it broke", retryable=bool(chance % 2))
        case "price":
            return [Part("priced", json(payload))]
        case "stock":
            return [Part("stocked", json(payload))]
    return [Part("shipped", json(payload))]


def played(mesh: Topology, requests: list[dict[str, int]], usage: Usage = NO_USAGE) -> Played:
    return Played(mesh, requests, behave, usage)


REQUESTS = st.lists(st.fixed_dictionaries({"n": st.integers(0, 999)}), min_size=1, max_size=6)


@given(requests=REQUESTS, exact=st.booleans(), late=st.integers(0, 9))
def test_under_its_own_topology_every_run_ends_as_recorded(
    requests: list[dict[str, int]], exact: bool, late: int
) -> None:
    recorded = played(MESH, requests)
    found = recorded.what_if(MESH, exact=exact, late=late)
    assert {id: run.after for id, run in found.items()} == recorded.endings
    assert not any(run.differs for run in found.values())


@given(requests=REQUESTS, depth_max=st.integers(1, 6), exact=st.booleans(), late=st.integers(0, 9))
def test_with_a_lower_limit_of_depth_every_run_ends_as_in_a_mesh_with_that_limit(
    requests: list[dict[str, int]], depth_max: int, exact: bool, late: int
) -> None:
    lower = limited(MESH, depth_max=depth_max)
    found = played(MESH, requests).what_if(lower, exact=exact, late=late)
    assert {id: run.after for id, run in found.items()} == played(lower, requests).endings


@given(requests=REQUESTS, limit=st.sampled_from([{"fanout_max": 2}, {"payload_bytes_max": 20}, {"usd_micros_max": 30}]))
def test_other_limits_that_do_not_depend_on_the_order_of_answers_do_the_same(
    requests: list[dict[str, int]], limit: dict[str, int]
) -> None:
    lower = limited(MESH, **limit)
    usage = Usage(0 if "usd_micros_max" not in limit else 1)
    found = played(MESH, requests, usage).what_if(lower)
    fresh = played(lower, requests, usage).endings
    assert {id: run.after.ending for id, run in found.items() if not run.asked} == {
        id: ending.ending for id, ending in fresh.items() if not found[id].asked
    }


@given(requests=REQUESTS)
def test_with_a_higher_limit_a_run_is_unknown_exactly_where_a_hop_had_been_refused(
    requests: list[dict[str, int]],
) -> None:
    low = limited(MESH, depth_max=3)
    recorded = played(low, requests)
    for run_id, run in recorded.what_if(MESH).items():
        refused = any(text.startswith("depth") for text in recorded.endings[run_id].reasons)
        assert (run.after.ending == UNKNOWN) is refused
        assert bool(run.asked) is refused


CHAIN = sole(topology(plan="ask -> half", price="half -> priced"))


def answer_all(task: Event) -> Answer:
    return [Part("half" if task.agent == "plan" else "priced", task.data)]


def test_a_route_that_is_gone_leaves_its_tasks_out() -> None:
    both = sole(topology(plan="ask -> half", price="half -> priced", audit="half -> audited"))
    (run,) = Played(both, [{"n": 1}], lambda t: [Part(both.agents[t.agent].emits[0], t.data)]).what_if(CHAIN).values()
    assert run.before is not None
    assert (run.before.tasks, run.after.tasks, run.after.ending) == (3, 2, "completed")
    assert run.reason == "other results"


def test_a_route_that_is_new_is_unknown_and_the_others_keep_their_answers_though_their_ids_shift() -> None:
    before = sole(topology(price="ask -> priced", ship="priced -> shipped"))
    after = sole(topology(audit="ask -> audited", price="ask -> priced", ship="priced -> shipped"))
    (run,) = (
        Played(before, [{"n": 1}], lambda t: [Part(before.agents[t.agent].emits[0], t.data)]).what_if(after).values()
    )
    assert (run.after.ending, run.asked, run.after.tasks, run.after.results) == (UNKNOWN, ("audit",), 3, 1)
    assert run.reason == "unknown from here: no recorded answer of audit"


def test_an_agent_with_another_input_gets_no_recorded_answer() -> None:
    before = sole(topology(plan="ask -> half, other", price="half -> priced"))
    after = sole(topology(plan="ask -> half, other", price="other -> priced"))

    def answers(task: Event) -> Answer:
        return [Part("half", b"1"), Part("other", b"2")] if task.agent == "plan" else [Part("priced", task.data)]

    (run,) = Played(before, [{}], answers).what_if(after).values()
    assert (run.after.ending, run.asked) == (UNKNOWN, ("price",))


def test_a_lower_deadline_ends_runs_at_it_before_their_next_event() -> None:
    lower = limited(CHAIN, deadline_ms=1)
    (run,) = Played(CHAIN, [{}], answer_all).what_if(lower).values()
    assert (run.after.ending, run.after.reasons, run.after.tasks) == ("stopped", ("deadline of the request",), 2)


def test_with_a_longer_deadline_an_answer_counts_that_was_recorded_too_late() -> None:
    short = limited(CHAIN, deadline_ms=1)
    (run,) = Played(short, [{}], answer_all).what_if(CHAIN).values()
    assert run.before is not None
    assert run.before.ending == "stopped"
    assert (run.after.ending, run.after.tasks) == ("completed", 2)


def broken(task: Event) -> Answer:
    return Fault("boom", "it broke")


@pytest.mark.parametrize(("attempts", "ending"), [(1, "failed"), (2, "failed"), (3, "failed"), (4, UNKNOWN)])
def test_fewer_retries_fail_sooner_and_more_are_unknown(attempts: int, ending: str) -> None:
    def mesh(attempts: int, first_ms: int) -> Topology:
        retry = Retry(attempts_max=attempts, first_ms=first_ms, factor=1, jitter=0)
        return sole(topology(price=agent("ask -> priced", retry=retry)))

    recorded = Played(mesh(3, 50), [{}], broken)
    for first_ms in (50, 20, 500):
        (run,) = recorded.what_if(mesh(attempts, first_ms)).values()
        assert (run.after.ending, run.asked) == (ending, ("price",) if ending == UNKNOWN else ())


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("late", [True, False])
def test_a_redriven_run_ends_once_more_as_recorded(exact: bool, late: bool) -> None:
    """Also if both outcomes come after all records of the inbox, as in a batch of the log."""
    mesh = sole(topology(price=agent("ask -> priced", retry=Retry(attempts_max=1))))
    play, found = Playbook(mesh), list[RunWhatIf]()
    what_if = WhatIf(Variants(mesh, Registry(mesh.inbox), lambda t: t), number=0, exact=exact, done=found.append)
    waiting: list[Run] = []
    for n, move in enumerate((requested(), failed("price"), redriven("price"), succeeded("price", "priced"))):
        play.let(move)
        assert play.last is not None
        what_if.take(record(play.last, n))
        waiting += [effect.run for effect in play.effects if isinstance(effect, Finish)]
        while waiting and (not late or n == 3):
            run = waiting.pop(0)
            what_if.take_outcome(run.id, outcome_body(run))
    what_if.finish()
    assert [run.after.ending for run in found] == ["failed", "completed"]
    assert not any(run.differs for run in found)
    assert what_if.outside == 0


def test_requests_from_the_end_of_a_window_on_are_left_out() -> None:
    recorded = Played(CHAIN, [{"n": n} for n in range(4)], answer_all)
    found: list[RunWhatIf] = []
    until_ms = next(stored.timestamp for stored in recorded.records if stored.key == b"run-2")
    variants = Variants(CHAIN, Registry(CHAIN.inbox), lambda t: t)
    what_if = WhatIf(variants, number=0, until_ms=until_ms, done=found.append)
    for stored in recorded.records:
        what_if.take(stored)
    assert what_if.idle is False
    for run_id, body in recorded.outcomes.items():
        what_if.take_outcome(run_id, body)
    assert what_if.idle
    assert {run.run_id for run in found} == {"run-0", "run-1"}
    assert what_if.outside == 2


def test_memory_follows_the_open_runs_and_not_all_runs() -> None:
    recorded = Played(MESH, [{"n": n} for n in range(60)], behave)
    variants = Variants(MESH, Registry(MESH.inbox), lambda t: limited(t, depth_max=3))
    for exact in (False, True):
        what_if, told = WhatIf(variants, number=0, exact=exact), iter(recorded.told)
        at = next(told)
        for stored in recorded.records:
            what_if.take(stored)
            while at is not None and at[0] <= stored.offset:
                what_if.take_outcome(*at[1:])
                at = next(told, None)  # type: ignore[assignment]
        assert what_if.idle
        assert not what_if._waiting
        assert not what_if._overdue
