"""Checks of a log that only tests need, around `Verifier`: `check` takes records held in memory.

Beyond the verifier it checks a ledger of submissions (I1, I14), that commits do not go back (I7), that no work is left
at rest (I11), and the history of a board key (I10). A submission is *heard* if its request is on the inbox. It is
*ended* if the outcome of its run is on mesh.outcomes. It is *explained* if the request itself is a dead letter or was
rejected.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from mesh.core.protocol.record import Record, TopicPartition
from mesh.core.topology.model import Topology
from mesh.core.verification.replay_check import CheckScope
from mesh.core.verification.report import Observer, VerificationReport, Violation
from mesh.core.verification.stream_check import StreamCheck
from mesh.core.verification.verifier import Verifier, published_topics

ACKNOWLEDGED: Final = "acknowledged"
REFUSED: Final = "refused"
UNKNOWN: Final = "unknown"


class Submission(NamedTuple):
    """One line of a submitter's ledger. `answer`: ACKNOWLEDGED, REFUSED or UNKNOWN (a timeout).

    `place`: `topic:partition:offset` of the record, for submissions to ingress topics.
    """

    run_id: str
    event_id: str = ""
    answer: str = ACKNOWLEDGED
    place: str = ""


def check(
    topology: Topology,
    records: Mapping[str, Iterable[Record]],
    *,
    ledger: Iterable[Submission] = (),
    commits: Iterable[tuple[TopicPartition, int]] = (),
    quiescent: bool = True,
    **scope: Any,
) -> VerificationReport:
    """Check records held in memory: topic → its records, each partition in offset order. By default all is at rest.

    `commits`: in the order in which they were accepted; `scope`: further fields of CheckScope.
    """
    submissions = SubmissionLedger()
    verifier = Verifier(CheckScope(topology, **scope), submissions)
    kept = scope.get("kept")
    known = (topology,) if kept is None else (topology, *kept.topologies.values())
    for entry in ledger:
        submissions.take(entry)
    for topic in published_topics(*known):
        for record in records.get(topic, ()):
            verifier.take_published(record)
    _give_originals(verifier, records)
    for topic in sorted({rule.name for one in known for rule in one.topics.values() if rule.ingress}):
        for record in records.get(topic, ()):
            verifier.take_ingress(record)
    for record in records.get(topology.inbox, ()):
        verifier.take_inbox(record)
    backwards = list(_commit_violations(commits, verifier.committed))
    report = verifier.report()
    _expect_same(report, _streamed(topology, records, known, CheckScope(topology, **scope), verifier.committed))
    _add_submissions(report, verifier, submissions, quiescent=quiescent)
    for violation in (*backwards, *(_rest_violations(report, verifier, scope.get("committed")) if quiescent else ())):
        report.add(violation)
    return report


def _streamed(
    topology: Topology,
    records: Mapping[str, Iterable[Record]],
    known: Sequence[Topology],
    scope: CheckScope,
    committed: Mapping[TopicPartition, int],
) -> VerificationReport:
    """Check the same records as `mesh verify` does: in one pass by time, then only the runs that remain."""
    stream = StreamCheck(scope, hash)
    stream.committed |= committed
    ingress = sorted({rule.name for one in known for rule in one.topics.values() if rule.ingress})
    takes = dict.fromkeys(published_topics(*known), stream.take_published)
    takes |= {topology.inbox: stream.take_inbox} | dict.fromkeys(ingress, stream.take_ingress)
    order = (*ingress, topology.inbox, *published_topics(*known))
    for record in _by_time([record for topic in dict.fromkeys(order) for record in records.get(topic, ())]):
        takes[record.topic](record)
    _give_originals(stream, records)
    found = stream.result()
    if found.clean:
        return found.report
    rest = Verifier(scope, only=found.suspects)
    for topic in published_topics(*known):
        for record in records.get(topic, ()):
            rest.take_published(record)
    _give_originals(rest, records)
    for topic in ingress:
        for record in records.get(topic, ()):
            rest.take_ingress(record)
    for record in records.get(topology.inbox, ()):
        rest.take_inbox(record)
    rest.committed |= committed
    return rest.report()


def _by_time(records: Iterable[Record]) -> list[Record]:
    """Sort records by log time. Within a partition the order stays, even where its time goes back."""
    reached: dict[tuple[str, int], int] = {}
    times = []
    for record in records:
        place = (record.topic, record.partition)
        reached[place] = max(record.timestamp, reached.get(place, 0))
        times.append((reached[place], record))
    return [record for _, record in sorted(times, key=lambda timed: timed[0])]


def _give_originals(check: Verifier | StreamCheck, records: Mapping[str, Iterable[Record]]) -> None:
    for topic in sorted({origin.rsplit(":", 2)[0] for origin in check.origins}):
        for record in records.get(topic, ()):
            check.take_original(record)


def _expect_same(report: VerificationReport, streamed: VerificationReport) -> None:
    """The check in one pass finds what the check with an index of everything finds."""
    assert streamed.found == report.found, f"{streamed.violations}, with an index of everything {report.violations}"
    assert streamed.violations == report.violations
    assert streamed.unchecked == report.unchecked
    assert (streamed.records, streamed.endings) == (report.records, report.endings)
    assert (streamed.runs, streamed.open, streamed.copies) == (report.runs, report.open, report.copies)


def _commit_violations(
    commits: Iterable[tuple[TopicPartition, int]], committed: dict[TopicPartition, int]
) -> Iterator[Violation]:
    """I7: commits do not go back. Raises `committed` to the highest of them."""
    highest: dict[TopicPartition, int] = {}
    for place, offset in commits:
        before = highest.get(place, 0)
        if offset < before:
            where = f"{place.topic}:{place.partition}"
            yield Violation("I7", where, "a committed offset went back", f"at least {before}", f"{offset}")
        highest[place] = max(before, offset)
        committed[place] = max(highest[place], committed.get(place, 0))


def _add_submissions(
    report: VerificationReport, verifier: Verifier, submissions: "SubmissionLedger", *, quiescent: bool
) -> None:
    """I1, I14."""

    def may_end(run_id: str) -> bool:
        if any(run_id in part.unseen for part in verifier.replay.partitions.values()):
            report.unchecked["submissions whose run began before the head of the inbox"] += 1
            return True
        if not quiescent and any(run_id in part.state.runs for part in verifier.replay.partitions.values()):
            report.unchecked["submissions whose run is still open"] += 1
            return True
        return False

    report.checked["I1"] = report.checked["I14"] = len(submissions)
    for violation in submissions.judge(may_end):
        report.add(violation)


def _rest_violations(
    report: VerificationReport, verifier: Verifier, committed: Mapping[TopicPartition, int] | None
) -> Iterator[Violation]:
    """I11: no run is open, and no record of the inbox is left to be decided."""
    for number, part in verifier.replay.partitions.items():
        inbox = TopicPartition(verifier.replay.inbox, number)
        report.checked["I11"] += len(part.state.runs) + 1
        offset = None if committed is None else committed.get(inbox, 0)
        if offset is not None and offset < part.next:
            what = "records of the inbox are left to be decided"
            yield Violation("I11", f"{inbox.topic}:{number}", what, f"committed at {part.next}", f"{offset}")
        for run in part.state.runs.values():
            if run.id not in part.unseen:
                got = f"it waits for {', '.join(sorted({task.agent for task in run.open.values()})) or 'nothing'}"
                yield Violation("I11", f"run {run.id}", "a run is still open", "an ending", got, run.id)


@dataclass(slots=True)
class RunSubmissions:
    """One run of the ledger."""

    asked: list[Submission] = field(default_factory=list)
    heard: set[str] = field(default_factory=set)
    """Ids and places of its requests on the inbox."""
    ended: bool = False
    explained: set[str] = field(default_factory=set)
    """Ids and places of requests that were answered by a dead letter or a rejection; "" stands for any."""


class SubmissionLedger(Observer):
    """Submissions by run id and by position."""

    def __init__(self) -> None:
        self._claims: dict[str, RunSubmissions] = {}
        self._places: dict[str, RunSubmissions] = {}

    def __len__(self) -> int:
        return sum(len(claim.asked) for claim in self._claims.values())

    def take(self, entry: Submission) -> None:
        """Take one line."""
        claim = self._claims.setdefault(entry.run_id or entry.place, RunSubmissions())
        claim.asked.append(entry)
        if entry.place:
            self._places[entry.place] = claim

    def see_request(self, run_id: str, event_id: str, place: str) -> None:
        """A request lies on the inbox; `place`: where it lay on its ingress topic."""
        claim = self._places.get(place)
        if claim is not None and run_id not in self._claims:
            self._claims[run_id] = claim  # it was submitted without naming its run
        claim = self._claims.get(run_id)
        if claim is not None:
            claim.heard |= {event_id, place}

    def see_ending(self, run_id: str) -> None:
        """The outcome of a run lies on mesh.outcomes."""
        claim = self._claims.get(run_id)
        if claim is not None:
            claim.ended = True

    def see_refusal(self, run_id: str, event_id: str, place: str) -> None:
        """A request was refused, and that was said."""
        for claim in (self._claims.get(run_id), self._places.get(place)):
            if claim is not None:
                claim.explained |= {event_id, place} - {""} if event_id or place else {""}

    def judge(self, under_way: Callable[[str], bool]) -> Iterator[Violation]:
        """Return the violations of the ledger. `under_way`: whether a run may still end, or cannot be judged."""
        judged: set[int] = set()
        for run_id, claim in self._claims.items():
            if id(claim) in judged:
                continue
            judged.add(id(claim))
            for entry in claim.asked:
                yield from self._judge(entry, claim, run_id, under_way)

    def _judge(
        self, entry: Submission, claim: RunSubmissions, run_id: str, under_way: Callable[[str], bool]
    ) -> Iterator[Violation]:
        names = {entry.event_id, entry.place} - {""}
        heard = bool(names & claim.heard if names else claim.heard)
        explained = "" in claim.explained or bool(names & claim.explained if names else claim.explained)
        where = entry.place or f"run {entry.run_id}"
        if entry.answer == REFUSED and heard:
            what = f"submission {entry.event_id!r} was answered as refused, and is on the inbox"
            yield Violation("I14", where, what, run_id=entry.run_id)
        if entry.answer != ACKNOWLEDGED or explained or claim.ended or under_way(run_id):
            return
        what = f"submission {entry.event_id!r} was acknowledged"
        got = "its run has no ending" if heard else "it is not on the inbox"
        yield Violation("I1", where, what, "an ending, or a refusal that is explained", got, entry.run_id)


def board_history_violations(
    key: str, history: Sequence[tuple[str, bytes]], written: Iterable[str] = (), *, whole: bool = True
) -> Iterator[Violation]:
    """I10: versions and values of one board key, oldest first. In an incarnation (`incarnation:counter`) versions rise,
    and none comes back. `written`: versions that writers were told; each stands there once, unless its incarnation was
    lost with all it held. `whole`: the history was not cut at its beginning."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    current = ""
    for version, _ in history:
        incarnation, _, counter = version.rpartition(":")
        number = int(counter)
        before = last.get(incarnation)
        if before is not None and (incarnation != current or number <= before):
            yield Violation("I10", key, "versions do not rise", f"one beyond {incarnation}:{before}", version)
        first.setdefault(incarnation, number)
        last[incarnation] = number
        current = incarnation
    counted = Counter(version for version, _ in history)
    for version in written:
        incarnation, _, counter = version.rpartition(":")
        kept = incarnation in last and (whole or int(counter) >= first[incarnation])
        if kept and counted[version] != 1:
            got = f"{counted[version]} times"
            yield Violation("I10", key, f"a writer was told version {version}", "it once in the history", got)
