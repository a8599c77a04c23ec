"""The worker: one or more agents in one process, each a member of its own group on mesh.tasks.<agent>.

    answer acknowledged by the inbox  →  task finished  →  contiguous prefix committed

Tasks run in lanes (same ordering key in order, others in parallel). Answers of many tasks travel in one append. A
task whose process dies is read again by whoever gets the partition; its answer has the same id, so the second one
is dropped by the orchestrator. Retries are the orchestrator's: here a task runs once and says how it went.
"""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from mesh.context import Context
from mesh.core import settle
from mesh.core.agent import Agent
from mesh.core.codec import Unreadable, read, write
from mesh.core.effect import DeadLetter
from mesh.core.errors import Fenced
from mesh.core.event import NO_USAGE, TASK, Event, Fault
from mesh.core.fold import dead_record
from mesh.core.offsets import OffsetTracker
from mesh.core.record import NewRecord, Record, TopicPartition
from mesh.core.records import dead_letter
from mesh.core.topology import AgentSpec, Topology
from mesh.wire.diagnostics import diagnostics
from mesh.wire.lanes import Lanes
from mesh.wire.loop import append_all
from mesh.wire.otel import Spans
from mesh.wire.ports import Board, Clock, Commit, Log, Member

POLL_WAIT_MS = 500
COMMIT_EVERY_MS = 50
REVOKE_WAIT_MS = 2_000
APPENDS_MAX = 4
THREADS_MAX = 64
_log = diagnostics("worker")


class Work(NamedTuple):
    """One record to work on, and the tracker of the assignment it came with."""

    record: Record
    tracker: OffsetTracker


class Answer(NamedTuple):
    """What a piece of work led to, waiting to be appended."""

    record: NewRecord
    work: Work


class Worker:
    """Run one with `await Worker(...).run(stop)`. `agents`: name → function, as topics.yaml's `run:` names them."""

    def __init__(
        self,
        log: Log,
        board: Board,
        topology: Topology,
        agents: Mapping[str, Agent],
        clock: Clock,
        *,
        records_max: int = 500,
        session_timeout_ms: int = 10_000,
        drain_timeout_ms: int = 10_000,
    ) -> None:
        self._shifts = [
            AgentShift(
                log,
                board,
                topology,
                topology.agents[name],
                agent,
                clock,
                records_max=records_max,
                session_timeout_ms=session_timeout_ms,
                drain_timeout_ms=drain_timeout_ms,
            )
            for name, agent in agents.items()
        ]

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then let running tasks end within the drain timeout."""
        async with asyncio.TaskGroup() as group:
            for shift in self._shifts:
                group.create_task(shift.run(stop), name=f"worker {shift.name}")

    async def wait_ready(self) -> None:
        """Returns when every agent here has joined its group and heard of its partitions."""
        for shift in self._shifts:
            await shift.ready.wait()

    @property
    def running(self) -> int:
        """Tasks in work right now."""
        return sum(shift.lanes.running for shift in self._shifts)


class AgentShift:
    """One agent at work in this process."""

    def __init__(
        self,
        log: Log,
        board: Board,
        topology: Topology,
        spec: AgentSpec,
        agent: Agent,
        clock: Clock,
        *,
        records_max: int,
        session_timeout_ms: int,
        drain_timeout_ms: int,
    ) -> None:
        self.name = spec.name
        self.lanes: Lanes[Work] = Lanes(self._handle, lanes_max=spec.lanes)
        self.ready = asyncio.Event()
        self._log, self._board, self._topology, self._clock = log, board, topology, clock
        self._spec, self._agent = spec, agent
        self._group = f"{topology.prefix}.{spec.name}"
        self._spans = Spans()
        self._records_max = records_max
        self._session_timeout_ms = session_timeout_ms
        self._drain_timeout_ms = drain_timeout_ms
        self._trackers: dict[TopicPartition, OffsetTracker] = {}
        self._answers: list[Answer] = []
        self._answered = asyncio.Event()
        self._joined: asyncio.Future[Member] | None = None
        self._commits = asyncio.Lock()
        self._error: BaseException | None = None
        self._threads: ThreadPoolExecutor | None = None
        if not agent.is_async:
            self._threads = ThreadPoolExecutor(min(spec.lanes, THREADS_MAX), thread_name_prefix=spec.name)

    async def run(self, stop: asyncio.Event) -> None:
        """Poll, work, answer, commit, until `stop`; then drain."""
        self._joined = asyncio.get_running_loop().create_future()
        member = await self._log.join(
            self._group,
            [self._topology.tasks(self.name)],
            self,
            session_timeout_ms=self._session_timeout_ms,
        )
        self._joined.set_result(member)
        try:
            async with asyncio.TaskGroup() as group:
                answers = group.create_task(self._send_answers(), name=f"answers {self.name}")
                commits = group.create_task(self._commit_often(member), name=f"commits {self.name}")
                await self._poll(member, stop)
                await self._drain(member)
                answers.cancel()
                commits.cancel()
        finally:
            self.lanes.cancel()
            await member.close()
            if self._threads is not None:
                self._threads.shutdown(wait=False, cancel_futures=True)

    async def _poll(self, member: Member, stop: asyncio.Event) -> None:
        window = self._spec.lanes + self._records_max
        while not stop.is_set():
            await self.lanes.below(window)
            batches = await member.poll(records_max=self._records_max, wait_ms=POLL_WAIT_MS)
            if self._error is not None:
                raise self._error
            for tp, records in batches.items():
                tracker = self._trackers.get(tp)
                if tracker is None:
                    continue  # revoked while the records were on their way
                for record in records:  # all are taken before anything is awaited
                    tracker.take(record.offset)
                for record in records:
                    self.lanes.put(record.key or b"", Work(record, tracker))

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """Listener: begin where the group stands."""
        for tp in partitions:
            self._trackers[tp] = OffsetTracker()
        task = asyncio.get_running_loop().create_task(self._resume(partitions), name=f"resume {self.name}")
        task.add_done_callback(self._resumed)

    async def _resume(self, partitions: Sequence[TopicPartition]) -> None:
        assert self._joined is not None  # `run` makes it before it joins
        member = await self._joined
        member.resume(*(tp for tp in partitions if tp in self._trackers))
        self.ready.set()

    def _resumed(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self._error = task.exception()

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Listener: begin nothing more of these, wait a moment for what runs, commit what is done.

        What still runs then is finished as an orphan: its answer is sent, its offset is not committed, the new
        owner does it again with the same task id.
        """
        gone = {tp: tracker for tp in partitions if (tracker := self._trackers.pop(tp, None)) is not None}
        deadline_ms = self._clock.monotonic_ms() + REVOKE_WAIT_MS
        while any(len(t) for t in gone.values()) and self.lanes.running and self._clock.monotonic_ms() < deadline_ms:
            await self._clock.sleep_ms(5)
        if self._joined is not None and self._joined.done():
            await self._commit(self._joined.result(), gone)

    async def _handle(self, work: Work) -> None:
        """Run one task to an answer. Never raises for what the task does."""
        if self._trackers.get(TopicPartition(work.record.topic, work.record.partition)) is not work.tracker:
            return  # revoked before it began: the new owner has it
        task = read(work.record)
        if isinstance(task, Unreadable) or task.kind != TASK or task.agent != self.name:
            answer = dead_letter(self._misfit(task, work.record), self._topology)
        else:
            with self._spans.process(task, topic=work.record.topic, group=self._group) as span:
                event = await self._answer(span.task)
                span.answered(event)
            answer = NewRecord(self._topology.inbox, event.run_id.encode(), event.data, write(event))
        self._answers.append(Answer(answer, work))
        self._answered.set()

    async def _answer(self, task: Event) -> Event:
        context = Context(
            agent=self.name,
            run_id=task.run_id,
            task_id=task.task_id,
            attempt=task.attempt,
            depth=task.depth,
            path=task.path,
            deadline_ms=task.expiry_ms,
            board=self._board,
        )
        left_ms = None if task.expiry_ms is None else task.expiry_ms - self._clock.now_ms()
        timeout_ms = self._spec.timeout_ms if left_ms is None else min(self._spec.timeout_ms, left_ms)
        if timeout_ms <= 0:
            fault = Fault("expired", "the run's deadline passed before the task began", retryable=False)
            return settle.failed(task, fault, NO_USAGE)
        try:
            arguments = settle.arguments(self._agent, task)
            if self._agent.context is not None:
                arguments[self._agent.context] = context
            async with asyncio.timeout(timeout_ms / 1000) as limit:
                value = await self._call(arguments)
            parts = settle.parts_of(self._agent, self._spec, value)
        except TimeoutError as error:
            fault = settle.fault_of(error)
            if limit.expired() and timeout_ms == left_ms:
                fault = Fault("expired", f"{self.name} was cancelled at the run's deadline", retryable=False)
            elif limit.expired():
                fault = Fault("timed_out", f"{self.name} took longer than {timeout_ms} ms and was cancelled")
        except asyncio.CancelledError as error:
            if (current := asyncio.current_task()) is not None and current.cancelling():
                raise  # it is this process that stops
            fault = settle.fault_of(error)
        except BaseException as error:  # noqa: BLE001  # an agent may raise anything, even SystemExit: its answer
            fault = settle.fault_of(error)
        else:
            return settle.succeeded(task, parts, settle.usage_of(context.usd, context.tokens))
        usage = None if fault.code == "bad_usage" else settle.usage_of(context.usd, context.tokens)
        return settle.failed(task, fault, usage)

    async def _call(self, arguments: dict[str, Any]) -> Any:
        if self._threads is None:
            return await self._agent.function(**arguments)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: self._agent.function(**arguments))

    def _misfit(self, task: Event | Unreadable, record: Record) -> DeadLetter:
        if isinstance(task, Unreadable):
            return dead_record(record, task.code, task.message)
        text = f"{task.kind!r} for agent {task.agent!r} on the topic of {self.name!r}"
        return dead_record(record, "wrong_agent" if task.kind == TASK else "unknown_kind", text, task)

    async def _send_answers(self) -> None:
        """Append answers as they come, many at once, a few appends under way."""
        free = asyncio.Semaphore(APPENDS_MAX)
        async with asyncio.TaskGroup() as appends:
            while True:
                await self._answered.wait()
                await free.acquire()
                self._answered.clear()
                answers, self._answers = self._answers, []
                appends.create_task(self._send(answers)).add_done_callback(lambda _: free.release())

    async def _send(self, answers: Sequence[Answer]) -> None:
        """A task is finished when its answer is acknowledged, and not before."""
        await append_all(self._log, [answer.record for answer in answers], self._topology)
        for answer in answers:
            answer.work.tracker.finish(answer.work.record.offset)

    async def _commit_often(self, member: Member) -> None:
        while True:
            await self._clock.sleep_ms(COMMIT_EVERY_MS)
            await self._commit(member, self._trackers)

    async def _commit(self, member: Member, trackers: Mapping[TopicPartition, OffsetTracker]) -> None:
        async with self._commits:
            places = {tp: (t, place) for tp, t in trackers.items() if (place := t.place()) is not None}
            if not places:
                return
            try:
                await member.commit({tp: Commit(place) for tp, (_, place) in places.items()})
            except Fenced as fenced:
                _log.info("commit came too late", agent=self.name, reason=str(fenced))
                return
            for tracker, place in places.values():
                tracker.committed = place

    async def _drain(self, member: Member) -> None:
        try:
            async with asyncio.timeout(self._drain_timeout_ms / 1000):
                await self.lanes.below(1)
        except TimeoutError:
            _log.warning("tasks are left to the next owner", agent=self.name, running=self.lanes.running)
        while self._answers or any(len(t) and not self.lanes.running for t in self._trackers.values()):
            await self._clock.sleep_ms(2)
        await self._commit(member, self._trackers)
