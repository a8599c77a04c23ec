"""Events that nothing took are named; those that something took, or that an agent ignores, are not."""

from typing import Any

import pytest

from mesh.core.run.unrouted import KEPT_MAX
from mesh.core.topology.model import Topology
from mesh.core.topology.serialization import pinned_bytes, pinned_topology
from tests.builders import agent, topology
from tests.playbook import Playbook, due, ended, leaves, requested, succeeded, task


def told(mesh: Topology, payload: Any) -> list[str]:
    """Return the reported text for a request with this payload, which no agent takes."""
    run = Playbook(mesh).let(requested(payload=payload)).state
    return [event.message for event in run.unrouted]


# ---------------------------------------------------------------------------------------------------- one agent a time


def test_an_event_whose_every_condition_is_false_names_them() -> None:
    mesh = topology(big=agent("ask -> x", when="n > 9"), small=agent("ask -> x", when="n < 1"))
    assert told(mesh, {"n": 5}) == ["ask from the request: big takes it when n > 9; small takes it when n < 1"]
    assert told(mesh, {"n": 10}) == told(mesh, {"n": 0}) == []


def test_an_event_whose_condition_reads_a_misspelt_field_names_that_field() -> None:
    mesh = topology(big=agent("ask -> x", when="totl > 9"))
    assert told(mesh, {"total": 10}) == ["ask from the request: big takes it when totl > 9; totl is missing"]


def test_a_type_that_no_agent_consumes_and_no_topic_emits_is_unrouted() -> None:
    mesh = topology(big="ask -> x", comes_in=["odd"])
    play = Playbook(mesh).on(requested("odd"), ended("stopped", results=[]))
    assert play.state.unrouted[0].message == "odd from the request: no agent hears it, and no topic lets it out"


def test_a_type_that_leaves_the_mesh_is_taken_whatever_the_conditions_say() -> None:
    mesh = topology(a="ask -> x", log=agent("x ->", when="n > 3"), leaves=["x"])
    play = Playbook(mesh).on(requested(), task("a"))
    play.on(succeeded("a", ("x", {"n": 1})), leaves("x"), ended("completed", unrouted=[]))


def test_an_agent_may_ignore_what_its_condition_refuses() -> None:
    mesh = topology(big=agent("ask -> x", when="n > 9", ignores=True), small=agent("ask -> x", when="n < 1"))
    Playbook(mesh).on(requested(payload={"n": 5}), ended("completed", unrouted=[]))


def test_to_ignore_does_not_excuse_a_field_that_is_missing() -> None:
    mesh = topology(big=agent("ask -> x", when="n > 9", ignores=True))
    Playbook(mesh).on(requested(payload={"m": 5}), ended("stopped"))


def test_a_field_that_is_compared_with_null_may_be_missing() -> None:
    mesh = topology(big=agent("ask -> x", when="vip != null and vip", ignores=True))
    Playbook(mesh).on(requested(payload={"m": 5}), ended("completed"))


def test_equal_facts_are_counted_and_many_different_ones_are_bounded() -> None:
    fan: Any = {f"h{n}": agent(f"t{n} ->", when="ok") for n in range(KEPT_MAX + 3)}
    mesh = topology(a=f"ask -> {', '.join(f't{n}' for n in range(KEPT_MAX + 3))}", **fan)
    play = Playbook(mesh).on(requested(), task("a")).on(requested(id="r2"), task("a"))
    play.let(succeeded("a", "t0", "t0", "t1"))
    assert [(event.type, event.times) for event in play.state.unrouted] == [("t0", 2), ("t1", 1)]
    play.let(succeeded("a", *(f"t{n}" for n in range(2, 60)), nth=0))
    assert sum(event.times for event in play.state.unrouted) == 61


# --------------------------------------------------------------------------------------------------------------- joins

PAIR = topology(
    a="ask -> x",
    b="ask -> y",
    ship=agent("x & y -> sent", when="x.n < 5"),
    keep=agent("x & y -> kept", when="x.n >= 5"),
)


def joined(mesh: Topology, x: object, y: object = None) -> Playbook:
    """Both events of a join have come."""
    play = Playbook(mesh).on(requested(), task("a"), task("b"))
    return play.let(succeeded("a", ("x", x)), succeeded("b", ("y", y or {})))


@pytest.mark.parametrize("n", [1, 7])
def test_of_two_joins_with_opposite_conditions_one_takes_the_events(n: int) -> None:
    assert joined(PAIR, {"n": n}).state.unrouted == ()


def test_a_misspelt_field_in_the_conditions_of_joins_is_named() -> None:
    facts = joined(PAIR, {"m": 1}).state.unrouted
    assert [(fact.type, fact.agent) for fact in facts] == [("x", "a"), ("x", "a")]
    assert facts[1].message == "x from a: keep takes it when x.n >= 5; x.n is missing"


def test_a_join_that_is_refused_is_fine_where_the_event_that_decided_was_taken() -> None:
    mesh = topology(a="ask -> x", b="ask -> y", ship=agent("x & y -> sent", when="x.n < 5"), alarm="x -> rung")
    play = Playbook(mesh).on(requested(), task("a"), task("b"))
    play.on(succeeded("a", ("x", {"n": 7})), task("alarm"))
    play.on(succeeded("b", "y"))
    play.on(succeeded("alarm", "rung"), leaves("rung"), ended("completed", unrouted=[]))


def test_a_join_that_nothing_else_makes_up_for_is_named() -> None:
    mesh = topology(a="ask -> x", b="ask -> y", ship=agent("x & y -> sent", when="x.n < 5"))
    play = joined(mesh, {"n": 7})
    assert (play.state.ending, [fact.message for fact in play.state.unrouted]) == (
        "stopped",
        ["x from a: ship takes it when x.n < 5"],
    )


def test_a_topology_that_was_kept_decides_as_the_one_that_was_loaded() -> None:
    """Each row of a topology that was read back has an agent of its own."""
    mesh = topology(split="ask -> head, part", join=agent("head & part -> sent", when="head.n < 5"))
    kept = pinned_topology(pinned_bytes(mesh), mesh.digest)
    played = [Playbook(one).on(requested(), task("split")) for one in (mesh, kept)]
    runs = [play.let(succeeded("split", ("head", {"n": 7}), "part", "part")).state for play in played]
    assert runs[0] == runs[1]
    assert [fact.times for fact in runs[0].unrouted] == [2]


def test_a_join_may_ignore_what_its_condition_refuses() -> None:
    mesh = topology(a="ask -> x", b="ask -> y", ship=agent("x & y -> sent", when="x.n < 5", ignores=True))
    assert joined(mesh, {"n": 7}).state.ending == "completed"


# ------------------------------------------------------------------------------------------- joins below a fan-out


def spread(x: list[Any], y: list[Any], **joins: str) -> Playbook:
    """All events of joins have come, `x` and `y` each from one answer; several make a fan-out."""
    made: Any = {name: agent("x & y -> sent", when=when) for name, when in joins.items()}
    play = Playbook(topology(a="ask -> x", b="ask -> y", **made)).on(requested(), task("a"), task("b"))
    play.let(succeeded("a", *(("x", one) for one in x)), succeeded("b", *(("y", one) for one in y)))
    return play.let(*(succeeded(task.agent, "sent") for task in list(play.unanswered)))


ONE: list[Any] = [{"v": 1}]
TWO: list[Any] = [{"v": 1}, {"v": 2}]
OK_NULL: list[Any] = [{"v": 1, "ok": None}, {"v": 2, "ok": None}]


@pytest.mark.parametrize(
    ("x", "y", "joins", "ending", "told"),
    [
        (ONE, TWO, ["y.v == 7", "y.v == 8"], "stopped", [("y", 2), ("y", 2)]),
        (TWO, ONE, ["x.v == 7", "x.v == 8"], "stopped", [("x", 2), ("x", 2)]),
        (ONE, TWO, ["x.v == 7", "x.v == 8"], "stopped", [("x", 2), ("x", 2)]),
        (ONE, TWO, ["x.v == 7", "y.v == 8"], "stopped", [("x", 2), ("y", 2)]),
        (ONE, TWO, ["y.v == 7", "y.v == 8", "y.v == 9"], "stopped", [("y", 2), ("y", 2), ("y", 2)]),
        (ONE, OK_NULL, ["y.ok and y.v == 7", "y.v == 8"], "stopped", [("y", 2), ("y", 2)]),
        (ONE, TWO, ["y.v == 1", "y.v == 7"], "partial", [("y", 1), ("y", 1)]),
        (ONE, TWO, ["y.v == 1", "y.v == 2"], "completed", []),
        (ONE, TWO, ["x.v == 7", "x.v == 1"], "completed", []),
        (ONE, TWO, ["x.v == 7", "y.v == 2"], "partial", [("y", 1)]),
    ],
)
def test_the_events_of_a_fan_out_that_no_join_took_are_named(
    x: list[Any], y: list[Any], joins: list[str], ending: str, told: list[tuple[str, int]]
) -> None:
    play = spread(x, y, **{f"j{n}": when for n, when in enumerate(joins)})
    assert play.state.ending == ending
    assert [(fact.type, fact.times) for fact in play.state.unrouted] == told


def test_an_event_above_a_fan_out_is_taken_where_another_branch_of_a_join_takes_it_later() -> None:
    """`j1` ignores the first `y`, so `x` is all that may be named."""
    joins: Any = {
        "j0": agent("x & y -> sent", when="x.v == 7"),
        "j1": agent("x & y -> sent", when="y.v == 2", ignores=True),
    }
    play = Playbook(topology(a="ask -> x", b="ask -> y", **joins)).on(requested(), task("a"), task("b"))
    play.let(succeeded("a", ("x", {"v": 1})))
    play.on(succeeded("b", ("y", {"v": 1}), ("y", {"v": 2})), task("j1"))
    play.on(succeeded("j1", "sent"), leaves("sent"), ended("completed", unrouted=[]))


def test_a_run_that_is_cut_short_names_what_its_joins_refused() -> None:
    mesh = topology(a="ask -> x", b="ask -> y", c="ask ->", ship=agent("x & y -> sent", when="x.n < 5"))
    play = Playbook(mesh).on(requested(), task("a"), task("b"), task("c"))
    play.let(succeeded("a", ("x", {"n": 7})), succeeded("b", "y"))
    assert not play.state.unrouted
    play.let(due())
    assert (play.state.ending, [fact.type for fact in play.state.unrouted]) == ("stopped", ["x"])
    assert play.state.starved == ()
