"""One agent at work in this process: its partitions, what is begun of them, and how far they are done."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from mesh.adapters.diagnostics import agent_context, diagnostics
from mesh.adapters.ports import REVOKE_MS_MAX, Board, Clock, Log, Member
from mesh.adapters.telemetry import Spans
from mesh.core.errors import Fenced
from mesh.core.protocol.event import Event
from mesh.core.protocol.record import NewRecord, TopicPartition
from mesh.core.publishing.effect_records import inbox_record
from mesh.core.task.agent import Agent
from mesh.core.task.poison import DEATHS_MAX, PoisonDetector, decode
from mesh.core.topology.model import AgentSpec, Topology
from mesh.runtime.board_changelog import is_mirrored
from mesh.runtime.execution.isolation import IsolatedProcesses
from mesh.runtime.execution.key_lanes import KeyLanes
from mesh.services.worker.assignment import Held, Work
from mesh.services.worker.attempt import Attempt, Caller
from mesh.services.worker.breaker_gate import BreakerGate
from mesh.services.worker.cache import ResultCache
from mesh.services.worker.counts import Counts
from mesh.services.worker.invocation import crash_loop
from mesh.services.worker.outbox import Outbox
from mesh.services.worker.poison import MarkSlots, PoisonGuard
from mesh.services.worker.undecodable import task_in

POLL_WAIT_MS = 500
COMMIT_EVERY_MS = 50
REVOKE_WAIT_MS = REVOKE_MS_MAX // 2
"""How long running tasks of a revoked partition are waited for. The other half is left for the commit."""
FLUSH_TIMEOUT_MS = 5_000
"""How long a stopping worker waits for the log to take its last answers."""
_log = diagnostics("worker")


class AgentConsumer:
    """See the module. `hold` and `release` are the kill switch: they may be called at any time, again and again."""

    def __init__(
        self,
        log: Log,
        board: Board,
        topology: Topology,
        spec: AgentSpec,
        agent: Agent,
        clock: Clock,
        places: MarkSlots,
        cells: IsolatedProcesses | None,
        *,
        records_max: int,
        session_timeout_ms: int,
        drain_timeout_ms: int,
        grace_ms: int,
        holder: str,
        away: bool,
        call_abandoned: Callable[[], None],
    ) -> None:
        self.name, self.counts = spec.name, Counts()
        self.lanes: KeyLanes[Work] = agent_context(self.name).run(KeyLanes, self._handle, lanes_max=spec.lanes)
        self.ready, self.held = asyncio.Event(), False  # held by somebody: nothing is begun
        self._log, self._topology, self._clock = log, topology, clock
        self._spec, self._holder, self._away = spec, holder, away
        self._group = topology.group(spec.name)
        self._records_max, self._session_timeout_ms = records_max, session_timeout_ms
        self._drain_timeout_ms, self._grace_ms, self._revoke_wait_ms = drain_timeout_ms, grace_ms, REVOKE_WAIT_MS
        self._cache: ResultCache | None = None
        if spec.cache_ms is not None:
            self._cache = ResultCache(board, clock, self.counts, agent=self.name, ttl_ms=spec.cache_ms, holder=holder)
        writes = agent.context is not None  # else it never sees the board
        self._outbox = Outbox(log, topology, self._acknowledged, mirrors=writes and is_mirrored(log, board))
        self.caller = Caller(
            *(spec, agent, board, clock, log.now_ms, self.counts, self._cache, self._outbox.told),
            grace_ms=grace_ms,
            left=self._left,
            call_abandoned=call_abandoned,
        )
        self.gate, topic = BreakerGate(spec, clock, self.counts), topology.tasks(spec.name)
        self._answer = Spans().around(self.gate.around(self.caller.answer), topic=topic, group=self._group)
        self._commits, self._news = asyncio.Lock(), asyncio.Event()
        self._suspects = PoisonGuard(
            *(agent, places, cells),
            changes=self._outbox.changes,
            say=self._say,
            do=self._do,
            condemn=self._condemn,
            news=self._news.set,
            ending=self._ending,
        )
        self._partitions: dict[TopicPartition, Held] = {}
        self._past: dict[TopicPartition, Held] = {}
        """Partitions that went, as they were then."""
        self._joined: asyncio.Future[Member] | None = None
        self._running: asyncio.Task[None] | None = None
        self._takeovers: set[asyncio.Task[None]] = set()
        self._killers: set[str] = set()  # task ids; an orchestrator that died with them may have sent them twice
        self._failed = False

    @property
    def abandoned_calls(self) -> int:
        """Calls of the function that were given up and have not ended: coroutines and threads."""
        return self.lanes.abandoned_calls + self.caller.abandoned_calls

    def _ending(self) -> bool:
        """Whether all of this ends, but not since it was told to stop."""
        return self._failed or (self._running is not None and self._running.cancelling() > 0)

    async def run(self, stop: asyncio.Event) -> None:
        """Poll, work, answer, commit, until `stop`; then drain."""
        self._joined = asyncio.get_running_loop().create_future()
        self._running = asyncio.current_task()
        try:
            topics, timeout_ms = [self._topology.tasks(self.name)], self._session_timeout_ms
            member = await self._log.join(self._group, topics, self, session_timeout_ms=timeout_ms)
            self._joined.set_result(member)
            try:
                await self._work(member, stop)
            except BaseException:
                self._failed = True
                raise
            finally:
                self.caller.interrupt(abandon=False)
                self.lanes.cancel()
                self._revoke_wait_ms = 0
                await member.close()
        finally:
            for takeover in self._takeovers:
                takeover.cancel()
            self.caller.close()
            _log.info("stopped", agent=self.name, **self.counts.shown())

    async def _work(self, member: Member, stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            polling = group.create_task(self._poll(member), name=f"tasks {self.name}")
            tasks = [
                group.create_task(self._outbox.run(), name=f"answers {self.name}"),
                group.create_task(self._commit_often(), name=f"commits {self.name}"),
            ]
            if self._cache is not None:
                tasks.append(group.create_task(self._cache.renew(), name=f"leases {self.name}"))
            await stop.wait()
            polling.cancel()  # it may sit in a rebalance, and that may last
            await self._drain()
            for task in tasks:
                task.cancel()

    # ----------------------------------------------------------------------------------------------- the kill switch

    def hold(self) -> None:
        """Begin nothing new, cancel what runs. Tasks stay unanswered and in order, and are done after `release`.

        A function that ignores its cancellation is abandoned after the usual grace; a blocking one at once.
        """
        if not self.held:
            self.held = True
            self.lanes.pause()
            for held in self._partitions.values():
                self._flow(held)
            self.caller.interrupt(abandon=True)
            self.lanes.interrupt()

    def release(self) -> None:
        """Go on after `hold`."""
        if self.held:
            self.held = False
            self.lanes.resume()
            for held in self._partitions.values():
                self._flow(held)

    def _flow(self, held: Held) -> None:
        """Let records of a partition come, or not."""
        if held.ready and self._joined is not None:
            member = self._joined.result()
            try:
                (member.pause if self.held else member.resume)(held.partition)
            except Fenced as fenced:
                _log.info("a partition was about to go", agent=self.name, reason=str(fenced))

    # ---------------------------------------------------------------------------------------------------- partitions

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """Listener: see what the one before left, then begin where the group stands."""
        held = [Held(tp, self._past.pop(tp, None)) for tp in partitions]
        self._partitions.update((h.partition, h) for h in held)
        task = asyncio.get_running_loop().create_task(self._take_over(held), name=f"take over {self.name}")
        self._takeovers.add(task)
        task.add_done_callback(self._taken_over)

    async def _take_over(self, partitions: Sequence[Held]) -> None:
        assert self._joined is not None  # `run` makes it before it joins
        member = await self._joined
        bounds, (away, self._away) = None, (self._away, False)
        for held in partitions:
            topic, number = held.partition
            commit = await member.committed(held.partition)
            if not held.live:
                continue  # it was revoked meanwhile: the commit may be that of its next owner, who is at work
            marks = decode("" if commit is None else commit.metadata, 0 if commit is None else commit.offset)
            if bounds is None and (commit is None or marks.working):
                bounds = await self._log.bounds(topic)
            place = bounds[number].start if commit is None and bounds is not None else commit.offset if commit else 0
            end = place if bounds is None else bounds[number].end
            held.begin(PoisonDetector(marks, place=place, end=end, by=self._holder, away=away), place)
        if suspected := [held.watch.suspects for held in partitions if held.begun and held.watch.predecessor_died]:
            self.counts.deaths += 1
            apart = sum(suspected)
            _log.warning("a worker died", agent=self.name, partitions=len(suspected), begun_apart_now=apart)
        # That we are at work must stand in the log before anything begins.
        while (live := [held for held in partitions if held.live]) and not await self._commit(live):
            await self._clock.sleep_ms(COMMIT_EVERY_MS)
        for held in live:
            held.ready = held.live
            if not self.held:
                self._flow(held)
        self.ready.set()

    def _taken_over(self, task: asyncio.Task[None]) -> None:
        self._takeovers.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.lanes.fail(error)

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Listener: begin nothing more of these, wait a moment for what runs, commit what is done.

        What still runs then is finished as an orphan: its answer is sent, its offset is not committed, the new
        owner does it again with the same task id.
        """
        gone = [held for tp in partitions if (held := self._partitions.pop(tp, None)) is not None]
        for held in gone:
            held.live, self._past[held.partition] = False, held
        deadline_ms = self._clock.monotonic_ms() + self._revoke_wait_ms
        while any(held.open for held in gone) and self._clock.monotonic_ms() < deadline_ms:
            await self._clock.sleep_ms(5)
        if not self._ending():  # else nobody may think that all was in order: what was in work may be why
            await self._commit([held for held in gone if held.begun], working=False)

    async def _poll(self, member: Member) -> None:
        window = self._spec.lanes + self._records_max
        while True:
            await self.lanes.wait_below(window)
            await self._outbox.room()
            batches = await member.poll(records_max=self._records_max, wait_ms=POLL_WAIT_MS)
            mine = [(held, new) for tp, new in batches.items() if (held := self._partitions.get(tp)) is not None]
            for held, new in mine:  # all are taken before anything is awaited
                for record in new:
                    held.tracker.take(record.offset)
            for held, new in mine:
                for record in new:
                    self.lanes.put(record.key or b"", Work(record, held))

    # --------------------------------------------------------------------------------------------------------- tasks

    def _handle(self, work: Work) -> Coroutine[Any, Any, None]:
        """Run one task to an answer. Never raises for what the task does."""
        held, offset = work.held, work.record.offset
        if held.free(offset) and not self._outbox.stalled and not self._ending():
            return self._do(Attempt(work, self._outbox.changes()))
        return self._handle_with_care(work)

    async def _handle_with_care(self, work: Work) -> None:
        """One that has to wait for something, or may not begin."""
        held, offset = work.held, work.record.offset
        if self._ending() or (self._outbox.stalled and not await self._outbox.flowing()):
            return  # what began now would be suspected to be why all of this ends
        if held.before is not None and held.live and await held.answered_before(offset):
            held.finish(offset)
            self._news.set()
            return
        if held.live and offset < held.watch.suspected_below:
            await self._suspects.handle(work)
            return
        if offset >= held.claimed or offset >= held.watch.claim_from:
            await self._claim(held, offset)
        if not held.live:
            return  # revoked before it began: the new owner has it
        await self._do(Attempt(work, self._outbox.changes()))

    async def _claim(self, held: Held, offset: int) -> None:
        """Returns when the log says that this record may be in work here, or when the partition is lost."""
        if offset >= held.watch.claim_from:
            held.watch.claim(offset, self._clock.monotonic_ms())
            self._news.set()
        if offset >= held.claimed:
            await self._say(held)

    async def _say(self, held: Held) -> bool:
        """Returns when the log has heard what is known of a partition now. False: it is not ours any more."""
        version = held.watch.version
        async with held.speaking:
            while held.live and held.version_said < version:
                if not await self._commit([held]):
                    await self._clock.sleep_ms(COMMIT_EVERY_MS)
        return held.live

    async def _do(self, attempt: Attempt) -> None:
        """Run an attempt to its answer, and send that."""
        work, held, answer = attempt.work, attempt.work.held, None
        held.open += 1
        try:
            task = task_in(work.record, self.name, self._topology)
            if isinstance(task, NewRecord):
                self.counts.misfits += 1
                answer = task
            elif task.id in self._killers:
                answer = inbox_record(crash_loop(task, DEATHS_MAX), self._topology)
            else:
                event = await self._answer(task, attempt)
                if attempt.killed:  # said before anybody hears: whatever ends us then, nobody begins it again
                    self._killers.add(attempt.task.id)
                    held.watch.condemn(work.record.offset)
                    await self._say(held)
                if event is not None:
                    answer = inbox_record(event, self._topology)
        finally:
            if answer is None and not attempt.abandoned:
                self._outbox.tell(attempt.written())
                held.open -= 1
        if answer is not None:
            self._send(answer, attempt)

    def _send(self, answer: NewRecord, attempt: Attempt) -> None:
        attempt.work.held.on_its_way(attempt.work.record.offset)
        self._outbox.put(answer, attempt.work, attempt.written())

    def _left(self, attempt: Attempt, event: Event | None) -> None:
        """An attempt was abandoned: its slot is free, its task answered, or kept for later."""
        self.lanes.abandon(attempt.runner, keep=event is None)
        self.gate.heard(attempt, event)
        if attempt.leave is not None:
            attempt.leave()
        if event is None:
            self._outbox.tell(attempt.written())
            attempt.work.held.open -= 1
        else:
            self._send(inbox_record(event, self._topology), attempt)

    def _condemn(self, work: Work, deaths: int) -> None:
        task = task_in(work.record, self.name, self._topology)
        work.held.open += 1
        if isinstance(task, NewRecord):
            self.counts.misfits += 1
            self._outbox.put(task, work)
            return
        self.counts.failure("crash_loop")
        self._killers.add(task.id)
        self._outbox.put(inbox_record(crash_loop(task, deaths), self._topology), work)

    def _acknowledged(self, works: Sequence[Work]) -> None:
        """Tasks are finished when their answers are durable, and not before."""
        for work in works:
            work.held.finish(work.record.offset)
            work.held.open -= 1
        self._news.set()

    # ------------------------------------------------------------------------------------------------------- commits

    async def _commit_often(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            await self._clock.sleep_ms(COMMIT_EVERY_MS)
            if not await self._commit([held for held in self._partitions.values() if held.ready]):
                self._news.set()  # some of them may be ours still

    async def _commit(self, partitions: Iterable[Held], *, working: bool = True) -> bool:
        """Say how far these are done, and that we are at work on them. False: they are not all ours any more."""
        assert self._joined is not None  # there were partitions
        async with self._commits:
            said = [(held, s) for held in partitions if held.live is working and (s := held.saying(working=working))]
            if not said:
                return True
            try:
                await self._joined.result().commit({held.partition: saying.commit for held, saying in said})
            except Fenced as fenced:
                _log.info("commit came too late", agent=self.name, reason=str(fenced))
                return False
            for held, saying in said:
                held.was_said(saying)
            return True

    async def _drain(self) -> None:
        """Begin nothing new, let what runs end, send the last answers; all within deadlines."""
        self.lanes.pause()
        self._outbox.last()
        try:
            async with asyncio.timeout(self._drain_timeout_ms / 1000):
                await self.lanes.wait_idle()
        except TimeoutError:
            _log.warning("tasks are left to the next owner", agent=self.name, running=self.lanes.running)
        self.caller.interrupt(abandon=False)
        self.lanes.cancel()
        await self.lanes.wait_abandoned(self._grace_ms)
        try:
            async with asyncio.timeout(FLUSH_TIMEOUT_MS / 1000):
                await self._outbox.flushed()
        except TimeoutError:
            _log.warning("the log did not take the last answers in time; they are given again", agent=self.name)
