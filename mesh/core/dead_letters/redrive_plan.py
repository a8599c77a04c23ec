"""Plan redrives: turn a dead letter into the records that send it again, or into an obstacle. Pure.

| way | dead letter | records sent |
|---|---|---|
| `task` | a task that failed for good | the run goes on where it stood: one more attempt of that task |
| `hop` | a hop that a limit refused | the run goes on with that hop, and its refusal is taken back, once |
| `topic` | a record that intake rejected | the record, to its own topic |
| `new` | any of these, with `as_new`; a request that its run could not consume | a new run, from its request |

The ids of sent events follow from the letter and the number of the redrive, so their readers recognise a repeated
redrive.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from mesh.core.dead_letters.letter import REDRIVE, REDRIVES, Letter
from mesh.core.dead_letters.patch import Patch, apply_patches
from mesh.core.dead_letters.redrive_log import (
    DONE,
    PLANNED,
    REDRIVES_MAX,
    SENT,
    LetterStatus,
    RedriveEntry,
    successor_ids,
)
from mesh.core.ingress.admission import admit, open_request
from mesh.core.ingress.request_formats import Rejection, Request
from mesh.core.protocol.codec import event_headers
from mesh.core.protocol.event import BATCH, REDRIVEN, REQUESTED, Event, derive_id
from mesh.core.protocol.partitioner import home_of, partition_of
from mesh.core.protocol.record import NewRecord, StoredRecord
from mesh.core.run.state import ENDINGS, Run
from mesh.core.topology.model import Topology

TASK: Final = "task"
HOP: Final = "hop"
TOPIC: Final = "topic"
NEW: Final = "new"
RESEND: Final = "resend"
WAYS: Final[dict[str, str]] = {
    TASK: "the run goes on: one more attempt of the task",
    HOP: "the run goes on with the hop that was refused; its refusal is taken back, once",
    TOPIC: "the record goes to its topic again",
    NEW: "a new run begins",
    RESEND: "a recorded request goes into an ingress topic again (`mesh replay --resend`)",
}
ID_CHARS: Final = 12
"""Characters of an id that a sentence shows."""
_HOP_REASONS: Final = frozenset({"depth", "cycle", "visits", "budget_usd", "budget_tokens"})
"""Refusals of one hop: the letter holds the input that its agent would have received."""
_REDRIVE: Final = re.compile(r"[0-9a-f]{32}:r[0-9]+")
"""Form of the id of a redrive."""


class RedriveOptions(NamedTuple):
    """Options of a redrive. `data` replaces the payload, `patches` change fields of it."""

    as_new: bool = False
    again: bool = False
    """Whether letters are sent again that were sent before and have not failed since."""
    force: str = ""
    """Reason for another redrive of a letter that was redriven often."""
    patches: Sequence[Patch] = ()
    data: bytes | None = None

    @property
    def changes(self) -> bool:
        """Whether the payload is to be changed."""
        return bool(self.patches) or self.data is not None


class Sending(NamedTuple):
    """One letter as it would be sent. `records` go to one partition, in this order."""

    letter: Letter
    n: int
    way: str
    partition: int
    records: tuple[NewRecord, ...]
    ids: tuple[str, ...]
    """Ids that identify the records on the log, in the same order."""
    run_id: str
    data: bytes | None = None
    """The payload, if it is not that of the letter."""
    before: int = 0
    """Earlier redrives of its content, as other letters."""
    interrupted: RedriveEntry | None = None
    """Entry of an interrupted redrive, which may have been sent."""
    once_more: bool = False
    """Whether the hop was sent before: its refusal is taken back already, so this redrive takes back nothing more."""

    @property
    def topic(self) -> str:
        """Destination topic."""
        return self.records[0].topic

    @property
    def payload(self) -> bytes | None:
        """Payload of the first record."""
        return self.records[0].value


class Obstacle(NamedTuple):
    """Reason why a letter cannot be sent, and the fix."""

    letter: Letter
    message: str
    remedy: str = ""


class AlreadyDone(NamedTuple):
    """A letter that needs no redrive, because one was done; `remedy` redrives it anyway."""

    letter: Letter
    message: str
    remedy: str = "--again sends it once more"


Step = Sending | Obstacle | AlreadyDone


class RunContext(NamedTuple):
    """The run of a letter whose task was sent before."""

    run: Run | None
    """State of the run; None if its records are no longer complete."""
    letters: Sequence[Letter] = ()
    """Letters of the run that hold a failed task."""
    last: RedriveEntry | None = None
    """Last entry of the letter, with its result if known."""


def plan_redrive(
    letter: Letter,
    status: LetterStatus,
    options: RedriveOptions,
    topology: Topology,
    requests: Sequence[Event],
    at_ms: int,
    context: RunContext | None = None,
) -> Step:
    """Plan the redrive of one letter. `requests`: those that its run consumed, needed to begin a new run; `context`:
    its run, needed if its task was sent before.

    Raises InvalidInput if a patch does not fit the payload.
    """
    last = status.last
    if status.state == PLANNED and last is not None:
        return _rest(letter, last, options, topology, requests, at_ms)
    if not status.open and not options.again:
        return AlreadyDone(letter, str(status))
    obsolete = None if context is None or options.as_new else _already_redriven(letter, context)
    if obsolete is not None:
        return obsolete
    done = status.before + status.n - status.without_effect
    if done >= REDRIVES_MAX and not options.force:
        remedy = "Fix the cause; then `--force --why TEXT`, or `mesh dead drop`"
        return Obstacle(letter, f"it was redriven {done} times", remedy)
    step = _step(letter, status.n + 1, options, topology, requests, at_ms)
    if not isinstance(step, Sending):
        return step
    taken = (
        last is not None and last.way == HOP and last.state in (SENT, DONE) and not last.result.startswith("refused")
    )
    return step._replace(before=status.before, once_more=taken and step.way == HOP)


def _already_redriven(letter: Letter, context: RunContext) -> Obstacle | None:
    """Return why a run would ignore a letter whose task was sent before, or None if it would not.

    A run takes a task back once. The task sent in its place has another id, and its own letter if it fails. So one
    redrive that the run took settles it, whatever happened later and whatever topology this history is read under.
    """
    run = context.run
    if run is None:
        return _obsolete(letter, "") if was_taken(context.last) else None
    if not was_taken(context.last) and not _redrives_of(letter, run):
        return None
    dead = {task.id for task in run.trouble.dead}
    successors, letters = _successors(letter, context.letters, run)
    current = next((other for other in letters if other.task_id in dead), None)
    if current is not None:
        name = current.id[:ID_CHARS]
        what = f"its task was sent again and failed again: letter {name} stands for it now"
        return Obstacle(letter, what, f"`mesh dead redrive {name}`, or begin a new run with --as-new")
    if not run.ending and successors & set(run.open):
        what = "its task was sent again and is under way"
        return Obstacle(letter, what, f"`mesh run show {letter.run_id[:ID_CHARS]}` shows its progress")
    newer = next((other for other in reversed(context.letters) if other.task_id in dead), None)
    return _obsolete(letter, "" if newer is None else f"; letter {newer.id[:ID_CHARS]} is")


def _obsolete(letter: Letter, newer: str) -> Obstacle:
    what = f"its task was sent again and is no failure of its run any more{newer}"
    return Obstacle(letter, what, "Begin a new run with --as-new")


def _successors(letter: Letter, others: Sequence[Letter], run: Run) -> tuple[set[str], list[Letter]]:
    """Tasks that redrives of this letter created, directly or through letters of such tasks, and all these letters."""
    tasks, letters = set[str](), [letter]
    for one in letters:  # grows while it is read
        tasks |= {id for key in _redrives_of(one, run) for id in successor_ids(run.id, key)}
        letters += [other for other in others if other.task_id in tasks and other not in letters]
    return tasks, letters


def was_taken(last: RedriveEntry | None) -> bool:
    """Return whether the ledger shows that a run took its failed task back: the letter has no further effect."""
    return last is not None and last.way == TASK and last.state == DONE and last.result in ENDINGS


def _redrives_of(letter: Letter, run: Run) -> list[str]:
    """Return the redrives of a letter that its run took."""
    return [key for key in run.trouble.redrives if key.rpartition(":r")[0] == letter.id]


def _rest(
    letter: Letter,
    last: RedriveEntry,
    options: RedriveOptions,
    topology: Topology,
    requests: Sequence[Event],
    at_ms: int,
) -> Sending | Obstacle:
    """Plan the rest of an interrupted redrive."""
    as_planned = RedriveOptions(as_new=last.way == NEW, data=last.data)
    step = _step(letter, last.n, as_planned, topology, requests, at_ms)
    if isinstance(step, Obstacle):
        return step
    asked = _step(letter, last.n, options, topology, requests, at_ms) if options.changes else step
    if options.as_new != as_planned.as_new or isinstance(asked, Obstacle) or asked.payload != step.payload:
        remedy = "Finish it by the same command as then, or put it off with `mesh dead drop`"
        return Obstacle(letter, f"redrive {last.n} of it was interrupted, and may have been sent as it was", remedy)
    return step._replace(before=last.before, interrupted=last)


def _step(
    letter: Letter, n: int, options: RedriveOptions, topology: Topology, requests: Sequence[Event], at_ms: int
) -> Sending | Obstacle:
    if options.as_new:
        step = _new(letter, n, options, topology, requests, at_ms)
    else:
        step = _on(letter, n, _payload(letter, options), topology, at_ms)
    return step._replace(data=step.payload) if isinstance(step, Sending) and options.changes else step


def _payload(letter: Letter, options: RedriveOptions) -> bytes | None:
    data = letter.value if options.data is None else options.data
    return data if data is None else apply_patches(data, letter.content_type, options.patches)


def _on(letter: Letter, n: int, data: bytes | None, topology: Topology, at_ms: int) -> Sending | Obstacle:
    """Plan a redrive that lets the run go on, or that returns a record to its topic."""
    if letter.omitted:
        where = f"; it lies at {letter.origin}" if letter.origin and letter.origin.offset >= 0 else ""
        return Obstacle(letter, f"its bytes are not in it{where}: {letter.omitted}", "Send the request again")
    if not letter.run_id:
        return _topic(letter, n, data, topology, at_ms)
    if letter.kind == REQUESTED or (not letter.kind and not letter.agent):
        return Obstacle(letter, "its run cannot consume it", "Begin another run with --as-new")
    if letter.kind:
        what = f"it is an unusable record of kind {letter.kind!r}"
        return Obstacle(letter, what, "Begin a new run with --as-new")
    if letter.agent not in topology.agents:
        return Obstacle(letter, f"the mesh has no agent {letter.agent!r} any more", "Begin a new run with --as-new")
    refused_redrive = _REDRIVE.fullmatch(
        letter.header("ce_causationid")
    )  # then the letter holds the event of that redrive
    if not letter.task_id and letter.reason not in _HOP_REASONS and not refused_redrive:
        what = f"it is all that {letter.agent!r} answered, and that task is done"
        return Obstacle(letter, what, "Begin a new run with --as-new")
    if data is None:
        return Obstacle(letter, "it holds no payload", "Give it one with --edit")
    limit = topology.limits.payload_bytes_max
    if data != letter.value and len(data) > limit:
        return Obstacle(letter, f"the payload has {len(data)} bytes; at most {limit}", "Send less")
    event = Event(
        f"{letter.id}:r{n}",
        f"/mesh/{topology.name}",
        letter.type,
        REDRIVEN,
        letter.run_id,
        data,
        at_ms,
        letter.id,
        letter.agent,
        letter.task_id,
        attempt=letter.attempts,
        content_type=letter.content_type,
        origin=letter.position,
    )
    headers = [*event_headers(event), (REDRIVES, b"%d" % n)]
    if not letter.task_id:  # the codec names an agent only with its task
        headers.append(("ce_meshagent", letter.agent.encode()))
    key = letter.run_id.encode()
    home = partition_of(key, topology.inbox_partitions)
    record = NewRecord(topology.inbox, key, data, headers)
    return Sending(letter, n, TASK if letter.task_id else HOP, home, (record,), (event.id,), letter.run_id)


def _topic(letter: Letter, n: int, data: bytes | None, topology: Topology, at_ms: int) -> Sending | Obstacle:
    """Plan to return a record to its ingress topic, after intake rejected it or another system's queue took it."""
    origin = letter.origin
    rule = None if origin is None else topology.topics.get(origin.topic)
    if origin is None or rule is None or rule.ingress is None:
        what = "its original topic is unknown" if origin is None else f"{origin.topic} is no ingress topic of this mesh"
        return Obstacle(letter, what, "Export it, and put it where it belongs")
    id, times = f"{letter.id}:r{n}", max(n, letter.redrives + 1)
    headers = [header for header in letter.headers if header[0] not in (REDRIVE, REDRIVES)]
    headers += [(REDRIVE, id.encode()), (REDRIVES, b"%d" % times)]
    home = origin.partition if 0 <= origin.partition < rule.partitions else 0
    if home != origin.partition and letter.key is not None:
        home = partition_of(letter.key, rule.partitions)
    record = NewRecord(rule.name, letter.key, data, headers, home)
    found = admit(StoredRecord(rule.name, home, 0, at_ms, letter.key, data, headers), topology)
    if isinstance(found, Rejection):
        return _rejection_obstacle(letter, found)
    return Sending(letter, n, TOPIC, home, (record,), (id,), "")


def _new(
    letter: Letter, n: int, options: RedriveOptions, topology: Topology, consumed: Sequence[Event], at_ms: int
) -> Sending | Obstacle:
    """Plan a new run from the requests that the letter's run consumed, or from the letter if it is a request."""
    is_request = letter.kind == REQUESTED or not (letter.agent or letter.kind)
    if consumed and not is_request:
        found = _requests_of(letter, options, consumed)
    else:
        found = _own_request(letter, options, topology, at_ms)
    if isinstance(found, Obstacle):
        return found
    run_id = derive_id(letter.id, "redrive", n)[:24] + _home_part(letter.run_id)
    records, ids = [], []
    for ordinal, request in enumerate(found):
        id = f"{letter.id}:r{n}" + (f".{ordinal}" if ordinal else "")
        event = open_request(request._replace(id=id, run_id=run_id), topology, fallback_id=id)
        if isinstance(event, Rejection):
            return _rejection_obstacle(letter, event)
        headers = [*event_headers(replace(event, at_ms=at_ms)), (REDRIVES, b"%d" % n)]
        records.append(NewRecord(topology.inbox, run_id.encode(), event.data, headers))
        ids.append(id)
    home = partition_of(run_id.encode(), topology.inbox_partitions)
    return Sending(letter, n, NEW, home, tuple(records), tuple(ids), run_id)


def _home_part(run_id: str) -> str:
    """Return the end of a run id that names its partition key, with the colon before it; "" if it has none."""
    home = home_of(run_id.encode()).decode()
    return "" if home == run_id else f":{home}"


def _requests_of(letter: Letter, options: RedriveOptions, consumed: Sequence[Event]) -> list[Request] | Obstacle:
    """Return the requests of the letter's run; changes apply only if the run consumed a single one."""
    if options.changes and len(consumed) > 1:
        what = f"its run consumed {len(consumed)} requests, and it is not known which one to change"
        return Obstacle(letter, what, "Begin a new run without changes, or publish the requests yourself")
    requests = [_request_of(event) for event in consumed]
    if options.changes:
        first = requests[0]
        data = first.data if options.data is None else options.data
        requests[0] = first._replace(data=apply_patches(data, first.content_type, options.patches))
    return requests


def _own_request(letter: Letter, options: RedriveOptions, topology: Topology, at_ms: int) -> list[Request] | Obstacle:
    data = _payload(letter, options)
    if data is None:
        return Obstacle(letter, "it holds no payload", "Give it one with --edit")
    if not letter.run_id:
        origin = "" if letter.origin is None else letter.origin.topic
        found = admit(StoredRecord(origin, 0, 0, at_ms, letter.key, data, letter.headers), topology)
        return _rejection_obstacle(letter, found) if isinstance(found, Rejection) else [_request_of(found)]
    if letter.content_type == BATCH or letter.type not in topology.ingress:
        what = "the request that its run began with is no longer on the log"
        return Obstacle(letter, what, "Publish it yourself")
    source, subject = letter.header("ce_source") or f"/mesh/{topology.name}", letter.header("ce_subject")
    return [Request(letter.type, data, source=source, subject=subject, content_type=letter.content_type)]


def _request_of(event: Event) -> Request:
    """Copy a consumed request. Its deadline has probably passed, so the copy gets that of the mesh."""
    return Request(
        event.type,
        event.data,
        source=event.source,
        subject=event.subject,
        cause_id=event.id,
        content_type=event.content_type,
        extensions=event.extensions,
    )


def _rejection_obstacle(letter: Letter, rejected: Rejection) -> Obstacle:
    what = f"intake would reject it again: {rejected.code}: {rejected.message}"
    return Obstacle(letter, what, "Fix it with --set PATH=VALUE or --edit")
