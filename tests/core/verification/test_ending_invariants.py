"""Laws of endings, tried on decisions that no `decide` of ours makes."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from mesh.core.protocol.event import JSON, REDRIVEN, SUCCEEDED, TASK, Event, derive_id
from mesh.core.run import unrouted
from mesh.core.run.dead_letter import letter_id
from mesh.core.run.effects import DeadLetter, Effect, Finish, PublishTask
from mesh.core.run.state import (
    COMPLETED,
    PARTIAL,
    STOPPED,
    Arrival,
    Draft,
    Held,
    Result,
    Run,
    Slot,
    Slots,
    Task,
    Trouble,
    Unrouted,
)
from mesh.core.topology.model import Limits, Topology
from mesh.core.verification.ending_invariants import EndingInvariants
from tests.builders import agent, event, run, topology
from tests.forms_of_core import pure_only
from tests.playbook import Playbook, requested, succeeded


class Told:
    """Laws of endings, with one run."""

    def __init__(self, mesh: Topology | None = None) -> None:
        self.checked: Counter[str] = Counter()
        self.laws = EndingInvariants({MESH.digest: mesh or MESH}, 100, self.checked)
        self.state: Run | None = None
        self.offset = -1

    def step(self, cause: Event, after: Run, *effects: Effect) -> list[str]:
        self.offset += 1
        before = None if self.state is None or self.state.ending else self.state
        self.state = after
        where = f"mesh.inbox:0:{self.offset}"
        violations = self.laws.follow(cause, where, self.offset, before, after, effects)
        return [violation.invariant for violation in violations]


MESH = topology(
    Limits(tokens_max=10),
    plan="ask -> x, y",
    ship=agent("x & y -> sent", when="x.n < 5"),
    big=agent("more ->", when="n > 9"),
    some=agent("any ->", when="n > 9", ignores=True),
)
SENT = PublishTask(event(TASK), b"")


def letter(id: str) -> DeadLetter:
    return DeadLetter(id, "depth", "no", b"", b"", (), "", run_id="run-1", agent="ship")


def refused_twice() -> tuple[Told, Run]:
    reported, two = Told(), run(refused=2)
    letters = [letter(letter_id(two.id, number)) for number in (1, 2)]
    ended = replace(two, ending="stopped")
    assert reported.step(event(), ended, *letters, Finish(ended, "r1", 1)) == []
    return reported, ended


def redrive(number: int, n: int) -> Event:
    return event(REDRIVEN, id=f"{letter_id('run-1', number)}:r{n}")


def test_a_refusal_that_is_taken_back_twice_counts_once() -> None:
    reported, ended = refused_twice()
    once = replace(ended, ending="", trouble=Trouble(redrives=(redrive(1, 1).id,)))
    assert reported.step(redrive(1, 1), once, SENT) == []
    ended = replace(
        once, ending="stopped", trouble=once.trouble._replace(redrives=(redrive(1, 1).id, redrive(1, 2).id))
    )
    assert reported.step(redrive(1, 2), ended, SENT, Finish(ended, "x", 1)) == []
    both = Trouble(redrives=(redrive(1, 1).id, redrive(2, 1).id))  # the second was never heard
    wrong = replace(ended, trouble=both)
    assert "I15" in reported.step(event(), wrong, Finish(wrong, "x", 1))


def test_a_redrive_of_a_paused_run_takes_a_refusal_back_without_an_effect() -> None:
    reported, ended = refused_twice()
    waits = Task("t", "ship", 1, ("ship",), (), redrive(1, 1).id, held=Held("x", JSON, b"1", 0))
    paused = replace(ended, ending="", open={"t": waits}, trouble=Trouble(redrives=(redrive(1, 1).id,), paused="why"))
    assert reported.step(redrive(1, 1), paused) == []
    again = replace(paused, ending="stopped", open={})
    assert reported.step(event(SUCCEEDED), again, Finish(again, "t:succeeded", 2)) == []
    wrong = replace(again, trouble=Trouble())
    assert reported.step(event(SUCCEEDED), wrong, Finish(wrong, "t:succeeded", 3)) == ["I15"]


def test_a_redrive_that_is_refused_takes_nothing_back_and_its_letter_stands_for_the_first() -> None:
    reported, ended = refused_twice()
    heir = derive_id("run-1", redrive(1, 1).id, "refused")
    assert reported.step(redrive(1, 1), ended, letter(heir)) == []
    again = replace(ended, trouble=Trouble(redrives=(f"{heir}:r1",), denied=(redrive(1, 1).id,)))
    assert reported.step(event(REDRIVEN, id=f"{heir}:r1"), again, SENT, Finish(again, "x", 1)) == []
    assert reported.checked["I15"] == 2


def test_books_on_refusals_are_dropped_when_the_fold_forgets_the_run() -> None:
    reported, _ = refused_twice()
    reported.offset = 200
    reported.step(event(run_id="run-2"), run(id="run-2"))
    assert reported.laws._refused == {}


# -------------------------------------------------------------------------------------------------- facts and endings


def ending(ending: str, cause: Event | None = None, **fields: Any) -> list[str]:
    """Return the violations of a run that its request ends at once."""
    ended = run(ending=ending, **{"results": (RESULT,), **fields})
    return Told().step(cause or event(), ended, LEAVES, Finish(ended, "r1", 1))


RESULT = Result("x1", "sent", "ship", b"1")
LEAVES = PublishTask(event(TASK, type="ask"), b"")
OTHER = Task("t", "plan", 1, ("plan",), (), "r1")
FACT = Unrouted("more", "", "more: big takes it when n > 9")


def test_a_run_is_completed_only_where_no_fact_speaks_against_it() -> None:
    assert ending(COMPLETED) == []
    assert ending(COMPLETED, starved=("plan: got x; missing y",)) == ["I16"]
    assert ending(COMPLETED, unrouted=(FACT,)) == ["I16"]
    assert ending(COMPLETED, tokens=11, overspent=("tokens: 11 used, at most 10",)) == ["I16"]
    assert ending(PARTIAL) == ["I16"]
    assert ending(PARTIAL, unrouted=(FACT,)) == []
    assert ending(PARTIAL, unrouted=(FACT,), results=()) == ["I16"]
    assert ending(STOPPED, unrouted=(FACT,), results=()) == []
    assert ending(STOPPED) == ["I16"]


def test_an_event_that_nothing_took_must_be_named() -> None:
    odd, stays = event(type="more"), run(results=(RESULT,))
    assert Told().step(odd, stays) == ["I16"]
    assert Told().step(odd, replace(stays, unrouted=(FACT,))) == []
    assert Told().step(event(type="any"), stays) == []
    held: dict[str, Slots] = {"ship": {(): Slot({"x": Arrival(b"1", 1, (), ())})}}
    assert Told().step(event(type="x"), replace(stays, joins=held)) == [], "a join hears it"
    reported = Told()
    assert reported.step(odd, replace(stays, unrouted=(FACT,))) == []
    assert reported.step(event(type="more", id="r2"), replace(stays, unrouted=(FACT,))) == ["I16"], (
        "named once, came twice"
    )


def test_an_outcome_names_a_budget_where_more_was_used() -> None:
    over = ("tokens: 11 used, at most 10",)
    assert ending(PARTIAL, tokens=11, overspent=over) == []
    assert ending(PARTIAL, tokens=10, overspent=over) == ["I17"]
    assert ending(COMPLETED, tokens=11) == ["I17"]


def test_a_join_that_is_not_wanted_is_not_named_as_starved() -> None:
    def starved(payload: bytes) -> list[str]:
        slots = {(): Slot({"x": Arrival(payload, 1, ("plan",), ())})}
        return ending(PARTIAL, starved=("ship: got x; missing y",), joins={"ship": slots})

    assert starved(b'{"n":1}') == []
    assert starved(b'{"n":7}') == ["I18", "I20"]


def test_an_input_that_a_join_does_not_take_is_named() -> None:
    one = Slot({"x": Arrival(b"1", 1, (), ())})
    held = run(joins={"ship": {(): one}}, open={"t": OTHER})
    reported = Told()
    assert reported.step(event(type="x"), held) == []
    assert reported.step(event(type="x", id="r2"), held) == ["I20"]
    reported = Told()
    assert reported.step(event(type="x"), held) == []
    assert reported.step(event(type="x", id="r2"), replace(held, unrouted=(Unrouted("x", "", "again"),))) == []
    assert Told().step(event(type="x"), replace(held, joins={})) == ["I20"], "it was lost"


def test_a_join_that_holds_an_input_at_the_end_is_named() -> None:
    def ended(how: str, payload: bytes, **fields: Any) -> list[str]:
        return ending(how, joins={"ship": {(): Slot({"x": Arrival(payload, 1, ("plan",), ())})}}, **fields)

    assert ended(COMPLETED, b'{"n":1}') == ["I20"]
    assert ended(COMPLETED, b'{"n":1}', open={"t": OTHER}) == [], "it was cut short"
    assert ended(PARTIAL, b'{"n":1}', starved=("ship: got x; missing y",)) == []
    assert ended(COMPLETED, b'{"n":7}') == ["I20"]
    assert ended(PARTIAL, b'{"n":7}', unrouted=(Unrouted("x", "plan", "x from plan", closing=True),)) == []


def test_the_last_input_that_a_loop_was_refused_is_in_the_outcome() -> None:
    mesh = topology(write="ask | again -> draft", review="draft -> again")
    reported = Told(mesh)
    ended = run(refused=1, ending=STOPPED)
    refused = replace(letter(letter_id(ended.id, 1)), code="visits", agent="write")
    assert reported.step(event(), ended, refused, Finish(ended, "r1", 1)) == ["I19"]
    kept = replace(ended, drafts=(Draft("again", "write", refused.id, b"1"),))
    reported = Told(mesh)
    assert reported.step(event(), kept, refused, Finish(kept, "r1", 1)) == []


PAIR = topology(
    a="ask -> x",
    b="ask -> y",
    j=agent("x & y -> sent", when="y.v == 7"),
    k=agent("x & y -> sent", when="y.v == 8"),
)


def test_events_below_a_fan_out_that_two_joins_refused_are_named_as_often_as_they_were_lost() -> None:
    """The input above the fan-out lies in a branch that did not fire: it takes nothing."""

    def found(v: int, *facts: Unrouted) -> list[str]:
        slots: Slots = {(): Slot({"x": Arrival(b"{}", 1, ("a",), ())})}
        for n, value in enumerate((1, v)):
            data = f'{{"v":{value}}}'.encode()
            slots[(f"f{n}",)] = Slot({"y": Arrival(data, 1, ("b",), ())}, fired=True, declined=value < 7)
        how = PARTIAL if facts else COMPLETED
        ended = run(ending=how, results=(RESULT,), joins={"j": slots, "k": slots}, unrouted=facts)
        return Told(PAIR).step(event(), ended, LEAVES, Finish(ended, "r1", 1))

    def fact(join: str, times: int) -> Unrouted:
        return Unrouted("y", "b", f"y from b: {join} takes it", times, closing=True)

    assert found(2) == ["I20"]
    assert found(2, fact("j", 2)) == ["I20"]
    assert found(2, fact("j", 2), fact("k", 2)) == []
    assert found(7, fact("j", 1), fact("k", 1)) == []
    assert found(7, fact("j", 1), fact("k", 2)) == ["I20"], "`j` took the second one"


@pure_only
def test_the_decision_that_takes_an_input_above_a_fan_out_for_used_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def endings() -> list[str]:
        play = Playbook(PAIR).let(requested(), succeeded("a", "x"))
        answer = succeeded("b", ("y", {"v": 1}), ("y", {"v": 2}))(play)
        reported = Told(PAIR)
        reported.state = play.state
        play.let(lambda _: answer)
        return reported.step(answer, play.state, *play.effects)

    assert endings() == []
    monkeypatch.setattr(
        unrouted, "used_inputs", lambda slots, needs, *, cyclic: {(type, at) for at in slots for type in needs}
    )
    assert endings() == ["I20"]
