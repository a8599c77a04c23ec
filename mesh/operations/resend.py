"""Send the requests of a recording into ingress topics again, of this mesh or of another one.

    requests = await read_requests(source, recorded, RequestChoice(since_ms=yesterday_ms))
    plan = await plan_resend(log, topology, requests, recorded.prefix)   # look at plan.sendings, plan.obstacles
    sent = await Resend(log, topology).send(plan)

The source is read only. Where both are one embedded file, close the source before the target is opened: a process
cannot write to a file that it has open for reading only. Each request is written into the ledger of the target before
anything is sent. So a resend that was interrupted, planned and sent again, sends exactly the rest.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import aclosing
from typing import Final, NamedTuple

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Clock, Log, ReadLog
from mesh.adapters.recording import RecordingLog
from mesh.core.dead_letters.redrive_plan import RESEND, AlreadyDone, Obstacle, Sending
from mesh.core.dead_letters.resend_plan import RecordedRequest, ResendOptions, ResendPlanner, is_resent
from mesh.core.errors import InvalidInput
from mesh.core.protocol.event import REQUESTED, Event, rfc3339
from mesh.core.protocol.record import Position, Record, TopicPartition, parse_coordinates
from mesh.core.replay.masked_values import holds_masked
from mesh.core.selection.record_filter import RecordFilter
from mesh.core.topology.model import Topology
from mesh.operations.dead_letters.redrive_journal import Journal, read_ledger
from mesh.operations.dead_letters.sending import Order, Sender, SendReport, no_progress, whoami
from mesh.operations.topic_reading import Spans, TopicRange, read_topics, spans_of
from mesh.runtime.log_reader import record_at, records_at

REQUESTS_MAX: Final = 100_000
"""Requests of one plan: it holds their payloads."""

AS_RECORDED: Final = ResendOptions()


class RequestChoice(NamedTuple):
    """The requests that are wanted. None: any."""

    run_id: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    wanted: RecordFilter = RecordFilter()
    """Its key is that of the record on the ingress topic."""
    limit: int | None = None
    """The first requests that fit."""


class FoundRequests(NamedTuple):
    """The requests of a recording, in the order of their log times."""

    requests: Sequence[RecordedRequest]
    resent: int = 0
    """Requests left out because a resend made them."""
    gaps: Sequence[str] = ()
    """What retention removed of the time that was chosen."""


class ResendPlan(NamedTuple):
    """The plan of a resend, request by request."""

    sendings: Sequence[Sending]
    obstacles: Sequence[Obstacle]
    already_done: Sequence[AlreadyDone]
    ledger_end: int
    unfinished: int
    """Requests of an interrupted resend that are not among these."""


async def read_requests(log: ReadLog, topology: Topology, choice: RequestChoice) -> FoundRequests:
    """Read the chosen requests of a mesh. Raises NotFound, LogUnavailable, InvalidInput for more than `REQUESTS_MAX`.

    A request that came twice counts once. Requests that a resend made are left out, unless their run is named.
    """
    part = TopicRange(choice.since_ms, choice.until_ms)
    spans = await spans_of(log, topology, [topology.inbox], part, choice.run_id)
    key, limit = choice.wanted.key, choice.limit if choice.wanted.key is None else None
    wanted = choice.wanted._replace(run=choice.run_id, key=None)
    found: dict[tuple[str, str], tuple[Event, Record]] = {}
    resent = 0
    async with aclosing(read_topics(log, spans, wanted)) as records:
        async for record, event in records:
            if not isinstance(event, Event) or event.kind != REQUESTED:
                continue
            if choice.run_id is None and is_resent(event):
                resent += 1
                continue
            found.setdefault((event.run_id, event.id), (event, record))
            if len(found) == limit:
                break
            if len(found) > REQUESTS_MAX:
                raise _too_many()
    requests = await _with_keys(log, topology, found.values())
    if key is not None:
        requests = [one for one in requests if key((one.key or b"").decode("utf-8", "backslashreplace"))]
    return FoundRequests(requests[: choice.limit], resent, await _gaps(log, spans, choice))


def _too_many() -> InvalidInput:
    return InvalidInput(
        f"more than {REQUESTS_MAX:,} requests fit",
        code="bad_value",
        where="mesh replay --resend",
        expected=f"at most {REQUESTS_MAX:,} requests at a time",
        remedy="Choose a part of the time with --since and --until, or give --limit",
    )


async def _with_keys(
    log: ReadLog, topology: Topology, found: Collection[tuple[Event, Record]]
) -> list[RecordedRequest]:
    """Add the keys of the records on ingress topics, as far as they are there."""
    there = {topic: width for topic, width in (await log.topics()).items() if topic != topology.inbox}
    offsets: dict[TopicPartition, set[int]] = {}
    for event, _ in found:
        origin = parse_coordinates(event.origin)
        if origin is not None and origin.partition < there.get(origin.topic, 0):
            offsets.setdefault(TopicPartition(origin.topic, origin.partition), set()).add(origin.offset)
    keys: dict[Position, bytes | None] = {}
    for (topic, number), wanted in offsets.items():
        async with aclosing(records_at(log, topic, number, wanted)) as records:
            async for record in records:
                keys[Position(topic, number, record.offset)] = record.key
    is_masked = isinstance(log, RecordingLog) and log.is_masked
    requests = []
    for event, record in found:
        origin = parse_coordinates(event.origin)
        key, known = (None, False) if origin is None else (keys.get(origin), origin in keys)
        requests.append(RecordedRequest(event, record, key, known, is_masked and holds_masked(event.data)))
    return requests


async def _gaps(log: ReadLog, spans: Spans, choice: RequestChoice) -> list[str]:
    """Say which partitions lost records of the time that was chosen."""
    gaps = []
    for topic, places in spans.items():
        bounds = await log.bounds(topic)
        for number in places:
            first = await record_at(log, topic, number, bounds[number].start) if bounds[number].start else None
            if first is not None and (choice.since_ms is None or first.timestamp > choice.since_ms):
                gaps.append(f"records before {rfc3339(first.timestamp)} were removed from {topic}:{number}")
    return gaps


async def plan_resend(
    log: ReadLog,
    topology: Topology,
    requests: Sequence[RecordedRequest],
    prefix: str,
    options: ResendOptions = AS_RECORDED,
) -> ResendPlan:
    """Plan to send requests of the mesh with this prefix to the mesh on `log`. Writes nothing."""
    ledger, end = await read_ledger(log, topology)
    planner = ResendPlanner(prefix, topology, await log.topics(), ledger, options)
    steps = [planner.plan(request) for request in requests]
    ours = {step.letter.id for step in steps}
    return ResendPlan(
        [step for step in steps if isinstance(step, Sending)],
        [step for step in steps if isinstance(step, Obstacle)],
        [step for step in steps if isinstance(step, AlreadyDone)],
        end,
        sum(entry.letter not in ours for entry in ledger.interrupted(RESEND)),
    )


class Resend:
    """Sends requests into the ingress topics of one mesh."""

    def __init__(self, log: Log, topology: Topology, *, clock: Clock | None = None) -> None:
        self._sender = Sender(log, topology, Journal(log, topology), clock or SystemClock())

    async def send(
        self,
        plan: ResendPlan,
        *,
        by: str = "",
        per_second: float | None = None,
        on_progress: Callable[[int], None] = no_progress,
    ) -> SendReport:
        """Send what is planned. `per_second`: limit of requests; `on_progress`: receives the number of requests sent.

        Raises LogUnavailable; planned and sent again, it continues with the rest.
        """
        order = Order(by or whoami(), "", plan.ledger_end, per_second)
        return await self._sender.send(plan.sendings, order, on_progress=on_progress)
