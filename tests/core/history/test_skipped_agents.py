"""Agents that an event did not reach, since their `when` was false."""

from mesh.core.history.skipped_agents import VALUE_CHARS_MAX, SkippedAgent, skipped_agents
from mesh.core.topology.model import Topology
from tests.builders import agent, topology
from tests.playbook import Move, Playbook, requested, succeeded

CHOICE = topology(
    big=agent("ask -> done", when="size > 10"),
    small=agent("ask -> done", when="size <= 10"),
    plain="ask -> done",
)
JOINED = topology(
    left="ask -> l",
    right="ask -> r",
    both=agent("l & r -> done", when="l.n < r.n"),
)


def seen(mesh: Topology, *moves: Move) -> list[SkippedAgent]:
    play = Playbook(mesh)
    found: list[SkippedAgent] = []
    for move in moves:
        before = play.run
        play.let(move)
        assert play.last is not None
        assert play.run is not None
        found += skipped_agents(play.last, before, play.run, mesh)
    return found


def test_the_condition_and_what_it_read_are_reported() -> None:
    assert seen(CHOICE, requested(payload={"size": 3})) == [
        SkippedAgent("big", "ask", "size > 10 is false: size is 3"),
    ]


def test_a_repeated_request_reaches_and_skips_nothing() -> None:
    assert len(seen(CHOICE, requested(payload={"size": 3}), requested(payload={"size": 3}))) == 1


def test_a_join_whose_condition_is_false_is_reported_once_when_all_is_there() -> None:
    found = seen(JOINED, requested(), succeeded("left", ("l", {"n": 2})), succeeded("right", ("r", {"n": 1})))
    assert found == [SkippedAgent("both", "l + r", "l.n < r.n is false: l.n is 2, r.n is 1")]


def test_a_long_value_is_cut() -> None:
    (found,) = seen(CHOICE, requested(payload={"size": "x" * 500}))[:1]
    assert len(found.reason) < VALUE_CHARS_MAX + 60
