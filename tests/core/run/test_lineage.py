"""Depth, cycles and visits."""

from dataclasses import replace

import pytest

from mesh.core.run.lineage import PATH_HOPS_SHOWN_MAX, format_path, input_mark, refuse_hop, visits_cap
from mesh.core.topology.model import Limits
from tests.builders import agent, topology
from tests.playbook import Playbook, dead, ended, leaves, requested, succeeded, task

PING_PONG = topology(Limits(visits_max=3), ping="ask | pong -> ping", pong="ping -> pong")
CHAIN = topology(Limits(depth_max=2), a="ask -> x", b="x -> y", c="y -> z", leaves=["y"])


def test_a_hop_that_is_too_deep_is_refused_with_path_and_numbers() -> None:
    play = Playbook(CHAIN).on(requested(), task("a", depth=1))
    play.on(succeeded("a", "x"), task("b", depth=2))
    play.on(succeeded("b", ("y", {"n": 1})), leaves("y"), dead("depth", value=b'{"n":1}'), ended("partial"))
    (refusal,) = play.state.refusals
    assert refusal == ("depth", "c", ("a", "b"), 2, 3, "depth: a > b > c is 3 hops deep, at most 2")


def test_a_refused_hop_leaves_the_others_alone() -> None:
    mesh = topology(Limits(depth_max=2), a="ask -> x", b="x -> y", c="y -> z", d="ask -> w", e="w & y -> z", f="x -> v")
    play = Playbook(mesh).on(requested(), task("a"), task("d"))
    play.on(succeeded("a", "x"), task("b"), task("f"))
    play.on(succeeded("b", "y"), dead("depth", agent="c"))
    play.on(succeeded("d", "w"), dead("depth", agent="e"))
    play.on(succeeded("f", "v"), leaves("v"), ended("partial", refusals=["depth", "depth"]))


def test_a_refused_hop_that_has_a_type_of_its_own_says_so_in_its_dead_letter() -> None:
    play = Playbook(topology(Limits(depth_max=1), a="ask -> x, y", b="x ->", c="y ->")).on(requested(), task("a"))
    play.on(succeeded("a", ("x", 1), ("y", 2)), dead("depth", value=b"1"), dead("depth", value=b"2"), ended("stopped"))
    headers = [dict(effect.headers) for effect in play.effects[:2]]  # type: ignore[union-attr]
    assert [h["ce_type"] for h in headers] == [b"x", b"y"]
    assert [h["content-type"] for h in headers] == [b"application/json"] * 2
    assert len({h["ce_id"] for h in headers}) == 2


def test_the_same_agent_with_the_same_input_on_its_own_path_is_a_cycle() -> None:
    play = Playbook(PING_PONG).on(requested(), task("ping"))
    play.on(succeeded("ping", ("ping", 1)), task("pong"))
    play.on(succeeded("pong", ("pong", 1)), task("ping"))
    play.on(succeeded("ping", ("ping", 1)), dead("cycle", agent="pong"), ended("stopped", refusals=["cycle"]))
    said = "cycle: ping > pong > ping > pong reaches 'pong' again with the same input"
    assert play.state.refusals[0].message == said


def test_the_same_payload_under_another_type_is_another_input() -> None:
    play = Playbook(PING_PONG).on(requested(payload={"n": 1}), task("ping"))
    play.on(succeeded("ping", ("ping", {"n": 1})), task("pong"))
    play.on(succeeded("pong", ("pong", {"n": 1})), task("ping"))


def test_the_same_input_on_another_path_is_no_cycle() -> None:
    play = Playbook(PING_PONG).on(requested(), task("ping"))
    play.on(requested(id="r2"), task("ping"))


def test_a_loop_whose_input_changes_is_cut_at_the_cap_on_visits() -> None:
    play = Playbook(PING_PONG).on(requested(), task("ping"))
    for n in range(1, 3):
        play.on(succeeded("ping", ("ping", n)), task("pong"))
        play.on(succeeded("pong", ("pong", n)), task("ping"))
    play.on(succeeded("ping", ("ping", 3)), task("pong"))
    play.on(
        succeeded("pong", ("pong", 3)), dead("visits", agent="ping"), ended("stopped", visits={"ping": 3, "pong": 3})
    )
    said = "visits: ping > pong > ping > pong > ping > pong > ping reaches 'ping' 4 times in this run, at most 3"
    assert play.state.refusals[0].message == said


def test_an_agent_on_no_cycle_is_not_capped_by_visits() -> None:
    play = Playbook(topology(Limits(visits_max=1), split="ask -> part", work="part -> done"))
    play.on(requested(), task("split")).on(succeeded("split", "part", "part"), task("work"), task("work"))
    assert play.state.visits == {}


def test_an_agent_may_declare_a_cap_of_its_own() -> None:
    play = Playbook(topology(split="ask -> part", work=agent("part -> done", visits_max=1)))
    play.on(requested(), task("split"))
    play.on(succeeded("split", "part", "part"), task("work"), dead("visits", agent="work"))


@pytest.mark.parametrize(
    ("own", "cyclic", "cap"), [(None, False, None), (None, True, 16), (5, False, 5), (5, True, 5), (99, True, 99)]
)
def test_the_cap_is_the_agents_else_that_of_the_mesh_for_cycles(own: int | None, cyclic: bool, cap: int | None) -> None:
    assert visits_cap(agent("a ->", visits_max=own, cyclic=cyclic), Limits(visits_max=16)) == cap


def test_a_join_remembers_the_inputs_of_all_its_ancestors() -> None:
    mesh = topology(
        Limits(visits_max=9),
        write="ask | again -> draft",
        a="draft -> x",
        b="draft -> y",
        judge="x & y -> again",
    )
    play = Playbook(mesh).on(requested(), task("write")).on(succeeded("write", "draft"), task("a"), task("b"))
    play.on(succeeded("a", ("x", 1))).on(succeeded("b", ("y", 1)), task("judge"))
    play.on(succeeded("judge", ("again", 1)), task("write"))
    play.on(succeeded("write", "draft"), dead("cycle", agent="a"), dead("cycle", agent="b"), ended("stopped"))


def test_inputs_are_marked_only_on_cycles() -> None:
    once, looping = agent("a ->"), agent("a -> a", cyclic=True)
    assert input_mark(once, "a", b"1") == ""
    assert input_mark(looping, "a", b"1") == input_mark(looping, "a", b"1") != input_mark(looping, "a", b"2")
    assert input_mark(looping, "a", b"1") != input_mark(looping, "b", b"1")


def test_a_very_long_path_is_shown_short_and_kept_whole() -> None:
    path = tuple(f"a{n}" for n in range(1_000))
    refusal = refuse_hop(replace(agent("x ->"), name="last"), path, 1, "", (), Limits(depth_max=1_000))
    assert refusal is not None
    assert refusal.path == path
    assert refusal.message.startswith("depth: a0 > a1 > (985 more) > a987 > a988")
    assert refusal.message.endswith("a999 > last is 1001 hops deep, at most 1000")


def test_a_path_of_ordinary_length_is_shown_whole() -> None:
    assert format_path(()) == "the request"
    assert format_path(("plan", "write")) == "plan > write"
    assert format_path(tuple("x" * PATH_HOPS_SHOWN_MAX)) == " > ".join("x" * PATH_HOPS_SHOWN_MAX)


def test_a_long_chain_goes_as_deep_as_it_may() -> None:
    play = Playbook(topology(Limits(depth_max=200, visits_max=200, tasks_max=200), a="ask | x -> x")).let(requested())
    for n in range(199):
        play.let(succeeded("a", ("x", n)))
    assert [t.depth for t in play.state.open.values()] == [200]
    play.on(succeeded("a", "x"), dead("tasks"), ended("stopped", tasks=200))
