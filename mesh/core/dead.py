"""What goes to the dead letters: bytes untouched, a reason code, a sentence, an id that is the same when made again."""

from typing import Final

from mesh.core.codec import write
from mesh.core.effect import DeadLetter
from mesh.core.event import Event, Fault, derive, fingerprint
from mesh.core.lineage import Refusal
from mesh.core.record import Headers, Record, coordinates
from mesh.core.run import Run, Task

REFUSALS_KEPT_MAX: Final = 64
"""Refusals that a run remembers for its outcome. Each further one is counted, and is a dead letter like all."""


def refuse(run: Run, event: Event, refusal: Refusal, type: str, content_type: str, data: bytes) -> DeadLetter:
    """Remember a refusal; the dead letter holds what was refused.

    `event` is the one that was being decided; type, content type and data are those of what was refused: all that
    it carried, or one hop of it.
    """
    remember(run, refusal)
    id = derive(run.id, "refused", run.refused)
    return DeadLetter(
        id,
        refusal.code,
        refusal.message,
        data,
        run.id.encode(),
        _headers(id, event.source, type, content_type, run.id, event.id),
        event.origin,
        run.id,
        refusal.agent,
    )


def remember(run: Run, refusal: Refusal) -> None:
    """Keep a refusal for the outcome of the run, or at least count it."""
    run.refused += 1
    if len(run.refusals) < REFUSALS_KEPT_MAX:
        run.refusals = (*run.refusals, refusal)


def give_up(run: Run, task: Task, event: Event, fault: Fault) -> DeadLetter:
    """A task failed for good: its input, which the failure brought with it."""
    return DeadLetter(
        derive(run.id, task.id, "failed"),
        fault.code,
        fault.message,
        event.data,
        run.id.encode(),
        _headers(f"{task.id}:{task.attempt}", event.source, event.type, event.content_type, run.id, task.cause_id),
        event.origin,
        run.id,
        task.agent,
        task.id,
        task.attempt,
        fault.cls,
        fault.stack,
    )


def dead_request(event: Event, code: str, message: str) -> DeadLetter:
    """A request that no run can take up."""
    id = derive(event.run_id, event.id, code, fingerprint(event.data))
    return DeadLetter(
        id, code, message, event.data, event.run_id.encode(), write(event), event.origin, run_id=event.run_id
    )


def dead_record(record: Record, code: str, message: str, event: Event | None = None) -> DeadLetter:
    """A record that cannot be used; `event` is what could be read of it."""
    where = coordinates(record)
    return DeadLetter(
        derive("dead", where),
        code,
        message,
        record.value,
        record.key,
        tuple(record.headers),
        where,
        run_id="" if event is None else event.run_id,
        agent="" if event is None else event.agent,
        task_id="" if event is None else event.task_id,
    )


def _headers(id: str, source: str, type: str, content_type: str, run_id: str, cause_id: str) -> Headers:
    return (
        ("ce_specversion", b"1.0"),
        ("ce_id", id.encode()),
        ("ce_source", source.encode()),
        ("ce_type", type.encode()),
        ("content-type", content_type.encode()),
        ("ce_correlationid", run_id.encode()),
        ("ce_causationid", cause_id.encode()),
    )
