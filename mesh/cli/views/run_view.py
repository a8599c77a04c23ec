"""A run in output: the tree of its tasks, its timeline, and the reasons of failures and refusals."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

import orjson

from mesh.cli.framework.output import Output, Piece
from mesh.cli.framework.text import MESSAGE_CHARS_MAX, clock, counted, moment, took, visible
from mesh.core.history.run_summary import Summary
from mesh.core.history.task_attempts import DEAD, DONE, DROPPED, REPLACED, WAITING, WORKING, Moment, TaskHistory
from mesh.core.history.timeline import History
from mesh.core.protocol.event import Part, Usage, derive_id, rfc3339
from mesh.core.run.routing import JOIN_TYPE
from mesh.core.run.state import CANCELLED, COMPLETED, FAILED, PARTIAL, STOPPED, Result

Row = TypeVar("Row")

STYLES: Final = {
    COMPLETED: "green",
    PARTIAL: "yellow",
    STOPPED: "yellow",
    FAILED: "red",
    CANCELLED: "magenta",
    "open": "cyan",
    "paused": "yellow",
}
MARKS: Final = {COMPLETED: "✓", PARTIAL: "◐", STOPPED: "■", FAILED: "✗", CANCELLED: "○", "open": "…", "paused": "‖"}
TASK_STYLES: Final = {DONE: "", WORKING: "cyan", WAITING: "yellow", DEAD: "red", DROPPED: "dim", REPLACED: "yellow"}
MOMENT_STYLES: Final = {
    "failed": "red",
    "dead": "red",
    "refused": "yellow",
    "unrouted": "yellow",
    "retry": "yellow",
    "noted": "dim",
}
RESULT_CHARS_MAX: Final = 160
MOMENT_CHARS_MAX: Final = 200
"""The longest message in a line of a timeline, where each attempt repeats it."""
ID_CHARS: Final = 12
_MADE_ID: Final = re.compile("[0-9a-f]{24}")
WAITED_MS_MIN: Final = 100
"""Shorter waits are not shown."""
DEPTH_SHOWN_MAX: Final = 24
"""Deeper tasks are not indented further; their depth is shown. Less on a narrow terminal."""
EMITTED_CHARS_PADDED_MAX: Final = 48
"""Longer lists of emitted types do not move the times of other tasks to the right."""


def id_of(run_id: str) -> str:
    """A run's id in lists: the first 12 characters of a generated id, which are enough to name it."""
    return run_id[:ID_CHARS] if _MADE_ID.fullmatch(run_id) else run_id


def state(name: str) -> Piece:
    """A run's state with its mark: colour is never the only sign."""
    return (f"{MARKS.get(name, '·')} {name}", STYLES.get(name, ""))


def headline(output: Output, history: History, *, with_id: bool = True) -> None:
    """Print one line: mark, subject, type, ending, time, id."""
    name = "paused" if _is_paused(history) else history.state
    ended_ms = history.ended_ms
    duration = "" if ended_ms is None else took(ended_ms - history.opened_ms)
    about = history.subject or history.run_id
    output.print(
        (f"{MARKS.get(name, '·')} ", STYLES.get(name, "")),
        (about, "bold"),
        "  ",
        history.type,
        "  ",
        (name, STYLES.get(name, "")),
        "  ",
        duration,
        (f"  run {id_of(history.run_id)}" if with_id else "", "dim"),
    )


def _is_paused(history: History) -> bool:
    return not history.ending and history.run is not None and bool(history.run.trouble.paused)


def tree(output: Output, history: History, *, indent: str = "  ") -> None:
    """Print the tasks of the run, each below the task whose result caused it."""
    rows = list(_rows(history, indent, depth_shown(output)))
    width = max((len(guide) + len(task.agent) for guide, task in rows), default=0)
    emitted = max((len(_emitted_text(task)) for _, task in rows), default=0)
    for guide, task in rows:
        gap = " " * (width - len(guide) - len(task.agent))
        pieces: list[Piece] = [(guide, "dim"), (task.agent, TASK_STYLES[task.state]), gap, "  "]
        pieces.append(
            (_emitted_text(task).ljust(min(emitted, EMITTED_CHARS_PADDED_MAX)), "" if task.emitted else "dim")
        )
        pieces.append(f"  {took(task.worked_ms):>8}" if task.worked_ms is not None else "          ")
        pieces += _remarks(task)
        if history.is_removed(task):
            pieces.append(("  no worker has this agent any more", "red"))
        output.print(*pieces)
    if not rows:
        output.print(
            (f"{indent}no agent worked on it" if history.late is None else "its records are no longer kept", "dim")
        )


def reasons(output: Output, history: History, *, indent: str = "  ") -> None:
    """Print why the run did not complete: refusals, failures with attempts, and the other facts."""
    for refusal in history.refusals:
        output.print(f"{indent}", ("refused ", "yellow"), visible(refusal.message, MESSAGE_CHARS_MAX))
    for failure in history.failures:
        way = " > ".join(failure.path)
        tries, said = counted(failure.attempts, "attempt"), visible(failure.message, MESSAGE_CHARS_MAX)
        output.print(f"{indent}", ("failed ", "red"), f"{way} after {tries}: {failure.code}: ", said)
    for text in history.starved:
        output.print(f"{indent}", ("starved ", "yellow"), visible(text, MESSAGE_CHARS_MAX))
    for fact in history.unrouted:
        times = f" ({fact.times} times)" if fact.times > 1 else ""
        output.print(f"{indent}", ("unrouted ", "yellow"), visible(fact.message, MESSAGE_CHARS_MAX), times)
    for text in history.overspent:
        output.print(f"{indent}", ("overspent ", "yellow"), visible(text, MESSAGE_CHARS_MAX))


def skips(output: Output, history: History, *, indent: str = "  ") -> None:
    """Print the agents that got no task, since their `when` was false."""
    for found in history.skipped:
        reason = visible(found.reason, MESSAGE_CHARS_MAX)
        output.print(f"{indent}", ("skipped ", "dim"), f"{found.agent}: ", (f"{found.type}: ", "dim"), reason)


def payloads(output: Output, history: History) -> None:
    """Print the request and the events of each task, in the order of dispatch."""
    if history.request is not None:
        request = history.request
        result_lines(output, Result(request.id, request.type, "the request", request.data), whole=True)
    for task in history.tasks.values():
        for part in task.parts:
            result_lines(output, Result(task.id, part.type, task.agent, part.data), whole=True)


def request_json(history: History) -> dict[str, Any] | None:
    """The event that opened the run; None if it is no longer on the log."""
    request = history.request
    return None if request is None else {"type": request.type, "id": request.id, **_data_json(request.data)}


def trace_of(history: History) -> str:
    """The trace id of the run's spans: that of its request, or one derived from the run's id."""
    source = history.request or history.run
    given = "" if source is None else source.traceparent
    return given.split("-")[1] if given.count("-") >= 3 else derive_id("trace", history.run_id)


def timeline(output: Output, history: History) -> None:
    """Print every moment with its time since the one before."""
    before_ms = history.opened_ms
    for happened in history.moments:
        moment_line(output, happened, before_ms)
        before_ms = happened.at_ms


def moment_line(output: Output, happened: Moment, before_ms: int) -> None:
    """Print one line of a timeline."""
    since = f"+{took(max(0, happened.at_ms - before_ms))}"
    style = MOMENT_STYLES.get(happened.kind, STYLES.get(happened.text, "") if happened.kind == "ended" else "")
    output.print(
        (f"  {clock(happened.at_ms)}", "dim"),
        (f"{since:>10}  ", "dim"),
        f"{happened.agent or '·':<12} ",
        (f"{happened.kind:<10} ", style),
        visible(happened.text, MOMENT_CHARS_MAX),
    )


def result_lines(output: Output, result: Result, *, whole: bool, indent: str = "  ") -> None:
    """Print a payload in one line, or whole."""
    try:
        value: Any = orjson.loads(result.data)
        text = orjson.dumps(value, option=orjson.OPT_INDENT_2 if whole else 0).decode()
    except orjson.JSONDecodeError:
        text = result.data.decode("utf-8", "backslashreplace")
    output.print(f"{indent}{result.type}", (f"  by {result.agent}" if result.agent else "", "dim"))
    if whole:
        output.document(text, indent=f"{indent}  ")
    else:
        output.print(f"{indent}  ", text if len(text) <= RESULT_CHARS_MAX else text[: RESULT_CHARS_MAX - 1] + "…")


def facts(history: History) -> str:
    """When the run was requested, its number of tasks, and its usage."""
    began = f"requested {moment(history.opened_ms)}" if history.opened_ms else "its request is no longer on the log"
    spent = "".join(f" · {part}" for part in _amounts(history.used))
    late = ", ".join(_amounts(history.uncharged.total))
    late = f" · reported too late to be charged: {late}" if late else ""
    return f"run {history.run_id} · {began} · {counted(len(history.tasks), 'task')}{spent}{late}"


def _amounts(usage: Usage) -> list[str]:
    dollars = [f"${usage.usd_micros / 1_000_000:.4f}"] if usage.usd_micros else []
    return dollars + ([counted(usage.tokens, "token")] if usage.tokens else [])


def _usage_json(usage: Usage) -> dict[str, Any]:
    return {"usd": usage.usd_micros / 1_000_000, "tokens": usage.tokens}


def summary_json(summary: Summary) -> dict[str, Any]:
    """A run of a list as JSON-able values."""
    return {
        "run": summary.run_id,
        "type": summary.type,
        "subject": summary.subject,
        "state": summary.state,
        "paused": summary.paused,
        "opened": rfc3339(summary.opened_ms),
        "ended": None if summary.ended_ms is None else rfc3339(summary.ended_ms),
        "took_ms": summary.took_ms,
        "tasks": summary.tasks,
        "refusals": list(summary.refusals),
        "failures": list(summary.failures),
        "starved": list(summary.starved),
        "unrouted": list(summary.unrouted),
        "overspent": list(summary.overspent),
        "codes": list(summary.codes),
        "usd": summary.used.usd_micros / 1_000_000,
        "tokens": summary.used.tokens,
    }


def history_json(history: History) -> dict[str, Any]:
    """A run in full as JSON-able values."""
    ended_ms = history.ended_ms
    return {
        "run": history.run_id,
        "trace": trace_of(history),
        "type": history.type,
        "subject": history.subject,
        "state": history.state,
        "paused": _is_paused(history),
        "opened": rfc3339(history.opened_ms),
        "ended": None if ended_ms is None else rfc3339(ended_ms),
        "took_ms": None if ended_ms is None else ended_ms - history.opened_ms,
        "tasks": [{**_task_json(task), "removed": history.is_removed(task)} for task in history.tasks.values()],
        "skipped": [found._asdict() for found in history.skipped],
        "refusals": [refusal._asdict() for refusal in history.refusals],
        "failures": [failure._asdict() for failure in history.failures],
        "starved": list(history.starved),
        "unrouted": [fact.as_dict() for fact in history.unrouted],
        "drafts": [_result_json(draft) for draft in history.drafts],
        "overspent": list(history.overspent),
        "used": _usage_json(history.used),
        "used_late": _usage_json(history.uncharged.total),
        "results": [_result_json(result) for result in history.results],
        "timeline": [moment_json(happened) for happened in history.moments],
        "topology_differs": history.differs,
    }


def moment_json(happened: Moment) -> dict[str, Any]:
    """One moment of a timeline as JSON-able values."""
    return {
        "at": rfc3339(happened.at_ms),
        "kind": happened.kind,
        "agent": happened.agent,
        "task": happened.task_id,
        "text": happened.text,
    }


def _rows(history: History, indent: str, depth_max: int) -> Iterator[tuple[str, TaskHistory]]:
    """Yield each task with its guide lines."""
    below: dict[str, list[TaskHistory]] = {}
    for task in history.tasks.values():
        below.setdefault(task.parent, []).append(task)
    return guided(below, lambda task: task.id, indent, depth_max)


def guided(
    below: Mapping[str, Sequence[Row]], id_of: Callable[[Row], str], indent: str, depth_max: int
) -> Iterator[tuple[str, Row]]:
    """Yield each row of a tree with its guide lines. `below`: parent → its rows, in order; "" is the root.

    Without recursion: a run may be a thousand hops deep.
    """
    waiting = [(row, indent, 1, n == 0) for n, row in enumerate(reversed(below.get("", ())))]
    while waiting:
        row, guide, depth, last = waiting.pop()
        yield guide + ("└─ " if last else "├─ "), row
        if depth < depth_max:
            guide += "   " if last else "│  "
        else:
            guide = guide.partition("…")[0] + f"… {depth + 1} deep "
        waiting += [(child, guide, depth + 1, n == 0) for n, child in enumerate(reversed(below.get(id_of(row), ())))]


def depth_shown(output: Output) -> int:
    """The depth down to which rows of a tree are indented."""
    return DEPTH_SHOWN_MAX if output.width is None else min(DEPTH_SHOWN_MAX, output.width // 6)


def _emitted_text(task: TaskHistory) -> str:
    names = list(dict.fromkeys(task.emitted))
    shown = ", ".join(f"{n} ×{task.emitted.count(n)}" if task.emitted.count(n) > 1 else n for n in names)
    return shown or ("–" if task.state == DONE else "")


def _remarks(task: TaskHistory) -> list[Piece]:
    found: list[Piece] = []
    if task.type == JOIN_TYPE:
        found.append(("  join", "dim"))
    if len(task.attempts) > 1 or task.state in (WAITING, DEAD, REPLACED):
        found.append((f"  {counted(len(task.attempts), 'attempt')}", "dim"))
    if task.state == WORKING:
        found.append(("  dispatched, no result yet", TASK_STYLES[WORKING]))
    elif task.state != DONE:
        found.append((f"  {task.state}", TASK_STYLES[task.state]))
    fault = task.attempts[-1].fault if task.attempts else None
    if fault is not None:
        found.append((f"  {fault.code}", "red"))  # `reasons` prints the message
    if task.waited_ms >= WAITED_MS_MIN:
        found.append((f"  waited {took(task.waited_ms)}", "dim"))
    return found


def _task_json(task: TaskHistory) -> dict[str, Any]:
    return {
        "task": task.id,
        "agent": task.agent,
        "type": task.type,
        "depth": task.depth,
        "path": list(task.path),
        "parent": task.parent or None,
        "state": task.state,
        "began": rfc3339(task.began_ms),
        "took_ms": task.took_ms,
        "worked_ms": task.worked_ms,
        "waited_ms": task.waited_ms,
        "emitted": list(task.emitted),
        **({"payloads": [_payload_json(part) for part in task.parts]} if task.parts else {}),
        "attempts": [
            {
                "number": attempt.number,
                "took_ms": None if attempt.ended_ms is None else attempt.ended_ms - attempt.began_ms,
                "code": attempt.fault.code if attempt.fault else None,
                "message": attempt.fault.message if attempt.fault else None,
            }
            for attempt in task.attempts
        ],
    }


def _result_json(result: Result) -> dict[str, Any]:
    return {"type": result.type, "id": result.id, "agent": result.agent, **_data_json(result.data)}


def _payload_json(part: Part) -> dict[str, Any]:
    return {"type": part.type, **_data_json(part.data)}


def _data_json(data: bytes) -> dict[str, Any]:
    try:
        return {"data": orjson.loads(data)}
    except orjson.JSONDecodeError:
        return {"text": data.decode("utf-8", "backslashreplace")}
