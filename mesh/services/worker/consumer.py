"""The consumer of one agent in a worker process: reads its tasks, runs them in lanes, sends answers, commits."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from mesh.adapters.diagnostics import agent_context, diagnostics
from mesh.adapters.ports import Member
from mesh.adapters.tracing.span_factory import SpanFactory
from mesh.adapters.tracing.task_spans import TaskSpans
from mesh.core.protocol.event import Event
from mesh.core.protocol.record import NewRecord
from mesh.core.publishing.effect_records import inbox_record
from mesh.core.task.agent import Agent
from mesh.core.task.poison import DEATHS_MAX
from mesh.core.topology.model import AgentSpec
from mesh.runtime.board_changelog import is_mirrored
from mesh.runtime.execution.key_lanes import KeyLanes
from mesh.services.worker.assignment import PartitionAssignment, Work
from mesh.services.worker.attempt import Attempt, Caller
from mesh.services.worker.breaker_gate import BreakerGate
from mesh.services.worker.cache import ResultCache
from mesh.services.worker.counts import Counts
from mesh.services.worker.environment import Environment, Recorded
from mesh.services.worker.invocation import crash_loop, task_in
from mesh.services.worker.outbox import Changes, Outbox
from mesh.services.worker.partitions import Partitions
from mesh.services.worker.poison import PoisonGuard

POLL_WAIT_MS = 500
FLUSH_TIMEOUT_MS = 5_000
"""Time for the log to take the last answers of a stopping worker."""
Answer = Callable[[Event, Attempt], Awaitable[Event | None]]
"""Gives the answer to a task; None when its attempt was abandoned."""
_log = diagnostics("worker")


class AgentConsumer:
    """See the module. `pause` and `resume` are the kill switch and may be called at any time, repeatedly."""

    def __init__(self, environment: Environment, spec: AgentSpec, agent: Agent) -> None:
        topology, options = environment.topology, environment.options
        self.name, self.counts = spec.name, Counts()
        lanes_max = min(spec.lanes, agent.calls_max or spec.lanes)
        self.lanes: KeyLanes[Work] = agent_context(self.name).run(KeyLanes, self._handle, lanes_max=lanes_max)
        self.partitions = Partitions(
            environment, self.name, self.counts, is_ending=self.is_ending, fail=self.lanes.fail
        )
        self._topology, self._options, self._log = topology, options, environment.log
        self._window = spec.lanes + options.records_max
        """Tasks that may be queued or running before the next poll."""
        self._cache: ResultCache | None = None
        if spec.cache_ms is not None:
            store, holder = environment.board, options.holder
            self._cache = ResultCache(
                store, environment.clock, self.counts, agent=self.name, ttl_ms=spec.cache_ms, holder=holder
            )
        uses_board = agent.context is not None
        mirrors = uses_board and is_mirrored(environment.log, environment.board)
        self._outbox = Outbox(environment.log, topology, self._acknowledge, mirrors=mirrors)
        self.caller = Caller(
            environment,
            spec,
            agent,
            self.counts,
            cache=self._cache,
            append_changes=self._outbox.append_changes,
            on_abandoned=self._abandon,
        )
        factory = SpanFactory(environment.log.url)
        self.spans = TaskSpans(factory, topic=topology.tasks(self.name), group=topology.group(self.name))
        self.caller.invoked = self.spans.invoked
        self.gate = BreakerGate(spec, environment.clock, self.counts)
        guarded = self.gate.around(self.caller.answer)
        self._answer = self.spans.around(guarded)
        self._guard = PoisonGuard(agent, environment.slots, environment.isolated_processes, self)
        self._running: asyncio.Task[None] | None = None
        self._poison_ids: set[str] = set()
        """Ids of tasks that killed a process; an orchestrator that died with them may have sent them twice."""
        self._failed = False

    @property
    def abandoned_calls(self) -> int:
        """Number of abandoned calls that still run: coroutines and threads."""
        return self.lanes.abandoned_calls + self.caller.abandoned_calls

    @property
    def paused(self) -> bool:
        """Whether the kill switch holds this agent."""
        return self.partitions.paused

    def is_ending(self) -> bool:
        """Return whether the consumer ends for an error or by cancellation, not because it was asked to stop."""
        return self._failed or (self._running is not None and self._running.cancelling() > 0)

    def replay(self, recorded: Recorded, *, isolated: bool) -> None:
        """Take tasks as a recording has them, and let the function know. Call it before `run`."""
        self.caller.sandbox = True
        self.around(lambda answer: recorded.around(self._guard.around(answer) if isolated else answer))

    def around(self, wrap: Callable[[Answer], Answer]) -> None:
        """Answer every task through what `wrap` makes of the present way. Call it before `run`."""
        self._answer = wrap(self._answer)

    async def run(self, stop: asyncio.Event) -> None:
        """Poll, work, answer and commit until `stop`; then drain."""
        self._running = asyncio.current_task()
        try:
            member = await self.partitions.join()
            try:
                await self._work(member, stop)
            except BaseException:
                self._failed = True
                raise
            finally:
                self.caller.interrupt(abandon=False)
                self.lanes.cancel()
                await self.partitions.leave(member)
        finally:
            self.partitions.close()
            self.caller.close()
            _log.info("stopped", agent=self.name, **self.counts.shown())

    async def _work(self, member: Member, stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            polling = group.create_task(self._poll(member), name=f"tasks {self.name}")
            tasks = [
                group.create_task(self._outbox.run(), name=f"answers {self.name}"),
                group.create_task(self.partitions.commit_often(), name=f"commits {self.name}"),
            ]
            if self._cache is not None:
                tasks.append(group.create_task(self._cache.renew(), name=f"leases {self.name}"))
            await stop.wait()
            polling.cancel()  # a rebalance may block it for long
            await self._drain()
            for task in tasks:
                task.cancel()

    async def _poll(self, member: Member) -> None:
        while True:
            await self.lanes.wait_below(self._window)
            await self._outbox.room()
            batches = await member.poll(records_max=self._options.records_max, wait_ms=POLL_WAIT_MS)
            owned = self.partitions.owned
            mine = [(found, new) for tp, new in batches.items() if (found := owned.get(tp)) is not None]
            for assignment, new in mine:  # all offsets are tracked before the first await
                for record in new:
                    assignment.tracker.take(record.offset)
            for assignment, new in mine:
                for record in new:
                    self.lanes.put(record.key or b"", Work(record, assignment))

    async def _drain(self) -> None:
        """Begin nothing new, let running tasks end and send the last answers, all within deadlines."""
        self.lanes.pause()
        self._outbox.close()
        try:
            async with asyncio.timeout(self._options.drain_timeout_ms / 1000):
                await self.lanes.wait_idle()
        except TimeoutError:
            _log.warning("tasks are left to the next owner", agent=self.name, running=self.lanes.running)
        self.caller.interrupt(abandon=False)
        self.lanes.cancel()
        await self.lanes.wait_abandoned(self._options.grace_ms)
        try:
            async with asyncio.timeout(FLUSH_TIMEOUT_MS / 1000):
                await self._outbox.flushed()
        except TimeoutError:
            _log.warning("the log did not take the last answers in time; they are given again", agent=self.name)

    # ----------------------------------------------------------------------------------------------- the kill switch

    def pause(self) -> None:
        """Begin nothing new and cancel running calls. Their tasks stay unanswered, in order, until `resume`.

        A function that ignores its cancellation is abandoned after the usual grace; a blocking one at once.
        """
        if not self.paused:
            self.lanes.pause()
            self.partitions.set_paused(True)
            self.caller.interrupt(abandon=True)
            self.lanes.interrupt()

    def resume(self) -> None:
        """Go on after `pause`."""
        if self.paused:
            self.lanes.resume()
            self.partitions.set_paused(False)

    # --------------------------------------------------------------------------------------------------------- tasks

    def _handle(self, work: Work) -> Coroutine[Any, Any, None]:
        """Run one task to an answer. Never raises for an error of the task."""
        if work.assignment.may_begin(work.record.offset) and not self._outbox.stalled and not self.is_ending():
            return self.run_attempt(Attempt(work, self._outbox.new_changes()))
        return self._handle_later(work)

    async def _handle_later(self, work: Work) -> None:
        """Handle a task that must wait for a commit, an answer or the log, or must not begin."""
        assignment, offset = work.assignment, work.record.offset
        if self.is_ending() or (self._outbox.stalled and not await self._outbox.flowing()):
            return  # a task that began now would be suspected of causing the end
        if assignment.previous is not None and assignment.is_owned and await assignment.answered_before(offset):
            assignment.finish(offset)
            self.partitions.request_commit()
            return
        if assignment.is_owned and offset < assignment.watch.suspected_below:
            await self._guard.handle(work)
            return
        if offset >= assignment.claimed or offset >= assignment.watch.claim_from:
            await self.partitions.claim(assignment, offset)
        if assignment.is_owned:  # else it was revoked, and the new owner has the task
            await self.run_attempt(Attempt(work, self._outbox.new_changes()))

    async def run_attempt(self, attempt: Attempt) -> None:
        """Run an attempt to its answer and send that."""
        work, assignment, answer = attempt.work, attempt.work.assignment, None
        assignment.in_work += 1
        try:
            task = task_in(work.record, self.name, self._topology)
            if isinstance(task, NewRecord):
                self.counts.undecodable += 1
                answer = task
            elif task.id in self._poison_ids:
                answer = inbox_record(crash_loop(task, DEATHS_MAX), self._topology)
            else:
                event = await self._answer(task, attempt)
                if attempt.killed:  # committed before the answer is sent, so that no later owner begins the task again
                    self._poison_ids.add(attempt.task.id)
                    assignment.watch.mark_poison(work.record.offset)
                    await self.partitions.commit_marks(assignment)
                if event is not None:
                    answer = inbox_record(event, self._topology)
                    work.sent = self.spans.sending(event, self._topology.inbox)
        finally:
            if answer is None and not attempt.abandoned:
                self._outbox.put_changes(attempt.written())
                assignment.in_work -= 1
        if answer is not None:
            self._send(answer, attempt)

    def _send(self, answer: NewRecord, attempt: Attempt) -> None:
        attempt.work.assignment.mark_answered(attempt.work.record.offset)
        self._outbox.put(answer, attempt.work, attempt.written())

    def _abandon(self, attempt: Attempt, event: Event | None) -> None:
        """Free the slot of an abandoned attempt. `event`: its answer; None: the task stays and is run again."""
        self.lanes.abandon(attempt.runner, keep=event is None)
        self.gate.record(attempt, event)
        if attempt.release is not None:
            attempt.release()
        if event is None:
            self._outbox.put_changes(attempt.written())
            attempt.work.assignment.in_work -= 1
        else:
            self._send(inbox_record(event, self._topology), attempt)

    def _acknowledge(self, works: Sequence[Work]) -> None:
        """Finish tasks whose answers are durable."""
        for work in works:
            if work.sent is not None:
                work.sent()
            work.assignment.finish(work.record.offset)
            work.assignment.in_work -= 1
        self.partitions.request_commit()

    # ------------------------------------------------------------------------------ TaskRunner, for suspected tasks

    def new_changes(self) -> Changes | None:
        """See TaskRunner."""
        return self._outbox.new_changes()

    async def commit_marks(self, assignment: PartitionAssignment) -> bool:
        """See TaskRunner."""
        return await self.partitions.commit_marks(assignment)

    def request_commit(self) -> None:
        """See TaskRunner."""
        self.partitions.request_commit()

    def mark_poison(self, work: Work, deaths: int) -> None:
        """See TaskRunner."""
        task = task_in(work.record, self.name, self._topology)
        work.assignment.in_work += 1
        if isinstance(task, NewRecord):
            self.counts.undecodable += 1
            self._outbox.put(task, work)
            return
        self.counts.failure("crash_loop")
        self._poison_ids.add(task.id)
        self._outbox.put(inbox_record(crash_loop(task, deaths), self._topology), work)
