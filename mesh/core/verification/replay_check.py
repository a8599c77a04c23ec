"""The inbox decided again, record by record, and compared with what was published: the second half of `verifier`."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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
from mesh.core.verification.report import VerificationReport, Violation
from mesh.core.verification.run_invariants import RunInvariants
from mesh.core.verification.state_diff import state_difference
from mesh.core.verification.submissions import SubmissionLedger

MISSING_KEPT: Final = 1_000
"""Published records that are missing, kept in full until the end shows whether something explains them."""

NEVER_MS: Final = 2**63 - 1


@dataclass(slots=True)
class PartitionReplay:
    """One partition of the inbox on its way through the fold."""

    state: Partition
    audit: RunInvariants
    warm_ms: int = -1
    """Runs first seen up to this time may have begun before the head; -1 where the head is there."""
    since_ms: int = -1
    """What was published up to this time may follow from records before the head; -1 where the head is there."""
    unseen: set[str] = field(default_factory=set)
    """Runs that began before the head."""
    last: dict[str, dict[tuple[str, int], PublishedRecord]] = field(default_factory=dict)
    """Open run → what it published last, on each partition."""
    caught_up: bool = False
    next: int = 0
    told: bool = True
    """The inbox says under which topology runs are opened. Where an older version of the mesh worked, it does so from
    the first `adopted` record on."""
    guessed: bool = False
    """A topology was chosen by what followed from a request."""


class ReplayCheck:
    """All partitions of the inbox. `take` each record, then `judge`; see `verifier` for the arguments."""

    def __init__(
        self,
        topology: Topology,
        published: PublishIndex,
        ledger: SubmissionLedger,
        report: VerificationReport,
        *,
        states: Callable[[int], Partition] | None = None,
        heads: Mapping[TopicPartition, int] | None = None,
        committed: Mapping[TopicPartition, int] | None = None,
        kept: Registry | None = None,
        ends: Mapping[TopicPartition, int] | None = None,
        checkpoints: Mapping[int, Partition] | None = None,
    ) -> None:
        self.boxes: dict[int, PartitionReplay] = {}
        self._topology = topology
        self._kept = kept or Registry(topology.inbox)
        self._digests = {**self._kept.topologies, topology.digest: topology}
        """Topologies under which runs may have been opened, in the order in which they were kept."""
        self._published = published
        self._ledger = ledger
        self._report = report
        self._states = states or self._fresh
        self._heads = heads or {}
        self._widths = Counter(place.topic for place in self._heads)
        self._committed = committed
        self._ends = ends or {}
        self._checkpoints = dict(checkpoints or {})
        """Those that nothing was compared with so far."""
        self._missing: dict[tuple[str, str], Violation] = {}
        self.other_rules: set[bytes] = set()
        """Marks of the runs whose outcome was decided under other rules."""

    def take(self, record: Record) -> None:
        """Decide a record of mesh.inbox again. Raises ValueError when it comes out of order."""
        box = self.boxes.get(record.partition)
        if box is None:
            box = self.boxes[record.partition] = self._open(record)
        if record.offset < box.next:
            raise ValueError(f"{coordinates(record)} comes after offset {box.next - 1}")
        self._look_at_checkpoint(box, record.partition, record.offset)
        box.next = record.offset + 1
        self._report.records[record.topic] += 1
        event = read_event(record)
        if isinstance(event, Unreadable):
            self._compare(box.state.step(record), box, record)
            return
        before = box.state.runs.get(event.run_id)
        known = before is not None or event.run_id in box.state.ended or event.run_id == ALL
        box.told = box.told or event.kind == ADOPTED
        if not known and not box.told and event.kind == REQUESTED and len(self._digests) > 1:
            self._choose_topology(event, box)
        effects = self._step(record, box)
        if not known and box.warm_ms >= 0 and (event.kind != REQUESTED or record.timestamp <= box.warm_ms):
            box.unseen.add(event.run_id)
        self._hear(event)
        if self.other_rules and mark(event.run_id) in self.other_rules:
            if not known:
                self._report.unchecked["runs that ended under other rules"] += 1
            for effect in effects:
                if isinstance(effect, Finish):
                    self._ledger.ended(effect.run.id)
            return
        if event.run_id not in box.unseen:
            after = box.state.runs.get(event.run_id)
            for violation in box.audit.follow(event, record, before, after, effects):
                self._report.add(violation)
        self._compare(effects, box, record)

    def _step(self, record: Record, box: PartitionReplay) -> list[Effect]:
        try:
            return box.state.step(record)
        except TopologyMissing as missing:
            box.state.unknown.add(missing.digest)
            if missing.needed and (why := self._kept.unreadable.get(missing.digest)) is not None:
                what = f"topology {missing.digest}, which the partition adopts here, cannot be read by this version"
                self._report.add(Violation("I6", coordinates(record), what, "a topology that is read", why))
            return box.state.step(record)

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
        box = PartitionReplay(state, RunInvariants(self._digests.values()), told=self._kept.covers(record.partition))
        if head > state.offset:
            box.warm_ms = box.since_ms = record.timestamp + self._topology.limits.deadline_ms
        elif state.offset > 0:  # restored: runs are known, but not what they had published
            box.since_ms = record.timestamp
        return box

    def _choose_topology(self, event: Event, box: PartitionReplay) -> None:
        """Where the inbox does not say under which topology a run was opened, it is one under which what followed was
        published: the one in use before if it will do, else the one that was kept last by then, else any."""
        about = [digest for digest, since_ms in self._kept.since_ms.items() if since_ms <= event.at_ms]
        for digest in dict.fromkeys((box.state.topology.digest, *about[-1:], *self._digests)):
            candidate = self._digests[digest]
            _, effects = decide(None, event, candidate, box.state.breakers)
            if all(self._was_published(effect) for effect in effects):
                box.guessed = box.guessed or candidate is not box.state.topology
                box.state.adopt(candidate)
                return

    def _was_published(self, effect: Effect) -> bool:
        if not isinstance(effect, PublishTask | PublishEvent | DeadLetter | Finish):
            return True
        expected = record_of(effect, self._topology)
        id, _ = _names(effect)
        digest, _ = digest_of(expected.key, expected.value, expected.headers)
        return any(sent.digest == digest for sent in self._published.find(expected.topic, id))

    def _hear(self, event: Event) -> None:
        if event.kind == REQUESTED:
            self._ledger.heard(event.run_id, event.id, event.origin)
        elif event.kind in (SUCCEEDED, FAILED):
            attempt = event.id.removesuffix(f":{event.kind}")
            self._published.flag(self._topology.tasks(event.agent), attempt, ANSWERED)
            if event.fault is not None and event.fault.code.startswith("refused_"):
                self._missing.pop((self._topology.tasks(event.agent), attempt), None)

    def _compare(self, effects: Sequence[Effect], box: PartitionReplay, record: Record) -> None:
        """I6, I9: what follows from a record of the inbox against what was published."""
        for effect in effects:
            if not isinstance(effect, PublishTask | PublishEvent | DeadLetter | Finish):
                continue
            id, run_id = _names(effect)
            expected = record_of(effect, self._topology)
            found, others = self._published.match(expected, id)
            self._report.checked["I6"] += 1
            if found is not None:
                if 0 <= box.since_ms < found.at_ms and not box.caught_up and record.timestamp > box.since_ms:
                    box.since_ms, box.caught_up = found.at_ms, True  # with the delay that the decisions had then
                self._look_at_order(found, run_id, box)
                if isinstance(effect, Finish):
                    self._ledger.ended(run_id)
                    box.last.pop(run_id, None)
                continue
            violation = self._differs(id, run_id, record, expected, others, box)
            if violation is None:
                if isinstance(effect, Finish):
                    self._ledger.ended(run_id)  # as far as can be told
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
        box: PartitionReplay,
    ) -> Violation | None:
        """Why what was decided is not there as it was decided, or None if that is as it should be."""
        where, place = coordinates(record), TopicPartition(record.topic, record.partition)
        lost = f"records of {expected.topic}, whose head was removed"
        if run_id in box.unseen:
            self._report.unchecked["effects in runs that began before the head of the inbox"] += 1
        elif others and box.warm_ms >= 0 and others[0].at_ms < record.timestamp:
            box.unseen.add(run_id)  # it was published before this run began: a run before the head had the same id
        elif others:
            what = f"{id} was published otherwise than it is decided"
            self._published.flag(expected.topic, id, MATCHED)
            return Violation("I6", where, what, run_id=run_id, record=expected, published=others[0].where)
        elif self._committed is not None and record.offset >= self._committed.get(place, 0):
            self._report.unchecked["decided, but not committed yet"] += 1
        elif self._head_is_lost(expected):
            self._report.unchecked[lost] += 1
        elif not self._published.flag(self._topology.dead, derive_id("refused", expected.topic, id), MATCHED):
            invariant = "I6" if self._committed is None else "I7"
            what = f"{id} was decided, and is not on {expected.topic}"
            got = "" if self._committed is None else "the committed place is beyond it"
            return Violation(invariant, where, what, "it to be there", got, run_id, expected)
        return None

    def _head_is_lost(self, expected: NewRecord) -> bool:
        width = self._widths[expected.topic]
        if not width:
            return False
        number = expected.partition if expected.partition is not None else partition_of(expected.key or b"", width)
        return self._heads.get(TopicPartition(expected.topic, number), 0) > 0

    def _look_at_order(self, found: PublishedRecord, run_id: str, box: PartitionReplay) -> None:
        """I9. Batches may be repeated, so a copy of what was decided later may lie before one of what was earlier."""
        if run_id not in box.state.runs:
            return
        lasts = box.last.setdefault(run_id, {})
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

    def _look_at_checkpoint(self, box: PartitionReplay, number: int, place: int) -> None:
        """I13: it holds the state as of its offset, which is reached when a record at `place` comes, or the end."""
        checkpoint = self._checkpoints.get(number)
        if checkpoint is None or place < checkpoint.offset:
            return
        del self._checkpoints[number]
        if box.warm_ms >= 0 or box.guessed:
            why = "which another topology may have decided" if box.warm_ms < 0 else "older than the inbox"
            self._report.unchecked[f"checkpoints, {why}"] += 1
            return
        self._report.checked["I13"] += 1
        if told := state_difference(box.state, checkpoint):
            where = f"{self._topology.checkpoints}:{number}"
            what = f"the checkpoint as of offset {checkpoint.offset} is not what the inbox gives: {told}"
            self._report.add(Violation("I13", where, what))

    # ------------------------------------------------------------------------------------------------------- the end

    def judge(self, *, quiescent: bool) -> None:
        """What is missing, how far it was committed, and what is still open. Call it when all was taken."""
        for violation in self._missing.values():
            self._report.add(violation)
        for place, head in self._heads.items():
            if place.topic == self._topology.inbox and head > 0 and place.partition not in self.boxes:
                box = self.boxes[place.partition] = PartitionReplay(
                    self._states(place.partition), RunInvariants(self._digests.values())
                )
                box.warm_ms = box.since_ms = NEVER_MS
                box.next = head
        for number, box in self.boxes.items():
            self._judge(TopicPartition(self._topology.inbox, number), box, quiescent=quiescent)

    def _judge(self, place: TopicPartition, box: PartitionReplay, *, quiescent: bool) -> None:
        report, where = self._report, f"{place.topic}:{place.partition}"
        self._look_at_checkpoint(box, place.partition, box.next)
        report.runs += box.audit.runs
        report.open += len(box.state.runs)
        report.checked.update(box.audit.checked)
        report.endings.update(box.audit.endings)
        if box.unseen:
            report.unchecked["runs that began before the head of the inbox"] += len(box.unseen)
        committed = None if self._committed is None else self._committed.get(place, 0)
        if committed is not None:
            report.checked["I7"] += 1
            end = self._ends.get(place, box.next)
            if committed > end:
                what = "the committed place lies beyond the last record"
                report.add(Violation("I7", where, what, f"at most {end}", f"{committed}"))
        if not quiescent:
            return
        report.checked["I11"] += len(box.state.runs) + 1
        if committed is not None and committed < box.next:
            what = "records of the inbox are left to be decided"
            report.add(Violation("I11", where, what, f"committed at {box.next}", f"{committed}"))
        for run in box.state.runs.values():
            if run.id not in box.unseen:
                got = f"it waits for {', '.join(sorted({task.agent for task in run.open.values()})) or 'nothing'}"
                report.add(Violation("I11", f"run {run.id}", "a run is still open", "an ending", got, run.id))

    def is_open(self, run_id: str) -> bool:
        """Whether a run has not ended."""
        return any(run_id in box.state.runs for box in self.boxes.values())

    def is_unseen(self, run_id: str) -> bool:
        """Whether a run began before the head of its partition."""
        return any(run_id in box.unseen for box in self.boxes.values())


def _names(effect: PublishTask | PublishEvent | DeadLetter | Finish) -> tuple[str, str]:
    """The id of the record that performs an effect, and its run."""
    match effect:
        case DeadLetter():
            return effect.id, effect.run_id
        case Finish():
            return effect.event_id, effect.run.id
        case _:
            return effect.event.id, effect.event.run_id
