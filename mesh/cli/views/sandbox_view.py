"""A run that was taken again in the sandbox, beside the recorded one."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from mesh.cli.framework.output import Output, Piece
from mesh.cli.framework.text import counted, took, visible
from mesh.cli.views import answer_view, replay_view
from mesh.cli.views.run_view import id_of, state
from mesh.core.replay.answer_diff import answer_text
from mesh.core.replay.masked_values import not_compared
from mesh.core.replay.run_diff import TASK_VERDICTS, RunDiff, TaskDiff
from mesh.operations.replay.run_facts import RunFacts

NOT_ENDED: Final = "not ended"
VALUE_CHARS_MAX: Final = 40


Repetition = tuple[RunFacts, RunDiff]


def sandbox(output: Output, recorded: RunFacts, results: Sequence[Repetition], added: Sequence[str] = ()) -> None:
    """Print both outcomes side by side, then the first difference of each agent: those of the first repetition that
    differs. `added`: fields that --set added."""
    new, found = next((each for each in results if not each[1].same), results[0])
    output.emit({**_sandbox_json(recorded, new, found, results), "added": list(added)})
    request = recorded.requests[0]
    output.print(
        (request.subject or recorded.run_id, "bold"), f"  {request.type}", (f"  run {id_of(recorded.run_id)}", "dim")
    )
    replay_view.gap_lines(output, recorded.gaps)
    rows: list[list[Piece]] = []
    for name, facts in (("recorded", recorded), ("sandbox", new)):
        body = facts.outcome or {}
        ending = str(body.get("ending", "open" if facts is recorded else NOT_ENDED))
        duration = took(body["took_ms"]) if body else ""
        types = ", ".join(str(result.get("type")) for result in body.get("results", ()))
        rows.append([name, state(ending), (duration, "dim"), f"{len(facts.tasks)}", (types, "dim")])
    output.table(("", "OUTCOME", "TIME", ">TASKS", "RESULTS"), rows)
    if found.outcome:
        output.print()
        answer_view.differences(output, found.outcome, new="SANDBOX")
    if first := found.first_differences:
        output.print()
        output.print(("the first difference of each agent", "bold"))
        output.table(
            ("  AGENT", "INPUT", "PATH", "RECORDED", "SANDBOX"), [_row(agent, each) for agent, each in first.items()]
        )
    if new.outcome is None and recorded.outcome is not None:
        output.note(("the repetition had not ended in time: --timeout gives it more", "yellow"))
    if found.masked:
        output.note((not_compared(found.masked), "yellow"))
    for by_hand in recorded.by_hand:
        output.note((f"not repeated: {by_hand}", "yellow"))
    output.print()
    _verdict(output, found, results)


def _row(agent: str, task: TaskDiff) -> list[Piece]:
    given = (task.given, "dim" if task.given == "same" else "yellow")
    if task.verdict in TASK_VERDICTS:
        return [f"  {agent}", "" if task.given == "other" else given, (TASK_VERDICTS[task.verdict], "red"), "", ""]
    first = task.differences[0]
    values = [visible(side, VALUE_CHARS_MAX) for side in (first.expected, first.got)]
    return [f"  {agent}", given, first.place, (values[0], "green"), (values[1], "red")]


def _verdict(output: Output, found: RunDiff, results: Sequence[Repetition]) -> None:
    if len(results) > 1:
        different = sum(not diff.same for _, diff in results)
        style = "red" if different else "green"
        output.print((f"{len(results) - different} of {len(results)} the same", style), f", {different} different")
        flaky = Counter(agent for _, diff in results for agent in diff.first_differences)
        for agent, number in flaky.most_common():
            output.print(f"  {agent}", (f"  differs in {number} of {len(results)}", "yellow"))
    elif not found.same:
        output.print(("✗ ", "red"), f"different: {counted(len(found.differing), 'task')} of {len(found.compared)}")
    elif found.is_open and not found.compared:
        output.print(("· ", "dim"), "nothing is compared: the recorded run is open, and none of its tasks was answered")
    elif found.is_open:
        answers = counted(len(found.compared), "task")
        output.print(("… ", "cyan"), f"the same so far: the answers of {answers}; the recorded run is open")
    else:
        output.print(("✓ ", "green"), f"the same: outcome and the answers of {counted(len(found.tasks), 'task')}")


def _sandbox_json(recorded: RunFacts, new: RunFacts, found: RunDiff, results: Sequence[Repetition]) -> dict[str, Any]:
    """The comparison as one JSON object."""
    return {
        "run": recorded.run_id,
        "same": found.same,
        "open": found.is_open,
        "repeated": len(results),
        "different": sum(not diff.same for _, diff in results),
        "recorded": recorded.outcome,
        "sandbox": new.outcome,
        "masked": found.masked,
        "outcome": answer_view.differences_json(found.outcome),
        "tasks": [_task_json(task, recorded, new) for task in found.tasks],
        "not_repeated": list(recorded.by_hand),
    }


def _task_json(task: TaskDiff, recorded: RunFacts, new: RunFacts) -> dict[str, Any]:
    answers = [facts.last_answers.get(task.task_id) for facts in (recorded, new)]
    return {
        "agent": task.agent,
        "task": task.task_id,
        "verdict": task.verdict,
        "same_input": task.given_same and not task.masked_input,
        "masked_input": task.masked_input,
        "masked": task.masked,
        "differences": answer_view.differences_json(task.differences),
        "answers": [None if answer is None else answer_text(answer) for answer in answers],
    }
