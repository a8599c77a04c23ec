"""A run and its repetition are compared by outcome and by the answer of each task."""

from dataclasses import replace
from typing import Any

import orjson

from mesh.core.protocol.event import SUCCEEDED, TASK, Event
from mesh.core.replay.answer_diff import Ignored
from mesh.core.replay.run_diff import RunSide, diff_lines, run_diff


def task(id: str, agent: str, payload: Any = 1) -> Event:
    return Event(f"{id}:1", "/m", "ask", TASK, "r", orjson.dumps(payload), agent=agent, task_id=id)


def answer(id: str, payload: Any) -> Event:
    return Event(f"{id}:1:succeeded", "/a", "said", SUCCEEDED, "r", orjson.dumps(payload), task_id=id)


def side(answers: dict[str, Any], *tasks: Event, **outcome: Any) -> RunSide:
    body = {"ending": "completed", "results": [], "tasks": len(tasks), **outcome}
    return RunSide(body, {each.task_id: each for each in tasks}, {id: answer(id, each) for id, each in answers.items()})


FIRST, SECOND = task("t1", "price"), task("t2", "ship")


def test_a_repetition_with_the_same_answers_is_the_same() -> None:
    found = run_diff(side({"t1": 1, "t2": 2}, FIRST, SECOND), side({"t1": 1, "t2": 2}, FIRST, SECOND))
    assert found.same
    assert found.first_differences == {}
    unanswered = side({"t1": 1}, FIRST, SECOND)
    assert run_diff(unanswered, unanswered).same


def test_the_first_differing_task_of_each_agent_is_reported_and_whether_its_input_was_the_same() -> None:
    third = replace(FIRST, task_id="t3")
    recorded = side({"t1": {"n": 1}, "t2": 2, "t3": 3}, FIRST, SECOND, third)
    new = side({"t1": {"n": 5}, "t2": 7, "t3": 4}, FIRST, replace(SECOND, data=b"9"), third)
    found = run_diff(recorded, new)
    assert not found.same
    firsts = found.first_differences
    assert [(agent, each.task_id, each.given_same) for agent, each in firsts.items()] == [
        ("price", "t1", True),
        ("ship", "t2", False),
    ]
    assert firsts["price"].differences[0] == ("said.n", "1", "5")
    assert not run_diff(recorded, new, Ignored(["said"])).first_differences


def test_tasks_of_one_run_alone_and_without_an_answer_are_reported() -> None:
    found = run_diff(side({"t1": 1}, FIRST, SECOND), side({"t1": 1}, FIRST, task("t9", "mend")))
    assert [(each.agent, each.verdict) for each in found.tasks] == [
        ("price", "same"),
        ("ship", "gone"),
        ("mend", "new"),
    ]
    missing = run_diff(side({"t1": 1}, FIRST), side({}, FIRST))
    assert [each.verdict for each in missing.tasks] == ["unanswered"]
    assert not missing.same


def test_a_run_that_does_not_end_again_differs() -> None:
    recorded = side({"t1": 1}, FIRST)
    found = run_diff(recorded, recorded._replace(outcome=None))
    assert found.outcome == [("outcome.ending", "completed", "not ended")]


def test_of_an_open_run_only_the_answers_that_it_got_are_compared() -> None:
    recorded = side({"t1": 1}, FIRST, SECOND)._replace(outcome=None)
    again = side({"t1": 1, "t2": 2, "t3": 3}, FIRST, SECOND, task("t3", "bill"))
    found = run_diff(recorded, again)
    assert (found.same, found.is_open, found.outcome) == (True, True, [])
    assert [(each.agent, each.verdict) for each in found.tasks] == [
        ("price", "same"),
        ("ship", "unrecorded"),
        ("bill", "unrecorded"),
    ]
    assert [each.agent for each in found.compared] == ["price"]
    other = run_diff(recorded, side({"t1": 9}, FIRST, SECOND))
    assert (other.same, [each.agent for each in other.differing]) == (False, ["price"])


def test_a_join_under_another_id_is_the_same_task() -> None:
    again = replace(SECOND, task_id="t8")
    found = run_diff(side({"t1": 1, "t2": 2}, FIRST, SECOND), side({"t1": 1, "t8": 3}, FIRST, again))
    assert [(each.agent, each.task_id, each.verdict) for each in found.tasks] == [
        ("price", "t1", "same"),
        ("ship", "t2", "different"),
    ]


def test_differences_are_told_in_lines() -> None:
    recorded = side({"t1": {"n": 1}, "t2": 2}, FIRST, SECOND)
    found = run_diff(recorded, side({"t1": {"n": 5}}, FIRST, ending="failed"))
    assert list(diff_lines(found)) == [
        "outcome",
        '  outcome.ending: recorded "completed", now "failed"',
        "  outcome.tasks: recorded 2, now 1",
        "price: another answer to the same input (task t1)",
        "  said.n: recorded 1, now 5",
        "ship: the repetition did not start this task (task t2)",
    ]
    assert list(diff_lines(run_diff(recorded, recorded))) == []


def test_masked_places_are_counted_and_a_masked_input_is_named() -> None:
    given = task("t1", "price", {"token": "***"})
    recorded = side({"t1": {"key": "***", "n": 1}}, given)._replace(masked=True)
    same = run_diff(recorded, side({"t1": {"key": "sk-aaa", "n": 1}}, given))
    assert (same.same, same.masked) == (True, 1)
    other = run_diff(recorded, side({"t1": {"key": "sk-aaa", "n": 2}}, given))
    assert list(diff_lines(other)) == [
        "price: another answer to an input that is masked in the recording (task t1)",
        "  said.n: recorded 1, now 2",
    ]
    unmasked = run_diff(recorded._replace(masked=False), side({"t1": 2}, given))
    assert [each.given for each in unmasked.tasks] == ["same"], "asterisks of a log are no mask"
