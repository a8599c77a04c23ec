"""Recorded tasks and those under another topology: which answer belongs to which task."""

from dataclasses import replace

from mesh.core.protocol.event import TASK, Event
from mesh.core.replay.recorded_tasks import TaskMatches, same_routes
from mesh.core.run.routing import JOIN_TYPE
from mesh.core.topology.model import BreakerRule, Limits
from tests.builders import agent, event, topology


def task(id: str, agent: str = "price", *, cause: str = "r1", type: str = "ask", data: bytes = b"{}") -> Event:
    return event(TASK, id=f"{id}:1", task_id=id, agent=agent, cause_id=cause, type=type, data=data)


def test_equal_ids_match_if_agent_cause_and_input_are_equal() -> None:
    matches = TaskMatches()
    assert matches.add_recorded(task("a")) is None
    assert matches.add_other(task("a")) == "a"
    assert (matches.other_of, matches.recorded_of) == ({"a": "a"}, {"a": "a"})
    assert matches.add_other(task("a")) == "a"
    assert matches.add_recorded(task("a")) == "a"


def test_equal_ids_of_another_agent_or_with_another_input_do_not_match() -> None:
    for other in (task("a", "stock"), task("a", data=b"[]"), task("a", type="other"), task("a", cause="r2")):
        matches = TaskMatches()
        matches.add_recorded(task("a"))
        assert matches.add_other(other) is None
        assert not matches.other_of


def test_shifted_ids_match_by_agent_cause_and_input_in_whichever_order_they_come() -> None:
    first, second = TaskMatches(), TaskMatches()
    first.add_recorded(task("a"))
    assert first.add_other(task("b")) == "a"
    second.add_other(task("b"))
    assert second.add_recorded(task("a")) == "b"
    assert first.other_of == second.other_of == {"a": "b"}


def test_a_recorded_task_matches_once() -> None:
    matches = TaskMatches()
    matches.add_recorded(task("a"))
    assert matches.add_other(task("b")) == "a"
    assert matches.add_other(task("c")) is None
    assert matches.add_recorded(task("d")) == "c"


def test_joins_match_whichever_event_completed_them() -> None:
    matches = TaskMatches()
    matches.add_recorded(task("a", type=JOIN_TYPE, cause="r1"))
    assert matches.add_other(task("b", type=JOIN_TYPE, cause="r2")) == "a"


def test_routes_are_compared_without_limits() -> None:
    mesh = topology(price=agent("ask -> priced", when="n > 1"), ship="priced -> shipped")
    assert same_routes(mesh, replace(mesh, limits=Limits(depth_max=1)))
    price, ship = agent("ask -> priced", when="n > 1"), "priced -> shipped"
    others = [
        topology(price=agent("ask -> priced", when="n > 2"), ship=ship),
        topology(price=price, ship="ask -> shipped"),
        topology(ship=ship, price=price, audit="ask -> audited"),
        topology(price=replace(price, fallback=("ship",)), ship=ship),
        topology(price=replace(price, breaker=BreakerRule()), ship=ship),
    ]
    assert not any(same_routes(mesh, other) for other in others)
