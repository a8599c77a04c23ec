"""The orchestrator's diagnostics about failures: retries, fallbacks, pauses, dead letters and breakers."""

from typing import Any, Final

from mesh.adapters.diagnostics import LimitedLog, trace_field
from mesh.core.protocol.codec import Unreadable, read_event
from mesh.core.protocol.event import FAILED
from mesh.core.protocol.record import Record
from mesh.core.run.effects import BreakerTransition, DeadLetter, Note, Schedule

MESSAGE_CHARS_MAX: Final = 200
_NOTES: Final = {"fell_back": "a fallback was asked", "cascade": "a run was paused"}


class DecisionLog:
    """A log of decisions, one line each, limited in number."""

    def __init__(self) -> None:
        self._log = LimitedLog("tasks")

    def retry(self, record: Record, timer: Schedule, at_ms: int) -> None:
        """Log that a task is tried again. `record`: its answer. A task that asked for more time has not failed."""
        answer = read_event(record)
        if isinstance(answer, Unreadable) or answer.kind != FAILED:
            return
        agent, code = answer.agent, "" if answer.fault is None else answer.fault.code
        if code in ("later", "left_alone"):
            return
        fields = {"agent": agent, "run": timer.run_id, "task": timer.task_id, "attempt": timer.attempt}
        fields |= {"in_ms": timer.due_ms - at_ms, "code": code, **trace_field(answer)}
        self._log.warning("an attempt is repeated", (agent, code), **fields)

    def note(self, record: Record, note: Note) -> None:
        """Log a note that calls for attention. `record`: the event that was decided."""
        sentence = _NOTES.get(note.code)
        if sentence is not None:
            ids = _ids(record, {"run": note.run_id})
            self._log.warning(sentence, (), **ids, reason=_cut(note.message))

    def effect(self, record: Record, effect: DeadLetter | BreakerTransition) -> None:
        """Log a dead letter, or that a breaker was opened or closed. `record`: the event that was decided."""
        if isinstance(effect, BreakerTransition):
            sentence = f"the breaker of {effect.agent} is {effect.state}"
            ids = _ids(record, {"agent": effect.agent, "run": effect.run_id})
            self._log.warning(sentence, (), **ids, reason=_cut(effect.why))
            return
        fields: dict[str, Any] = _ids(record, {"run": effect.run_id, "agent": effect.agent, "task": effect.task_id})
        fields = {name: value for name, value in fields.items() if value}
        fields |= {"code": effect.code, "letter": effect.id, "origin": effect.origin, "reason": _cut(effect.message)}
        self._log.warning("a dead letter was written", (effect.agent, effect.code), **fields)

    def flush(self) -> None:
        """Log the counts of lines that were suppressed."""
        self._log.flush()


def _ids(record: Record, known: dict[str, str]) -> dict[str, Any]:
    """Return these ids, with task, agent and trace of the event in the record where that is of the same run."""
    event = read_event(record)
    if isinstance(event, Unreadable) or event.run_id != known["run"]:
        return known
    found = {"agent": event.agent, "task": event.task_id, **trace_field(event)}
    return {**known, **{name: id for name, id in found.items() if id and not known.get(name)}}


def _cut(text: str) -> str:
    return text if len(text) <= MESSAGE_CHARS_MAX else f"{text[: MESSAGE_CHARS_MAX - 1]}…"
