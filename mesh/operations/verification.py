"""Read the log of a mesh for the verifier (`core.verification.verifier`): the reading half of `mesh verify`.

The mesh may run meanwhile. So the order is: committed offsets, then the ends of the published topics, then those of the
inbox. Decisions below a committed offset are published by then, and published records follow from the inbox up to its
end.
"""

from collections.abc import AsyncGenerator, Callable, Collection, Container, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Final, NamedTuple

from mesh.adapters.ports import Bounds, Clock, ReadLog
from mesh.adapters.recording import RecordingLog
from mesh.core.protocol.codec import plain_headers
from mesh.core.protocol.record import Record, TopicPartition, parse_coordinates
from mesh.core.topology.model import Topology
from mesh.core.verification.record_diff import Difference, record_differences
from mesh.core.verification.replay_check import CheckScope
from mesh.core.verification.report import VerificationReport, Violation
from mesh.core.verification.stream_check import StreamCheck, StreamResult
from mesh.core.verification.verifier import Verifier, published_topics
from mesh.operations.run_places import NO_RUN, RunPlaces, read_places
from mesh.runtime.checkpoint_store import CheckpointStates, read_checkpoints
from mesh.runtime.log_reader import bounds_between, read_batches, record_at
from mesh.runtime.time_order import read_by_time
from mesh.runtime.topology_store import read_kept


class FirstViolation(NamedTuple):
    """The first violation, with both sides if there are two."""

    violation: Violation
    differences: list[Difference]
    """Empty if one side is missing."""


class VerifyResult(NamedTuple):
    """Result of `verify`. `topologies`: number of topologies taken into account."""

    report: VerificationReport
    first: FirstViolation | None
    topologies: int


class Window(NamedTuple):
    """A span of log time in ms: from the first, before the second. None: no such bound."""

    since_ms: int | None = None
    until_ms: int | None = None


WHOLE: Final = Window()
SLACK_MS: Final = 5_000
"""Milliseconds before and after the records of a run in which those that follow from it are looked for at first."""
SMALL_RECORDS: Final = 10_000
"""Number of records up to which a log is read whole for one run, so that no late copy is missed."""


async def verify(
    log: ReadLog,
    topology: Topology,
    clock: Clock,
    *,
    run_id: str = "",
    places: RunPlaces | None = None,
    window: Window = WHOLE,
    read: Callable[[int], None] = lambda records: None,
) -> VerifyResult:
    """Check the whole log, or only what concerns one run. `read` receives the number of records of each batch read.

    `places`: where the records of that run are. Records that follow from it are then looked for from SLACK_MS before
    its first record until SLACK_MS after its last one. Everything is read if something differs there, and where the
    log has at most SMALL_RECORDS.

    With a window, the runs are checked that were requested in it, as far as records before its end decide them.

    Raises LogUnavailable, and NotFound when the mesh's topics do not exist.
    """
    whole = run_id, None
    if places is not None:
        plan = await _plan(log, topology, clock, (run_id, places), WHOLE)
        found = await _result(log, plan, await _check_runs(log, plan, clock, read, run=(run_id, places)))
        if found.first is None:
            return found
    plan = await _plan(log, topology, clock, whole, window)
    if not plan.streams:
        return await _result(log, plan, await _check_runs(log, plan, clock, read, run=whole))
    streamed = await _check_in_one_pass(log, plan, clock, read)
    if streamed.clean:
        return await _result(log, plan, streamed.report)
    report = await _check_runs(log, plan, clock, read, only=streamed.suspects)
    report.checked |= streamed.report.checked
    return await _result(log, plan, report)


class _Plan(NamedTuple):
    """What is read for a check."""

    scope: CheckScope
    published: Mapping[str, Mapping[int, Bounds]]
    incoming: Mapping[str, Mapping[int, Bounds]]
    inbox: Mapping[int, Bounds]
    unreadable: Sequence[Violation]
    """Checkpoints that cannot be read."""
    topologies: int
    streams: bool
    """Whether one pass can check it: the inbox names the topology of each run, and not only one run is wanted."""


async def _plan(
    log: ReadLog, topology: Topology, clock: Clock, run: tuple[str, RunPlaces | None], window: Window
) -> _Plan:
    run_id, places = run
    existing = await log.topics()
    kept = await read_kept(log, topology, clock)
    known = list({topology.digest: topology, **kept.topologies}.values())
    published = [topic for topic in published_topics(*known) if topic in existing]
    incoming = _ingress_topics(known) & existing.keys()
    committed = await _read_commits(log, topology, {name for one in known for name in one.agents}, incoming, existing)
    deadline_ms = max(one.limits.deadline_ms for one in known)
    bounds = {topic: await _since(log, topic, window, deadline_ms) for topic in (*published, topology.inbox)}
    narrow = bounds if places is None else await _narrow(log, topology, run_id, places, bounds)
    is_cut = isinstance(log, RecordingLog) and bool(log.flaw)
    partial = bool(run_id) or window != WHOLE
    checkpoints = CheckpointStates({}, []) if partial else await read_checkpoints(log, topology, clock, known)
    scope = CheckScope(
        topology,
        kept=kept,
        heads={TopicPartition(topic, n): b.start for topic, spans in bounds.items() for n, b in spans.items()},
        ends={TopicPartition(topology.inbox, n): b.end for n, b in bounds[topology.inbox].items()},
        committed={} if is_cut else committed,
        is_cut=is_cut,
        checkpoints=checkpoints.states,
        until_ms=window.until_ms,
    )
    return _Plan(
        scope,
        {topic: narrow[topic] for topic in published},
        {} if partial else {topic: await log.bounds(topic) for topic in sorted(incoming)},
        await _until(log, topology.inbox, bounds[topology.inbox], window),
        checkpoints.unreadable,
        len(known),
        streams=not run_id and (len(known) == 1 or all(kept.covers(number) for number in bounds[topology.inbox])),
    )


async def _result(log: ReadLog, plan: _Plan, report: VerificationReport) -> VerifyResult:
    for violation in plan.unreadable:
        report.add(violation)
    first = next(iter(report.violations), None)
    return VerifyResult(report, None if first is None else await _both_sides(log, first), plan.topologies)


async def _check_in_one_pass(log: ReadLog, plan: _Plan, clock: Clock, read: Callable[[int], None]) -> StreamResult:
    """Find the runs that need a closer look; most logs have none."""
    check = StreamCheck(plan.scope, hash)
    inbox = plan.scope.topology.inbox
    takes = dict.fromkeys(plan.incoming, check.take_ingress) | {inbox: check.take_inbox}
    async with aclosing(read_by_time(log, plan.incoming, {inbox: plan.inbox}, plan.published, clock)) as batches:
        async for batch in batches:
            read(len(batch))
            take = takes.get(batch[0].topic, check.take_published)
            for record in batch:
                take(record)
    for position in check.origins:
        if (original := await _record_at(log, position)) is not None:
            check.take_original(original)
    return check.result()


async def _check_runs(
    log: ReadLog,
    plan: _Plan,
    clock: Clock,
    read: Callable[[int], None],
    *,
    run: tuple[str, RunPlaces | None] = ("", None),
    only: Container[str] | None = None,
) -> VerificationReport:
    """Check with an index of published records: of one run, or of the runs of `only` while all are decided."""
    run_id, places = run
    topology = plan.scope.topology
    verifier = Verifier(plan.scope, only=only)
    keys = (run_id.encode(), NO_RUN)

    async def feed(
        topic: str, spans: Mapping[int, Bounds], take: Callable[[Record], None], wanted: Callable[[Record], bool]
    ) -> None:
        async with aclosing(_read(log, clock, topic, spans)) as batches:
            async for batch in batches:
                read(len(batch))
                for record in batch:
                    if not run_id or wanted(record):
                        take(record)

    for topic, spans in plan.published.items():
        await feed(topic, spans, verifier.take_published, lambda record: _run_of(record) == run_id)
    for position in verifier.origins:
        if (original := await _record_at(log, position)) is not None:
            verifier.take_original(original)
    for topic, spans in plan.incoming.items():
        await feed(topic, spans, verifier.take_ingress, lambda record: True)
    for record in () if places is None else await _records_of(log, topology, run_id, places):
        read(1)
        verifier.take_inbox(record)
    inbox = plan.inbox if places is None else {}
    await feed(topology.inbox, inbox, verifier.take_inbox, lambda record: record.key in keys)
    return verifier.report()


async def _records_of(log: ReadLog, topology: Topology, run_id: str, places: RunPlaces) -> list[Record]:
    """Return the inbox records of a run, with those between that concern all runs."""
    keys = (run_id.encode(), NO_RUN)
    spans = {places.home: [*places.inbox, *places.common]}
    async with aclosing(read_places(log, topology.inbox, spans)) as records:
        return [record async for record in records if record.key in keys]


async def _narrow(
    log: ReadLog, topology: Topology, run_id: str, places: RunPlaces, whole: Mapping[str, Mapping[int, Bounds]]
) -> Mapping[str, Mapping[int, Bounds]]:
    """Return the bounds of the records that a run caused, by the times of its own records; of a small log, all."""
    if sum(part.end - part.start for bounds in whole.values() for part in bounds.values()) <= SMALL_RECORDS:
        return whole
    own = [one.timestamp for one in await _records_of(log, topology, run_id, places) if one.key == run_id.encode()]
    if not own:
        return whole
    since_ms, until_ms = max(0, min(own) - SLACK_MS), max(own) + SLACK_MS
    return {topic: await bounds_between(log, topic, since_ms, until_ms) for topic in whole}


async def _since(log: ReadLog, topic: str, window: Window, deadline_ms: int) -> Mapping[int, Bounds]:
    """Return what is read of a topic. Reading begins one deadline before the window, so that the runs that were open
    when it began differ from those that were requested in it."""
    since_ms = window.since_ms
    return await bounds_between(log, topic, None if since_ms is None else max(0, since_ms - deadline_ms))


async def _until(log: ReadLog, topic: str, bounds: Mapping[int, Bounds], window: Window) -> Mapping[int, Bounds]:
    if window.until_ms is None:
        return bounds
    ends = await log.offsets_at(topic, window.until_ms)
    return {n: Bounds(b.start, max(b.start, min(b.end, ends[n]))) for n, b in bounds.items()}


def _ingress_topics(topologies: Iterable[Topology]) -> set[str]:
    return {rule.name for one in topologies for rule in one.topics.values() if rule.ingress}


async def _read_commits(
    log: ReadLog, topology: Topology, agents: Collection[str], incoming: Collection[str], there: Mapping[str, int]
) -> dict[TopicPartition, int]:
    """Return the committed offsets: orchestrators in the inbox, agents in their tasks, intake in ingress topics."""
    groups = {topology.inbox: topology.group("orchestrator")}
    groups |= dict.fromkeys(incoming, topology.group("intake"))
    groups |= {topology.tasks(name): topology.group(name) for name in agents}
    return {
        TopicPartition(topic, number): stored.offset
        for topic, group in groups.items()
        if topic in there
        for number, stored in (await log.committed(group, topic)).items()
    }


async def _read(log: ReadLog, clock: Clock, topic: str, places: Mapping[int, Bounds]) -> AsyncGenerator[list[Record]]:
    """Yield all records of a topic, partition by partition."""
    for number, bounds in sorted(places.items()):
        async with aclosing(read_batches(log, topic, {number: bounds}, clock)) as batches:
            async for records in batches:
                yield list(records)


async def _record_at(log: ReadLog, where: str) -> Record | None:
    """Return the record at `topic:partition:offset`, or None if the log does not hold it."""
    position = parse_coordinates(where)
    return None if position is None else await record_at(log, *position)


async def _both_sides(log: ReadLog, violation: Violation) -> FirstViolation:
    expected = violation.record
    got = await _record_at(log, violation.published) if violation.published and expected is not None else None
    if expected is None or got is None:
        return FirstViolation(violation, [])
    sides = [(side.key, side.value, plain_headers(side.headers)) for side in (expected, got)]
    return FirstViolation(violation, record_differences(*sides))


def _run_of(record: Record) -> str:
    """Return the run that a published record belongs to; "" if it names none."""
    headers = dict(plain_headers(record.headers))
    return (headers.get("mesh-dlq-run") or headers.get("ce_correlationid") or b"").decode("utf-8", "replace")
