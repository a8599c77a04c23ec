"""The partitions of one agent's topic that this process owns: takeover, commits, hand-over."""

import asyncio
from collections.abc import Callable, Iterable, Sequence

from mesh.adapters.diagnostics import diagnostics
from mesh.adapters.ports import REVOKE_MS_MAX, Member
from mesh.core.errors import Fenced
from mesh.core.protocol.record import TopicPartition
from mesh.core.task.poison import PoisonDetector, decode
from mesh.runtime.loop import Holding
from mesh.services.worker.assignment import PartitionAssignment
from mesh.services.worker.counts import Counts
from mesh.services.worker.environment import Environment

COMMIT_EVERY_MS = 50
REVOKE_WAIT_MS = REVOKE_MS_MAX // 2
"""Time for running tasks of a revoked partition. The other half of REVOKE_MS_MAX is left for the commit."""
_log = diagnostics("worker")


class Partitions:
    """Listener of the agent's consumer group. `is_ending`: the consumer ends for an error; `fail` ends it for one."""

    def __init__(
        self,
        environment: Environment,
        agent: str,
        counts: Counts,
        *,
        is_ending: Callable[[], bool],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._log, self._clock, self._options = environment.log, environment.clock, environment.options
        self._groups = environment.groups
        self._agent, self._counts = agent, counts
        self._group, self._topic = environment.topology.group(agent), environment.topology.tasks(agent)
        self._is_ending, self._fail = is_ending, fail
        self._after_outage = self._options.after_outage
        self.ready, self.paused = asyncio.Event(), False
        self.owned: dict[TopicPartition, PartitionAssignment] = {}
        self._past: dict[TopicPartition, PartitionAssignment] = {}
        """The last assignment of each partition that was revoked."""
        self.joined: asyncio.Future[Member] | None = None
        self._takeovers: set[asyncio.Task[None]] = set()
        self._commits, self._due = asyncio.Lock(), asyncio.Event()
        self._revoke_wait_ms = REVOKE_WAIT_MS

    @property
    def holding(self) -> Holding:
        """The partitions of the agent's topic that are worked on here."""
        owned = self.owned.values()
        ready = sum(assignment.is_ready for assignment in owned)
        return Holding(self._group, ready, self.ready.is_set() and ready == len(owned))

    async def join(self) -> Member:
        """Join the group. Partitions come by `assigned`, perhaps before this returns."""
        self.joined = asyncio.get_running_loop().create_future()
        timeout_ms = self._options.session_timeout_ms
        member = await self._groups.join(self._group, [self._topic], self, session_timeout_ms=timeout_ms)
        self.joined.set_result(member)
        return member

    async def leave(self, member: Member) -> None:
        """Leave the group without waiting for running tasks."""
        self._revoke_wait_ms = 0
        await member.close()

    def close(self) -> None:
        """Cancel takeovers that are under way."""
        for takeover in self._takeovers:
            takeover.cancel()

    def set_paused(self, paused: bool) -> None:
        """Stop or resume reading records of all partitions."""
        self.paused = paused
        for assignment in self.owned.values():
            self._set_flow(assignment)

    def _set_flow(self, assignment: PartitionAssignment) -> None:
        if assignment.is_ready and self.joined is not None:
            member = self.joined.result()
            try:
                (member.pause if self.paused else member.resume)(assignment.partition)
            except Fenced as fenced:
                _log.info("a partition was about to be revoked", agent=self._agent, reason=str(fenced))

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """Begin to take over partitions (listener)."""
        new = [PartitionAssignment(tp, self._past.pop(tp, None)) for tp in partitions]
        self.owned.update((assignment.partition, assignment) for assignment in new)
        task = asyncio.get_running_loop().create_task(self._take_over(new), name=f"take over {self._agent}")
        self._takeovers.add(task)
        task.add_done_callback(self._taken_over)

    async def _take_over(self, new: Sequence[PartitionAssignment]) -> None:
        """Read what the previous owner left, commit that this worker is at work, let records come."""
        assert self.joined is not None  # `join` sets it first
        member = await self.joined
        bounds, (after_outage, self._after_outage) = None, (self._after_outage, False)
        for assignment in new:
            topic, number = assignment.partition
            commit = await member.committed(assignment.partition)
            if not assignment.is_owned:
                continue  # revoked meanwhile: the commit may be that of the next owner, which is at work
            marks = decode("" if commit is None else commit.metadata, 0 if commit is None else commit.offset)
            if bounds is None and (commit is None or marks.working):
                bounds = await self._log.bounds(topic)
            offset = bounds[number].start if commit is None and bounds is not None else commit.offset if commit else 0
            end = offset if bounds is None else bounds[number].end
            watch = PoisonDetector(marks, place=offset, end=end, by=self._options.holder, away=after_outage)
            assignment.start(watch, offset)
        if suspected := [each.watch.suspected_count for each in new if each.is_started and each.watch.predecessor_died]:
            self._counts.deaths += 1
            isolated = sum(suspected)
            _log.warning("a worker died", agent=self._agent, partitions=len(suspected), begun_apart_now=isolated)
        # A commit must say that this worker is at work before any task begins.
        while (owned := [each for each in new if each.is_owned]) and not await self.commit(owned):
            await self._clock.sleep_ms(COMMIT_EVERY_MS)
        for assignment in owned:
            assignment.is_ready = assignment.is_owned
            if not self.paused:
                self._set_flow(assignment)
        self.ready.set()

    def _taken_over(self, task: asyncio.Task[None]) -> None:
        self._takeovers.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Begin nothing more of these, wait a moment for running tasks, commit what is done (listener).

        A task that still runs then is an orphan: its answer is sent, but its offset is not committed. The new owner
        runs it again under the same task id.
        """
        revoked = [found for tp in partitions if (found := self.owned.pop(tp, None)) is not None]
        for assignment in revoked:
            assignment.is_owned, self._past[assignment.partition] = False, assignment
        deadline_ms = self._clock.monotonic_ms() + self._revoke_wait_ms
        while any(each.in_work for each in revoked) and self._clock.monotonic_ms() < deadline_ms:
            await self._clock.sleep_ms(5)
        if not self._is_ending():  # otherwise a task in work may be the cause, and the commit would clear it
            await self.commit([each for each in revoked if each.is_started], working=False)

    # ------------------------------------------------------------------------------------------------------- commits

    def request_commit(self) -> None:
        """Let the periodic commit run within COMMIT_EVERY_MS."""
        self._due.set()

    async def commit_often(self) -> None:
        """Commit requested progress until cancelled."""
        while True:
            await self._due.wait()
            self._due.clear()
            await self._clock.sleep_ms(COMMIT_EVERY_MS)
            if not await self.commit([each for each in self.owned.values() if each.is_ready]):
                self._due.set()  # some of the partitions may still be owned

    async def claim(self, assignment: PartitionAssignment, offset: int) -> None:
        """Return when a commit says that this record may be in work here, or when the partition is lost."""
        if offset >= assignment.watch.claim_from:
            assignment.watch.claim(offset, self._clock.monotonic_ms())
            self._due.set()
        if offset >= assignment.claimed:
            await self.commit_marks(assignment)

    async def commit_marks(self, assignment: PartitionAssignment) -> bool:
        """Return when the present marks of a partition are committed. False: the partition was revoked."""
        version = assignment.watch.version
        async with assignment.commit_lock:
            while assignment.is_owned and assignment.committed_version < version:
                if not await self.commit([assignment]):
                    await self._clock.sleep_ms(COMMIT_EVERY_MS)
        return assignment.is_owned

    async def commit(self, assignments: Iterable[PartitionAssignment], *, working: bool = True) -> bool:
        """Commit progress and marks. False: some of the partitions are not owned any more."""
        assert self.joined is not None  # partitions come only after joining
        async with self._commits:
            due = [(a, c) for a in assignments if a.is_owned is working and (c := a.next_commit(working=working))]
            if not due:
                return True
            try:
                await self.joined.result().commit({a.partition: c.commit for a, c in due})
            except Fenced as fenced:
                _log.info("commit came too late", agent=self._agent, reason=str(fenced))
                return False
            for assignment, commit in due:
                assignment.record_commit(commit)
            return True
