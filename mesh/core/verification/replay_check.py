"""Decide the inbox again, record by record, and compare the effects with the published records. Part of `verifier`."""

from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from mesh.core.protocol.codec import Unreadable, read_event
from mesh.core.protocol.event import ADOPTED, FAILED, REQUESTED, SUCCEEDED, Event, derive_id
from mesh.core.protocol.partitioner import partition_of
from mesh.core.protocol.record import NewRecord, Record, TopicPartition, coordinates
from mesh.core.publishing.effect_records import record_of
from mesh.core.run.control import ALL
from mesh.core.run.decide import decide
from mesh.core.run.effects import DeadLetter, Effect, Finish, PublishEvent, PublishTask
from mesh.core.state.partition_state import Partition, TopologyMissing
from mesh.core.state.topology_registry import Registry
from mesh.core.topology.model import Topology
from mesh.core.verification.publish_index import ANSWERED, MATCHED, PublishedRecord, PublishIndex, digest_of, mark
from mesh.core.verification.report import Observer, VerificationReport, Violation
from mesh.core.verification.run_invariants import RunInvariants
from mesh.core.verification.state_diff import state_difference

MISSING_KEPT: Final = 1_000
"""Limit of missing records kept in full until the end, which may explain them."""

UNCOMMITTED: Final = "decided, but not committed yet"
AFTER_CUT: Final = "decided, and may be after the cut of the recording"
NEVER_MS: Final = 2**63 - 1


@dataclass(slots=True)
class PartitionReplay:
    """State of the replay of one inbox partition."""

    state: Partition
    audit: RunInvariants
    complete_from_ms: int = -1
    """Runs first seen up to this time may have begun before the head; -1 if the head is not removed."""
    since_ms: int = -1
    """Records published up to this time may follow from records before the head; -1 if the head is not removed."""
    unseen: set[str] = field(default_factory=set)
    """Runs that began before the head."""
    last: dict[str, dict[tuple[str, int], PublishedRecord]] = field(default_factory=dict)
    """Open run → the record it published last, by topic and partition."""
    caught_up: bool = False
    next: int = 0
    names_topology: bool = True
    """Whether the inbox names the topology of new runs. Older versions of the mesh did not; their inboxes name it from
    the first `adopted` record on."""
    guessed: bool = False
    """Whether a topology was chosen by the effects of a request."""


@dataclass(frozen=True, kw_only=True)
class CheckScope:
    """The mesh and the part of its log that a check covers."""

    topology: Topology = field(kw_only=False)
    """Topology of the mesh as it is now."""
    kept: Registry | None = None
    """Contents of mesh.topologies. An `adopted` record of the inbox names the topology under which later runs open.
    Before the first of these, the check takes the topology under which the first effects of a run were published."""
    heads: Mapping[TopicPartition, int] = field(default_factory=dict)
    """First offset held, of every partition of every topic; default: all are whole. Runs that began before a removed
    head of the inbox cannot be decided again: `unchecked` counts them, like records whose topic lost its head."""
    ends: Mapping[TopicPartition, int] = field(default_factory=dict)
    """Ends of the inbox partitions, if not all of their records are handed in (those of one run)."""
    committed: Mapping[TopicPartition, int] | None = None
    """Committed offsets of mesh.inbox, task and ingress topics. None: everything decided must be published."""
    checkpoints: Mapping[int, Partition] = field(default_factory=dict)
    """Latest checkpoint of inbox partitions, by number; each is compared when the fold reaches its offset."""
    until_ms: int | None = None
    """End of the inbox records handed in, in log time; None: all are. Later publications may follow from others."""
    is_cut: bool = False
    """Whether the records come from a recording that is cut: what was decided may be after the cut. Then `committed` is
    empty, since a committed offset demands nothing."""
    states: Callable[[int], Partition] | None = None
    """Makes the initial fold of a partition number, for a partition that was restored from a checkpoint."""


class ReplayCheck:
    """Decides all partitions of the inbox again. `take` each record, then `finish`."""

    def __init__(
        self,
        scope: CheckScope,
        published: PublishIndex,
        observer: Observer,
        report: VerificationReport,
        *,
        only: Container[str] | None = None,
    ) -> None:
        """`only`: ids of the runs whose published records are compared; None: all."""
        self._only = only
        self.partitions: dict[int, PartitionReplay] = {}
        self._topology = scope.topology
        self.inbox = scope.topology.inbox
        self._kept = scope.kept or Registry(scope.topology.inbox)
        self._digests = {**self._kept.topologies, scope.topology.digest: scope.topology}
        """Topologies under which runs may have been opened, in the order in which they were kept."""
        self._published = published
        self._observer = observer
        self._report = report
        self._states = scope.states or self._fresh
        self._heads = scope.heads
        self._widths = Counter(place.topic for place in self._heads)
        self._committed = scope.committed
        self._uncommitted = AFTER_CUT if scope.is_cut else UNCOMMITTED
        self._ends = scope.ends
        self._checkpoints = dict(scope.checkpoints)
        """Checkpoints that were not compared yet."""
        self._missing: dict[tuple[str, str], Violation] = {}
        self.other_rules: set[bytes] = set()
        """Marks of the runs whose outcome was decided under other rules."""

    def take(self, record: Record) -> None:
        """Decide a record of mesh.inbox again. Raises ValueError when it comes out of order."""
        part = self.partitions.get(record.partition)
        if part is None:
            part = self.partitions[record.partition] = self._open(record)
        if record.offset < part.next:
            raise ValueError(f"{coordinates(record)} comes after offset {part.next - 1}")
        self._look_at_checkpoint(part, record.partition, record.offset)
        part.next = record.offset + 1
        self._report.records[record.topic] += 1
        event = read_event(record)
        if isinstance(event, Unreadable):
            self._compare(part.state.take(event, record), part, record)
            return
        before = part.state.runs.get(event.run_id)
        known = before is not None or event.run_id in part.state.ended or event.run_id == ALL
        part.names_topology = part.names_topology or event.kind == ADOPTED
        if not known and not part.names_topology and event.kind == REQUESTED and len(self._digests) > 1:
            self._choose_topology(event, part)
        effects = self._step(event, record, part)
        if (
            not known
            and part.complete_from_ms >= 0
            and (event.kind != REQUESTED or record.timestamp <= part.complete_from_ms)
        ):
            part.unseen.add(event.run_id)
        self._observe(event)
        if self.other_rules and mark(event.run_id) in self.other_rules:
            if not known:
                self._report.unchecked["runs that ended under other rules"] += 1
            for effect in effects:
                if isinstance(effect, Finish):
                    self._observer.see_ending(effect.run.id)
            return
        if event.run_id not in part.unseen:
            after = part.state.runs.get(event.run_id)
            for violation in part.audit.follow(event, record, before, after, effects):
                self._report.add(violation)
        self._compare(effects, part, record)

    def _step(self, event: Event, record: Record, part: PartitionReplay) -> list[Effect]:
        try:
            return part.state.take(event, record)
        except TopologyMissing as missing:
            part.state.unknown.add(missing.digest)
            if missing.needed and (why := self._kept.unreadable.get(missing.digest)) is not None:
                what = f"topology {missing.digest}, which the partition adopts here, cannot be read by this version"
                self._report.add(Violation("I6", coordinates(record), what, "a topology that is read", why))
            return part.state.step(record)

    def _fresh(self, number: int) -> Partition:
        head = self._heads.get(TopicPartition(self._topology.inbox, number), 0)
        first = next(iter(self._digests.values()))
        topology = (self._kept.topology_at(number, head) if self._kept.covers(number) else first) or self._topology
        partitions = self._topology.inbox_partitions
        state = Partition(topology, number=number, partitions=partitions, pinned=self._digests)
        state.kept_ms.update(self._kept.since_ms)
        return state

    def _open(self, record: Record) -> PartitionReplay:
        head = self._heads.get(TopicPartition(record.topic, record.partition), 0)
        state = self._states(record.partition)
        part = PartitionReplay(
            state, RunInvariants(self._digests.values()), names_topology=self._kept.covers(record.partition)
        )
        if head > state.offset:
            part.complete_from_ms = part.since_ms = record.timestamp + self._topology.limits.deadline_ms
        elif state.offset > 0:  # restored: runs are known, but not what they had published
            part.since_ms = record.timestamp
        return part

    def _choose_topology(self, event: Event, part: PartitionReplay) -> None:
        """Choose the topology of a run if the inbox does not name it: one whose effects were published.

        The topology in use comes first, then the one kept last before the event, then the others.
        """
        about = [digest for digest, since_ms in self._kept.since_ms.items() if since_ms <= event.at_ms]
        for digest in dict.fromkeys((part.state.topology.digest, *about[-1:], *self._digests)):
            candidate = self._digests[digest]
            _, effects = decide(None, event, candidate, part.state.breakers)
            if all(self._was_published(effect) for effect in effects):
                part.guessed = part.guessed or candidate is not part.state.topology
                part.state.adopt(candidate)
                return

    def _was_published(self, effect: Effect) -> bool:
        if not isinstance(effect, PublishTask | PublishEvent | DeadLetter | Finish):
            return True
        expected = record_of(effect, self._topology)
        id, _ = names_of(effect)
        digest, _ = digest_of(expected.key, expected.value, expected.headers)
        return any(sent.digest == digest for sent in self._published.find(expected.topic, id))

    def _observe(self, event: Event) -> None:
        if event.kind == REQUESTED:
            self._observer.see_request(event.run_id, event.id, event.origin)
        elif event.kind in (SUCCEEDED, FAILED):
            attempt = event.id.removesuffix(f":{event.kind}")
            self._published.flag(self._topology.tasks(event.agent), attempt, ANSWERED)
            if event.fault is not None and event.fault.code.startswith("refused_"):
                self._missing.pop((self._topology.tasks(event.agent), attempt), None)

    def _compare(self, effects: Sequence[Effect], part: PartitionReplay, record: Record) -> None:
        """I6, I9: compare the effects of an inbox record with the published records."""
        for effect in effects:
            if not isinstance(effect, PublishTask | PublishEvent | DeadLetter | Finish):
                continue
            id, run_id = names_of(effect)
            if self._only is not None and run_id not in self._only:
                continue
            expected = record_of(effect, self._topology)
            found, others = self._published.match(expected, id)
            self._report.checked["I6"] += 1
            if found is not None:
                if 0 <= part.since_ms < found.at_ms and not part.caught_up and record.timestamp > part.since_ms:
                    part.since_ms, part.caught_up = found.at_ms, True  # with the delay that the decisions had then
                self._look_at_order(found, run_id, part)
                if isinstance(effect, Finish):
                    self._observer.see_ending(run_id)
                    part.last.pop(run_id, None)
                continue
            violation = self._differs(id, run_id, record, expected, others, part)
            if violation is None:
                if isinstance(effect, Finish):
                    self._observer.see_ending(run_id)  # as far as can be told
            elif len(self._missing) < MISSING_KEPT:
                self._missing[expected.topic, id] = violation
            else:
                self._report.add(violation)

    def _differs(
        self,
        id: str,
        run_id: str,
        record: Record,
        expected: NewRecord,
        others: Sequence[PublishedRecord],
        part: PartitionReplay,
    ) -> Violation | None:
        """Return a violation if a decided record is missing or differs; None if that is justified."""
        where, place = coordinates(record), TopicPartition(record.topic, record.partition)
        lost = f"records of {expected.topic}, whose head was removed"
        if run_id in part.unseen:
            self._report.unchecked["effects in runs that began before the head of the inbox"] += 1
        elif others and part.complete_from_ms >= 0 and others[0].at_ms < record.timestamp:
            part.unseen.add(run_id)  # published before this run began: a run before the head had the same id
        elif others:
            what = f"{id} was published otherwise than it is decided"
            self._published.flag(expected.topic, id, MATCHED)
            return Violation("I6", where, what, run_id=run_id, record=expected, published=others[0].where)
        elif self._committed is not None and record.offset >= self._committed.get(place, 0):
            self._report.unchecked[self._uncommitted] += 1
        elif self._head_is_lost(expected):
            self._report.unchecked[lost] += 1
        elif not self._published.flag(self._topology.dead, derive_id("refused", expected.topic, id), MATCHED):
            invariant = "I6" if self._committed is None else "I7"
            what = f"{id} was decided, and is not on {expected.topic}"
            got = "" if self._committed is None else "the committed offset is beyond it"
            return Violation(invariant, where, what, "it to be there", got, run_id, expected)
        return None

    def _head_is_lost(self, expected: NewRecord) -> bool:
        width = self._widths[expected.topic]
        if not width:
            return False
        number = expected.partition if expected.partition is not None else partition_of(expected.key or b"", width)
        return self._heads.get(TopicPartition(expected.topic, number), 0) > 0

    def _look_at_order(self, found: PublishedRecord, run_id: str, part: PartitionReplay) -> None:
        """I9. Batches may be repeated, so a copy of a later decision may lie before a copy of an earlier one."""
        if run_id not in part.state.runs:
            return
        lasts = part.last.setdefault(run_id, {})
        place = (found.topic, found.partition)
        before = lasts.get(place)
        if before is not None:
            self._report.checked["I9"] += 1
            if before.first > found.last:
                what = f"a run's records on {found.topic} are not in the order of its decisions"
                expected = f"it behind {before.where}"
                self._report.add(Violation("I9", found.where, what, expected, run_id=run_id, published=found.where))
                return
        if before is None or found.first > before.first:
            lasts[place] = found

    def _look_at_checkpoint(self, part: PartitionReplay, number: int, place: int) -> None:
        """I13: compare the checkpoint with the fold, when a record at or after its offset comes, or the end."""
        checkpoint = self._checkpoints.get(number)
        if checkpoint is None or place < checkpoint.offset:
            return
        del self._checkpoints[number]
        if part.complete_from_ms >= 0 or part.guessed:
            why = "which another topology may have decided" if part.complete_from_ms < 0 else "older than the inbox"
            self._report.unchecked[f"checkpoints, {why}"] += 1
            return
        self._report.checked["I13"] += 1
        if difference := state_difference(part.state, checkpoint):
            where = f"{self._topology.checkpoints}:{number}"
            what = f"the checkpoint as of offset {checkpoint.offset} is not what the inbox gives: {difference}"
            self._report.add(Violation("I13", where, what))

    # ------------------------------------------------------------------------------------------------------- the end

    def finish(self) -> None:
        """Report missing records and wrong commits. Call it when all records were taken."""
        for violation in self._missing.values():
            self._report.add(violation)
        for place, head in self._heads.items():
            if place.topic == self._topology.inbox and head > 0 and place.partition not in self.partitions:
                part = self.partitions[place.partition] = PartitionReplay(
                    self._states(place.partition), RunInvariants(self._digests.values())
                )
                part.complete_from_ms = part.since_ms = NEVER_MS
                part.next = head
        for number, part in self.partitions.items():
            self._finish_partition(TopicPartition(self._topology.inbox, number), part)

    def _finish_partition(self, place: TopicPartition, part: PartitionReplay) -> None:
        report, where = self._report, f"{place.topic}:{place.partition}"
        self._look_at_checkpoint(part, place.partition, part.next)
        report.runs += part.audit.runs
        report.open += len(part.state.runs)
        report.checked.update(part.audit.checked)
        report.endings.update(part.audit.endings)
        if part.unseen:
            report.unchecked["runs that began before the head of the inbox"] += len(part.unseen)
        committed = None if self._committed is None else self._committed.get(place, 0)
        if committed is not None:
            report.checked["I7"] += 1
            end = self._ends.get(place, part.next)
            if committed > end:
                what = "the committed offset lies beyond the last record"
                report.add(Violation("I7", where, what, f"at most {end}", f"{committed}"))


def names_of(effect: PublishTask | PublishEvent | DeadLetter | Finish) -> tuple[str, str]:
    """Return the id of the record that performs an effect, and its run."""
    match effect:
        case DeadLetter():
            return effect.id, effect.run_id
        case Finish():
            return effect.event_id, effect.run.id
        case _:
            return effect.event.id, effect.event.run_id
