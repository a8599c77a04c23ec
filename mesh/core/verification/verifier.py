"""`Verifier` checks the records on the log against the invariants. Pure and streaming.

    verifier = Verifier(CheckScope(topology, heads=…, committed=…))
    verifier.take_published(record)     # 1. task, egress, outcome and dead letter topics
    verifier.take_original(record)      # 2. records that dead letters point at (`origins` names them)
    verifier.take_ingress(record)       #    and those of ingress topics, all of them or none
    verifier.take_inbox(record)         # 3. mesh.inbox, decided again by `Partition`
    report = verifier.report()          # 4. what remains open is judged here

The steps keep this order, since the log is read once. Within a step partitions may come in any order, each in offset
order. `mesh verify` streams (mesh/operations/verification.py), and so do the chaos tests. Tests that hold all records
in memory use `tests.log_check`, which adds checks of submissions (I1, I14), commits (I7), board histories (I10) and of
open runs at rest (I11).

For a *live* mesh, read first the committed offsets, then the ends of the published topics, then those of the inbox, and
read no further than these. A decision at or beyond the committed offset need not be published yet: it is counted as
`unchecked`.

The invariants are listed in `INVARIANTS` (report.py), including those that records cannot show. At most
`VIOLATIONS_KEPT` violations are kept, the first of each invariant among them; all are counted.
"""

from collections.abc import Container, Sequence

import orjson

from mesh.core.ingress.admission import REJECTED_TYPE
from mesh.core.protocol.codec import Unreadable, plain_headers, read_event
from mesh.core.protocol.event import EGRESS, OUTCOME, TASK, Event
from mesh.core.protocol.record import Record, TopicPartition, coordinates
from mesh.core.publishing.effect_records import OUTCOME_FIELDS_1
from mesh.core.state.partition_state import RULES
from mesh.core.topology.model import Topology
from mesh.core.verification.letters import LetterFacts, Letters
from mesh.core.verification.publish_index import ANSWERED, MATCHED, PublishedRecord, PublishIndex, mark
from mesh.core.verification.replay_check import CheckScope, ReplayCheck
from mesh.core.verification.report import Observer, VerificationReport, Violation


class Verifier:
    """Checks one mesh; see the module."""

    def __init__(
        self, scope: CheckScope, observer: Observer | None = None, *, only: Container[str] | None = None
    ) -> None:
        """`only`: ids of the runs whose published records are compared; None: all. Everything else is checked for all
        runs."""
        self._topology = scope.topology
        self._only = only
        known = () if scope.kept is None else scope.kept.topologies.values()
        self._depth_max = max(one.limits.depth_max for one in (scope.topology, *known))
        self.committed = dict(scope.committed or {})
        """Committed offsets of workers and intake; a caller may raise them until `report`."""
        self._published = PublishIndex()
        self._observer = Observer() if observer is None else observer
        self._report = VerificationReport()
        self._until_ms = scope.until_ms
        self.replay = ReplayCheck(scope, self._published, self._observer, self._report, only=only)
        self._letters = Letters(scope.topology, self._report)
        self._came: dict[str, int] = {}
        """Coordinates of ingress records without a known effect so far → their time of arrival."""
        self._unseen: set[bytes] = set()
        """Marks of the runs that began before the head of their partition."""
        self._since_ms = -1
        """Records published up to this time may follow from inbox records that were removed."""

    # ------------------------------------------------------------------------------------------------------ the steps

    def take_published(self, record: Record) -> None:
        """Step 1: take a record of a task topic, an egress topic, mesh.outcomes or mesh.dead."""
        if self.replay.partitions:
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
            self._observer.see_refusal(event.run_id, "", "")
        elif event.kind in (TASK, EGRESS, OUTCOME):
            if event.kind == TASK:
                self._check_task(event, record)
            elif event.kind == OUTCOME and _rules_of(event) != RULES:
                self.replay.other_rules.add(mark(event.run_id))
            if self._is_wanted(event.run_id):
                self._published.add(record, event.id, event.run_id)
        else:
            self._report.unchecked[f"from others, on {record.topic}"] += 1

    @property
    def origins(self) -> Sequence[str]:
        """Coordinates outside the inbox that dead letters point at, without those given to `take_original`."""
        return self._letters.origins

    def take_original(self, record: Record) -> None:
        """Step 2: take a record that a dead letter may point at."""
        self._letters.take_original(record)

    def take_ingress(self, record: Record) -> None:
        """Step 2: take a record of an ingress topic. Below intake's commit it is a request or a dead letter."""
        self._report.records[record.topic] += 1
        if record.offset < self.committed.get(TopicPartition(record.topic, record.partition), 0):
            self._report.checked["I7"] += 1
            where = coordinates(record)
            if where not in self._letters.buried:
                self._came[where] = record.timestamp

    def take_inbox(self, record: Record) -> None:
        """Step 3: take a record of mesh.inbox and decide it again. Raises ValueError if it is out of order."""
        if self._came:
            origin = next((value for name, value in plain_headers(record.headers) if name == "mesh-origin"), None)
            self._came.pop((origin or b"").decode("utf-8", "replace"), None)
        self.replay.take(record)

    def report(self) -> VerificationReport:
        """Step 4: judge the rest and return the report. Call it once."""
        report = self._report
        self.replay.finish()
        partitions = self.replay.partitions.values()
        self._unseen = {mark(run_id) for part in partitions for run_id in part.unseen} | self.replay.other_rules
        self._since_ms = max((part.since_ms for part in partitions), default=-1)
        for variants in self._published:
            self._judge_published(variants)
        for where, at_ms in self._came.items():
            if at_ms <= self._since_ms:
                report.unchecked["requests that the inbox may have lost"] += 1
            else:
                what = "intake's committed offset passed a record that had no effect"
                report.add(Violation("I7", where, what, "a request on the inbox, or a dead letter"))
        report.checked.update({"I1": 0, "I14": 0})  # keys of the output; `tests.log_check` counts them
        report.copies = self._published.copies
        self._letters.finish()
        return report

    # ----------------------------------------------------------------------------------------------- what was published

    def _check_task(self, task: Event, record: Record) -> None:
        """I4: check the depth and path of a task by themselves."""
        self._report.checked["I4"] += 1
        depth_max = self._depth_max
        if task.depth != len(task.path) or task.path[-1:] != (task.agent,) or not 1 <= task.depth <= depth_max:
            got = f"depth {task.depth} and path {','.join(task.path)[:256]!r}"
            what = f"a task for {task.agent!r} has a depth or path that none can have"
            where = coordinates(record)
            expected = f"a path that ends with it, as long as its depth, at most {depth_max}"
            self._report.add(Violation("I4", where, what, expected, got, task.run_id, published=where))

    def _take_letter(self, record: Record) -> None:
        letter = self._letters.take(record)
        self._observe_letter(letter)
        if not self._is_wanted(letter.run_id) and not letter.of_refused:
            return
        self._published.add(record, letter.id, letter.run_id)
        if letter.from_outside or letter.of_refused:  # a refused record is explained by its letter
            self._published.flag(record.topic, letter.id, MATCHED)

    def _is_wanted(self, run_id: str) -> bool:
        return self._only is None or run_id in self._only

    def _observe_letter(self, letter: LetterFacts) -> None:
        if letter.whole or letter.of_request:
            self._observer.see_refusal(letter.run_id, letter.event_id, letter.origin)

    def _judge_published(self, variants: Sequence[PublishedRecord]) -> None:
        explained = any(sent.flags & MATCHED for sent in variants)
        for sent in variants:
            self._report.checked["I3"] += 1
            answerable = self._until_ms is None and sent.topic.startswith(self._topology.tasks(""))
            if answerable and not sent.flags & ANSWERED:
                self._judge_unanswered(sent)
            if sent.flags & MATCHED or sent.where in self._letters.buried:
                continue
            if sent.run in self._unseen or sent.at_ms <= self._since_ms:
                self._report.unchecked["published by runs that began before the head of the inbox"] += 1
            elif self._until_ms is not None and sent.at_ms >= self._until_ms:
                self._report.unchecked["published after the window"] += 1
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
        """I7 of workers: a task below the committed offset has an answer on the inbox, or is a dead letter."""
        committed = self.committed.get(TopicPartition(sent.topic, sent.partition), 0)
        if sent.first >= committed or sent.where in self._letters.buried:
            return
        if sent.at_ms <= self._since_ms:
            self._report.unchecked["tasks whose answers the inbox may have lost"] += 1
            return
        what = "the committed offset passed a task without an answer"
        self._report.add(Violation("I7", sent.where, what, "an answer on the inbox", f"committed at {committed}"))


def _rules_of(outcome: Event) -> int:
    """Return the version of the rules that decided an outcome. Version 1 did not write it; an invalid outcome counts as
    one of the current version."""
    try:
        body = orjson.loads(outcome.data)
    except orjson.JSONDecodeError:
        return RULES
    whole = isinstance(body, dict) and body.keys() >= OUTCOME_FIELDS_1
    return int(body.get("rules", 1)) if whole else RULES


def published_topics(*topologies: Topology) -> Sequence[str]:
    """Return the topics on which the orchestrator publishes, for `Verifier.take_published`."""
    found: dict[str, None] = {}
    for topology in topologies:
        egress = [rule.name for rule in topology.topics.values() if rule.egress]
        tasks = [topology.tasks(name) for name in topology.agents]
        found |= dict.fromkeys((*tasks, topology.outcomes, topology.dead, *egress))
    return tuple(found)
