"""State of one inbox partition: the fold of `decide` over its records. Recovery, replay and audit use this fold.

    state = Partition(topology, partitions=6, number=0)
    for record in inbox: effects = state.step(record)

State and effects follow from the records alone. `Partition.step` applies these rules to each record, in this order:

1.  Undecodable record. A record that is no event becomes a dead letter.
2.  Time. Log time is the timestamp of the record and never falls. After the log's clock was set back, log time goes on
    from its highest value at the pace of the timestamps. The expiry of an event is moved by the same difference.
3.  Misplaced event. An event with an invalid kind, key, id or partition becomes a dead letter, and so does a request
    that admission would refuse. For a run that is open or remembered, neither run id nor partition is checked.
4.  `switched` event. It replaces the state of mesh.control when its offset of mesh.control is higher than the known
    one. It also does so when it names the known offset as replaced and has another content.
5.  `adopted` event. New runs are opened under the topology that it names. Open runs keep their own.
6.  Event for a run that ended. It gets the answer to a late event. A redrive continues the run if the run was kept,
    that is, if the run had refusals or dead letters.
7.  Topology. A known run is decided under the topology that it was opened under, by digest. A new run is opened under
    the topology that the partition adopted last. So the topology follows from the records, too, whatever topology the
    folding process has. A request may have a type that the adopted topology does not declare. It then opens its run
    under the topology that admitted it, which the request names. So each partition takes requests of both versions
    while two versions of topics.yaml are in use. The adopted one is used if the named one does not declare the type,
    either, or was not stored by then.
8.  Breakers. They follow answers before `decide`, and published tasks after it.
9.  Result of `decide`. An open run is stored under its id. A run that ended is remembered for `ENDED_OFFSETS_MAX`
    offsets, so a late duplicate cannot start it again. After that an event for it is an event for an unknown run.

Rules 5 and 7 raise TopologyMissing for a topology that the partition does not know: the record is not folded.
"""

import re
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

from mesh.core.ingress.admission import find_flaw
from mesh.core.protocol.codec import Unreadable, read_event
from mesh.core.protocol.event import ADOPTED, ID_PATTERN, INBOX_KINDS, REDRIVEN, REQUESTED, SWITCHED, Event
from mesh.core.protocol.partitioner import home_of, partition_of
from mesh.core.protocol.record import Record
from mesh.core.run.circuit_breaker import Breaker, after_answer, after_control, after_dispatch, find_transition
from mesh.core.run.control import ALL, NOTHING, Control, read_control, replaced_offset
from mesh.core.run.dead_letter import dead_record
from mesh.core.run.decide import answer_late, decide
from mesh.core.run.effects import Adopt, BreakerTransition, Effect, Note, PublishTask
from mesh.core.run.state import Ended, Run
from mesh.core.state.lazy_table import Table, number
from mesh.core.state.row_codec import read_ended, read_run
from mesh.core.state.topology_registry import TopologyMissing
from mesh.core.topology.model import Topology

__all__ = ["ENDED_OFFSETS_MAX", "RULES", "Ended", "Partition", "TopologyMissing"]

RULES: Final = 2
"""Version of the fold's results. Raise it with every change of `decide` that gives another state or other effects for
the same records. This version then does not fold the records that an older one decided: it starts from a checkpoint."""
ENDED_OFFSETS_MAX: Final = 100_000
"""Offsets for which a run that ended is remembered."""
FACTS: Final[dict[str, Any]] = {
    "offset": int,
    "forgotten": int,
    "control": Control,
    "breakers": dict[str, Breaker],
    "at_ms": int,
    "ahead_ms": int,
}
"""Type of each part of a partition's state other than its runs. A compiled class does not know its annotations."""
RUN_KINDS: Final = INBOX_KINDS - {SWITCHED, ADOPTED}
"""Kinds of events that concern one run."""
MESH_ID_PATTERN: Final = re.compile(r"[A-Za-z0-9._:-]{1,256}", re.ASCII)
"""Pattern of ids of events that follow from requests. They contain the request's id, so they may be longer."""


class Partition:
    """Runs of one inbox partition. All records enter by `step`; the same records give the same state and effects.

    `runs`, `ended` and `FACTS` are the whole state. Checkpoints hold them (`core.state.checkpoint`), so a further part
    of the state must be in FACTS, too.
    """

    offset: int
    """The next offset to fold."""
    runs: Table[Run]
    ended: Table[Ended]
    forgotten: int
    """Offset before which runs that ended are forgotten."""
    control: Control
    """Switches (stopped agents, open breakers, injected faults), as of the last `switched` event."""
    breakers: dict[str, Breaker]
    """Breakers by agent: agents that fail and get no tasks for a while."""
    at_ms: int
    """Log time of the last record, in ms. It never falls, though the log's clock may be set back."""
    ahead_ms: int
    """Difference between `at_ms` and the last record's timestamp: the log's clock was set back by this much."""

    def __init__(
        self, topology: Topology, *, number: int, partitions: int, pinned: Mapping[str, Topology] | None = None
    ) -> None:
        """Create an empty state at offset 0. `topology`: of new runs; `pinned`: topologies of older runs, by digest."""
        self.topology = topology
        self.topologies = {**(pinned or {}), topology.digest: topology}
        self.unknown: set[str] = set()
        """Digests of topologies that were searched for the record that is folded next, and not found."""
        self.kept_ms: dict[str, int] = {}
        """Digest → log time at which that topology was stored; missing: 0. An earlier event cannot refer to it."""
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
        self.ended_offsets_max = ENDED_OFFSETS_MAX
        """Offsets for which a run that ended is remembered; tests set a smaller number."""
        self._ended_order: deque[tuple[int, str]] = deque()
        """Offset and id of runs that ended, in order. Entries of runs forgotten or ended again since are ignored."""
        self.touched: dict[str, int] | None = None
        """Run id → offset of the run's last change, for checkpoint pieces that hold only changed runs. None: changes
        are not tracked."""

    def adopt(self, topology: Topology) -> None:
        """Open new runs under this topology from now on. Open runs keep their own."""
        self.topology = topology
        self.topologies[topology.digest] = topology

    def recall(self, ends: Iterable[tuple[int, str]]) -> None:
        """Order the memory of ended runs after `ended` was filled by a loader. `ends`: offset and id of each run."""
        self._ended_order = deque(sorted(ends))
        self._forget(self.forgotten)

    def step(self, record: Record) -> list[Effect]:
        """Fold one record and return its effects.

        The function is total: a record that is no event becomes a dead letter. Only a topology that the partition does
        not know raises TopologyMissing, and the record is then not folded.
        """
        return self.take(read_event(record), record)

    def take(self, event: Event | Unreadable, record: Record) -> list[Effect]:
        """Do the same for a record that the caller has decoded. It may change the times of the event."""
        self.offset = record.offset + 1
        if isinstance(event, Unreadable):
            return [dead_record(record, event.code, event.message)]
        if event.at_ms >= self.at_ms:
            self.at_ms, self.ahead_ms = event.at_ms, 0
        else:
            self._set_back(event, event.at_ms)
        flaw = self._misplacement(event, record)
        if flaw is not None:
            return [dead_record(record, flaw.code, flaw.message, event)]
        return self.apply(event, record.offset)

    def _set_back(self, event: Event, timestamp: int) -> None:
        """Continue log time from its highest value after the log's clock was set back, at the timestamps' pace.

        Otherwise every pending timer would wait longer by that step."""
        self.at_ms = event.at_ms = max(self.at_ms, timestamp + self.ahead_ms)
        self.ahead_ms = self.at_ms - timestamp
        if event.expiry_ms is not None:
            event.expiry_ms += self.ahead_ms

    def time_at(self, log_ms: int) -> int:
        """Return the time in this partition, in ms, when the log's clock reads `log_ms`."""
        return max(self.at_ms, log_ms + self.ahead_ms)

    def apply(self, event: Event, offset: int) -> list[Effect]:
        """Fold one event that was read at `offset`, and return its effects."""
        if event.run_id == ALL:
            return self._take_control(event) if event.kind == SWITCHED else self._adopt_named(event, offset)
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
            self._update_breakers(effects, event, topology)
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
        """Return whether the run is open or remembered."""
        runs, ended = self.runs, self.ended
        return run_id in runs.warm or run_id in ended.warm or run_id in runs.cold or run_id in ended.cold

    def _update_breakers(self, effects: list[Effect], event: Event, topology: Topology) -> None:
        """Update the breakers after tasks: an agent with a half-open breaker gets one task and no other for a while."""
        for effect in effects:
            if isinstance(effect, PublishTask):
                self.breakers = after_dispatch(self.breakers, effect.event.agent, topology, event.at_ms)

    def _take_control(self, event: Event) -> list[Effect]:
        """Take over the state of mesh.control as of one of its offsets.

        The highest offset counts, however often states are relayed. A correction that names the known offset replaces
        the state at that offset."""
        control = read_control(event)
        if isinstance(control, Unreadable):
            return [Note(control.code, control.message, security=True)]
        known = self.control.offset
        if control.offset <= known and (replaced_offset(event) != known or control == self.control):
            return [Note("late_switch", f"mesh.control as of offset {control.offset} came when {known} was known")]
        self.control = control
        self.breakers = after_control(self.breakers, control, self.topology, event.at_ms)
        return []

    def _adopt_named(self, event: Event, offset: int) -> list[Effect]:
        """Open new runs under the named topology from this record on."""
        before, topology = self.topology.digest, self._named_topology(event, offset, needed=True)
        if topology is None:
            text = f"topology {event.topology[:64]!r}, which the partition is told to adopt, was not kept"
            return [Note("other_topology", text, security=True)]
        self.adopt(topology)
        return [Adopt(self.number, offset, topology.digest, before)]

    def _admitting(self, event: Event, offset: int) -> Topology:
        """Return the topology that admitted a request whose type the current topology does not declare."""
        topology = self._named_topology(event, offset, needed=False)
        return self.topology if topology is None or event.type not in topology.ingress else topology

    def _named_topology(self, event: Event, offset: int, *, needed: bool) -> Topology | None:
        """Return the topology that an event names; None if it was not stored by then, or cannot be read."""
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
        if offset - self.ended_offsets_max > self.forgotten:
            self._forget(offset - self.ended_offsets_max)

    def _forget(self, before: int) -> None:
        """Forget the runs that ended before this offset."""
        self.forgotten, order = before, self._ended_order
        while order and order[0][0] < before:
            at, id = order.popleft()
            old = self.ended.raw(id)
            if old is not None and (number(old) if isinstance(old, bytes) else old.offset) == at:
                self.ended.discard(id)

    def _misplacement(self, event: Event, record: Record) -> Unreadable | None:
        """Return why an event does not belong at the record's place in the log; None: it does."""
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
    """Return the same for an event whose kind does not concern a single run."""
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
