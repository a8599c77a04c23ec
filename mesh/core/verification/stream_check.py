"""`StreamCheck` finds in one pass and in bounded memory the runs that `Verifier` has to look at. Pure.

    check = StreamCheck(CheckScope(topology, …), hash)
    check.take_ingress(record); check.take_inbox(record); check.take_published(record)   # by time, as far as possible
    for position in check.origins: check.take_original(record)
    found = check.finish()          # `found.suspects`: the runs that remain

The inbox is decided again. A record that is decided waits until the same bytes are read from the topic, and is then
forgotten. A published record that nothing waits for waits for its decision. So memory depends on the delay between
decision and publication, not on the length of the log.

A run is *suspect* if one of its records remains at the end, or was published out of order. What that means is judged by
`Verifier`, with the records of suspects alone. Most logs have none. Copies make suspects, too.

Records are compared by a hash of their bytes. No published record is decoded unless it remains.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from mesh.core.ingress.admission import REJECTED_TYPE
from mesh.core.protocol.codec import Unreadable, event_headers, internal_headers, read_event
from mesh.core.protocol.event import EGRESS, FAILED, OUTCOME, SUCCEEDED, TASK, Event
from mesh.core.protocol.packed_form import PACKED
from mesh.core.protocol.record import Headers, PackedHeaders, Record, TopicPartition, coordinates
from mesh.core.publishing.effect_records import record_of
from mesh.core.run.effects import DeadLetter, Effect, Finish, PublishEvent, PublishTask
from mesh.core.verification.letters import Letters
from mesh.core.verification.publish_index import PublishIndex
from mesh.core.verification.replay_check import CheckScope, PartitionReplay, ReplayCheck, names_of
from mesh.core.verification.report import Observer, VerificationReport

EXPECTED_MAX: Final = 100_000
"""Decided records kept that were not read from their topics. The oldest is then judged as not published."""
EARLY_MAX: Final = 10_000
"""Published records kept that were read before their decision. The oldest is then judged without it."""
_PUBLISHED: Final = frozenset({PublishTask, PublishEvent, DeadLetter, Finish})
_LATE: Final = "published after the window"
_BEFORE_HEAD: Final = "effects in runs that began before the head of the inbox"
_PUBLISHED_BEFORE: Final = "published by runs that began before the head of the inbox"


class _Decided(NamedTuple):
    """A record that was decided and not yet read from its topic."""

    run_id: str
    number: int
    """Partition of the inbox."""
    offset: int
    at_ms: int
    order: int
    attempt: str
    """Id of the attempt, for a task."""


class StreamResult(NamedTuple):
    """Result of the pass."""

    report: VerificationReport
    clean: bool
    """Whether the report holds all there is to say. Else `Verifier` has to judge the suspects."""
    suspects: set[str]


@dataclass(slots=True)
class _Leftovers:
    """Records that remain, by run: to be judged by `Verifier`, or known to be beyond what can be checked."""

    suspects: set[str] = field(default_factory=set)
    excused: dict[str, Counter[str]] = field(default_factory=dict)
    """Run → its records by the reason why they are not checked."""

    def excuse(self, run_id: str, why: str) -> None:
        """Count a record that cannot be checked, unless its run is suspect in the end."""
        self.excused.setdefault(run_id, Counter())[why] += 1


class StreamCheck(ReplayCheck):
    """Checks one mesh in one pass; see the module."""

    def __init__(self, scope: CheckScope, digest: Callable[[tuple[object, ...]], int]) -> None:
        """`digest`: a hash of 64 bits, such as `hash`, whose key differs in each process."""
        self._digest = digest
        self.report = VerificationReport()
        super().__init__(scope, PublishIndex(), Observer(), self.report)
        known = () if scope.kept is None else scope.kept.topologies.values()
        self._depth_max = max(one.limits.depth_max for one in (scope.topology, *known))
        self._until_ms = scope.until_ms
        self._tasks = scope.topology.tasks("")
        self.committed = dict(scope.committed or {})
        """Committed offsets of workers and intake; a caller may raise them until the first record."""
        self._letters = Letters(scope.topology, self.report)
        self._rest = _Leftovers()
        self._expected: dict[int, _Decided] = {}
        """Hash of a decided record → what it belongs to."""
        self._early: dict[int, Record] = {}
        """Hash of a published record that nothing led to so far → the record."""
        self._decided = 0
        self._newest: dict[tuple[str, int, int], int] = {}
        """Topic, its partition, and the partition of the inbox → the latest decision whose record was read there."""
        self._unanswered: dict[str, tuple[str, str, TopicPartition | None, int]] = {}
        """Attempt → its run, its agent, and where its task lies, once that was read."""
        self._first_found: dict[int, tuple[int, int, str]] = {}
        """Partition with a removed head → the first of its decisions after that time whose record was found: its
        order, the log time of the record, its run."""
        self._came: set[str] = set()
        """Coordinates of ingress records without a known effect so far."""

    @property
    def origins(self) -> Sequence[str]:
        """Coordinates outside the inbox that dead letters point at."""
        return self._letters.origins

    def take_original(self, record: Record) -> None:
        """Take a record that a dead letter may point at."""
        self._letters.take_original(record)

    def take_ingress(self, record: Record) -> None:
        """Take a record of an ingress topic. Below intake's commit it is a request or a dead letter."""
        self.report.records[record.topic] += 1
        if record.offset < self.committed.get(TopicPartition(record.topic, record.partition), 0):
            self.report.checked["I7"] += 1
            self._came.add(coordinates(record))

    def take_inbox(self, record: Record) -> None:
        """Take a record of mesh.inbox and decide it again. Raises ValueError if it is out of order."""
        self.take(record)

    def take_published(self, record: Record) -> None:
        """Take a record of a task topic, an egress topic, mesh.outcomes or mesh.dead."""
        self.report.records[record.topic] += 1
        if record.topic == self._topology.dead:
            letter = self._letters.take(record)
            if letter.of_refused or letter.repeated:
                self._rest.suspects.add(letter.run_id)
            if letter.from_outside:
                self.report.checked["I3"] += 1
                return
        headers = record.headers if len(record.headers) == 1 else self._decided_headers(record)
        digest = self._hash(record.topic, record.key, record.value, headers)
        decided = self._expected.pop(digest, None)
        if decided is not None:
            self._found(decided, record)
            return
        if digest in self._early:
            self._judge_early(record)
        else:
            self._early[digest] = record
        if len(self._early) > EARLY_MAX:
            self._judge_early(self._early.pop(next(iter(self._early))))

    def _decided_headers(self, record: Record) -> Headers:
        """Return the headers of a published record as they are decided: a task may be written in plain form."""
        if not record.topic.startswith(self._tasks):
            return record.headers
        names = [name for name, _ in record.headers]
        event = read_event(record)
        if isinstance(event, Unreadable) or PACKED in names:
            return record.headers
        if "mesh-origin" not in names:
            event.origin = ""
        return internal_headers(event) if event_headers(event) == record.headers else record.headers

    # ------------------------------------------------------------------------------------------------- what is decided

    def _observe(self, event: Event) -> None:
        if self._came:
            self._came.discard(event.origin)
        if event.kind in (SUCCEEDED, FAILED):
            attempt = event.id.removesuffix(f":{event.kind}")
            task = self._unanswered.get(attempt)
            if task is not None and task[1] == event.agent:
                del self._unanswered[attempt]

    def _compare(self, effects: Sequence[Effect], part: PartitionReplay, record: Record) -> None:
        for effect in effects:
            if effect.__class__ not in _PUBLISHED:
                continue
            assert isinstance(effect, PublishTask | PublishEvent | DeadLetter | Finish)
            id, run_id = names_of(effect)
            expected = record_of(effect, self._topology)
            self.report.checked["I6"] += 1
            self._decided += 1
            attempt = ""
            if isinstance(effect, PublishTask):
                attempt = id
                task = effect.event
                self._unanswered[attempt] = (run_id, task.agent, None, 0)
                if task.depth != len(task.path) or task.path[-1:] != (task.agent,) or task.depth > self._depth_max:
                    self._rest.suspects.add(run_id)
            decided = _Decided(run_id, record.partition, record.offset, record.timestamp, self._decided, attempt)
            digest = self._hash(expected.topic, expected.key, expected.value, expected.headers)
            early = self._early.pop(digest, None)
            if early is not None:
                self._found(decided, early)
            elif digest in self._expected:
                self._rest.suspects.add(run_id)  # two decisions give the same record
            else:
                self._expected[digest] = decided
                if len(self._expected) > EXPECTED_MAX:
                    self._judge_expected(self._expected.pop(next(iter(self._expected))))

    def _found(self, decided: _Decided, record: Record) -> None:
        """Take a record that was decided and published."""
        self.report.checked["I3"] += 1
        place = (record.topic, record.partition, decided.number)
        if self._newest.get(place, 0) > decided.order:
            self._rest.suspects.add(decided.run_id)
        else:
            self._newest[place] = decided.order
        self.report.checked["I9"] += 1
        if decided.attempt:
            self.report.checked["I4"] += 1
            task = self._unanswered.pop(decided.attempt, None)
            where = TopicPartition(record.topic, record.partition)
            if task is not None and self._until_ms is None and record.offset < self.committed.get(where, 0):
                self._unanswered[decided.attempt] = (task[0], task[1], where, record.offset)
        since_ms = self.partitions[decided.number].since_ms
        if 0 <= since_ms < min(record.timestamp, decided.at_ms):
            first = self._first_found.get(decided.number)
            if first is None or decided.order < first[0]:
                self._first_found[decided.number] = (decided.order, record.timestamp, decided.run_id)

    # --------------------------------------------------------------------------------------------------- what remains

    def finish(self) -> None:
        """Judge what remains. Call it when all records were taken; `result` returns what was found."""
        super().finish()
        for number, (_, at_ms, run_id) in self._first_found.items():
            self.partitions[number].since_ms = at_ms  # with the delay that the decisions had then
            self._rest.excuse(run_id, "")
        for record in self._early.values():
            self._judge_early(record)
        for decided in self._expected.values():
            self._judge_expected(decided)
        for run_id, _, place, offset in self._unanswered.values():
            if place is not None and f"{place.topic}:{place.partition}:{offset}" not in self._letters.buried:
                self._rest.suspects.add(run_id)
        self._letters.finish()
        self.report.checked.update({"I1": 0, "I14": 0})

    def result(self) -> StreamResult:
        """Finish, and return what was found. Call it once."""
        self.finish()
        rest, report = self._rest, self.report
        lost = self._came - self._letters.buried
        for run_id, reasons in rest.excused.items():
            if len(reasons.keys() - {""}) > 1:  # published, and decided otherwise
                rest.suspects.add(run_id)
        if rest.suspects or lost or not report.good:
            return StreamResult(report, clean=False, suspects=rest.suspects | rest.excused.keys())
        for reasons in rest.excused.values():
            report.unchecked.update({why: count for why, count in reasons.items() if why})
        return StreamResult(report, clean=True, suspects=set())

    def _judge_expected(self, decided: _Decided) -> None:
        part = self.partitions[decided.number]
        place = TopicPartition(self.inbox, decided.number)
        if decided.run_id in part.unseen:
            self._rest.excuse(decided.run_id, _BEFORE_HEAD)
        elif self._committed is not None and decided.offset >= self._committed.get(place, 0):
            self._rest.excuse(decided.run_id, self._uncommitted)
        else:
            self._rest.suspects.add(decided.run_id)

    def _judge_early(self, record: Record) -> None:
        """Judge a published record that nothing led to."""
        if record.topic == self._topology.dead:
            headers = dict(record.headers)
            self._excuse_or_suspect((headers.get("mesh-dlq-run") or b"").decode("utf-8", "replace"), record)
            return
        event = read_event(record)
        if isinstance(event, Unreadable):
            self.report.unchecked[f"not an event, on {record.topic}"] += 1
        elif event.kind == OUTCOME and event.type == REJECTED_TYPE:
            self.report.unchecked["answers to requests that opened no run"] += 1
        elif event.kind in (TASK, EGRESS, OUTCOME):
            self._excuse_or_suspect(event.run_id, record)
        else:
            self.report.unchecked[f"from others, on {record.topic}"] += 1

    def _excuse_or_suspect(self, run_id: str, record: Record) -> None:
        since_ms = max((part.since_ms for part in self.partitions.values()), default=-1)
        if any(run_id in part.unseen for part in self.partitions.values()) or record.timestamp <= since_ms:
            self._rest.excuse(run_id, _PUBLISHED_BEFORE)
        elif self._until_ms is not None and record.timestamp >= self._until_ms:
            self._rest.excuse(run_id, _LATE)
        else:
            self._rest.suspects.add(run_id)

    def _hash(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers) -> int:
        """Return the hash of a record as it is stored."""
        if headers.__class__ is PackedHeaders:
            assert isinstance(headers, PackedHeaders)
            return self._digest((topic, key, value, headers.names, *headers.values))
        if len(headers) == 1:
            ((name, packed),) = headers
            return self._digest((topic, key, value, (name,), packed))
        names = tuple([name for name, _ in headers])
        return self._digest((topic, key, value, names, *[one for _, one in headers]))
