"""What goes to the dead letters: bytes untouched, a reason code, a sentence, an id that is the same when made again."""

from collections.abc import Callable
from typing import Final

from mesh.core.protocol.codec import event_headers
from mesh.core.protocol.event import Event, Fault, derive_id, fingerprint
from mesh.core.protocol.record import Headers, Record, coordinates
from mesh.core.run.effects import DeadLetter
from mesh.core.run.lineage import Refusal
from mesh.core.run.state import Draft, Run, Task

REFUSALS_KEPT_MAX: Final = 64
"""Refusals that a run remembers for its outcome. Each further one is counted, and is a dead letter like all."""


def refuse(run: Run, event: Event, refusal: Refusal, type: str, content_type: str, data: bytes) -> DeadLetter:
    """Remember a refusal; the dead letter holds what was refused.

    `event` is the one that was being decided; type, content type and data are those of what was refused: all that
    it carried, or one hop of it.
    """
    record_refusal(run, refusal)
    return _refused(letter_id(run.id, run.refused), run, event, refusal, type, content_type, data)


def keep_draft(run: Run, agent: str, type: str, data: bytes, bytes_max: int) -> None:
    """Keep the input of an agent on a loop that was refused just now, in place of the one before.

    `bytes_max`: what the run may hold. Beyond that only the dead letter has the input.
    """
    drop_drafts(run, lambda draft: draft.agent == agent)
    omitted = run.state_bytes + len(data) > bytes_max
    draft = Draft(type, agent, letter_id(run.id, run.refused), b"" if omitted else data, omitted)
    run.drafts = (*run.drafts, draft)
    run.state_bytes += len(draft.data)


def drop_drafts(run: Run, gone: Callable[[Draft], bool]) -> None:
    """Keep no longer the drafts for which `gone` holds."""
    kept = tuple(draft for draft in run.drafts if not gone(draft))
    run.state_bytes -= sum(len(draft.data) for draft in run.drafts) - sum(len(draft.data) for draft in kept)
    run.drafts = kept


def refuse_redrive(run: Run, redrive: Event, refusal: Refusal) -> DeadLetter:
    """Refuse a redrive: what it was to take back stands, so the run counts nothing more."""
    run.trouble = run.trouble._replace(denied=(*run.trouble.denied, redrive.id))
    id = derive_id(run.id, redrive.id, "refused")
    return _refused(id, run, redrive, refusal, redrive.type, redrive.content_type, redrive.data)


def letter_id(run_id: str, number: int) -> str:
    """Id of the dead letter of a run's refusal; `number` counts its refusals from 1."""
    return derive_id(run_id, "refused", number)


def letter_redriven(run: Run, redrive_id: str) -> str:
    """Id of the dead letter that a redrive (`<letter>:r<n>`) sends.

    The letter of a redrive that was refused stands for the letter which that redrive sent.
    """
    heirs = {derive_id(run.id, id, "refused"): _letter_of(id) for id in run.trouble.denied}
    letter = _letter_of(redrive_id)
    while letter in heirs:
        letter = heirs.pop(letter)
    return letter


def redriven_refusals(run: Run) -> frozenset[int]:
    """Numbers of the refusals that redrives took back: each by the id of its dead letter, so each once."""
    if not run.trouble.redrives:
        return frozenset()
    sent = {letter_redriven(run, id) for id in run.trouble.redrives}
    return frozenset(n for n in range(1, run.refused + 1) if letter_id(run.id, n) in sent)


def _letter_of(redrive_id: str) -> str:
    return redrive_id.rpartition(":r")[0]


def _refused(
    id: str, run: Run, event: Event, refusal: Refusal, type: str, content_type: str, data: bytes
) -> DeadLetter:
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


def record_refusal(run: Run, refusal: Refusal) -> None:
    """Keep a refusal for the outcome of the run, or at least count it."""
    run.refused += 1
    if len(run.refusals) < REFUSALS_KEPT_MAX:
        run.refusals = (*run.refusals, refusal)


def failure_id(run: Run, task: Task) -> str:
    """Id of the dead letter of a task that failed for good."""
    return derive_id(run.id, task.id, "failed")


def give_up(run: Run, task: Task, event: Event, fault: Fault) -> DeadLetter:
    """A task failed for good: its input, which the failure brought with it."""
    return DeadLetter(
        failure_id(run, task),
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
    id = derive_id(event.run_id, event.id, code, fingerprint(event.data))
    return DeadLetter(
        id, code, message, event.data, event.run_id.encode(), event_headers(event), event.origin, run_id=event.run_id
    )


def dead_record(record: Record, code: str, message: str, event: Event | None = None) -> DeadLetter:
    """A record that cannot be used; `event` is what could be read of it."""
    where = coordinates(record)
    return DeadLetter(
        derive_id("dead", where),
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
