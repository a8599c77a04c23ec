"""Laws of runs, tried on decisions that no `decide` of ours makes."""

from collections.abc import Sequence
from typing import Any

import pytest

from mesh.core.protocol.event import SUCCEEDED, TASK, Event, Usage
from mesh.core.run.effects import Effect, Finish, PublishTask, Schedule
from mesh.core.run.state import Held, Run, Task
from mesh.core.topology.model import Limits
from mesh.core.verification.report import Violation
from mesh.core.verification.run_invariants import RunInvariants
from tests.builders import agent, event, record, run, topology

MESH = topology(
    Limits(depth_max=3, usd_micros_max=100, tokens_max=50),
    plan=agent("ask -> made", reserve_usd_micros=60, reserve_tokens=10),
    ship=agent("made -> sent"),
)


def task(id: str = "t1", agent: str = "plan", path: tuple[str, ...] = ("plan",), **fields: Any) -> Task:
    return Task(id, agent, len(path), path, (), fields.pop("cause_id", "r1"), **fields)


def sent(of: Task, **changes: Any) -> PublishTask:
    fields = {"id": f"{of.id}:{of.attempt}", "agent": of.agent, "task_id": of.id, "depth": of.depth, "path": of.path}
    return PublishTask(event(TASK, **{"attempt": of.attempt, "cause_id": of.cause_id, **fields, **changes}), b"")


def answer(of: Task, **fields: Any) -> Event:
    return event(SUCCEEDED, id=f"{of.id}:1:succeeded", agent=of.agent, task_id=of.id, attempt=of.attempt, **fields)


ENDINGS = ("I15", "I16", "I17", "I18", "I19", "I20")
"""Laws that test_audit_endings tries."""


class Desk:
    """An audit with one run, step by step."""

    def __init__(self) -> None:
        self.audit = RunInvariants([MESH])
        self.state: Run | None = None
        self.offset = -1

    def step(self, cause: Event, after: Run | None, effects: Sequence[Effect] = ()) -> list[Violation]:
        self.offset += 1
        before, self.state = self.state, after
        violations = self.audit.follow(cause, record(cause, self.offset), before, after, effects)
        return [violation for violation in violations if violation.invariant not in ENDINGS]

    @property
    def checked(self) -> dict[str, int]:
        return {name: times for name, times in self.audit.checked.items() if name not in ENDINGS}


def opened(*tasks: Task, **fields: Any) -> Run:
    return run(open={of.id: of for of in tasks}, **fields)


def found(violations: Sequence[Violation]) -> list[str]:
    return [violation.invariant for violation in violations]


def test_a_run_that_keeps_all_laws() -> None:
    desk, first, second = Desk(), task(), task("t2", "ship", ("plan", "ship"), cause_id="t1:1:succeeded")
    assert not desk.step(event(), opened(first), [sent(first)])
    assert not desk.step(answer(first, usage=Usage(40, 5)), opened(second), [sent(second)])
    ended = run(ending="completed", usd_micros=40, tokens=5)
    assert not desk.step(answer(second), None, [Finish(ended, "x", 0)])
    assert desk.checked == {"I2": 1, "I3": 2, "I4": 2, "I5": 3}
    assert (desk.audit.runs, desk.audit.endings) == (1, {"completed": 1})


@pytest.mark.parametrize(
    "changes",
    [
        {"depth": 2},
        {"path": ("ship",)},
        {"path": ()},
        {"depth": 4, "path": ("plan", "plan", "plan", "plan")},
        {"depth": 2, "path": ("ship", "plan")},
        {"cause_id": "r2"},
    ],
)
def test_a_task_that_lies_elsewhere_than_it_may_is_found(changes: dict[str, Any]) -> None:
    first = task()
    assert found(Desk().step(event(), opened(first), [sent(first, **changes)])) == ["I4"]


def test_an_answer_that_counts_twice_is_found() -> None:
    desk, first, second = Desk(), task(), task("t2", "ship", ("plan", "ship"), cause_id="t1:1:succeeded")
    desk.step(event(), opened(first), [sent(first)])
    assert not desk.step(answer(first), opened(first, second), [sent(second)]), "it is still open, so it did not count"
    assert not desk.step(answer(first), opened(second))
    desk.state = opened(first, second)
    assert found(desk.step(answer(first), opened(second))) == ["I3"]


def test_a_task_that_waits_while_its_run_is_paused_is_reserved_once() -> None:
    desk, waiting = Desk(), task(held=Held("ask", "application/json", b"{}", 0))
    assert not desk.step(event(), opened(waiting))
    second = task("t2", "ship", ("ship",))
    assert not desk.step(event(id="r1"), opened(waiting, second), [sent(second)])
    assert not desk.step(answer(second, usage=Usage(99, 0)), opened(waiting)), "it used more than it had reserved"
    assert not desk.step(event("resumed", id="x"), opened(task()), [sent(task())])


def test_a_fallback_takes_the_place_of_a_task_and_its_reservation() -> None:
    desk, first = Desk(), task()
    desk.step(event(), opened(first), [sent(first)])
    instead = task("t9", "ship", ("ship",), cause_id="x")
    assert not desk.step(event("due", id="x"), opened(instead), [sent(instead)])
    ended = run(ending="completed")
    assert not desk.step(answer(instead), None, [Finish(ended, "x", 0)])


def test_a_run_that_was_opened_again_is_followed_from_there() -> None:
    desk, first = Desk(), task(path=("ship", "plan"), cause_id="x")
    assert not desk.step(event("redriven", id="x"), opened(first, usd_micros=90), [sent(first)])
    assert not desk.step(answer(first), None, [Finish(run(ending="completed", usd_micros=90), "x", 0)])
    assert desk.audit.runs == 0


def test_an_answer_for_another_attempt_than_was_handed_out_is_found() -> None:
    desk, first = Desk(), task()
    desk.step(event(), opened(first), [sent(first)])
    assert found(desk.step(answer(task(attempt=2)), opened())) == ["I3"]


def test_a_task_begun_beyond_the_budget_is_found() -> None:
    desk, first, second = Desk(), task(), task("t2")
    assert found(desk.step(event(), opened(first, second), [sent(first), sent(second)])) == ["I5"]


@pytest.mark.parametrize("usage", [Usage(60, 0), Usage(0, 45), None])
def test_what_an_answer_used_counts_against_the_budget(usage: Usage | None) -> None:
    desk, first, second = Desk(), task(), task("t2", cause_id="t1:1:succeeded")
    desk.step(event(), opened(first), [sent(first)])
    assert found(desk.step(answer(first, usage=usage), opened(second), [sent(second)])) == ["I5"]


def test_a_claim_beyond_what_an_attempt_might_spend_is_charged_as_the_rest_of_the_budget() -> None:
    desk, first = Desk(), task()
    desk.step(event(), opened(first), [sent(first)])
    ended = run(ending="completed", usd_micros=100, tokens=50)
    assert not desk.step(answer(first, usage=Usage(10**14, 10**14)), None, [Finish(ended, "x", 0)])


def test_a_retry_reserves_when_it_is_decided_and_not_again_when_it_begins() -> None:
    desk, first = Desk(), task()
    desk.step(event(), opened(first), [sent(first)])
    waiting = task(attempt=2, held=Held("ask", "application/json", b"{}", 9))
    timer = Schedule("run-1", "t1:2:due", 9, "t1", 2)
    assert not desk.step(answer(first, usage=Usage(30, 0)), opened(waiting), [timer])
    again = task(attempt=2)
    assert not desk.step(event("due", id="t1:2:due", task_id="t1"), opened(again), [sent(again)])
    ended = run(ending="completed", usd_micros=70, tokens=10)
    assert not desk.step(answer(again, usage=Usage(40, 10)), None, [Finish(ended, "x", 0)])


def test_a_retry_beyond_the_budget_is_found_when_it_is_decided() -> None:
    desk, first = Desk(), task()
    desk.step(event(), opened(first), [sent(first)])
    waiting = task(attempt=2, held=Held("ask", "application/json", b"{}", 9))
    timer = Schedule("run-1", "t1:2:due", 9, "t1", 2)
    assert found(desk.step(answer(first, usage=Usage(50, 0)), opened(waiting), [timer])) == ["I5"]


def test_tasks_cut_off_by_the_end_are_charged_what_they_had_reserved() -> None:
    for charged, invariants in ((60, []), (0, ["I5"])):
        desk, first = Desk(), task()
        desk.step(event(), opened(first), [sent(first)])
        ended = opened(first, ending="cancelled", usd_micros=charged, tokens=10)
        assert found(desk.step(event("cancelled", id="c"), None, [Finish(ended, "c", 0)])) == invariants


def test_a_second_ending_is_found_while_the_first_is_remembered() -> None:
    desk = Desk()
    finish = Finish(run(ending="completed"), "r1", 0)
    assert not desk.step(event(), None, [finish])
    assert found(desk.step(event(), None, [finish])) == ["I2"]
    desk.offset += 200_000
    assert not desk.step(event(), None, [finish])


def test_a_run_decided_under_another_topology_is_not_held_to_this_one() -> None:
    desk, first, second = Desk(), task(), task("t2")
    state = opened(first, second, topology="f" * 16)
    assert not desk.step(event(), state, [sent(first), sent(second)])
