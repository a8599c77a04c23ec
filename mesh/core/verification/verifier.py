"""`Verifier`: do the records on the log say what the invariants promise? Pure, streaming, for three users.

    verifier = Verifier(topology, heads=…, committed=…, quiescent=True)
    verifier.take_submission(Asked("run-1", "order-17"))     # 1. the ledger of submissions, if there is one
    verifier.take_published(record)                          # 2. task, egress, outcome and dead letter topics
    verifier.take_original(record)                      # 3. records that dead letters point at (`origins` names them)
    verifier.take_ingress(record)                          #    and those of ingress topics, all of them or none
    verifier.take_inbox(record)                         # 4. mesh.inbox, re-decided by `fold.Partition`
    verifier.take_commit(place, offset)           #    whenever: commits in the order in which they were accepted
    report = verifier.report()                     # 5. what remains open is judged here

The steps in this order, since the log is read once; within a step partitions in any order, each in offset order.
`check` does all of it for records held in memory, which is what the simulator and tests want. The chaos tests and
`mesh verify` (mesh/operations/verification.py) stream. A *live* mesh is verified by reading first `committed`, then the
ends of the published topics, then those of the inbox, and no further than these: what was decided at or beyond the
committed offset need not be published yet, and is counted as `unchecked`.

    topology    of the mesh as it is now; `kept`: what mesh.topologies says. An `adopted` record of the inbox says under
                which of them runs are opened from there on. Before the first of these, the one is taken under which the
                first effects of a run are those that were published
    states      makes the fold of a partition number, for one that was restored from a checkpoint
    heads       first offset held, of every partition of every topic; default: all are whole. Where retention removed
                the head of an inbox partition, runs that began before it cannot be decided again: they are counted in
                `unchecked`, like records whose topic lost its head
    ends        where the partitions of the inbox end, if not all of their records are handed in (those of one run)
    committed   group places: of mesh.inbox, of task and ingress topics. None: all that was decided must be published
    checkpoints the state that stands checkpointed for inbox partitions, by number: compared when the fold comes there
    quiescent   nothing is under way any more: an open run is a violation (I11)

What is checked is in `INVARIANTS` (core/verification/report.py), with what cannot be seen in records. At most
`VIOLATIONS_KEPT` violations are kept, the first of each invariant among them; all are counted.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import orjson

from mesh.core.ingress.admission import REJECTED_TYPE
from mesh.core.protocol.codec import Unreadable, read_event
from mesh.core.protocol.event import EGRESS, OUTCOME, REQUESTED, TASK, Event, derive_id
from mesh.core.protocol.record import Record, TopicPartition, coordinates
from mesh.core.publishing.effect_records import OUTCOME_FIELDS_1
from mesh.core.reason_codes import DEAD, REASONS
from mesh.core.state.partition_state import RULES, Partition
from mesh.core.state.topology_registry import Registry
from mesh.core.topology.model import Topology
from mesh.core.verification.publish_index import ANSWERED, MATCHED, PublishedRecord, PublishIndex, digest_of, mark
from mesh.core.verification.replay_check import ReplayCheck
from mesh.core.verification.report import INVARIANTS, Submission, VerificationReport, Violation
from mesh.core.verification.submissions import SubmissionLedger

__all__ = ["INVARIANTS", "Submission", "VerificationReport", "Verifier", "Violation", "check", "published_topics"]


class Verifier:
    """See the module."""

    def __init__(
        self,
        topology: Topology,
        *,
        states: Callable[[int], Partition] | None = None,
        heads: Mapping[TopicPartition, int] | None = None,
        committed: Mapping[TopicPartition, int] | None = None,
        quiescent: bool = False,
        kept: Registry | None = None,
        ends: Mapping[TopicPartition, int] | None = None,
        checkpoints: Mapping[int, Partition] | None = None,
    ) -> None:
        self._topology = topology
        known = () if kept is None else kept.topologies.values()
        self._depth_max = max(one.limits.depth_max for one in (topology, *known))
        self._committed = committed or {}
        self._quiescent = quiescent
        self._published = PublishIndex()
        self._ledger = SubmissionLedger()
        self._report = VerificationReport()
        self._again = ReplayCheck(
            topology,
            self._published,
            self._ledger,
            self._report,
            states=states,
            heads=heads,
            committed=committed,
            kept=kept,
            ends=ends,
            checkpoints=checkpoints,
        )
        self._pointing: dict[str, tuple[str, bytes]] = {}
        """Coordinates → where the dead letter lies that points there, and the digest of what it says lay there."""
        self._buried: set[str] = set()
        """Coordinates that dead letters point at."""
        self._came: dict[str, int] = {}
        """Coordinates of ingress records that nothing came of so far → when they came."""
        self._commits: dict[TopicPartition, int] = {}
        self._unseen: set[bytes] = set()
        """Marks of the runs that began before the head of their partition."""
        self._since_ms = -1
        """What was published up to this time may follow from what is no longer on the inbox."""

    # ------------------------------------------------------------------------------------------------------ the steps

    def take_submission(self, entry: Submission) -> None:
        """Step 1: a line of the ledger."""
        self._ledger.asked(entry)

    def take_published(self, record: Record) -> None:
        """Step 2: a record of a task topic, an egress topic, mesh.outcomes or mesh.dead."""
        if self._again.boxes:
            raise ValueError("published records come before those of the inbox")
        self._report.records[record.topic] += 1
        if record.topic == self._topology.dead:
            self._take_letter(record)
            return
        event = read_event(record)
        if isinstance(event, Unreadable):
            self._report.unchecked[f"not an event, on {record.topic}"] += 1
        elif event.kind == OUTCOME and event.type == REJECTED_TYPE:
            self._report.unchecked["answers to requests that opened no run"] += 1
            self._ledger.explained(event.run_id, "", "")
        elif event.kind in (TASK, EGRESS, OUTCOME):
            if event.kind == TASK:
                self._look_at_task(event, record)
            elif event.kind == OUTCOME and _rules_of(event) != RULES:
                self._again.other_rules.add(mark(event.run_id))
            self._published.add(record, event.id, event.run_id)
        else:
            self._report.unchecked[f"from others, on {record.topic}"] += 1

    @property
    def origins(self) -> Sequence[str]:
        """Coordinates outside the inbox that dead letters point at and that were not handed to `take_original` yet."""
        return tuple(self._pointing)

    def take_original(self, record: Record) -> None:
        """Step 3: a record that a dead letter may point at."""
        where = coordinates(record)
        letter, digest = self._pointing.pop(where, ("", b""))
        if not letter:
            return
        self._report.checked["I8"] += 1
        if digest_of(record.key, record.value, record.headers)[0] != digest:
            what = f"the dead letter differs from the record at {where}, which it points at"
            self._report.add(Violation("I8", letter, what, published=letter))

    def take_ingress(self, record: Record) -> None:
        """Step 3: a record of an ingress topic. Below intake's committed place it is a request or a dead letter."""
        self._report.records[record.topic] += 1
        if record.offset < self._committed.get(TopicPartition(record.topic, record.partition), 0):
            self._report.checked["I7"] += 1
            where = coordinates(record)
            if where not in self._buried:
                self._came[where] = record.timestamp

    def take_inbox(self, record: Record) -> None:
        """Step 4: a record of mesh.inbox, decided again. Raises ValueError when it comes out of order."""
        if self._came:
            origin = next((value for name, value in record.headers if name == "mesh-origin"), None)
            self._came.pop((origin or b"").decode("utf-8", "replace"), None)
        self._again.take(record)

    def take_commit(self, place: TopicPartition, offset: int) -> None:
        """A commit that was accepted, in the order of acceptance."""
        self._report.checked["I7"] += 1
        before = self._commits.get(place, 0)
        if offset < before:
            what = "a committed place went back"
            self._report.add(
                Violation("I7", f"{place.topic}:{place.partition}", what, f"at least {before}", f"{offset}")
            )
        self._commits[place] = max(before, offset)

    def report(self) -> VerificationReport:
        """Step 5: what was found. Call it once."""
        report = self._report
        self._again.judge(quiescent=self._quiescent)
        boxes = self._again.boxes.values()
        self._unseen = {mark(run_id) for box in boxes for run_id in box.unseen} | self._again.other_rules
        self._since_ms = max((box.since_ms for box in boxes), default=-1)
        for variants in self._published:
            self._judge_published(variants)
        for where, at_ms in self._came.items():
            if at_ms <= self._since_ms:
                report.unchecked["requests that the inbox may have lost"] += 1
            else:
                what = "intake's committed place passed a record of which nothing came"
                report.add(Violation("I7", where, what, "a request on the inbox, or a dead letter"))
        report.checked["I1"] = report.checked["I14"] = len(self._ledger)
        for violation in self._ledger.judge(self._may_end):
            report.add(violation)
        report.copies = self._published.copies
        if self._pointing:
            report.unchecked["records that dead letters point at"] += len(self._pointing)
        return report

    def _may_end(self, run_id: str) -> bool:
        if self._again.is_unseen(run_id):
            self._report.unchecked["submissions whose run began before the head of the inbox"] += 1
            return True
        if not self._quiescent and self._again.is_open(run_id):
            self._report.unchecked["submissions whose run is still open"] += 1
            return True
        return False

    # ----------------------------------------------------------------------------------------------- what was published

    def _look_at_task(self, task: Event, record: Record) -> None:
        """I4, as far as a task tells it by itself."""
        self._report.checked["I4"] += 1
        depth_max = self._depth_max
        if task.depth != len(task.path) or task.path[-1:] != (task.agent,) or not 1 <= task.depth <= depth_max:
            got = f"depth {task.depth} and path {','.join(task.path)[:256]!r}"
            what = f"a task for {task.agent!r} has a depth or path that none can have"
            where = coordinates(record)
            expected = f"a path that ends with it, as long as its depth, at most {depth_max}"
            self._report.add(Violation("I4", where, what, expected, got, task.run_id, published=where))

    def _take_letter(self, record: Record) -> None:
        headers = {name: (value or b"").decode("utf-8", "replace") for name, value in record.headers}
        where = coordinates(record)
        id, code, run_id = (headers.get(f"mesh-dlq-{name}", "") for name in ("id", "reason", "run"))
        self._report.checked["I8"] += 1
        if not id or not headers.get("__dlq.errors.message"):
            what = "a dead letter has no id, or no reason as a sentence"
            self._report.add(Violation("I8", where, what, "mesh-dlq-id and __dlq.errors.message", published=where))
        elif code not in REASONS or DEAD not in REASONS[code].seen_at:
            what = "a dead letter has a reason code that the table does not give to dead letters"
            self._report.add(Violation("I8", where, what, "one of core.reason_codes", code, run_id, published=where))
        topic = headers.get("__dlq.errors.topic", "")
        origin = ":".join((topic, headers.get("__dlq.errors.partition", ""), headers.get("__dlq.errors.offset", "")))
        self._published.add(record, id, run_id)
        whole = id == derive_id("dead", origin)
        if whole:
            self._buried.add(origin)
        if whole and topic != self._topology.inbox:
            if "mesh-dlq-omitted" not in headers:
                names = [name for name, _ in record.headers]
                ours = len(names) - 1 - names[::-1].index("__dlq.errors.topic")
                digest, _ = digest_of(record.key, record.value, record.headers[:ours])
                self._pointing[origin] = (where, digest)
            self._published.flag(record.topic, id, MATCHED)
        elif code.startswith("refused_"):  # the log refused what was to be published; what is missing looks for it
            self._published.flag(record.topic, id, MATCHED)
        if whole or headers.get("ce_meshkind") == REQUESTED:
            self._ledger.explained(run_id, headers.get("ce_id", ""), origin)

    def _judge_published(self, variants: Sequence[PublishedRecord]) -> None:
        explained = any(sent.flags & MATCHED for sent in variants)
        for sent in variants:
            self._report.checked["I3"] += 1
            if sent.topic.startswith(self._topology.tasks("")) and not sent.flags & ANSWERED:
                self._judge_unanswered(sent)
            if sent.flags & MATCHED or sent.where in self._buried:
                continue
            if sent.run in self._unseen or sent.at_ms <= self._since_ms:
                self._report.unchecked["published by runs that began before the head of the inbox"] += 1
            elif explained:
                what = "a copy differs from the one that was decided"
                expected = "copies that are equal byte for byte"
                invariant = {self._topology.outcomes: "I2", self._topology.dead: "I8"}.get(sent.topic, "I3")
                self._report.add(Violation(invariant, sent.where, what, expected, published=sent.where))
            else:
                what = "it was published, and nothing on the inbox leads to it"
                invariant = "I2" if sent.topic == self._topology.outcomes else "I6"
                self._report.add(Violation(invariant, sent.where, what, "nothing", published=sent.where))

    def _judge_unanswered(self, sent: PublishedRecord) -> None:
        """I7 of workers: a task below the committed place has an answer on the inbox, or is a dead letter."""
        place = TopicPartition(sent.topic, sent.partition)
        committed = max(self._commits.get(place, 0), self._committed.get(place, 0))
        if sent.first >= committed or sent.where in self._buried:
            return
        if sent.at_ms <= self._since_ms:
            self._report.unchecked["tasks whose answers the inbox may have lost"] += 1
            return
        what = "the committed place passed a task that nobody answered"
        self._report.add(Violation("I7", sent.where, what, "an answer on the inbox", f"committed at {committed}"))


def _rules_of(outcome: Event) -> int:
    """Version of the decisions that made an outcome; those of version 1 did not tell it. What has not the fields of an
    outcome was made by no version."""
    try:
        body = orjson.loads(outcome.data)
    except orjson.JSONDecodeError:
        return RULES
    whole = isinstance(body, dict) and body.keys() >= OUTCOME_FIELDS_1
    return int(body.get("rules", 1)) if whole else RULES


def check(
    topology: Topology,
    records: Mapping[str, Iterable[Record]],
    *,
    ledger: Iterable[Submission] = (),
    commits: Iterable[tuple[TopicPartition, int]] = (),
    states: Callable[[int], Partition] | None = None,
    heads: Mapping[TopicPartition, int] | None = None,
    committed: Mapping[TopicPartition, int] | None = None,
    checkpoints: Mapping[int, Partition] | None = None,
    quiescent: bool = True,
    kept: Registry | None = None,
) -> VerificationReport:
    """Check records held in memory: topic → its records, each partition in offset order. By default all is at rest."""
    verifier = Verifier(
        topology,
        states=states,
        heads=heads,
        committed=committed,
        quiescent=quiescent,
        checkpoints=checkpoints,
        kept=kept,
    )
    known = (topology,) if kept is None else (topology, *kept.topologies.values())
    for entry in ledger:
        verifier.take_submission(entry)
    for topic in published_topics(*known):
        for record in records.get(topic, ()):
            verifier.take_published(record)
    for topic in sorted({origin.rsplit(":", 2)[0] for origin in verifier.origins}):
        for record in records.get(topic, ()):
            verifier.take_original(record)
    for topic in sorted({rule.name for one in known for rule in one.topics.values() if rule.ingress}):
        for record in records.get(topic, ()):
            verifier.take_ingress(record)
    for record in records.get(topology.inbox, ()):
        verifier.take_inbox(record)
    for place, offset in commits:
        verifier.take_commit(place, offset)
    return verifier.report()


def published_topics(*topologies: Topology) -> Sequence[str]:
    """The topics on which the orchestrator publishes: what `Verifier.take_published` takes."""
    found: dict[str, None] = {}
    for topology in topologies:
        egress = [rule.name for rule in topology.topics.values() if rule.egress]
        tasks = [topology.tasks(name) for name in topology.agents]
        found |= dict.fromkeys((topology.dead, topology.outcomes, *tasks, *egress))
    return tuple(found)
