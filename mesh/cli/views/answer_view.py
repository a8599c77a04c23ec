"""Answers of a replay beside the recorded ones in output."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from mesh.cli.framework.output import Output, Piece
from mesh.cli.framework.text import counted, took, visible
from mesh.cli.views.run_view import id_of
from mesh.core.protocol.event import Event, parse_json
from mesh.core.replay.answer_diff import BROKEN, DIFFERENT, SAME, SLOWER, VERDICTS, answer_text
from mesh.core.replay.masked_values import not_compared
from mesh.core.verification.record_diff import Difference

if TYPE_CHECKING:
    from mesh.app.agent_replay import Compared
    from mesh.operations.replay.task_answers import Skipped

VERDICT_STYLES: Final = {SAME: "green", DIFFERENT: "red", BROKEN: "red", SLOWER: "yellow"}
VALUE_CHARS_MAX: Final = 60
ID_CHARS: Final = 12


@dataclass
class AnswerCounts:
    """Results of the tasks of one agent: numbers, and the first differences."""

    agent: str
    where: str
    verdicts: Counter[str] = field(default_factory=Counter)
    recorded_ms: float = 0
    took_ms: float = 0
    masked: int = 0
    shown: "list[Compared]" = field(default_factory=list)

    def add(self, compared: "Compared", shown_max: int) -> None:
        """Count one task."""
        self.verdicts[compared.verdict] += 1
        self.recorded_ms += compared.recorded.took_ms
        self.took_ms += compared.took_ms
        self.masked += compared.masked
        if compared.differences and len(self.shown) < shown_max:
            self.shown.append(compared)

    @property
    def total(self) -> int:
        """Number of tasks."""
        return self.verdicts.total()

    @property
    def differing(self) -> int:
        """Number of tasks with another answer, or a failure."""
        return self.verdicts[DIFFERENT] + self.verdicts[BROKEN]


def summary(output: Output, found: AnswerCounts, skipped: "Skipped") -> None:
    """Print the first differences in full, and a table of all verdicts."""
    output.emit(
        {
            "agent": found.agent,
            "function": found.where,
            "tasks": found.total,
            **{verdict: found.verdicts[verdict] for verdict in VERDICTS},
            "masked": found.masked,
            "gone": skipped.gone,
            "not_called": skipped.not_called,
            "head_removed": skipped.head_removed,
        }
    )
    for compared in found.shown:
        _one(output, compared)
    if (more := found.differing - len(found.shown)) > 0:
        output.print((f"  … and {counted(more, 'further task')} that differ{'s' if more == 1 else ''}", "dim"))
        output.print()
    output.print((found.agent, "bold"), (f"  {found.where}", "dim"))
    if found.total:
        mean = [took(total / found.total) for total in (found.recorded_ms, found.took_ms)]
        rows: list[list[Piece]] = [
            [(verdict, VERDICT_STYLES[verdict]), f"{found.verdicts[verdict]:,}", (meaning, "dim")]
            for verdict, meaning in VERDICTS.items()
            if found.verdicts[verdict]
        ]
        output.table(("", ">TASKS", ""), rows)
        output.print((f"{counted(found.total, 'task')}; on average {mean[0]} recorded, {mean[1]} now", "dim"))
    else:
        output.print(("no recorded answers of this agent to compare", "dim"))
    if found.masked:
        output.note((not_compared(found.masked), "yellow"))
    if skipped.head_removed:
        output.note(("older records were removed from the inbox: the answers before are left out", "yellow"))
    if skipped.gone:
        text = f"{counted(skipped.gone, 'answer')} left out: retention removed the record of the task"
        output.note((text, "yellow"))
    if skipped.not_called:
        text = f"{counted(skipped.not_called, 'answer')} left out: the function was not called, or its run had ended"
        output.note((text, "dim"))


def _one(output: Output, compared: "Compared") -> None:
    task = compared.recorded.task
    attempt = f"  attempt {task.attempt}" if task.attempt > 1 else ""
    output.print(
        (compared.verdict, VERDICT_STYLES[compared.verdict]),
        "  ",
        (task.subject or task.type, "bold"),
        (f"  task {task.task_id[:ID_CHARS]}{attempt}  run {id_of(task.run_id)}", "dim"),
    )
    differences(output, compared.differences)
    output.print()


def differences(output: Output, found: Sequence[Difference], *, new: str = "NOW") -> None:
    """Print differences as a table: path, recorded value, new value."""
    rows: list[list[Piece]] = [
        [
            "  " + each.place,
            (visible(each.expected, VALUE_CHARS_MAX), "green"),
            (visible(each.got, VALUE_CHARS_MAX), "red"),
        ]
        for each in found
    ]
    output.table(("  PATH", "RECORDED", new), rows)


def compared_json(compared: "Compared") -> dict[str, Any]:
    """A replayed task as one JSON object."""
    task, answer = compared.recorded.task, compared.recorded.answer
    return {
        "verdict": compared.verdict,
        "agent": task.agent,
        "task": task.task_id,
        "attempt": task.attempt,
        "run": task.run_id,
        "where": compared.recorded.where,
        "differences": differences_json(compared.differences),
        "masked": compared.masked,
        "input": {"type": task.type, "data": parse_json(task.data)},
        "recorded": {**answer_json(answer), "took_ms": compared.recorded.took_ms},
        "now": {**answer_json(compared.new), "took_ms": round(compared.took_ms, 3)},
    }


def differences_json(found: Sequence[Difference]) -> list[dict[str, str]]:
    """Differences as JSON."""
    return [{"path": each.place, "recorded": each.expected, "now": each.got} for each in found]


def answer_json(answer: Event) -> dict[str, Any]:
    """An answer as JSON."""
    if answer.fault is not None:
        return {"kind": answer.kind, "code": answer.fault.code, "message": answer.fault.message}
    return {"kind": answer.kind, "types": answer_text(answer), "data": parse_json(answer.data)}
