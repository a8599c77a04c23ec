"""Laws of endings, checked by books of their own: what an outcome says of a run follows from the run's records.

    endings = Endings(remembered_offsets, checked)
    violations += endings.follow(event, where, offset, before, now, effects)

I15: a redrive takes back the refusal that its dead letter names, and each refusal is taken back once. So the outcome
counts the refusals of the run without those whose letter was sent again.

Books are kept for runs that were refused something, also after their end: a redrive may open them again.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mesh.core.effect import DeadLetter, Effect, Finish, PublishTask, Schedule
from mesh.core.event import REDRIVEN, Event
from mesh.core.findings import Violation
from mesh.core.records import outcome_body
from mesh.core.run import Run


@dataclass(slots=True)
class Refused:
    """What is known of the refusals of one run."""

    letters: set[str] = field(default_factory=set)
    """Ids of their dead letters."""
    taken_back: set[str] = field(default_factory=set)
    """Those of them that a redrive sent again."""
    stands_for: dict[str, str] = field(default_factory=dict)
    """Letter of a redrive that was refused → the letter that this redrive sent."""
    offset: int = 0


class Endings:
    """See the module."""

    def __init__(self, remembered_offsets: int, checked: Counter[str]) -> None:
        """`remembered_offsets`: for how long the fold remembers runs that ended. `checked` counts what was looked at,
        by invariant."""
        self._remembered = remembered_offsets
        self._checked = checked
        self._refused: dict[str, Refused] = {}

    def follow(
        self, event: Event, where: str, offset: int, before: Run | None, now: Run | None, effects: Sequence[Effect]
    ) -> Iterator[Violation]:
        """Keep the books on one record of a run. `now`: its state after the record, or as it ended then."""
        refused = self._refused.pop(event.run_id, None)
        if refused is None and now is not None and now.refused and event.kind != REDRIVEN:
            refused = Refused() if before is None or not before.refused else None
        if refused is not None:
            refused.offset = offset
            self._refused[event.run_id] = refused
            _note(refused, event, effects)
        finish = next((effect for effect in effects if isinstance(effect, Finish)), None)
        if finish is not None and (refused is not None or not finish.run.refused):
            yield from self._finished(finish.run, where, refused or Refused())
        while self._refused and self._is_forgotten(next(iter(self._refused)), offset):
            del self._refused[next(iter(self._refused))]

    def _is_forgotten(self, run_id: str, offset: int) -> bool:
        return self._refused[run_id].offset < offset - self._remembered

    def _finished(self, run: Run, where: str, refused: Refused) -> Iterator[Violation]:
        self._checked["I15"] += 1
        stand, said = run.refused - len(refused.taken_back), outcome_body(run)["refused"]
        if said != stand:
            what = "the outcome counts other refusals than those that no redrive took back"
            yield Violation("I15", where, what, str(stand), str(said), run.id)


def _note(refused: Refused, event: Event, effects: Sequence[Effect]) -> None:
    """Refusals that one record brought, and the one that it took back."""
    sent = event.id.rpartition(":r")[0] if event.kind == REDRIVEN else ""
    while sent in refused.stands_for:
        sent = refused.stands_for[sent]
    letters = [effect.id for effect in effects if isinstance(effect, DeadLetter) and not effect.task_id]
    goes_on = any(isinstance(effect, PublishTask | Schedule) for effect in effects)
    if sent and goes_on and sent in refused.letters:
        refused.taken_back.add(sent)
    elif sent and not goes_on:
        refused.stands_for |= dict.fromkeys(letters, sent)
        return
    refused.letters.update(letters)
