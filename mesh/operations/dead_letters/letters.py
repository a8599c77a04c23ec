"""The dead letters of a mesh, and the operations on them. See the package."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Final, NamedTuple

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Clock, Log
from mesh.core.dead_letters.letter import Letter, letter_of
from mesh.core.dead_letters.redrive_log import (
    DONE,
    DROPPED,
    PLANNED,
    SENT,
    LetterStatus,
    RedriveEntry,
    RedriveLedger,
)
from mesh.core.dead_letters.redrive_plan import (
    AlreadyDone,
    Obstacle,
    RedriveOptions,
    RunContext,
    Sending,
    plan_redrive,
    was_taken,
)
from mesh.core.errors import InvalidInput, NotFound
from mesh.core.protocol.codec import plain_headers
from mesh.core.protocol.record import TopicPartition, UnreadValue
from mesh.core.selection.where import Where
from mesh.core.topology.model import Topology
from mesh.operations.dead_letters.follow_up import CLOCKS_APART_MS_MAX, FollowUp
from mesh.operations.dead_letters.redrive_journal import Journal
from mesh.operations.dead_letters.run_context import histories_of, requests_of
from mesh.operations.dead_letters.sending import Order, Sender, no_progress, whoami
from mesh.runtime.log_reader import bounds_between, end_offsets, read_records, record_at

NAMES_SHOWN_MAX: Final = 5


class Selection(NamedTuple):
    """A selection of letters. None and (): any."""

    names: Sequence[str] = ()
    """Ids or beginnings of ids, or `topic:partition:offset`."""
    agent: str | None = None
    reason: str | None = None
    type: str | None = None
    run: str | None = None
    """Id of the run, or its beginning."""
    since_ms: int | None = None
    until_ms: int | None = None
    where: Where | None = None
    """Condition on the payload, and on `Letter.attributes`."""

    def fits(self, letter: Letter) -> bool:
        """Return whether a letter matches all fields except `names`."""
        return (
            (self.agent is None or letter.agent == self.agent)
            and (self.reason is None or letter.reason == self.reason)
            and (self.type is None or letter.type == self.type)
            and (self.run is None or letter.run_id.startswith(self.run))
            and (self.since_ms is None or letter.at_ms >= self.since_ms)
            and (self.until_ms is None or letter.at_ms < self.until_ms)
            and (self.where is None or self.where.holds(letter.payloads(), letter.attributes()))
        )


ALL: Final = Selection()
AS_IT_IS: Final = RedriveOptions()


class Case(NamedTuple):
    """A letter and its status."""

    letter: Letter
    status: LetterStatus
    changed: bool = False
    """Whether its payload (from a file) differs from that of the letter on the log."""


class RedrivePlan(NamedTuple):
    """The plan of a redrive, letter by letter."""

    sendings: Sequence[Sending]
    obstacles: Sequence[Obstacle]
    already_done: Sequence[AlreadyDone]
    how: RedriveOptions
    ledger_end: int
    """End of the ledger at the time of the plan."""


class RedriveReport(NamedTuple):
    """The report of a redrive."""

    sent: Sequence[RedriveEntry]
    refused: Sequence[RedriveEntry]
    """Entries that the log refused."""
    elsewhere: Sequence[Sending]
    """Letters that another process redrove at the same moment."""
    since: Mapping[TopicPartition, int]
    """Ends of outcomes and dead letters before any of these was sent."""


class DeadLetters:
    """The dead letters of one mesh. `topic`: another queue, of Connect, Streams, Spring or a share group."""

    def __init__(self, log: Log, topology: Topology, *, topic: str = "", clock: Clock | None = None) -> None:
        self._log = log
        self._topology = topology
        self._topic = topic or topology.dead
        self._clock = clock or SystemClock()
        self._journal = Journal(log, topology)
        self._sender = Sender(log, topology, self._journal, self._clock)
        self._followed = FollowUp(log, topology, self._journal, self._clock)

    # ------------------------------------------------------------------------------------------------------ reading

    async def select(self, chosen: Selection = ALL, *, dropped: bool = True) -> list[Case]:
        """Return the selected letters, oldest first, each once. `dropped`: whether dropped letters are included.

        Raises NotFound for a name that no letter has, InvalidInput (`ambiguous`) for one that several have.
        """
        ledger, _ = await self._journal.read()
        letters: dict[str, Letter] = {}
        since_ms = 0 if chosen.names else chosen.since_ms or 0
        bounds = await bounds_between(self._log, self._topic, since_ms)
        async with aclosing(read_records(self._log, self._topic, bounds)) as stored:
            async for record in stored:
                letter = letter_of(record)
                letters.setdefault(letter.id, letter)
        if chosen.names:
            letters = self._find_named(letters, chosen.names)
        fitting = (Case(letter, ledger.status_of(letter)) for letter in letters.values() if chosen.fits(letter))
        found = [case for case in fitting if dropped or case.status.state != DROPPED]
        return sorted(found, key=lambda case: (case.letter.at_ms, case.letter.record.offset))

    async def entries(self, letter_id: str) -> Sequence[RedriveEntry]:
        """Return the ledger's entries about a letter, in order."""
        return (await self._journal.read())[0].of(letter_id)

    async def with_statuses(self, letters: Sequence[tuple[Letter, bool]]) -> list[Case]:
        """Add the status to letters of an export; each flag says whether the payload was changed there."""
        ledger, _ = await self._journal.read()
        return [Case(letter, ledger.status_of(letter), changed) for letter, changed in letters]

    def _find_named(self, letters: Mapping[str, Letter], names: Sequence[str]) -> dict[str, Letter]:
        found: dict[str, Letter] = {}
        for name in names:
            fits = [one for one in letters.values() if one.id.startswith(name) or one.position == name]
            if not fits:
                raise NotFound(
                    f"no dead letter {name[:128]!r}", where=self._topic, remedy="`mesh dead list` shows them"
                )
            if len(fits) > 1 and name not in letters:
                shown = ", ".join(one.id for one in fits[:NAMES_SHOWN_MAX])
                raise InvalidInput(
                    f"{len(fits)} dead letters begin so",
                    code="ambiguous",
                    where=name[:128],
                    got=shown,
                    remedy="Give more of the id",
                )
            letter = letters.get(name, fits[0])
            found[letter.id] = letter
        return found

    # ----------------------------------------------------------------------------------------------------- planning

    async def plan(self, cases: Sequence[Case], how: RedriveOptions = AS_IT_IS) -> RedrivePlan:
        """Plan a redrive of these letters. Sends nothing. Raises InvalidInput if a change does not fit a payload."""
        ledger, end = await self._journal.read()
        statuses = [ledger.status_of(case.letter) for case in cases]
        new_runs = [c.letter.run_id for c, s in zip(cases, statuses, strict=True) if how.as_new or s.begins_run]
        requests = await requests_of(self._log, self._topology, {run_id for run_id in new_runs if run_id})
        kin = await self._kin(cases, statuses) if how.again and not how.as_new else {}
        steps: list[Sending | Obstacle | AlreadyDone] = []
        at_ms = self._log.now_ms()
        for case, status in zip(cases, statuses, strict=True):
            letter = await self._whole(case.letter)
            own = how._replace(data=letter.value) if case.changed and how.data is None else how
            consumed = requests.get(letter.run_id, ())
            steps.append(plan_redrive(letter, status, own, self._topology, consumed, at_ms, kin.get(letter.id)))
        return RedrivePlan(
            [step for step in steps if isinstance(step, Sending)],
            [step for step in steps if isinstance(step, Obstacle)],
            await self._with_results([step for step in steps if isinstance(step, AlreadyDone)], ledger),
            how,
            end,
        )

    async def _kin(self, cases: Sequence[Case], statuses: Sequence[LetterStatus]) -> dict[str, RunContext]:
        """Return the runs of letters whose task was sent before, by the letter's id."""
        sent = [
            Case(case.letter, status)
            for case, status in zip(cases, statuses, strict=True)
            if status.n and status.state != PLANNED and case.letter.run_id and case.letter.task_id
        ]
        runs = {case.letter.run_id for case in sent}
        if not runs:
            return {}
        letters: dict[str, dict[str, Letter]] = {}
        bounds = await self._log.bounds(self._topology.dead)
        async with aclosing(read_records(self._log, self._topology.dead, bounds)) as stored:
            async for record in stored:
                letter = letter_of(record)
                if letter.run_id in runs and letter.task_id:
                    letters.setdefault(letter.run_id, {}).setdefault(letter.id, letter)
        histories = await histories_of(self._log, self._topology, runs)
        found: dict[str, RunContext] = {}
        for letter, status, _ in await self.results(sent):
            others = tuple(letters.get(letter.run_id, {}).values())
            found[letter.id] = RunContext(histories[letter.run_id].run, others, status.last)
        return found

    async def _whole(self, letter: Letter) -> Letter:
        """Add the missing bytes of a letter, if its original record still exists."""
        origin = letter.origin
        if not letter.omitted or origin is None or (letter.run_id and not letter.task_id):
            return letter  # the original record of a refused hop holds more than the hop
        found = await record_at(self._log, origin.topic, origin.partition, origin.offset)
        if found is None or found.value is None or isinstance(found.value, UnreadValue):
            return letter
        headers = letter.headers if letter.task_id else plain_headers(found.headers)
        return replace(letter, value=found.value, key=found.key, headers=headers, omitted="")

    async def _with_results(self, settled: Sequence[AlreadyDone], ledger: RedriveLedger) -> list[AlreadyDone]:
        """Add the results on the log to letters that were sent before."""
        cases = await self.results([Case(step.letter, ledger.status_of(step.letter)) for step in settled])
        steps = [AlreadyDone(case.letter, str(case.status)) for case in cases]
        as_new = "--again --as-new begins a new run"
        return [s._replace(remedy=as_new) if was_taken(c.status.last) else s for s, c in zip(steps, cases, strict=True)]

    # ------------------------------------------------------------------------------------------------------- acting

    async def redrive(
        self,
        planned: RedrivePlan,
        *,
        by: str = "",
        per_second: float | None = None,
        on_progress: Callable[[int], None] = no_progress,
    ) -> RedriveReport:
        """Send the planned letters. `per_second`: limit of letters; `on_progress`: receives the number of letters sent.

        Raises LogUnavailable; planned and redriven again, it continues with the rest.
        """
        since = await self._before(planned)
        order = Order(by or whoami(), planned.how.force, planned.ledger_end, per_second)
        sent, refused, elsewhere = await self._sender.send(planned.sendings, order, on_progress=on_progress)
        return RedriveReport(sent, refused, elsewhere, since)

    async def drop(self, cases: Sequence[Case], *, by: str = "", reason: str = "") -> list[RedriveEntry]:
        """Mark these letters as dropped: lists omit them. Their records stay on the log."""
        at_ms, who = self._log.now_ms(), by or whoami()
        entries = [
            RedriveEntry(case.letter.id, 0, DROPPED, who, at_ms, reason=reason)
            for case in cases
            if case.status.state != DROPPED
        ]
        await self._journal.note(entries)
        return entries

    async def _before(self, planned: RedrivePlan) -> dict[TopicPartition, int]:
        """Return the positions from which results are read: the ends now, or those before an interrupted redrive."""
        topics = (self._topology.outcomes, self._topology.dead)
        interrupted = [sending.interrupted.at_ms for sending in planned.sendings if sending.interrupted]
        if not interrupted:
            return await end_offsets(self._log, *topics)
        since_ms = min(interrupted) - CLOCKS_APART_MS_MAX
        spans = {topic: await bounds_between(self._log, topic, since_ms) for topic in topics}
        return {TopicPartition(topic, n): b.start for topic, span in spans.items() for n, b in span.items()}

    # ------------------------------------------------------------------------------------------------ what followed

    async def wait(
        self, report: RedriveReport, *, timeout_s: float = 60.0, on_progress: Callable[[int], None] = no_progress
    ) -> list[RedriveEntry]:
        """Wait for the results of everything sent, and note them. Raises WaitTimeout."""
        return await self._followed.wait(report.sent, report.since, timeout_s=timeout_s, on_progress=on_progress)

    async def results(self, cases: Sequence[Case]) -> list[Case]:
        """Return the same cases with the results that are on the log. Writes nothing."""
        sent = [case.status.last for case in cases if case.status.last and case.status.state == SENT]
        results = await self._followed.results(sent)
        found: list[Case] = []
        for case in cases:
            last = case.status.last
            if last is not None and last.key in results:
                last = last._replace(state=DONE, result=results[last.key])
                case = case._replace(status=case.status._replace(state=DONE, last=last))
            found.append(case)
        return found
