"""Send what is planned: each is written into the ledger first, so an interrupted redrive sends exactly the rest."""

import getpass
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Final, NamedTuple

from mesh.adapters.ports import Appended, Bounds, Clock, Log, Refused
from mesh.core.dead_letters.letter import REDRIVE
from mesh.core.dead_letters.redrive_log import REFUSED, SENT, RedriveEntry
from mesh.core.dead_letters.redrive_plan import TOPIC, Sending
from mesh.core.dead_letters.resend_plan import REPLAY
from mesh.core.ingress.admission import admit
from mesh.core.ingress.request_formats import Rejection
from mesh.core.protocol.codec import plain_headers
from mesh.core.protocol.record import StoredRecord, TopicPartition, coordinates, parse_coordinates
from mesh.core.topology.model import Topology
from mesh.operations.dead_letters.redrive_journal import Journal, planned_entry
from mesh.runtime.log_reader import read_records

CHUNK_MAX: Final = 100
"""Letters sent, and noted as sent, in one append."""
_ID_HEADERS: Final = ("ce_id", REDRIVE, REPLAY)
"""Headers by which a sent record is recognised."""


def whoami() -> str:
    """Return `user@host` for the ledger."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):  # a container may run under a number that has no name
        return f"{os.getuid()}@{socket.gethostname()}"


def no_progress(_: int) -> None:
    """Ignore progress."""


class Order(NamedTuple):
    """Who sends, why, and how fast."""

    by: str
    reason: str = ""
    ledger_end: int = 0
    """End of the ledger at the time of the plan."""
    per_second: float | None = None
    """Limit of letters; None: none."""


class SendReport(NamedTuple):
    """What became of the planned letters."""

    sent: Sequence[RedriveEntry]
    refused: Sequence[RedriveEntry]
    """Entries that the log refused."""
    elsewhere: Sequence[Sending]
    """Letters that another process sent at the same moment."""


class Sender:
    """Sends into the topics of one mesh, and keeps its ledger."""

    def __init__(self, log: Log, topology: Topology, journal: Journal, clock: Clock) -> None:
        self._log = log
        self._topology = topology
        self._journal = journal
        self._clock = clock

    async def send(
        self, planned: Sequence[Sending], order: Order, *, on_progress: Callable[[int], None] = no_progress
    ) -> SendReport:
        """Send in the order of the plan. `on_progress`: receives the number of letters sent. Raises LogUnavailable."""
        sendings, elsewhere = await self._write_down(planned, order)
        there = await self._there([sending for sending in sendings if sending[0].interrupted])
        sent: list[RedriveEntry] = []
        refused: list[RedriveEntry] = []
        began_ms, size, per_second = self._clock.monotonic_ms(), CHUNK_MAX, order.per_second
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
        return SendReport(sent, refused, elsewhere)

    async def _write_down(
        self, planned: Sequence[Sending], order: Order
    ) -> tuple[list[tuple[Sending, RedriveEntry]], list[Sending]]:
        """Write the plan to the ledger. Return it, without the letters that another process wrote first, and those.

        The rest of an interrupted redrive is written once more, so that one of two processes that send it has it.
        """
        at_ms = self._log.now_ms()
        bounds = {topic: await self._log.bounds(topic) for topic in {s.topic for s in planned}}
        ours: list[tuple[Sending, RedriveEntry]] = []
        for sending in planned:
            after = bounds[sending.topic][sending.partition].end
            entry = planned_entry(sending, by=order.by, at_ms=at_ms, after=after, reason=order.reason)
            ours.append((sending, sending.interrupted or entry))
        entries = [entry for _, entry in ours]
        offsets = await self._journal.note(entries)
        taken = await self._journal.noted_before([entry.key for entry in entries], order.ledger_end, offsets)
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
                        if name in _ID_HEADERS and (id := (value or b"").decode("utf-8", "replace")) in wanted:
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
        record, position = sending.records[0], parse_coordinates(place)
        if position is None or sending.way != TOPIC:
            return ""
        event = admit(StoredRecord(*position, 0, record.key, record.value, record.headers), self._topology)
        return "" if isinstance(event, Rejection) else event.run_id
