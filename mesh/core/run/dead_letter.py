"""Dead letters: the original bytes, a reason code, a sentence, and an id that is the same each time it is made.

Their headers are written by `core.publishing.effect_records.dead_letter`.
"""

from collections.abc import Callable
from typing import Final

from mesh.core.protocol.codec import event_headers, plain_headers
from mesh.core.protocol.event import Event, Fault, derive_id, fingerprint
from mesh.core.protocol.record import Headers, Record, coordinates
from mesh.core.run.effects import DeadLetter
from mesh.core.run.lineage import Refusal
from mesh.core.run.state import Draft, Run, Task

REFUSALS_KEPT_MAX: Final = 64
"""Number of refusals that a run keeps for its outcome. Further ones are counted. Each is a dead letter, except a passed
deadline."""


def refuse(run: Run, event: Event, refusal: Refusal, type: str, content_type: str, data: bytes) -> DeadLetter:
    """Record a refusal in the run and return its dead letter.

    `event` is the event under decision. Type, content type and data describe the refused part: the whole payload
    or one hop.
    """
    record_refusal(run, refusal)
    return _refusal_letter(letter_id(run.id, run.refused), run, event, refusal, type, content_type, data)


def keep_draft(run: Run, agent: str, type: str, data: bytes, bytes_max: int) -> None:
    """Keep the refused input of an agent on a loop; it replaces the agent's earlier draft.

    `bytes_max` limits the payload bytes of the run. Beyond it only the dead letter has the input.
    """
    drop_drafts(run, lambda draft: draft.agent == agent)
    omitted = run.state_bytes + len(data) > bytes_max
    draft = Draft(type, agent, letter_id(run.id, run.refused), b"" if omitted else data, omitted)
    run.drafts = (*run.drafts, draft)
    run.state_bytes += len(draft.data)


def drop_drafts(run: Run, gone: Callable[[Draft], bool]) -> None:
    """Drop the drafts for which `gone` returns true."""
    kept = tuple(draft for draft in run.drafts if not gone(draft))
    run.state_bytes -= sum(len(draft.data) for draft in run.drafts) - sum(len(draft.data) for draft in kept)
    run.drafts = kept


def refuse_redrive(run: Run, redrive: Event, refusal: Refusal) -> DeadLetter:
    """Refuse a redrive. The original failure or refusal stays, so the run counts no further one."""
    run.trouble = run.trouble._replace(denied=(*run.trouble.denied, redrive.id))
    id = derive_id(run.id, redrive.id, "refused")
    return _refusal_letter(id, run, redrive, refusal, redrive.type, redrive.content_type, redrive.data)


def letter_id(run_id: str, number: int) -> str:
    """Return the id of the dead letter of a refusal; `number` counts the refusals of the run from 1."""
    return derive_id(run_id, "refused", number)


def letter_redriven(run: Run, redrive_id: str) -> str:
    """Return the id of the dead letter that a redrive (`<letter>:r<n>`) sends.

    The letter of a refused redrive stands for the letter that this redrive sent.
    """
    heirs = {derive_id(run.id, id, "refused"): _letter_of(id) for id in run.trouble.denied}
    letter = _letter_of(redrive_id)
    while letter in heirs:
        letter = heirs.pop(letter)
    return letter


def redriven_refusals(run: Run) -> frozenset[int]:
    """Return the numbers of the refusals that redrives took back, found by the ids of their dead letters."""
    if not run.trouble.redrives:
        return frozenset()
    sent = {letter_redriven(run, id) for id in run.trouble.redrives}
    return frozenset(n for n in range(1, run.refused + 1) if letter_id(run.id, n) in sent)


def _letter_of(redrive_id: str) -> str:
    return redrive_id.rpartition(":r")[0]


def _refusal_letter(
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
    """Count a refusal, and keep it for the outcome of the run if there is room."""
    run.refused += 1
    if len(run.refusals) < REFUSALS_KEPT_MAX:
        run.refusals = (*run.refusals, refusal)


def failure_id(run: Run, task: Task) -> str:
    """Return the id of the dead letter of a task that failed for good."""
    return derive_id(run.id, task.id, "failed")


def give_up(run: Run, task: Task, event: Event, fault: Fault) -> DeadLetter:
    """Build the dead letter of a task that failed for good, with the input that the failure carried."""
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
    """Build the dead letter of a request that no run accepts."""
    id = derive_id(event.run_id, event.id, code, fingerprint(event.data))
    return DeadLetter(
        id, code, message, event.data, event.run_id.encode(), event_headers(event), event.origin, run_id=event.run_id
    )


def dead_record(record: Record, code: str, message: str, event: Event | None = None) -> DeadLetter:
    """Build the dead letter of an unusable record; `event` is the readable part of it."""
    where = coordinates(record)
    return DeadLetter(
        derive_id("dead", where),
        code,
        message,
        record.value,
        record.key,
        tuple(plain_headers(record.headers)),
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
