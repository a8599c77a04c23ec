"""The state of one inbox partition: the fold of `decide` over its records. Recovery, replay and audit are this fold.

    state = Partition(topology, partitions=6, number=0)
    for record in inbox: effects = state.step(record)

Finished runs are remembered for `ENDED_OFFSETS_MAX` offsets, so that a late duplicate cannot start one again; after
that an event for them is one for an unknown run. Everything here follows from the records alone.
"""

from collections import deque
from typing import Final, NamedTuple

from mesh.core.codec import Unreadable, read
from mesh.core.decide import decide
from mesh.core.effect import DeadLetter, Effect, Finish, Note
from mesh.core.event import ID_PATTERN, INBOX_KINDS, REQUESTED, Event, derive, fingerprint
from mesh.core.partition import partition_of
from mesh.core.record import Record, coordinates
from mesh.core.run import Run
from mesh.core.topology import Topology

ENDED_OFFSETS_MAX: Final = 100_000


class Ended(NamedTuple):
    """What is remembered of a finished run."""

    ending: str
    roots: tuple[str, ...]
    body: str
    offset: int


class Partition:
    """Runs of one inbox partition. `step` is the only way in; the same records give the same state and effects."""

    def __init__(self, topology: Topology, *, number: int, partitions: int) -> None:
        self.topology = topology
        self.number = number
        self.partitions = partitions
        self.runs: dict[str, Run] = {}
        self.ended: dict[str, Ended] = {}
        self.offset = 0
        """The next offset to fold."""
        self._ended_order: deque[tuple[int, str]] = deque()

    def step(self, record: Record) -> list[Effect]:
        """Fold one record and answer what it causes. Total: a record that is no event becomes a dead letter."""
        self.offset = record.offset + 1
        event = read(record)
        if isinstance(event, Unreadable):
            return [dead_record(record, event.code, event.message)]
        problem = self._misplaced(event, record)
        if problem is not None:
            return [dead_record(record, problem.code, problem.message, event)]
        return self.apply(event, record.offset)

    def apply(self, event: Event, offset: int) -> list[Effect]:
        """Fold one event that was read at `offset`."""
        ended = self.ended.get(event.run_id)
        if ended is not None:
            return [_late(event, ended)]
        run, effects = decide(self.runs.get(event.run_id), event, self.topology)
        if run is None:
            return effects
        if run.ending:
            self.runs.pop(run.id, None)
            self.ended[run.id] = Ended(run.ending, run.roots, run.body, offset)
            self._ended_order.append((offset, run.id))
            while self._ended_order[0][0] < offset - ENDED_OFFSETS_MAX:
                del self.ended[self._ended_order.popleft()[1]]
        else:
            self.runs[run.id] = run
        return effects

    def _misplaced(self, event: Event, record: Record) -> Unreadable | None:
        if event.kind not in INBOX_KINDS:
            known = ", ".join(sorted(INBOX_KINDS))
            return Unreadable("unknown_kind", f"ce_meshkind is {event.kind!r}; expected one of {known}")
        if record.key != event.run_id.encode():
            shown = None if record.key is None else record.key[:128].decode("utf-8", "replace")
            return Unreadable("key_mismatch", f"the record's key is {shown!r}; expected the run id {event.run_id!r}")
        if event.kind == REQUESTED and event.run_id not in self.runs:
            for name, id in (("run id", event.run_id), ("event id", event.id)):
                if not ID_PATTERN.fullmatch(id):
                    return Unreadable(
                        "bad_id", f"{name} {id[:64]!r} ({len(id)} characters); expected {ID_PATTERN.pattern}"
                    )
            home = partition_of(event.run_id.encode(), self.partitions)
            if home != self.number:
                text = f"run {event.run_id!r} belongs to partition {home} (murmur2 of the key), not {self.number}"
                return Unreadable("misrouted", text)
        return None


def dead_record(record: Record, code: str, message: str, event: Event | None = None) -> DeadLetter:
    """A record that cannot be used, with its bytes untouched."""
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


def _late(event: Event, ended: Ended) -> Note:
    if event.kind != REQUESTED:
        code = "late_timer" if event.kind == "due" else "late_result"
        return Note(code, f"{event.kind} for a run that ended {ended.ending}", event.run_id)
    if event.id in ended.roots:
        if event.id == ended.roots[0] and fingerprint(event.data) != ended.body:
            text = f"request {event.id!r} came again with another body; the run of the first ended {ended.ending}"
            return Note("idempotency_conflict", text, event.run_id)
        return Note("duplicate_request", f"request {event.id!r} came again; its run ended {ended.ending}", event.run_id)
    return Note("already_terminal", f"request {event.id!r} for a run that ended {ended.ending}", event.run_id)


def finished(effects: list[Effect]) -> Finish | None:
    """The end of a run among effects, if it is there."""
    return next((effect for effect in effects if isinstance(effect, Finish)), None)
