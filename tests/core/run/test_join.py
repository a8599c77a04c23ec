"""Joins: once per run, once per branch below a fan-out, in every order of arrival."""

from itertools import permutations
from random import Random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.protocol.event import BATCH
from mesh.core.run.dead_letter import REFUSALS_KEPT_MAX
from mesh.core.run.join import accepts, arrive, find_starved, slot_bytes
from mesh.core.run.state import Arrival, Branch, Slot, Slots, Unrouted
from mesh.core.topology.model import Limits, Retry, Topology
from tests.builders import agent, topology
from tests.playbook import Playbook, ended, failed, leaves, note, redriven, requested, succeeded, task

DESK = topology(
    stock="order -> stocked",
    price="order -> priced",
    fraud="order -> scored",
    ship="stocked & priced & scored -> shipped",
)
PARTS = topology(split="ask -> part", setup="ask -> config", work="part & config -> done")
"""Several parts come from one task, the configuration from another; each part is worked on with it."""


@pytest.mark.parametrize("order", list(permutations(["stock", "price", "fraud"])), ids=" ".join)
def test_a_join_fires_once_when_all_are_there_in_whatever_order_they_come(order: tuple[str, ...]) -> None:
    emits = {"stock": "stocked", "price": "priced", "fraud": "scored"}
    play = Playbook(DESK).on(requested("order"), task("stock"), task("price"), task("fraud"))
    play.on(succeeded(order[0], (emits[order[0]], order[0])))
    play.on(succeeded(order[1], (emits[order[1]], order[1])))
    play.on(
        succeeded(order[2], (emits[order[2]], order[2])), task("ship", type="mesh.join", depth=2, content_type=BATCH)
    )
    (joined,) = play.unanswered
    assert [(part.type, part.data) for part in joined.parts()] == [
        ("stocked", b'"stock"'),
        ("priced", b'"price"'),
        ("scored", b'"fraud"'),
    ]
    play.on(succeeded("ship", "shipped"), leaves("shipped"), ended("completed", tasks=4))


def test_inputs_that_come_in_one_result_join_too() -> None:
    play = Playbook(topology(a="ask -> x, y", j="x & y -> z")).on(requested(), task("a"))
    play.on(succeeded("a", "y", "x"), task("j", path="a > j"))


def test_the_path_of_a_join_is_that_of_its_deepest_input() -> None:
    play = Playbook(topology(a="ask -> x", b="ask -> p", c="p -> y", j="x & y -> z"))
    play.on(requested(), task("a"), task("b"))
    play.on(succeeded("b", "p"), task("c"))
    play.on(succeeded("c", "y"))
    play.on(succeeded("a", "x"), task("j", path="b > c > j", depth=3))


@pytest.mark.parametrize("first", ["split", "setup"])
def test_an_input_above_a_fan_out_serves_every_branch_whenever_it_comes(first: str) -> None:
    play = Playbook(PARTS).on(requested(), task("split"), task("setup"))
    parts = succeeded("split", ("part", 1), ("part", 2), ("part", 3))
    works = [task("work"), task("work"), task("work")]
    if first == "split":
        play.on(parts).on(succeeded("setup", "config"), *works)
    else:
        play.on(succeeded("setup", "config")).on(parts, *works)
    assert [orjson.loads(job.data)[0]["data"] for job in play.unanswered] == [1, 2, 3]


def test_an_input_that_the_join_above_has_used_serves_the_branches_below_too() -> None:
    play = Playbook(
        topology(one="ask -> part", setup="ask -> config", split="ask -> part", work="part & config -> done")
    )
    play.on(requested(), task("one"), task("setup"), task("split"))
    play.on(succeeded("one", "part"))
    play.on(succeeded("setup", "config"), task("work"))
    play.on(succeeded("split", "part", "part"), task("work"), task("work"))


def test_siblings_never_meet() -> None:
    mesh = topology(split="ask -> part", left="part -> x", right="part -> y", join="x & y -> z")
    play = Playbook(mesh).on(requested(), task("split"))
    play.on(succeeded("split", "part", "part"), task("left"), task("right"), task("left"), task("right"))
    play.on(succeeded("left", "x", nth=0))
    play.on(succeeded("right", "y", nth=1))
    play.on(succeeded("left", "x", nth=0), task("join"))
    play.on(succeeded("right", "y", nth=0), task("join"))


def test_a_fan_out_below_a_fan_out_is_a_branch_of_its_own() -> None:
    mesh = topology(split="ask -> part", cut="part -> bit", setup="part -> config", work="bit & config -> done")
    play = Playbook(mesh).on(requested(), task("split"))
    play.on(succeeded("split", "part", "part"), task("cut"), task("setup"), task("cut"), task("setup"))
    play.on(succeeded("cut", "bit", "bit"))
    play.on(succeeded("setup", "config", nth=1))
    play.on(succeeded("setup", "config", nth=0), task("work"), task("work"))


def test_the_first_input_of_a_type_counts_and_a_later_one_is_noted() -> None:
    play = Playbook(topology(a="ask -> x", b="ask -> x", c="ask -> y", j="x & y -> z"))
    play.on(requested(), task("a"), task("b"), task("c"))
    play.on(succeeded("b", ("x", "first")))
    play.on(succeeded("a", ("x", "second")), note("join_repeated"))
    play.on(succeeded("c", "y"), task("j"))
    assert play.unanswered[0].parts()[0].data == b'"first"'
    play.on(succeeded("j", "z"), leaves("z"), ended("partial", unrouted=[AGAIN.message]))


AGAIN = Unrouted("x", "a", "x from a: j has got one already")
TWICE: dict[str, Any] = {"a": "ask -> x", "b": "ask -> x", "c": "ask -> y"}


@pytest.mark.parametrize("more", [{"audit": "x ->"}, {"leaves": ["x", "z"]}], ids=["agent", "egress"])
def test_an_input_that_a_join_has_got_already_is_named_whatever_else_took_it(more: dict[str, Any]) -> None:
    play = Playbook(topology(**TWICE, j="x & y -> z", **more)).let(requested())
    play.let(succeeded("b", "x"), succeeded("a", "x"), succeeded("c", "y"))
    assert play.state.unrouted == (AGAIN,)


def test_a_second_request_of_a_run_whose_joins_have_fired_is_not_done_in_silence() -> None:
    play = Playbook(DESK).let(requested("order"), requested("order", id="r2"))
    for _ in range(2):
        play.let(succeeded("stock", "stocked"), succeeded("price", "priced"), succeeded("fraud", "scored"))
    play.on(succeeded("ship", "shipped"), leaves("shipped"), ended("partial", tasks=7))
    assert [fact.type for fact in play.state.unrouted] == ["stocked", "priced", "scored"]


def test_a_join_may_ignore_what_it_has_got_already() -> None:
    play = Playbook(topology(**TWICE, j=agent("x & y -> z", ignores=True))).let(requested())
    play.let(succeeded("b", "x"), succeeded("a", "x"), succeeded("c", "y"))
    play.on(succeeded("j", "z"), leaves("z"), ended("completed", unrouted=[]))


def test_an_input_for_a_branch_that_fired_with_one_from_above_is_named() -> None:
    mesh = topology(split="ask -> part", setup="ask -> config", tune="part -> config", work="part & config -> done")
    play = Playbook(mesh).let(requested(), succeeded("setup", "config"))
    play.on(succeeded("split", "part", "part"), task("tune"), task("work"), task("tune"), task("work"))
    play.on(succeeded("tune", "config"), note("join_repeated"))
    assert play.state.unrouted == (Unrouted("config", "tune", "config from tune: work has got one already"),)


def test_a_join_whose_condition_does_not_hold_has_fired_and_does_not_starve() -> None:
    join = agent("x & y -> z", when="x.n < y.n", ignores=True)
    play = Playbook(topology(a="ask -> x", b="ask -> y", j=join))
    play.on(requested(), task("a"), task("b"))
    play.on(succeeded("a", ("x", {"n": 2})))
    play.on(succeeded("b", ("y", {"n": 1})), ended("completed", starved=[]))


WANTED = topology(a="ask -> x", b="ask -> y", j=agent("x & y -> z", when="x.n < 5 and y.n > 0"))


def alone(payload: object, mesh: Topology = WANTED) -> Playbook:
    """A join of which one event has come and the other never will."""
    play = Playbook(mesh).on(requested(), task("a"), task("b"))
    return play.on(succeeded("a", ("x", payload))).let(succeeded("b"))


def test_a_join_that_is_not_wanted_does_not_starve() -> None:
    mesh = topology(a="ask -> x", b="ask -> y", j=WANTED.agents["j"], stop="x ->")
    play = Playbook(mesh).let(requested(), succeeded("a", ("x", {"n": 7})), succeeded("b"))
    play.on(succeeded("stop"), ended("completed", starved=[], unrouted=[]))
    assert play.state.joins["j"][()].declined


def test_an_input_of_a_join_that_is_not_wanted_is_named_as_if_all_had_come() -> None:
    run = alone({"n": 7}).state
    assert (run.ending, run.starved) == ("stopped", ())
    assert run.unrouted == (Unrouted("x", "a", "x from a: j takes it when x.n < 5 and y.n > 0", closing=True),)
    assert "closing" not in run.unrouted[0].as_dict()


def test_of_two_joins_that_are_not_wanted_neither_takes_the_event() -> None:
    other = agent("x & y -> w", when="x.n > 9")
    run = alone({"n": 7}, topology(a="ask -> x", b="ask -> y", j=WANTED.agents["j"], k=other)).state
    assert [fact.message for fact in run.unrouted] == [
        "x from a: j takes it when x.n < 5 and y.n > 0",
        "x from a: k takes it when x.n > 9",
    ]


def test_a_join_that_is_not_wanted_may_ignore_what_it_has_got() -> None:
    mesh = topology(a="ask -> x", b="ask -> y", j=agent("x & y -> z", when="x.n < 5", ignores=True))
    assert alone({"n": 7}, mesh).state.ending == "completed"


@pytest.mark.parametrize("comes", [True, False])
def test_a_redrive_takes_back_what_is_known_only_since_the_run_ended(comes: bool) -> None:
    mesh = topology(a="ask -> x", b=agent("ask -> y", retry=Retry(attempts_max=1)), j=WANTED.agents["j"])
    play = Playbook(mesh).let(requested(), succeeded("a", ("x", {"n": 7})), failed("b"))
    assert [fact.closing for fact in play.state.unrouted] == [True]
    play.let(redriven())
    assert (play.state.ending, play.state.unrouted) == ("", ())
    play.let(succeeded("b", ("y", {"n": 1})) if comes else succeeded("b"))
    assert [(fact.type, fact.times, fact.closing) for fact in play.state.unrouted] == [("x", 1, True)]


def test_a_join_that_may_still_be_wanted_starves() -> None:
    play = alone({"n": 3})
    assert (play.state.ending, play.state.starved) == ("partial", ("j: got x; missing y",))


def test_a_join_whose_condition_reads_a_field_that_is_missing_starves() -> None:
    assert alone({"m": 7}).state.ending == "partial"


def test_a_join_without_a_condition_starves() -> None:
    assert alone({"n": 7}, topology(a="ask -> x", b="ask -> y", j="x & y -> z")).state.ending == "partial"


def test_a_condition_of_a_join_reads_all_its_inputs() -> None:
    play = Playbook(topology(a="ask -> x", b="ask -> y", j=agent("x & y -> z", when="x.n < y.n")))
    play.on(requested(), task("a"), task("b"))
    play.on(succeeded("a", ("x", {"n": 1})))
    play.on(succeeded("b", ("y", {"n": 2})), task("j"))


def test_a_join_on_a_cycle_fires_again_when_all_inputs_have_come_again() -> None:
    mesh = topology(
        Limits(visits_max=2),
        write="ask | again -> draft",
        style="draft -> styled",
        facts="draft -> checked",
        judge="styled & checked -> again, approved",
    )
    play = Playbook(mesh).on(requested(), task("write"))
    play.on(succeeded("write", ("draft", 1)), task("style"), task("facts"))
    play.on(succeeded("style", ("styled", 1)))
    play.on(succeeded("facts", ("checked", 1)), task("judge"))
    play.on(succeeded("judge", ("again", 1)), task("write", path="write > style > judge > write"))
    play.on(succeeded("write", ("draft", 2)), task("style"), task("facts"))
    play.on(succeeded("facts", ("checked", 2)))
    play.on(succeeded("style", ("styled", 2)), task("judge"))
    play.on(succeeded("judge", "approved"), leaves("approved"), ended("completed", state_bytes=2))


# ---------------------------------------------------------------------------------------------------------- starvation


def test_a_join_that_starves_is_named_and_the_run_is_partial() -> None:
    play = Playbook(DESK).on(requested("order"), task("stock"), task("price"), task("fraud"))
    play.on(succeeded("stock", "stocked")).on(succeeded("price"))
    play.on(succeeded("fraud", "scored"), ended("partial", starved=["ship: got stocked, scored; missing priced"]))


def test_a_join_that_got_nothing_does_not_starve() -> None:
    play = Playbook(DESK).on(requested("order"), task("stock"), task("price"), task("fraud"))
    play.on(succeeded("stock")).on(succeeded("price"))
    play.on(succeeded("fraud"), ended("completed"))


def test_branches_that_starve_alike_are_counted() -> None:
    play = Playbook(PARTS).on(requested(), task("split"), task("setup"))
    play.on(succeeded("split", "part", "part", "part"))
    play.on(succeeded("setup"), ended("partial", starved=["work: got part; missing config (3 branches)"]))


def test_what_serves_the_branches_below_does_not_starve_above_them() -> None:
    play = Playbook(PARTS).on(requested(), task("split"), task("setup"))
    play.on(succeeded("setup", "config"))
    play.on(succeeded("split", "part", "part"), task("work"), task("work"))
    play.on(succeeded("work", "done"), leaves("done"))
    play.on(succeeded("work", "done"), leaves("done"), ended("completed", starved=[]))


def test_an_input_above_a_fan_out_that_no_branch_below_used_starves() -> None:
    mesh = topology(split="ask -> part", setup="ask -> config", tune="part -> config", work="part & config -> done")
    play = Playbook(mesh).let(requested(), succeeded("split", "part", "part"))
    play.let(succeeded("tune", "config"), succeeded("tune", "config"), succeeded("setup", "config"))
    play.let(succeeded("work", "done"), succeeded("work", "done"))
    assert (play.state.ending, play.state.starved) == ("partial", ("work: got config; missing part",))


def test_a_second_round_that_is_left_incomplete_starves() -> None:
    mesh = topology(write="ask | again -> draft", a="draft -> x", b="draft -> y", judge="x & y -> again")
    play = Playbook(mesh).on(requested(), task("write")).on(succeeded("write", "draft"), task("a"), task("b"))
    play.on(succeeded("a", "x")).on(succeeded("b", "y"), task("judge"))
    play.on(succeeded("judge", "again"), task("write"))
    play.on(succeeded("write", ("draft", 2)), task("a"), task("b"))
    play.on(succeeded("a", "x"))
    play.on(succeeded("b"), ended("partial", starved=["judge: got x; missing y"]))


# ------------------------------------------------------------------------------------------------------- any order, all

BRANCHES: list[Branch] = [(), ("a",), ("b",), ("a", "1"), ("a", "2")]
inputs = st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from(BRANCHES)), unique=True, max_size=12)


def fired(order: list[tuple[str, Branch]]) -> set[Branch]:
    """The branches in which a join of x, y and z fires when its inputs come in this order."""
    slots: Slots = {}
    found: list[Branch] = []
    taken: list[tuple[str, Branch]] = []
    for type, branch in order:
        if not accepts(slots, type, branch):
            assert slots[branch].fired
            continue
        taken.append((type, branch))
        arrival = Arrival(f"{type} {branch}".encode(), len(branch), branch, ())
        before = {at: Slot(dict(slot.inputs), slot.fired) for at, slot in slots.items()}
        after, ready = arrive(slots, "xyz", type, branch, arrival)
        assert slots == before, "arrive changed the slots it was given"
        slots = after
        found.extend(at for at, _ in ready)
        for at, got in ready:
            assert [g.data[:1].decode() for g in got] == list("xyz")
            assert all(at[: len(g.path)] == g.path for g in got), "an input came from a sibling"
    assert len(found) == len(set(found)), "a branch fired twice"
    assert slot_bytes(slots) == sum(len(f"{type} {branch}") for type, branch in taken)
    assert not any(accepts(slots, type, branch) for type, branch in order)
    return set(found)


@given(inputs, st.randoms())
def test_which_branches_fire_does_not_depend_on_the_order(order: list[tuple[str, Branch]], random: Random) -> None:
    other = list(order)
    random.shuffle(other)
    assert fired(order) == fired(other)


@given(inputs)
def test_a_branch_fires_exactly_when_all_types_are_in_it_or_above_and_one_of_them_in_it(
    order: list[tuple[str, Branch]],
) -> None:
    def visible(branch: Branch) -> set[str]:
        return {type for type, at in order if branch[: len(at)] == at}

    assert fired(order) == {at for _, at in order if visible(at) == set("xyz")}


def test_sentences_of_starvation_are_few_though_branches_are_many() -> None:
    slots: Slots = {(str(n),): Slot({"x": Arrival(b"", 1, (), ())}) for n in range(REFUSALS_KEPT_MAX * 2)}
    assert find_starved("j", slots, ["x", "y"])[0] == [f"j: got x; missing y ({len(slots)} branches)"]
