"""The client for upstream code: publish a request, follow its run, wait for its outcome.

    async with Mesh.connect() as mesh:
        run = await mesh.publish("order.placed", {"order_id": "o-17", "lines": []})
        outcome = await run.outcome(timeout_s=30)
        print(outcome.ending, outcome.results)

`publish` returns when the log has acknowledged the request. The same request again (same id) is the same run.
"""

import asyncio
import copy
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any, NamedTuple

import orjson
from uuid_utils import uuid7

from mesh.adapters.clock import SystemClock
from mesh.adapters.log_time import ask_time
from mesh.adapters.ports import Appended, Log, Reader, Refused
from mesh.adapters.traced_requests import traced_requests
from mesh.app.wiring import load_topology, open_log
from mesh.core.errors import InvalidInput, LogUnavailable, WaitTimeout
from mesh.core.history.request_match import not_accepted, why_not_answered
from mesh.core.ingress.admission import REJECTED_TYPE, open_request
from mesh.core.ingress.request_formats import Rejection, Request
from mesh.core.payload.json_encode import encode
from mesh.core.protocol.codec import Unreadable, read_event
from mesh.core.protocol.event import CANCELLED, ID_PATTERN, PAUSED, RESUMED, Event, expiry_in, fingerprint
from mesh.core.protocol.json_check import Flaw
from mesh.core.protocol.partitioner import partition_of
from mesh.core.protocol.record import NewRecord, TopicPartition
from mesh.core.publishing.effect_records import inbox_record, too_large
from mesh.core.publishing.request_rejection import parse_late_request
from mesh.core.run.control import Switch, command_record, control_record
from mesh.core.topology.model import Topology
from mesh.runtime.log_reader import read_records
from mesh.runtime.topology_store import expect_own_log
from mesh.runtime.waiters import Answer, RunWaiters
from mesh.settings import Settings
from mesh.settings import load as load_settings

TOGETHER_MAX = 500
RECENT_MAX = 20_000
RECENT_BYTES_MAX = 32 * 1024 * 1024


class Result(NamedTuple):
    """One payload that left the mesh."""

    type: str
    agent: str
    data: Any


class Outcome(NamedTuple):
    """The end of a run. `ending`: `completed`, `partial`, `failed`, `stopped` or `cancelled`. `raw`: the record,
    see docs/reference/protocol.md."""

    run_id: str
    ending: str
    results: tuple[Result, ...]
    refusals: tuple[dict[str, Any], ...]
    failures: tuple[dict[str, Any], ...]
    raw: dict[str, Any]

    def __bool__(self) -> bool:
        """True when the run completed."""
        return self.ending == "completed"


class Run:
    """A requested run."""

    def __init__(self, mesh: "Mesh", request: Event, position: Appended) -> None:
        self._mesh = mesh
        self._fingerprint = fingerprint(request.data)
        self.id = request.run_id
        self.event_id = request.id
        self.position = position
        """Partition and offset of the request on mesh.inbox."""

    async def outcome(self, *, timeout_s: float = 60.0) -> Outcome:
        """Wait for the outcome. Raises WaitTimeout (the run goes on), and NotAccepted when the request was rejected:
        also because the run has it with another body (`idempotency_conflict`) or had ended (`already_terminal`)."""
        outcome = await self._mesh.outcome(self.id, timeout_s=timeout_s)
        why = why_not_answered(outcome.raw, self.event_id, self._fingerprint)
        if why is not None:
            raise not_accepted(self.id, *why)
        return outcome


class _Group(NamedTuple):
    """Requests that share one append."""

    requests: list[Event]
    appended: "asyncio.Task[Sequence[Appended | Refused]]"


class Mesh:
    """A connection to the log for upstream code. Make one with `Mesh.connect`."""

    def __init__(self, log: Log, topology: Topology) -> None:
        self.log = log
        self.topology = topology
        self._waits = RunWaiters(self._look_back)
        self._group: _Group | None = None
        self._recent: OrderedDict[str, Event] = OrderedDict()
        """The latest outcomes that this client has read: most runs end before a caller waits for them."""
        self._recent_bytes = 0
        self._closed = False
        self._watcher: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()
        """Held by the caller that starts the watcher."""

    @classmethod
    @asynccontextmanager
    async def connect(cls, settings: Settings | None = None, **flags: Any) -> AsyncIterator["Mesh"]:
        """Open the log that settings, environment or `flags` (`log=…`, `topology=…`) name, and close it at the end.

        Raises ForeignLog if it is another mesh's.
        """
        settings = settings or load_settings(flags).settings
        log = open_log(settings, client="mesh-client")
        await log.start()
        mesh = cls(log, load_topology(settings.topology))
        try:
            await expect_own_log(log, mesh.topology, SystemClock())
            yield mesh
        finally:
            await mesh.close()
            await log.close()

    async def publish(
        self,
        type: str,
        payload: Any,
        *,
        id: str | None = None,
        run_id: str | None = None,
        subject: str = "",
        deadline_s: float | None = None,
        traceparent: str = "",
        key: str | None = None,
    ) -> Run:
        """Request a run. Raises InvalidInput with a reason code, LogUnavailable.

        `payload`: a pydantic model, JSON-able values, or bytes of JSON. `id`: of the request; by default what the
        ingress topic declares, else a new one. `run_id`: the correlation id, by default made from the id. `key`: the
        ordering key, where the ingress topic says `order: key` and declares no field for it.
        """
        request = partial(self.request, type, payload, id=id, run_id=run_id, subject=subject)
        event = request(deadline_s=deadline_s, traceparent=traceparent, key=key)
        await self._watch()
        with traced_requests(self.log.url, [event], self.topology.inbox):
            return await self._together(event)

    def request(
        self,
        type: str,
        payload: Any,
        *,
        id: str | None = None,
        run_id: str | None = None,
        subject: str = "",
        deadline_s: float | None = None,
        traceparent: str = "",
        key: str | None = None,
    ) -> Event:
        """Make the event that `publish` would send. Raises InvalidInput with a reason code."""
        ordering_key = None if key is None else key.encode()
        body = _json(payload)
        request = Request(type, body, id, "", run_id, subject, traceparent=traceparent, key=ordering_key)
        event = open_request(request, self.topology, fallback_id=str(uuid7()))
        if isinstance(event, Rejection):
            raise InvalidInput(event.message, code=event.code, where=f"publish {type}")
        if problem := too_large(event, self.topology, self.log.record_bytes_max):
            remedy = "Send less, or raise `record_bytes_max` and the topic's max.message.bytes"
            raise InvalidInput(problem, code="too_large", where=f"publish {type}", remedy=remedy)
        if deadline_s is not None:
            event.expiry_ms = expiry_in(deadline_s)
        return event

    async def send(self, events: Iterable[Event]) -> Sequence[Run]:
        """Publish many requests in one append, in order. Raises LogUnavailable, InvalidInput if the log refuses one."""
        await self._watch()
        requests = list(events)
        await self._next()
        with traced_requests(self.log.url, requests, self.topology.inbox):
            verdicts = await self._put(requests)
        return [self._run(event, verdict, requests) for event, verdict in zip(requests, verdicts, strict=True)]

    async def _together(self, event: Event) -> Run:
        """Publish together with concurrent callers: an append costs the log the same for one request as for many."""
        group = self._group
        if group is None or len(group.requests) >= TOGETHER_MAX:
            requests: list[Event] = []
            group = self._group = _Group(requests, asyncio.get_running_loop().create_task(self._put(requests)))
            group.appended.add_done_callback(_mark_retrieved)
        number = len(group.requests)
        group.requests.append(event)
        # A caller that is cancelled must not cancel the append of the others.
        try:
            verdicts = await asyncio.shield(group.appended)
        except LogUnavailable as error:
            raise copy.copy(error) from error  # each caller has its own traceback
        return self._run(event, verdicts[number], [event])

    async def _next(self) -> None:
        """Let the group that is being published go first: its callers came earlier."""
        if self._group is not None:
            await asyncio.sleep(0)

    async def _put(self, requests: Sequence[Event]) -> Sequence[Appended | Refused]:
        if self._group is not None and self._group.requests is requests:
            self._group = None  # later callers begin a new group
        for event in requests:
            if (seen := self._recent.get(event.run_id)) is not None and seen.type == REJECTED_TYPE:
                self._forget(event.run_id)  # requested again, perhaps corrected
        return await self.log.append([inbox_record(event, self.topology) for event in requests])

    def _run(self, event: Event, verdict: Appended | Refused, together: Sequence[Event]) -> Run:
        if isinstance(verdict, Refused):
            raise InvalidInput(
                f"the log refused request {event.id!r}: {verdict.message}",
                code=verdict.code,
                where=f"{self.log.url} {self.topology.inbox}",
                remedy="Those before it in this call were published" if len(together) > 1 else "",
            )
        return Run(self, event, verdict)

    async def cancel(self, run_id: str, *, by: str = "", why: str = "") -> Appended:
        """End a run with the results it has, as `cancelled`. `by` and `why` go into its history.

        Returns the position of the command on mesh.inbox. A command about a run that has ended, or that was never
        opened, has no effect. Raises InvalidInput, LogUnavailable.
        """
        return (await self.send_commands(CANCELLED, [run_id], by=by, why=why))[0]

    async def pause(self, run_id: str, *, by: str = "", why: str = "") -> Appended:
        """Begin no more tasks of a run until `resume`; running tasks may end. Otherwise as `cancel`."""
        return (await self.send_commands(PAUSED, [run_id], by=by, why=why))[0]

    async def resume(self, run_id: str, *, by: str = "", why: str = "") -> Appended:
        """Let a paused run go on. Otherwise as `cancel`."""
        return (await self.send_commands(RESUMED, [run_id], by=by, why=why))[0]

    async def send_commands(
        self, kind: str, run_ids: Sequence[str], *, by: str = "", why: str = ""
    ) -> Sequence[Appended]:
        """Send the same command to many runs in one append; `kind` is `cancelled`, `paused` or `resumed`."""
        for run_id in run_ids:
            if not ID_PATTERN.fullmatch(run_id):
                text = f"run id {run_id[:64]!r} is invalid"
                raise InvalidInput(text, code="bad_id", where="run", expected=ID_PATTERN.pattern)
        at_ms, who = self.log.now_ms(), {"by": by, "why": why}
        return await self._append(
            [command_record(kind, id, self.topology, event_id=str(uuid7()), at_ms=at_ms, **who) for id in run_ids]
        )

    async def send_switch(self, switch: Switch, *, for_ms: int = 0) -> Appended:
        """Stop or resume an agent, or all of them (`*`), everywhere within a second; see `core.run.control`. `for_ms`:
        duration of a fault. Returns the position on mesh.control. Raises InvalidInput, LogUnavailable."""
        if for_ms:
            await ask_time(self.log, self.topology)
            switch = switch._replace(until_ms=self.log.now_ms() + for_ms)
        record = control_record(switch._replace(at_ms=self.log.now_ms()), self.topology, event_id=str(uuid7()))
        return (await self._append([record]))[0]

    async def _append(self, records: Sequence[NewRecord]) -> Sequence[Appended]:
        verdicts: list[Appended] = []
        await self._next()
        for record, verdict in zip(records, await self.log.append(records), strict=True):
            if isinstance(verdict, Refused):
                where = f"{self.log.url} {record.topic}"
                remedy = "`mesh topics create` creates missing topics" if verdict.code == "unknown_topic" else ""
                text = f"the log refused the record: {verdict.message}"
                raise InvalidInput(text, code=verdict.code, where=where, remedy=remedy)
            verdicts.append(verdict)
        return verdicts

    async def outcome(self, run_id: str, *, timeout_s: float = 60.0) -> Outcome:
        """Wait for the outcome of a run. Reads back through the log if none comes within a second. See Run.outcome."""
        await self._watch()
        try:
            answer = self._recent.get(run_id) or await self._waits.answer(run_id, timeout_s)
            if parse_late_request(answer) is not None:  # a repeated request: the outcome of the run counts
                answer = await self._last_answer(run_id) or answer
            return _read_outcome(answer)
        except TimeoutError as error:
            raise WaitTimeout(
                f"run {run_id} has not ended within {timeout_s:g} s; it goes on",
                where=self.topology.outcomes,
                remedy=f"`mesh run show {run_id}` shows its state; is a worker up (`mesh up`)?",
            ) from error

    async def close(self) -> None:
        """Stop watching. The log is the caller's, unless `connect` opened it."""
        self._closed = True
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait([self._watcher])

    async def _watch(self) -> None:
        if self._closed:
            raise LogUnavailable(
                "the mesh is closed", where=self.log.url, remedy="Publish and wait inside `async with Mesh.connect()`"
            )
        if self._watcher is not None:
            if self._watcher.done():
                await self._watcher  # raises why it ended
            return
        async with self._opening:
            if self._watcher is None:
                ends = await self.log.bounds(self.topology.outcomes)
                if not self._closed:
                    reader = self.log.reader(
                        {TopicPartition(self.topology.outcomes, p): b.end for p, b in ends.items()}
                    )
                    self._watcher = asyncio.get_running_loop().create_task(self._read_outcomes(reader), name="outcomes")
        if self._closed:
            await self._watch()  # raises that it is

    async def _read_outcomes(self, reader: Reader) -> None:
        try:
            while True:
                for record in await reader.poll(records_max=1_000, wait_ms=500):
                    event = read_event(record)
                    if not isinstance(event, Unreadable):
                        self._remember(event)
                        self._waits.notify(event)
        except LogUnavailable as error:
            self._waits.fail(error)
            raise
        finally:
            await reader.close()

    def _remember(self, event: Event) -> None:
        self._forget(event.run_id)
        self._recent[event.run_id] = event
        self._recent_bytes += len(event.data)
        while self._recent_bytes > RECENT_BYTES_MAX or len(self._recent) > RECENT_MAX:
            self._forget(next(iter(self._recent)))

    def _forget(self, run_id: str) -> None:
        gone = self._recent.pop(run_id, None)
        self._recent_bytes -= 0 if gone is None else len(gone.data)

    async def _look_back(self, run_id: str, answer: Answer) -> None:
        """Answer for a run that ended before this client read outcomes."""
        if (last := await self._last_answer(run_id)) is not None and not answer.done():
            answer.set_result(last)

    async def _last_answer(self, run_id: str) -> Event | None:
        """Return the last record about a run on mesh.outcomes, or None. Reads one partition from its beginning."""
        bounds = await self.log.bounds(self.topology.outcomes)
        key = run_id.encode()
        home = partition_of(key, len(bounds))
        last: Event | None = None
        async with aclosing(read_records(self.log, self.topology.outcomes, {home: bounds[home]})) as stored:
            async for record in stored:
                if record.key != key or isinstance(event := read_event(record), Unreadable):
                    continue
                if last is None or parse_late_request(event) is None or parse_late_request(last) is not None:
                    last = event  # a run that was opened again has several
        return last


def _mark_retrieved(appended: "asyncio.Task[Sequence[Appended | Refused]]") -> None:
    """Retrieve the error of an append whose callers were all cancelled, so that asyncio does not log it."""
    if not appended.cancelled():
        appended.exception()


def _read_outcome(event: Event) -> Outcome:
    """Read an outcome from a record on mesh.outcomes. Raises NotAccepted when the record is a rejection."""
    body = orjson.loads(event.data)
    if event.type == REJECTED_TYPE:
        raise not_accepted(event.run_id, body["code"], body["message"])
    return outcome_of(body)


def outcome_of(body: dict[str, Any]) -> Outcome:
    """Make an Outcome from the body of a record on mesh.outcomes."""
    results = tuple(Result(r["type"], r["agent"], r.get("data", r.get("text"))) for r in body["results"])
    return Outcome(body["run"], body["ending"], results, tuple(body["refusals"]), tuple(body["failures"]), body)


def _json(payload: Any) -> bytes:
    if isinstance(payload, bytes):
        return payload
    data = encode(payload)
    if isinstance(data, Flaw):
        raise InvalidInput(f"the payload cannot be sent: {data.message}", code=data.code, where="publish")
    return data
