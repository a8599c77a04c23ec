"""Changes of a run by an event, as fields."""

from mesh.core.replay.run_changes import FieldChange, breaker_changes, run_changes
from mesh.core.run.circuit_breaker import Breaker
from mesh.core.topology.model import Limits, Retry
from tests.builders import agent, topology
from tests.core.replay.recorded import Recorded
from tests.playbook import failed, happens, redriven, requested, resumed, succeeded

DESK = topology(
    plan="ask -> plan.ready",
    price="plan.ready -> priced",
    stock="plan.ready -> stocked",
    ship="priced & stocked -> shipped",
)


def changes(recorded: Recorded, number: int = -1) -> dict[str, tuple[object, object]]:
    step = recorded.steps[number]
    return {change.field: (change.before, change.after) for change in run_changes(step.before, step.after)}


def test_tasks_are_opened_and_closed() -> None:
    recorded = Recorded(DESK).let(requested(), succeeded("plan", "plan.ready"))
    found = changes(recorded)
    assert found["open plan"] == ({"attempt": 1, "depth": 1, "path": ["plan"]}, None)
    assert found["open price"] == (None, {"attempt": 1, "depth": 2, "path": ["plan", "price"]})
    assert found["tasks"] == (1, 3)
    assert found.keys() == {"open plan", "open price", "open stock", "tasks"}


def test_a_join_shows_its_inputs_and_when_it_is_complete() -> None:
    recorded = Recorded(DESK).let(requested(), succeeded("plan", "plan.ready"), succeeded("price", "priced"))
    assert changes(recorded)["join ship"] == (None, {"has": ["priced"]})
    recorded.let(succeeded("stock", "stocked"))
    assert changes(recorded)["join ship"] == ({"has": ["priced"]}, {"has": ["priced", "stocked"], "fired": True})


def test_several_tasks_of_one_agent_are_reported_separately() -> None:
    mesh = topology(plan="ask -> part", work="part -> done")
    recorded = Recorded(mesh).let(requested(), succeeded("plan", "part", "part"))
    opened = [field for field in changes(recorded) if field.startswith("open work ")]
    assert len(opened) == 2


def test_a_task_that_follows_one_of_the_same_agent_is_another_one() -> None:
    recorded = Recorded(topology(round=agent("ask | again -> again", visits_max=3))).let(requested())
    recorded.let(succeeded("round", "again"))
    step = recorded.steps[-1]
    opened = [change for change in run_changes(step.before, step.after) if change.field == "open round"]
    assert [(change.before is None, change.after is None) for change in opened] == [(False, True), (True, False)]


def test_a_failure_shows_the_wait_and_the_bytes_held() -> None:
    mesh = topology(price=agent("ask -> priced", retry=Retry(attempts_max=2, first_ms=100, factor=1, jitter=0)))
    recorded = Recorded(mesh).let(requested(payload={"n": 1}), failed("price"))
    _, after = changes(recorded)["open price"]
    assert isinstance(after, dict)
    assert (after["attempt"], after["waits"]) == (2, True)
    assert after["due_ms"] == recorded.play.at_ms + 100
    assert changes(recorded)["state_bytes"] == (0, 7)


def test_failures_pauses_and_redrives_are_shown() -> None:
    mesh = topology(price=agent("ask -> priced", retry=Retry(attempts_max=1)))
    recorded = Recorded(mesh).let(requested(), failed("price", "broken"))
    found = changes(recorded)
    assert found["failures"] == (None, ["price: broken"])
    assert found["ending"] == (None, "failed")
    recorded.let(redriven("price"))
    found = changes(recorded)
    assert found["generation"] == (None, 1)
    assert found["failures"] == (["price: broken"], None)
    assert found["ending"] == ("failed", None)
    recorded.let(happens("paused", id="p1", type="mesh.pause"))
    assert set(changes(recorded)) == {"paused"}
    recorded.let(resumed(after_ms=50))
    before, after = changes(recorded)["deadline_ms"]
    assert isinstance(before, int)
    assert after == before + 50


def test_refusals_and_unrouted_events_are_shown() -> None:
    mesh = topology(Limits(depth_max=1), plan=agent("ask -> plan.ready, lost"), price="plan.ready -> priced")
    recorded = Recorded(mesh).let(requested(), succeeded("plan", "plan.ready"))
    assert changes(recorded)["refused"] == (0, 1)


def test_nothing_changes_without_a_later_state() -> None:
    assert run_changes(None, None) == []
    recorded = Recorded(DESK).let(requested())
    run = recorded.steps[-1].after
    assert run_changes(run, run) == []


def test_breakers_are_shown_when_they_change() -> None:
    sick = Breaker(3, 99)
    assert breaker_changes({}, {}) == []
    assert breaker_changes({"a": sick}, {"a": sick}) == []
    assert breaker_changes({}, {"a": sick}) == [FieldChange("breaker a", None, {"failures": 3, "until_ms": 99})]
    assert breaker_changes({"a": Breaker(1)}, {}) == [FieldChange("breaker a", {"failures": 1}, None)]
