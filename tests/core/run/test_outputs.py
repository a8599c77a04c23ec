"""A result is let through whole or refused whole."""

import pytest

from mesh.core.protocol.event import BATCH, Part, encode_batch
from mesh.core.run.effects import DeadLetter
from mesh.core.run.outputs import emissions
from mesh.core.run.state import Task
from mesh.core.topology.model import Limits
from tests.builders import agent, event, topology
from tests.playbook import Playbook, dead, ended, leaves, requested, succeeded, task

SPLIT = topology(Limits(fanout_max=3, payload_bytes_max=100), split="ask -> part", work="part -> done")


def test_an_undeclared_type_refuses_the_whole_result() -> None:
    play = Playbook(SPLIT).on(requested(), task("split"))
    play.on(succeeded("split", "part", "surprise"), dead("undeclared_type", agent="split"), ended("stopped"))
    assert play.state.refusals[0].message == "undeclared_type: split emitted 'surprise', but declares part"


def test_an_agent_that_declares_nothing_may_emit_nothing() -> None:
    play = Playbook(topology(sink="ask ->")).on(requested(), task("sink"))
    play.on(succeeded("sink", "surprise"), dead("undeclared_type"), ended("stopped"))
    assert play.state.refusals[0].message.endswith("but declares nothing")


def test_too_many_events_at_once_refuse_the_whole_result_and_its_bytes_are_kept() -> None:
    play = Playbook(SPLIT).on(requested(), task("split"))
    play.on(succeeded("split", "part", "part", "part", "part"), dead("fanout"), ended("stopped", tasks=1))
    (letter, _) = play.effects
    assert isinstance(letter, DeadLetter)
    assert play.last is not None
    assert letter.value == play.last.data
    headers = dict(letter.headers)
    assert (headers["ce_type"], headers["content-type"]) == (b"mesh.batch", BATCH.encode())
    assert play.state.refusals[0][3:] == (3, 4, "fanout: split emitted 4 events at once, at most 3")


def test_as_many_events_as_allowed_are_let_through() -> None:
    play = Playbook(SPLIT).on(requested(), task("split"))
    play.on(succeeded("split", "part", "part", "part"), task("work"), task("work"), task("work"))


def test_one_payload_that_is_too_long_refuses_the_whole_result() -> None:
    play = Playbook(SPLIT).on(requested(), task("split"))
    play.on(succeeded("split", "part", ("part", "x" * 99)), dead("payload"), ended("stopped"))
    assert play.state.refusals[0].message == "payload: split emitted a payload of 101 bytes, at most 100"


def test_a_payload_that_is_just_as_long_as_allowed_is_let_through() -> None:
    play = Playbook(SPLIT).on(requested(payload="x" * 98), task("split"))
    play.on(succeeded("split", ("part", "x" * 98)), task("work"))


def test_a_request_that_is_too_long_is_refused() -> None:
    Playbook(SPLIT).on(requested(payload="x" * 99), dead("payload"), ended("stopped", refusals=["payload"]))


@pytest.mark.parametrize("data", [b"", b"{}", b"[", b"[1]", b'[{"type":1,"data":2}]', b"[" * 100_000, b"\xff"])
def test_an_invalid_batch_is_refused_unchanged(data: bytes) -> None:
    play = Playbook(SPLIT).on(requested(), task("split"))
    play.on(succeeded("split", content_type=BATCH, data=data), dead("bad_batch", value=data), ended("stopped"))


@pytest.mark.parametrize(("depth", "passes"), [(200, True), (255, False), (1_000, False), (100_000, False)])
def test_a_batch_that_is_nested_too_deep_is_refused(depth: int, passes: bool) -> None:
    nested = b"[" * depth + b"]" * depth
    crafted = b'[{"specversion":"1.0","type":"part","data":' + nested + b"}]"
    play = Playbook(topology(Limits(), split="ask -> part", work="part ->")).on(requested(), task("split"))
    effects = [task("work", data=nested)] if passes else [dead("bad_batch"), ended("stopped")]
    play.on(succeeded("split", content_type=BATCH, data=crafted), *effects)


@pytest.mark.parametrize("depth", [200, 255, 1_000, 100_000])
def test_an_input_of_a_join_may_be_nested_as_deep_as_it_likes(depth: int) -> None:
    nested = b"[" * depth + b"]" * depth
    play = Playbook(topology(a="ask -> x", b="ask -> y", j="x & y ->")).on(requested(), task("a"), task("b"))
    play.on(succeeded("a", "x", data=nested))
    play.on(succeeded("b", "y"), task("j"))
    assert play.unanswered[0].parts()[0] == ("x", nested)


# ---------------------------------------------------------------------------------------------------------- state bytes


def test_what_leaves_and_what_waits_for_a_join_counts_among_the_bytes_held() -> None:
    play = Playbook(topology(a="ask -> x", b="ask -> y", j="x & y -> z", leaves=["x"]))
    play.on(requested(), task("a"), task("b"))
    play.on(succeeded("a", ("x", "12345678")), leaves("x"))
    assert play.state.state_bytes == 20
    play.on(succeeded("b", ("y", "12345678")), task("j"))
    assert play.state.state_bytes == 30


def test_what_only_passes_through_is_not_held() -> None:
    play = Playbook(SPLIT).on(requested(payload="x" * 90), task("split"))
    play.on(succeeded("split", ("part", "x" * 90)), task("work"))
    assert play.state.state_bytes == 0


def test_results_beyond_the_bytes_that_a_run_may_hold_are_refused() -> None:
    play = Playbook(topology(Limits(state_bytes_max=20), a="ask -> x")).on(requested(), task("a"))
    play.on(requested(id="r2"), task("a"))
    play.on(succeeded("a", ("x", "1" * 18)), leaves("x"))
    play.on(succeeded("a", ("x", "1")), dead("state"), ended("partial", results=["x"], refusals=["state"]))
    assert play.state.refusals[0].message == "state: a would bring the run to 23 bytes held, at most 20"


def test_inputs_of_joins_beyond_the_bytes_that_a_run_may_hold_are_refused() -> None:
    play = Playbook(topology(Limits(state_bytes_max=20), a="ask -> x", b="ask -> y", i="x & y -> z", j="x & y -> z"))
    play.on(requested(), task("a"), task("b"))
    play.on(succeeded("a", ("x", "1" * 9)), dead("state", value=b'"111111111"'))
    play.on(succeeded("b", "y"), ended("stopped", starved=[f"{j}: got y; missing x" for j in "ij"]))


def test_a_run_that_is_full_still_lets_through_what_it_need_not_hold() -> None:
    play = Playbook(topology(Limits(state_bytes_max=20), a="ask -> x, go", b="go -> y", leaves=["x"]))
    play.on(requested(), task("a"))
    play.on(succeeded("a", ("x", "1" * 18), ("go", "1" * 50)), leaves("x"), task("b"))


# ------------------------------------------------------------------------------------------------------------- branches


def test_several_of_one_type_go_on_in_branches_and_a_single_one_does_not() -> None:
    parts = [Part("x", b"1"), Part("y", b"2"), Part("x", b"3")]
    value = encode_batch(parts, source="/agents/a", event_id="t")
    result = event("succeeded", data=value, content_type=BATCH)
    found = emissions(result, Task("0123456789abcdef" * 2, "a", 1, ("a",), ("above",), "c"))
    assert [(type, data, branch) for type, _, data, branch in found] == [
        ("x", b"1", ("above", "0123456789abcdef.0")),
        ("y", b"2", ("above",)),
        ("x", b"3", ("above", "0123456789abcdef.2")),
    ]


def test_refusals_beyond_what_a_run_remembers_are_counted_and_still_dead_letters() -> None:
    play = Playbook(
        topology(Limits(depth_max=1), split="ask -> part", work=agent("part ->"), comes_in=["go"], hold="go ->")
    )
    play.on(requested("go"), task("hold"))
    ids: list[str] = []
    for n in range(3):
        play.let(requested(id=f"r{n + 2}"), succeeded("split", *["part"] * 30))
        ids += [effect.id for effect in play.effects if isinstance(effect, DeadLetter)]
    assert len(set(ids)) == 90
    assert (play.state.refused, len(play.state.refusals)) == (90, 64)
