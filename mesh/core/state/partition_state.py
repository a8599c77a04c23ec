"""The state of one inbox partition: the fold of `decide` over its records. Recovery, replay and audit are this fold.

    state = Partition(topology, partitions=6, number=0)
    for record in inbox: effects = state.step(record)

Finished runs are remembered for `ENDED_OFFSETS_MAX` offsets, so that a late duplicate cannot start one again; after
that an event for them is one for an unknown run. Everything here follows from the records alone.

A run is decided under the topology it was opened under, by its digest. That is the one which the partition adopted
last (an `adopted` record), so it follows from the records, too, whatever topology the process has that folds them. A
request of a type that this topology does not declare opens its run under the topology that admitted it, which the
request names: while two versions of topics.yaml are at work, each partition takes the requests of both.
"""

import re
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final

from mesh.core.ingress.admission import find_flaw
from mesh.core.protocol.codec import Unreadable, read_event
from mesh.core.protocol.event import ADOPTED, ID_PATTERN, INBOX_KINDS, REDRIVEN, REQUESTED, SWITCHED, Event
from mesh.core.protocol.partitioner import home_of, partition_of
from mesh.core.protocol.record import Record
from mesh.core.run.circuit_breaker import Breaker, after_answer, after_control, after_dispatch, find_transition
from mesh.core.run.control import ALL, NOTHING, Control, read_control, replaced_offset
from mesh.core.run.dead_letter import dead_record
from mesh.core.run.decide import answer_late, decide
from mesh.core.run.effects import Adopt, BreakerTransition, Effect, Finish, Note, PublishTask
from mesh.core.run.state import Ended, Run
from mesh.core.state.lazy_table import Table, number
from mesh.core.state.row_codec import read_ended, read_run
from mesh.core.state.topology_registry import TopologyMissing
from mesh.core.topology.model import Topology

__all__ = ["ENDED_OFFSETS_MAX", "RULES", "Ended", "Partition", "TopologyMissing", "dead_record", "find_finish"]

RULES: Final = 2
"""Version of what a fold answers. Raise it with every change of `decide` that gives another state or other effects for
the same records: what an older version decided is then not folded by this one, a checkpoint stands between them."""
ENDED_OFFSETS_MAX: Final = 100_000
RUN_KINDS: Final = INBOX_KINDS - {SWITCHED, ADOPTED}
"""Kinds of events that concern one run."""
MESH_ID_PATTERN: Final = re.compile(r"[A-Za-z0-9._:-]{1,256}", re.ASCII)
"""Ids of what follows from requests: made of theirs, so they may be longer."""


class Partition:
    """Runs of one inbox partition. `step` is the only way in; the same records give the same state and effects.

    What is annotated here is its whole state, and goes into checkpoints (`core.state.checkpoint`): add to it by
    annotating.
    """

    offset: int
    """The next offset to fold."""
    runs: Table[Run]
    ended: Table[Ended]
    forgotten: int
    """Runs that ended before this offset are forgotten."""
    control: Control
    """Who is stopped, as of the last `switched`."""
    breakers: dict[str, Breaker]
    """Agents that fail and are left alone."""
    at_ms: int
    """Log time of the last record: it never falls, though the log's clock may be set back."""
    ahead_ms: int
    """How far that is ahead of the last record's timestamp: by so much the log's clock was set back."""

    def __init__(
        self, topology: Topology, *, number: int, partitions: int, pinned: Mapping[str, Topology] | None = None
    ) -> None:
        """`topology` is that of new runs; `pinned` those of older ones, by digest."""
        self.topology = topology
        self.topologies = {**(pinned or {}), topology.digest: topology}
        self.unknown: set[str] = set()
        """Digests of topologies that were looked for in vain, for the record that is folded next."""
        self.kept_ms: dict[str, int] = {}
        """Digest → when that topology was kept; 0 where this does not say. What was admitted before does not count."""
        self.number = number
        self.partitions = partitions
        self.offset = 0
        self.runs = Table(read_run)
        self.ended = Table(read_ended)
        self.forgotten = 0
        self.control = NOTHING
        self.breakers = {}
        self.at_ms = 0
        self.ahead_ms = 0
        self._ended_order: deque[tuple[int, str]] = deque()
        """Where runs ended, in that order. One that was forgotten or ended again since is passed over."""
        self.touched: dict[str, int] | None = None
        """Runs of which something changed → the offset of the last change, for who writes down only what did. None:
        nobody wants to know."""

    def adopt(self, topology: Topology) -> None:
        """Open runs under this topology from now on. Those that are open keep their own."""
        self.topology = topology
        self.topologies[topology.digest] = topology

    def recall(self, ends: Iterable[tuple[int, str]]) -> None:
        """Put the memory of ended runs in order, after `ended` was filled from outside: where each of them ended."""
        self._ended_order = deque(sorted(ends))
        self._forget(self.forgotten)

    def step(self, record: Record) -> list[Effect]:
        """Fold one record and answer what it causes. Total: a record that is no event becomes a dead letter."""
        self.offset = record.offset + 1
        event = read_event(record)
        if isinstance(event, Unreadable):
            return [dead_record(record, event.code, event.message)]
        if event.at_ms >= self.at_ms:
            self.at_ms, self.ahead_ms = event.at_ms, 0
        else:
            self._set_back(event, event.at_ms)
        flaw = self._misplaced(event, record)
        if flaw is not None:
            return [dead_record(record, flaw.code, flaw.message, event)]
        return self.apply(event, record.offset)

    def _set_back(self, event: Event, timestamp: int) -> None:
        """The log's clock was set back: time goes on from where it was, at the pace of the records' timestamps.

        Else every timer that waits would wait longer by that step."""
        self.at_ms = event.at_ms = max(self.at_ms, timestamp + self.ahead_ms)
        self.ahead_ms = self.at_ms - timestamp
        if event.expiry_ms is not None:
            event.expiry_ms += self.ahead_ms

    def time_at(self, log_ms: int) -> int:
        """Time in this partition when the log's clock says `log_ms`."""
        return max(self.at_ms, log_ms + self.ahead_ms)

    def apply(self, event: Event, offset: int) -> list[Effect]:
        """Fold one event that was read at `offset`."""
        if event.run_id == ALL:
            return self._switched(event) if event.kind == SWITCHED else self._adopted(event, offset)
        run, ended = self.runs.warm.get(event.run_id), None
        if run is None and event.run_id in self:
            run, ended = self.runs.get(event.run_id), self.ended.get(event.run_id)
            if ended is not None:
                if ended.run is None or event.kind != REDRIVEN:
                    return [answer_late(event, ended.ending, ended.requests)]
                run = ended.run
        topology = self.topology
        if run is None:
            if event.topology and event.type not in topology.ingress and event.kind == REQUESTED:
                topology = self._admitting(event, offset)
        elif run.topology != topology.digest:
            topology = self.topologies[run.topology]
        turned: BreakerTransition | None = None
        if topology.breaking:
            before, self.breakers = self.breakers, after_answer(self.breakers, run, event, topology)
            turned = find_transition(before, self.breakers, event) if before is not self.breakers else None
        run, effects = decide(run, event, topology, self.breakers)
        if turned is not None:
            effects.append(turned)
        if self.breakers:
            self._asked(effects, event, topology)
        if run is None:
            return effects
        if self.touched is not None:
            self.touched[run.id] = offset
        if run.ending:
            self.runs.warm.pop(run.id, None)
            self._remember(run, offset)
        else:
            if ended is not None:
                self.ended.discard(run.id)
            self.runs.warm[run.id] = run
        return effects

    def __contains__(self, run_id: str) -> bool:
        """Whether the run is open or remembered."""
        runs, ended = self.runs, self.ended
        return run_id in runs.warm or run_id in ended.warm or run_id in runs.cold or run_id in ended.cold

    def _asked(self, effects: list[Effect], event: Event, topology: Topology) -> None:
        """An agent whose breaker is half-open and that gets a task now gets no other for a while."""
        for effect in effects:
            if isinstance(effect, PublishTask):
                self.breakers = after_dispatch(self.breakers, effect.event.agent, topology, event.at_ms)

    def _switched(self, event: Event) -> list[Effect]:
        """What mesh.control says, as of one of its offsets: the highest one counts, however often they are relayed,
        unless it is corrected by name."""
        control = read_control(event)
        if isinstance(control, Unreadable):
            return [Note(control.code, control.message, security=True)]
        known = self.control.offset
        if control.offset <= known and (replaced_offset(event) != known or control == self.control):
            return [Note("late_switch", f"mesh.control as of offset {control.offset} came when {known} was known")]
        self.control = control
        self.breakers = after_control(self.breakers, control, self.topology, event.at_ms)
        return []

    def _adopted(self, event: Event, offset: int) -> list[Effect]:
        """Open runs under another topology from here on."""
        before, topology = self.topology.digest, self._named(event, offset, needed=True)
        if topology is None:
            text = f"topology {event.topology[:64]!r}, which the partition is told to adopt, was not kept"
            return [Note("other_topology", text, security=True)]
        self.adopt(topology)
        return [Adopt(self.number, offset, topology.digest, before)]

    def _admitting(self, event: Event, offset: int) -> Topology:
        """The topology for a request of a type that the current one does not declare: the one that admitted it."""
        topology = self._named(event, offset, needed=False)
        return self.topology if topology is None or event.type not in topology.ingress else topology

    def _named(self, event: Event, offset: int, *, needed: bool) -> Topology | None:
        """The topology that an event names; None if it was not kept by then, or cannot be read."""
        digest = event.topology
        topology = self.topologies.get(digest)
        if topology is None and digest not in self.unknown:
            self.offset = offset  # the record is not folded
            raise TopologyMissing(digest, needed=needed)
        self.unknown.discard(digest)
        return None if event.at_ms < self.kept_ms.get(digest, 0) else topology

    def _remember(self, run: Run, offset: int) -> None:
        kept = run if run.refused or run.trouble.dead else None
        self.ended.warm[run.id] = Ended(run.ending, run.requests, offset, kept, self.at_ms)
        self._ended_order.append((offset, run.id))
        if offset - ENDED_OFFSETS_MAX > self.forgotten:
            self._forget(offset - ENDED_OFFSETS_MAX)

    def _forget(self, before: int) -> None:
        """The runs that ended before this offset."""
        self.forgotten, order = before, self._ended_order
        while order and order[0][0] < before:
            at, id = order.popleft()
            old = self.ended.raw(id)
            if old is not None and (number(old) if isinstance(old, bytes) else old.offset) == at:
                self.ended.discard(id)

    def _misplaced(self, event: Event, record: Record) -> Unreadable | None:
        """Why a record that is an event does not belong where it lies."""
        run_id = event.run_id
        if event.kind not in RUN_KINDS:
            return _misplaced_for_all(event, record)
        if record.key != run_id.encode():
            shown = None if record.key is None else record.key[:128].decode("utf-8", "replace")
            return Unreadable("key_mismatch", f"the record's key is {shown!r}; expected the run id {run_id[:128]!r}")
        if event.kind == REQUESTED:
            unfit = find_flaw(event)
            if unfit is not None:
                return Unreadable(*unfit)
        elif not MESH_ID_PATTERN.fullmatch(event.id):
            return _bad_id("event id", event.id)
        if run_id in self.runs.warm or run_id in self:
            return None
        if not ID_PATTERN.fullmatch(run_id):
            return _bad_id("run id", run_id)
        home = partition_of(run_id.encode(), self.partitions)
        if home != self.number:
            hashed = home_of(run_id.encode()).decode()
            text = f"run {run_id!r} belongs to partition {home} (murmur2 of {hashed!r}), not {self.number}"
            return Unreadable("misrouted", text)
        return None


def _misplaced_for_all(event: Event, record: Record) -> Unreadable | None:
    """The same for an event that is of no kind that concerns one run."""
    if event.kind not in INBOX_KINDS:
        known = ", ".join(sorted(INBOX_KINDS))
        return Unreadable("unknown_kind", f"ce_meshkind is {event.kind!r}; expected one of {known}")
    if record.key != ALL.encode() or event.run_id != ALL:
        text = f"a record of kind {event.kind!r} concerns all runs: key and run id must be {ALL!r}"
        return Unreadable("key_mismatch", text)
    if event.kind == ADOPTED:
        return None if event.topology else Unreadable("missing_header", "header 'ce_meshtopology' is missing")
    control = read_control(event)
    return control if isinstance(control, Unreadable) else None


def _bad_id(what: str, id: str) -> Unreadable:
    return Unreadable("bad_id", f"{what} {id[:64]!r} has {len(id)} characters; expected {ID_PATTERN.pattern}")


def find_finish(effects: list[Effect]) -> Finish | None:
    """The end of a run among effects, if it is there."""
    return next((effect for effect in effects if isinstance(effect, Finish)), None)
