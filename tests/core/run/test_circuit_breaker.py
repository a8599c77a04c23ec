"""Closed, open, half-open: which answers count, and that the state is a value."""

import pytest

from mesh.core.protocol.event import FAILED, SUCCEEDED, Event, Fault
from mesh.core.protocol.record import StoredRecord
from mesh.core.publishing.effect_records import record_of
from mesh.core.run.circuit_breaker import (
    Breaker,
    after_answer,
    after_control,
    after_dispatch,
    find_transition,
    next_fallback,
    open_until,
)
from mesh.core.run.control import Control, Switch, fold_control, relay_record
from mesh.core.run.effects import BreakerTransition
from mesh.core.run.state import Run, Task
from mesh.core.state.partition_state import Partition
from mesh.core.topology.model import BreakerRule, Retry, Topology
from tests.builders import AT_MS, agent, event, run, topology

MESH = topology(a=agent("ask -> b", breaker=BreakerRule(3, 1_000), fallback=("b", "c")), b=agent("->"), c=agent("->"))


def working() -> Run:
    """A run whose task t waits for attempt 1 of a."""
    return run(open={"t": Task("t", "a", 1, ("a",), (), "r1")})


def answer(kind: str = FAILED, fault: Fault | None = None, **fields: object) -> Event:
    """Return the answer of agent a."""
    return event(kind, agent="a", task_id="t", fault=fault, **fields)


def after(*answers: Event, mesh: Topology = MESH) -> dict[str, Breaker]:
    """The breakers after these answers."""
    breakers: dict[str, Breaker] = {}
    for one in answers:
        breakers = after_answer(breakers, working(), one, mesh)
    return breakers


BOOM = Fault("exception", "boom")


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    assert after(answer(fault=BOOM), answer(fault=BOOM)) == {"a": Breaker(2, 0)}
    breakers = after(*[answer(fault=BOOM)] * 3)
    assert breakers == {"a": Breaker(3, AT_MS + 1_000)}
    assert open_until(breakers, "a", AT_MS + 999) == AT_MS + 1_000
    assert open_until(breakers, "a", AT_MS + 1_000) == 0
    assert open_until(breakers, "b", AT_MS) == 0


def test_a_success_forgets_the_failures() -> None:
    assert after(answer(fault=BOOM), answer(fault=BOOM), answer(SUCCEEDED)) == {}


def test_half_open_lets_one_through_and_its_answer_decides() -> None:
    opened = after(*[answer(fault=BOOM)] * 3)
    probing = after_dispatch(opened, "a", MESH, AT_MS + 1_500)
    assert open_until(probing, "a", AT_MS + 1_500) == AT_MS + 2_500
    assert after_answer(probing, working(), answer(SUCCEEDED), MESH) == {}
    again = after_answer(probing, working(), answer(fault=BOOM, at_ms=AT_MS + 2_000), MESH)
    assert open_until(again, "a", AT_MS + 2_999) == AT_MS + 3_000


def test_a_task_that_is_handed_out_to_a_healthy_agent_changes_nothing() -> None:
    counted = after(answer(fault=BOOM))
    assert after_dispatch(counted, "a", MESH, AT_MS) is counted
    assert after_dispatch(counted, "b", MESH, AT_MS) is counted


@pytest.mark.parametrize(
    ("code", "retryable", "counts"),
    [
        ("exception", True, True),
        ("exception", False, False),
        ("timed_out", False, True),
        ("crash_loop", False, True),
        ("schema", False, False),
        ("rejected", False, False),
        ("later", True, False),
        ("expired", True, False),
    ],
)
def test_only_what_says_something_about_the_agents_health_counts(code: str, retryable: bool, counts: bool) -> None:
    assert bool(after(answer(fault=Fault(code, "x", retryable=retryable)))) is counts


def alone(wait_ms: int) -> Event:
    """A worker did not call a."""
    return answer(fault=Fault("left_alone", "x", retry_after_ms=wait_ms))


def test_what_a_worker_left_alone_opens_it_for_as_long_as_the_worker_says_and_the_rule_allows() -> None:
    assert after(alone(400)) == {"a": Breaker(3, AT_MS + 400)}
    assert after(alone(90_000)) == {"a": Breaker(3, AT_MS + 1_000)}
    assert after(alone(0)) == {"a": Breaker(3, AT_MS + 1)}
    assert after(*[answer(fault=BOOM)] * 4, alone(1)) == {"a": Breaker(4, AT_MS + 1)}
    said = find_transition({}, after(alone(400)), alone(400))
    assert said is not None
    assert (said.state, said.why) == ("opened", "3 failures in a row")


@pytest.mark.parametrize("fields", [{"attempt": 2}, {"agent": "b"}, {"task_id": "other"}])
def test_an_answer_that_no_task_waits_for_says_nothing(fields: dict[str, object]) -> None:
    late = answer(fault=BOOM)
    for name, value in fields.items():
        setattr(late, name, value)
    assert after_answer({}, working(), late, MESH) == {}
    assert after_answer({}, None, answer(fault=BOOM), MESH) == {}


def test_the_fallback_is_the_first_agent_that_may_be_called() -> None:
    shut = {"b": Breaker(3, AT_MS + 10)}
    assert next_fallback(("a",), MESH, {}, AT_MS) == "b"
    assert next_fallback(("a",), MESH, shut, AT_MS) == "c"
    assert next_fallback(("a", "c"), MESH, shut, AT_MS) == "b"
    assert next_fallback(("a", "b", "c"), MESH, {}, AT_MS) is None
    assert next_fallback(("b",), MESH, {}, AT_MS) is None


# ------------------------------------------------------------------------------------------ shared between partitions


def opened(at_ms: int = AT_MS) -> Control:
    """mesh.control says that the breaker of a is open."""
    return Control(1, at_ms, {"breaker:a": Switch("breaker", "a", "opened", at_ms=at_ms, offset=1)})


def test_what_opens_or_closes_a_breaker_is_said_once() -> None:
    twice, thrice = after(*[answer(fault=BOOM)] * 2), after(*[answer(fault=BOOM)] * 3)
    said = find_transition(twice, thrice, answer(fault=BOOM))
    assert said is not None
    assert (said.agent, said.state, said.why) == ("a", "opened", "3 failures in a row")
    assert find_transition(thrice, after(*[answer(fault=BOOM)] * 4), answer(fault=BOOM)) is None
    assert find_transition({}, twice, answer(fault=BOOM)) is None
    closed = find_transition(thrice, {}, answer(SUCCEEDED))
    assert closed is not None
    assert closed.state == "closed"


def test_what_another_partition_found_holds_here_too() -> None:
    breakers = after_control({}, opened(), MESH, AT_MS)
    assert open_until(breakers, "a", AT_MS) == AT_MS + 1_000
    assert after_control(breakers, Control(2), MESH, AT_MS) == {}


def test_a_breaker_opened_here_stays_open_until_its_own_word_has_come_round() -> None:
    mine = after(*[answer(fault=BOOM)] * 3)
    assert after_control(mine, Control(0), MESH, AT_MS) == mine
    shared = after_control(mine, opened(), MESH, AT_MS)
    assert open_until(shared, "a", AT_MS) == open_until(mine, "a", AT_MS)
    assert after_control(shared, Control(2), MESH, AT_MS) == {}


def test_a_relay_that_claims_a_time_to_come_opens_no_breaker_for_longer_than_its_rule_says() -> None:
    forged = Control(7, 0, {"breaker:a": Switch("breaker", "a", "opened", at_ms=2**60, offset=7)})
    assert open_until(after_control({}, forged, MESH, AT_MS), "a", AT_MS) == AT_MS + 1_000


def test_a_breaker_that_is_no_longer_declared_is_ignored() -> None:
    assert after_control({}, opened(), topology(a="ask -> b"), AT_MS) == {}


def test_the_fold_publishes_it_on_the_control_topic_and_consumes_it_from_there() -> None:
    mesh = topology(a=agent("ask -> b", breaker=BreakerRule(1, 60_000), retry=Retry(attempts_max=1)), c=agent("ask ->"))
    first, second = (Partition(mesh, number=0, partitions=1) for _ in range(2))
    first.apply(event(), 0)
    (task,) = [t for t in first.runs["run-1"].open.values() if t.agent == "a"]
    effects = first.apply(event(FAILED, id="f", agent="a", task_id=task.id, fault=BOOM), 1)
    (said,) = [effect for effect in effects if isinstance(effect, BreakerTransition)]
    new = record_of(said, mesh)
    assert new.topic == "mesh.control"
    stored = StoredRecord("mesh.control", 0, 0, AT_MS, new.key, new.value, new.headers)
    control, flaws = fold_control(Control(), [stored])
    assert not flaws
    relay = relay_record(control, mesh, 0)
    second.step(StoredRecord("mesh.inbox", 0, 0, AT_MS, relay.key, relay.value, relay.headers))
    assert open_until(second.breakers, "a", AT_MS) == AT_MS + 60_000
