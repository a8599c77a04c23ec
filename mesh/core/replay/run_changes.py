"""Say what an event changed in the state of its run, field by field. For display only."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from mesh.core.run.circuit_breaker import Breakers
from mesh.core.run.state import NO_TROUBLE, Run, Slot, Task

COUNTERS: Final = (
    *("tasks", "usd_micros", "tokens", "reserved_usd_micros", "reserved_tokens", "state_bytes", "refused"),
    *("deadline_ms", "ending"),
)
"""Fields of a run that are one number or one word each."""
TASK_CHARS: Final = 8


class FieldChange(NamedTuple):
    """One field that changed. None: it was not there before, or is not there after."""

    field: str
    before: Any
    after: Any


def run_changes(before: Run | None, after: Run | None) -> list[FieldChange]:
    """Return what changed between two states of one run. Empty if there is no later state."""
    if after is None or after is before:
        return []
    found = list(_of_tasks(_open(before), _open(after)))
    found += _of_maps("join", _joins(before), _joins(after))
    for name in COUNTERS:
        was, now = None if before is None else getattr(before, name), getattr(after, name)
        if (was or 0) != (now or 0):
            found.append(
                FieldChange(name, was or None if name == "ending" else was, now or None if name == "ending" else now)
            )
    found += _of_maps("visits", {} if before is None else before.visits, after.visits)
    found += _of_maps("", _facts(before), _facts(after))
    return found


def breaker_changes(before: Breakers, after: Breakers) -> list[FieldChange]:
    """Return the breakers that changed."""
    was, now = ({name: _breaker(found) for name, found in side.items()} for side in (before, after))
    return list(_of_maps("breaker", was, now))


def _breaker(breaker: Any) -> dict[str, Any]:
    return {"failures": breaker.failures, **({"until_ms": breaker.until_ms} if breaker.until_ms else {})}


def _of_maps(word: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[FieldChange]:
    for key in dict.fromkeys((*before, *after)):
        if before.get(key) != after.get(key):
            yield FieldChange(f"{word} {key}".strip(), before.get(key), after.get(key))


def _of_tasks(before: Mapping[str, Task], after: Mapping[str, Task]) -> Iterator[FieldChange]:
    """Yield open tasks that changed, by agent; several of one agent by agent and id."""
    tasks = {**before, **after}
    for id in tasks:
        if before.get(id) == after.get(id):
            continue
        agent = tasks[id].agent
        beside = sum(task.agent == agent for task in (after if id in after else before).values())
        was, now = (None if id not in side else _task(side[id]) for side in (before, after))
        yield FieldChange(f"open {agent}" if beside == 1 else f"open {agent} {id[:TASK_CHARS]}", was, now)


def _open(run: Run | None) -> Mapping[str, Task]:
    return {} if run is None or run.ending else run.open


def _task(task: Task) -> dict[str, Any]:
    found: dict[str, Any] = {"attempt": task.attempt, "depth": task.depth, "path": list(task.path)}
    if task.held is not None:
        found["waits"] = True
        if task.held.due_ms:
            found["due_ms"] = task.held.due_ms
    return found


def _joins(run: Run | None) -> dict[str, Any]:
    found = {}
    for name, slots in ({} if run is None else run.joins).items():
        for branch, slot in slots.items():
            found[f"{name} in {branch[-1]}" if branch else name] = _slot(slot)
    return found


def _slot(slot: Slot) -> dict[str, Any]:
    state = {"fired": True} if slot.fired and not slot.declined else {"declined": True} if slot.declined else {}
    return {"has": list(slot.inputs), **state}


def _facts(run: Run | None) -> dict[str, Any]:
    """Return the lists of a run and what operators did, without what is empty."""
    if run is None:
        return {}
    trouble = run.trouble
    found: dict[str, Any] = {
        "results": [result.type for result in run.results],
        "failures": [f"{failure.agent}: {failure.code}" for failure in run.failures],
        "unrouted": [
            fact.message if fact.times == 1 else f"{fact.message} ({fact.times} times)" for fact in run.unrouted
        ],
        "starved": list(run.starved),
        "overspent": list(run.overspent),
        "drafts": [f"{draft.type} of {draft.agent}" for draft in run.drafts],
        "requests": list(run.roots),
    }
    if trouble is not NO_TROUBLE:
        found |= {
            "paused": trouble.paused,
            "generation": trouble.generation,
            "redrives": list(trouble.redrives),
            "redrives refused": list(trouble.denied),
        }
    return {name: value for name, value in found.items() if value}
