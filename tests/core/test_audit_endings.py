"""Laws of endings, tried on decisions that no `decide` of ours makes."""

from collections import Counter
from dataclasses import replace

from mesh.core.audit_endings import Endings
from mesh.core.dead import letter_id
from mesh.core.effect import DeadLetter, Effect, Finish, PublishTask
from mesh.core.event import REDRIVEN, TASK, Event, derive
from mesh.core.run import Run, Trouble
from tests.builders import event, run


class Told:
    """Laws of endings, with one run."""

    def __init__(self) -> None:
        self.checked: Counter[str] = Counter()
        self.laws = Endings(100, self.checked)
        self.state: Run | None = None
        self.offset = -1

    def step(self, cause: Event, after: Run, *effects: Effect) -> list[str]:
        self.offset += 1
        before = None if self.state is None or self.state.ending else self.state
        self.state = after
        where = f"mesh.inbox:0:{self.offset}"
        violations = self.laws.follow(cause, where, self.offset, before, after, effects)
        return [violation.invariant for violation in violations]


SENT = PublishTask(event(TASK), b"")


def letter(id: str) -> DeadLetter:
    return DeadLetter(id, "depth", "no", b"", b"", (), "", run_id="run-1", agent="ship")


def refused_twice() -> tuple[Told, Run]:
    told, two = Told(), run(refused=2)
    letters = [letter(letter_id(two.id, number)) for number in (1, 2)]
    ended = replace(two, ending="stopped")
    assert told.step(event(), ended, *letters, Finish(ended, "r1", 1)) == []
    return told, ended


def redrive(number: int, n: int) -> Event:
    return event(REDRIVEN, id=f"{letter_id('run-1', number)}:r{n}")


def test_a_refusal_that_is_taken_back_twice_counts_once() -> None:
    told, ended = refused_twice()
    once = replace(ended, ending="", trouble=Trouble(redrives=(redrive(1, 1).id,)))
    assert told.step(redrive(1, 1), once, SENT) == []
    ended = replace(
        once, ending="stopped", trouble=once.trouble._replace(redrives=(redrive(1, 1).id, redrive(1, 2).id))
    )
    assert told.step(redrive(1, 2), ended, SENT, Finish(ended, "x", 1)) == []
    both = Trouble(redrives=(redrive(1, 1).id, redrive(2, 1).id))  # the second was never heard
    wrong = replace(ended, trouble=both)
    assert told.step(event(), wrong, Finish(wrong, "x", 1)) == ["I15"]


def test_a_redrive_that_is_refused_takes_nothing_back_and_its_letter_stands_for_the_first() -> None:
    told, ended = refused_twice()
    heir = derive("run-1", redrive(1, 1).id, "refused")
    assert told.step(redrive(1, 1), ended, letter(heir)) == []
    again = replace(ended, trouble=Trouble(redrives=(f"{heir}:r1",), denied=(redrive(1, 1).id,)))
    assert told.step(event(REDRIVEN, id=f"{heir}:r1"), again, SENT, Finish(again, "x", 1)) == []
    assert told.checked["I15"] == 2


def test_books_on_refusals_are_dropped_when_the_fold_forgets_the_run() -> None:
    told, _ = refused_twice()
    told.offset = 200
    told.step(event(run_id="run-2"), run(id="run-2"))
    assert told.laws._refused == {}
