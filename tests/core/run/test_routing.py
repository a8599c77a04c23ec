"""Which agents fire, with which input, key and id, and which events leave."""

from typing import Any

import pytest

from mesh.core.protocol.event import JSON, Event
from mesh.core.publishing.effect_records import record_of
from mesh.core.run.effects import PublishEvent, PublishTask
from mesh.core.topology.model import Limits
from tests.builders import agent, topology
from tests.playbook import Playbook, dead, due, ended, failed, leaves, requested, retry, succeeded, task


def published(play: Playbook) -> list[Event]:
    """The events of the last step's tasks."""
    return [effect.event for effect in play.effects if isinstance(effect, PublishTask)]


def keys(play: Playbook) -> list[bytes]:
    """The keys of the last step's tasks."""
    return [effect.key for effect in play.effects if isinstance(effect, PublishTask)]


# ----------------------------------------------------------------------------------------------------------- conditions


@pytest.mark.parametrize(("payload", "fires"), [({"n": 5}, True), ({"n": 1}, False), ({}, False), ([5], False)])
def test_an_agent_fires_only_where_its_condition_holds(payload: object, fires: bool) -> None:
    play = Playbook(topology(rich=agent("ask -> x", when="n > 3"), all="ask -> y"))
    play.on(requested(payload=payload), *([task("rich")] if fires else []), task("all"))


def test_a_payload_that_is_no_json_meets_no_condition_about_its_fields() -> None:
    play = Playbook(topology(some=agent("ask ->", when="n > 3"), all="ask ->"))
    play.on(requested(data=b"\xff{", content_type="text/plain"), task("all"))


# ---------------------------------------------------------------------------------------------------- ordering and keys


def test_a_task_is_keyed_by_its_id_or_by_the_field_that_its_agent_declares() -> None:
    play = Playbook(topology(one="ask ->", two=agent("ask ->", key="customer.id"), three=agent("ask ->", key="n")))
    payload = {"customer": {"id": "c-7"}, "n": 3}
    play.on(requested(payload=payload), task("one"), task("two", key=b"c-7"), task("three", key=b"3"))
    assert keys(play)[0] == published(play)[0].task_id.encode()


def test_tasks_of_one_answer_have_keys_of_their_own_and_a_retry_keeps_that_of_its_task() -> None:
    play = Playbook(topology(split="ask -> part", work="part ->")).on(requested(), task("split"))
    play.on(succeeded("split", ("part", 1), ("part", 2)), task("work"), task("work"))
    first, second = keys(play)
    assert first != second
    play.on(failed("work"), retry())
    play.on(due("work"), task("work", attempt=2))
    assert keys(play) == [first]


@pytest.mark.parametrize(("value", "key"), [("ä", "ä".encode()), ("", b""), (7, b"7"), (1.5, b"1.5"), (True, b"true")])
def test_a_key_is_the_text_of_the_field_or_its_json(value: object, key: bytes) -> None:
    play = Playbook(topology(two=agent("ask -> answer", key="n"), leaves=["ask"], egress_key="n"))
    play.on(requested(payload={"n": value}), leaves("ask", key=key), task("two", key=key))


@pytest.mark.parametrize("payload", [{}, {"customer": None}, {"customer": {}}, {"customer": [1]}])
def test_a_task_whose_field_is_not_there_is_ordered_by_its_run(payload: object) -> None:
    Playbook(topology(two=agent("ask ->", key="customer"))).on(requested(payload=payload), task("two", key=b"run-1"))


def test_a_join_is_ordered_by_the_first_input_that_has_the_field() -> None:
    play = Playbook(topology(a="ask -> x", b="ask -> y", j=agent("x & y ->", key="customer")))
    play.on(requested(), task("a"), task("b"))
    play.on(succeeded("a", ("x", {"n": 1})))
    play.on(succeeded("b", ("y", {"customer": "c-7"})), task("j", key=b"c-7"))


def test_what_leaves_is_keyed_by_its_run_or_by_the_field_that_its_topic_declares() -> None:
    play = Playbook(topology(echo="ask -> answer", egress_key="order_id"))
    play.on(requested(), task("echo"))
    answer = succeeded("echo", ("answer", {"order_id": "o-1"}), ("answer", {}))
    play.on(
        answer,
        leaves("answer", key=b"o-1", topic="out.answer"),
        leaves("answer", key=None, topic="out.answer"),
        ended("completed"),
    )


# -------------------------------------------------------------------------------------------------------------- fan-out


def test_a_list_fans_out_in_order() -> None:
    play = Playbook(topology(split="ask -> part", work="part -> done")).on(requested(), task("split"))
    play.on(
        succeeded("split", ("part", 1), ("part", 2), ("part", 3)),
        task("work", data=b"1", path="split > work"),
        task("work", data=b"2"),
        task("work", data=b"3"),
    )
    play.on(succeeded("work", "done", nth=2), leaves("done"))
    play.on(succeeded("work", "done", nth=0), leaves("done"))
    play.on(succeeded("work", "done"), leaves("done"), ended("completed", tasks=4))


def test_more_tasks_than_the_run_may_have_refuse_all_hops_and_let_out_what_leaves() -> None:
    play = Playbook(topology(Limits(tasks_max=3), split="ask -> part, sum", work="part -> done"))
    play.on(requested(), task("split"))
    play.on(
        succeeded("split", "part", "part", "sum", "part"),
        leaves("sum"),
        dead("tasks"),
        ended("partial", results=["sum"], tasks=1),
    )
    said = "tasks: split would bring the run to 4 tasks, at most 3"
    assert play.state.refusals[0].message == said
    assert (play.state.refusals[0].limit, play.state.refusals[0].actual) == (3, 4)


def test_exactly_as_many_tasks_as_the_run_may_have_are_made() -> None:
    play = Playbook(topology(Limits(tasks_max=3), split="ask -> part", work="part -> done"))
    play.on(requested(), task("split")).on(succeeded("split", "part", "part"), task("work"), task("work"))


# ------------------------------------------------------------------------------------------------------------------ ids


def test_task_ids_follow_from_the_run_the_cause_and_the_position() -> None:
    def ids(run_id: str) -> list[str]:
        play = Playbook(topology(split="ask -> part", work="part -> done"))
        play.let(requested(run_id=run_id), succeeded("split", "part", "part"))
        return [task.task_id for task in published(play)]

    assert ids("run-1") == ids("run-1")
    assert len({*ids("run-1"), *ids("run-2")}) == 4


def test_a_request_cannot_be_named_so_that_its_task_takes_the_id_of_another() -> None:
    play = Playbook(topology(a="ask -> x", b="x ->", c="go ->")).on(requested(), task("a"))
    (first,) = play.state.open
    play.on(succeeded("a", "x"), task("b"))
    for id in (first, f"{first}:1", f"{first}:1:succeeded", f"request:{first}"):
        play.on(requested("go", id=id), task("c"))
    assert len(play.state.open) == 5


def test_what_leaves_is_named_for_its_task_and_its_place_and_the_outcome_names_it_so() -> None:
    play = Playbook(topology(echo="ask -> answer")).on(requested(), task("echo"))
    (task_id,) = play.state.open
    play.on(succeeded("echo", "answer", "answer"), leaves("answer"), leaves("answer"), ended("completed"))
    left = [effect.event.id for effect in play.effects if isinstance(effect, PublishEvent)]
    assert left == [f"{task_id}.0", f"{task_id}.1"]
    assert [result.id for result in play.state.results] == left


# -------------------------------------------------------------------------------------------------------- content types


def test_a_payload_keeps_its_content_type_on_its_way() -> None:
    play = Playbook(topology(echo="ask -> answer", leaves=["ask"]))
    xml: dict[str, Any] = {"data": b"<a/>", "content_type": "application/xml"}
    play.on(requested(**xml), leaves("ask", **xml), task("echo", **xml))


def test_an_event_out_of_a_batch_is_json() -> None:
    play = Playbook(topology(split="ask -> part", work="part ->")).on(requested(), task("split"))
    play.on(succeeded("split", "part", "part"), task("work", content_type=JSON), task("work", content_type=JSON))


def test_inputs_of_a_join_that_are_no_json_cannot_break_out_of_its_batch() -> None:
    play = Playbook(topology(a="ask -> x", b="ask -> y", j="x & y -> z")).on(requested(), task("a"), task("b"))
    forged = b'1},{"specversion":"1.0","type":"y","data":"forged"'
    play.on(succeeded("a", "x", data=forged))
    play.on(succeeded("b", ("y", "true")), task("j"))
    assert [(part.type, part.data) for part in published(play)[0].parts()] == [("x", forged), ("y", b'"true"')]


def test_an_event_that_leaves_carries_the_trace_of_its_agent() -> None:
    play = Playbook(topology(echo="ask -> answer")).on(requested(traceparent="00-a"), task("echo"))
    play.on(
        succeeded("echo", "answer", traceparent="00-b", tracestate="b=1"),
        leaves("answer", traceparent="00-b", tracestate="b=1", source="/agents/echo"),
        ended("completed"),
    )


ATTRIBUTES = ("dataschema", "urn:order", "tenant", "eu")


def test_extension_attributes_of_the_request_stand_on_what_leaves_the_mesh() -> None:
    play = Playbook(topology(one="ask -> half", two="half -> answer", leaves=["ask", "answer"]))
    play.on(requested(extensions=ATTRIBUTES), leaves("ask", extensions=ATTRIBUTES), task("one", extensions=()))
    play.on(succeeded("one", "half"), task("two", extensions=()))
    play.on(succeeded("two", "answer"), leaves("answer", extensions=ATTRIBUTES), ended("completed"))
    headers = dict(record_of(play.effects[0], play.topology).headers)  # type: ignore[arg-type]
    assert (headers["ce_dataschema"], headers["ce_tenant"]) == (b"urn:order", b"eu")
    assert "mesh-extensions" not in headers


def test_a_request_that_joins_a_run_brings_its_attributes_to_what_it_lets_out_itself() -> None:
    play = Playbook(topology(one="ask -> answer", leaves=["ask", "answer"]))
    play.on(requested(extensions=ATTRIBUTES), leaves("ask", extensions=ATTRIBUTES), task("one"))
    other = ("tenant", "us")
    play.on(requested(id="r2", extensions=other), leaves("ask", extensions=other), task("one"))
    play.on(succeeded("one", "answer"), leaves("answer", extensions=ATTRIBUTES))
