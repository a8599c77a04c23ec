"""The dead letters of a mesh, and the operations on them. See the package."""

import getpass
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Final, NamedTuple

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Appended, Bounds, Clock, Log, Refused
from mesh.core.dead_letters.letter import REDRIVE, Letter, letter_of
from mesh.core.dead_letters.redrive_log import (
    DONE,
    DROPPED,
    PLANNED,
    REFUSED,
    SENT,
    LetterStatus,
    RedriveEntry,
    RedriveLedger,
)
from mesh.core.dead_letters.redrive_plan import (
    TOPIC,
    AlreadyDone,
    Obstacle,
    RedriveOptions,
    RunContext,
    Sending,
    plan_redrive,
    was_taken,
)
from mesh.core.errors import InvalidInput, NotFound
from mesh.core.ingress.admission import admit
from mesh.core.ingress.request_formats import Rejection
from mesh.core.protocol.codec import plain_headers
from mesh.core.protocol.record import StoredRecord, TopicPartition, UnreadValue, coordinates
from mesh.core.selection.where import Where
from mesh.core.topology.model import Topology
from mesh.operations.dead_letters.follow_up import CLOCKS_APART_MS_MAX, FollowUp, no_progress
from mesh.operations.dead_letters.redrive_journal import Journal, planned_entry
from mesh.operations.dead_letters.run_context import histories_of, requests_of
from mesh.runtime.log_reader import bounds_between, end_offsets, read_records, record_at

CHUNK_MAX: Final = 100
"""Letters sent, and noted as sent, in one append."""
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


def whoami() -> str:
    """Return `user@host` for the ledger."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):  # a container may run under a number that has no name
        return f"somebody@{socket.gethostname()}"


class DeadLetters:
    """The dead letters of one mesh. `topic`: another queue, of Connect, Streams, Spring or a share group."""

    def __init__(self, log: Log, topology: Topology, *, topic: str = "", clock: Clock | None = None) -> None:
        self._log = log
        self._topology = topology
        self._topic = topic or topology.dead
        self._clock = clock or SystemClock()
        self._journal = Journal(log, topology)
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
        places = await self._before(planned)
        sendings, elsewhere = await self._write_down(planned, by or whoami())
        there = await self._there([sending for sending in sendings if sending[0].interrupted])
        sent: list[RedriveEntry] = []
        refused: list[RedriveEntry] = []
        began_ms, size = self._clock.monotonic_ms(), CHUNK_MAX
        if per_second is not None:
            size = max(1, min(CHUNK_MAX, int(per_second / 4)))
        for start in range(0, len(sendings), size):
            entries = await self._send(sendings[start : start + size], there)
            sent += [entry for entry in entries if entry.state == SENT]
            refused += [entry for entry in entries if entry.state == REFUSED]
            on_progress(len(entries))
            if per_second is not None and start + size < len(sendings):
                due_ms = began_ms + (start + size) / per_second * 1_000
                await self._clock.sleep_ms(due_ms - self._clock.monotonic_ms())
        return RedriveReport(sent, refused, elsewhere, places)

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

    async def _write_down(
        self, planned: RedrivePlan, by: str
    ) -> tuple[list[tuple[Sending, RedriveEntry]], list[Sending]]:
        """Write the plan to the ledger. Return it, without the letters that another process wrote first, and those."""
        at_ms = self._log.now_ms()
        bounds = {topic: await self._log.bounds(topic) for topic in {s.topic for s in planned.sendings}}
        ours: list[tuple[Sending, RedriveEntry]] = []
        for sending in planned.sendings:
            after = bounds[sending.topic][sending.partition].end
            entry = planned_entry(sending, by=by, at_ms=at_ms, after=after, reason=planned.how.force)
            ours.append((sending, sending.interrupted or entry))
        fresh = [entry for sending, entry in ours if not sending.interrupted]
        offsets = await self._journal.note(fresh)
        taken = await self._journal.noted_before([entry.key for entry in fresh], planned.ledger_end, offsets)
        mine = [pair for pair in ours if pair[1].key not in taken]
        return mine, [sending for sending, entry in ours if entry.key in taken]

    async def _there(self, interrupted: Sequence[tuple[Sending, RedriveEntry]]) -> dict[str, str]:
        """Find the records of interrupted redrives that were written to the log: id → position."""
        wanted = {id for sending, _ in interrupted for id in sending.ids}
        firsts: dict[TopicPartition, int] = {}
        for _, entry in interrupted:
            place = TopicPartition(entry.topic, entry.partition)
            firsts[place] = min(entry.after, firsts.get(place, entry.after))
        found: dict[str, str] = {}
        for place, first in firsts.items():
            bounds = (await self._log.bounds(place.topic))[place.partition]
            span = Bounds(max(first, bounds.start), bounds.end)
            async with aclosing(read_records(self._log, place.topic, {place.partition: span})) as stored:
                async for record in stored:
                    for name, value in plain_headers(record.headers):
                        if name in ("ce_id", REDRIVE) and (id := (value or b"").decode("utf-8", "replace")) in wanted:
                            found[id] = coordinates(record)
        return found

    async def _send(
        self, pairs: Sequence[tuple[Sending, RedriveEntry]], there: Mapping[str, str]
    ) -> list[RedriveEntry]:
        """Send some letters, and note the log's verdict on each in the ledger."""
        missing = [
            (sending, record)
            for sending, _ in pairs
            for id, record in zip(sending.ids, sending.records, strict=True)
            if id not in there
        ]
        verdicts = await self._log.append([record for _, record in missing]) if missing else []
        answers: dict[str, list[Appended | Refused]] = {}
        for (sending, _), verdict in zip(missing, verdicts, strict=True):
            answers.setdefault(sending.ids[0], []).append(verdict)
        at_ms = self._log.now_ms()
        entries: list[RedriveEntry] = []
        for sending, entry in pairs:
            said = answers.get(sending.ids[0], [])
            refused = next((verdict for verdict in said if isinstance(verdict, Refused)), None)
            if refused is not None:
                result = f"{refused.code}: {refused.message}"
                entries.append(entry._replace(state=REFUSED, result=result, at_ms=at_ms))
                continue
            place = there.get(sending.ids[0], "")
            if not place and isinstance(first := said[0], Appended):
                place = f"{sending.topic}:{first.partition}:{first.offset}"
            run_id = sending.run_id or self._run_at(sending, place)
            entries.append(entry._replace(state=SENT, place=place, run_id=run_id, at_ms=at_ms))
        await self._journal.note(entries)
        return entries

    def _run_at(self, sending: Sending, place: str) -> str:
        """Return the id of the run that intake opens for the record at this position; "" if none."""
        record = sending.records[0]
        topic, partition, offset = place.rsplit(":", 2)
        stored = StoredRecord(topic, int(partition), int(offset), 0, record.key, record.value, record.headers)
        event = admit(stored, self._topology) if sending.way == TOPIC else None
        return "" if event is None or isinstance(event, Rejection) else event.run_id

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
