"""The orchestrator: folds mesh.inbox, performs the effects of `decide`, runs the timers.

One process is one member of a group; each inbox partition it owns is a `Partition` (the state) and `Timers`. A restore
reads the checkpoint that the commit names (`runtime.checkpoint_manager`) and the silent fold of the inbox from there
up to the committed offset: the effects were acknowledged before that commit.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence

from mesh.adapters.diagnostics import diagnostics
from mesh.adapters.log_time import ask_time
from mesh.adapters.ports import SESSION_TIMEOUT_MS, Clock, Commit, Log
from mesh.adapters.tracing.decision_spans import DecisionSpans
from mesh.adapters.tracing.span_factory import SpanFactory
from mesh.core.errors import TopicsInvalid
from mesh.core.protocol.codec import read_event
from mesh.core.protocol.event import DUE, Event
from mesh.core.protocol.record import NewRecord, Record, TopicPartition
from mesh.core.publishing.effect_records import due_record, record_of
from mesh.core.publishing.request_rejection import late_rejections
from mesh.core.run.effects import BreakerTransition, DeadLetter, Finish, Note, Schedule
from mesh.core.run.state import Run
from mesh.core.state.partition_state import Partition, TopologyMissing
from mesh.core.state.row_codec import pending_timers
from mesh.core.state.timers import Timers
from mesh.core.task.abandoned_calls import ending_records
from mesh.core.topology.model import Topology
from mesh.core.topology.partition_counts import find_mismatches, remedies_for
from mesh.runtime.checkpoint_manager import COSTS, CheckpointManager, Costs
from mesh.runtime.control_relay import ControlRelay
from mesh.runtime.decision_log import DecisionLog
from mesh.runtime.loop import Holding, Loop, append_all
from mesh.runtime.unserved_tasks import GRACE_MS, UnservedTasks

TIMER_IDLE_MS = 1_000
TIMERS_A_TURN = 10_000
"""Timers that a restore sets before it yields to heartbeats and live partitions: about 8 ms."""
TIMER_PAUSE_MS = 20
"""Pause between two rounds of timers: those that become due meanwhile share an append."""
SWEEP_EVERY_MS = 1_000
SWEEP_TIMERS_MAX = 20_000
"""Timers of one partition that a sweep checks: about 2 ms."""
_log = diagnostics("orchestrator")


class Orchestrator:
    """Run one with `await Orchestrator(...).run(stop)`. Several, in one process or many, share the partitions."""

    def __init__(
        self,
        log: Log,
        topology: Topology,
        clock: Clock,
        *,
        records_max: int = 500,
        session_timeout_ms: int = SESSION_TIMEOUT_MS,
        absence_ms: int = GRACE_MS,
        costs: Costs = COSTS,
        traced_share: float = 0.0,
    ) -> None:
        """`costs` decide when checkpoints are written; `absence_ms`: see `UnservedTasks`; `traced_share`: of runs whose
        decisions have spans."""
        self._log = log
        self._topology = topology
        self._clock = clock
        self._states: dict[TopicPartition, Partition] = {}
        self._timers: dict[TopicPartition, Timers] = {}
        """Timers by partition, measured by the uptime of this machine: setting its clock moves no timer."""
        self._timer_set = asyncio.Event()
        self._decisions = DecisionLog()
        self._spans = DecisionSpans(
            SpanFactory(log.url),
            inbox=topology.inbox,
            dead=topology.dead,
            group=topology.group("orchestrator"),
            share=traced_share,
        )
        self._relay = ControlRelay(log, topology)
        self._unserved = UnservedTasks(log, topology, clock, lambda: self._relay.control, grace_ms=absence_ms)
        self._checkpoints = CheckpointManager(
            log,
            topology,
            clock,
            recommit=lambda partition: self._loop.recommit(partition),
            watch=lambda task: self._loop.watch(task),
            costs=costs,
        )
        self.notes: Counter[str] = Counter()
        """Number of drops by reason code since the start of this process."""
        self.endings: Counter[str] = Counter()
        """Number of runs that ended, by ending, since the start of this process."""
        self.redriven: Counter[str] = Counter()
        """Number of those that were redriven, by ending."""
        self.letters: Counter[tuple[str, str]] = Counter()
        """Number of dead letters by agent and reason code since the start of this process."""
        self._loop = Loop(
            log,
            self,
            topology,
            group=topology.group("orchestrator"),
            topics=[topology.inbox],
            metadata=self._checkpoints,
            records_max=records_max,
            session_timeout_ms=session_timeout_ms,
        )
        self.ready = self._loop.ready

    @property
    def holding(self) -> Holding:
        """The partitions of the inbox that are decided here."""
        return self._loop.holding

    @property
    def open_runs(self) -> int:
        """Number of runs of these partitions that have not ended."""
        return sum(len(state.runs) for state in self._states.values())

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set. Raises TopicsInvalid when the inbox is not as it was created."""
        await self._check_topics()
        await ask_time(self._log, self._topology)
        await self._checkpoints.start()
        async with asyncio.TaskGroup() as group:
            timers = group.create_task(self._fire_timers(), name="timers")
            relay = group.create_task(self._relay.run(), name="relay control")
            aged = group.create_task(self._checkpoints.run(), name="checkpoints of old tails")
            unserved_tasks = group.create_task(self._unserved.run(), name="unserved tasks")
            try:
                await self._loop.run(stop)
            finally:
                timers.cancel()
                relay.cancel()
                aged.cancel()
                unserved_tasks.cancel()
                self._decisions.flush()
                await self._checkpoints.close()

    async def restore(self, partition: TopicPartition, commit: Commit | None) -> int | None:
        """Restore a partition from the checkpoint that the commit names and the records since (stage)."""
        began_ms = self._clock.monotonic_ms()
        state, start = await self._checkpoints.restore(partition, commit)
        timers, ahead_ms = Timers(), state.time_at(self._log.now_ms()) - round(self._clock.uptime_ms())
        for n, timer in enumerate(pending_timers(state.runs)):
            if n % TIMERS_A_TURN == 0:
                await asyncio.sleep(0)
            timers.add(timer, timer.due_ms - ahead_ms)
        self._states[partition], self._timers[partition] = state, timers
        self._timer_set.set()
        self._relay.opened(partition, state.control)
        self._unserved.partitions.add(partition.partition)
        took_ms = round(self._clock.monotonic_ms() - began_ms)
        _log.info(
            "partition is live", partition=partition.partition, at=start, open_runs=len(state.runs), took_ms=took_ms
        )
        return start

    async def step(self, partition: TopicPartition, records: Sequence[Record]) -> Sequence[NewRecord]:
        """Fold records and return those that perform the effects (stage)."""
        topology, state, log_ms = self._topology, self._states[partition], self._log.now_ms()
        control, before = state.control, state.topology
        out: list[NewRecord] = []
        fold, spans = state.step, self._spans
        for record in records:
            began_ns = spans.now_ns()
            try:
                effects = fold(record)
            except TopologyMissing as missing:
                await self._checkpoints.supply_topology(state, missing)
                effects = fold(record)
            for effect in effects:
                if isinstance(effect, Schedule):
                    self._schedule(partition, record, effect, log_ms)
                    if effect.task_id:
                        self._decisions.retry(record, effect, state.at_ms)
                elif isinstance(effect, Note):
                    self._count(record, effect)
                    out += late_rejections(effect, state, topology)
                else:
                    out.append(record_of(effect, topology))
                    if isinstance(effect, Finish):
                        self._count_ending(effect.run)
                        out += ending_records(effect.run, topology)
                    elif isinstance(effect, DeadLetter | BreakerTransition):
                        self._count_trouble(record, effect)
                        out += late_rejections(effect, state, topology)
            spans.decided(record, effects, began_ns, state.runs.get)
        if state.control is not control:
            self._relay.folded(partition, state.control)
        if state.topology is not before and state.topology.digest != topology.digest:
            await self._checkpoints.adopt(partition)  # a former owner wrote late
        self._checkpoints.folded(partition)
        return out

    def drop(self, partition: TopicPartition) -> None:
        """Forget a partition (stage)."""
        self._states.pop(partition, None)
        self._timers.pop(partition, None)
        self._relay.closed(partition)
        self._unserved.partitions.discard(partition.partition)
        self._checkpoints.drop(partition)

    def _schedule(self, partition: TopicPartition, record: Record, timer: Schedule, log_ms: int) -> None:
        """Start a timer: for the time from the record until it is due, less the time since the record."""
        whole_ms = timer.due_ms - self._states[partition].at_ms
        wait_ms = whole_ms - max(0, log_ms - record.timestamp)
        if wait_ms <= 0 and isinstance(event := read_event(record), Event) and event.kind == DUE:
            wait_ms = max(TIMER_PAUSE_MS, whole_ms)  # the timer fired too early: this process knows a wrong log time
        if self._timers[partition].add(timer, round(self._clock.uptime_ms() + wait_ms)):
            self._timer_set.set()

    def _count_ending(self, run: Run) -> None:
        self.endings[run.ending] += 1
        if run.trouble.redrives:
            self.redriven[run.ending] += 1

    def _count_trouble(self, record: Record, effect: DeadLetter | BreakerTransition) -> None:
        if isinstance(effect, DeadLetter):
            self.letters[effect.agent, effect.code] += 1
        self._decisions.effect(record, effect)

    def _count(self, record: Record, note: Note) -> None:
        self.notes[note.code] += 1
        if note.security:
            _log.warning("a claim was refused", code=note.code, run=note.run_id, reason=note.message)
        else:
            self._decisions.note(record, note)

    async def _fire_timers(self) -> None:
        """Append due timers to the inbox. Only consuming them changes state, so the log decides races."""
        swept_ms = self._clock.uptime_ms()
        while True:
            self._timer_set.clear()
            now_ms, log_ms = int(self._clock.uptime_ms()), self._log.now_ms()
            if now_ms - swept_ms >= SWEEP_EVERY_MS:
                swept_ms = now_ms
                for partition, timers in self._timers.items():
                    timers.sweep(self._states[partition].runs, SWEEP_TIMERS_MAX)
            out: list[NewRecord] = []
            for partition, timers in self._timers.items():
                for timer in timers.due(now_ms, self._states[partition].runs):
                    record = due_record(timer, log_ms, self._topology)
                    out.append(record._replace(partition=partition.partition))
            if out:
                await append_all(self._log, out, self._topology)
                await self._clock.sleep_ms(TIMER_PAUSE_MS)
            following = [at for t in self._timers.values() if (at := t.next_ms()) is not None]
            wait_ms = min([TIMER_IDLE_MS, *(at - self._clock.uptime_ms() for at in following)])
            if wait_ms > 0:
                try:
                    async with asyncio.timeout(wait_ms / 1000):
                        await self._timer_set.wait()
                except TimeoutError:
                    pass  # no new timer: check for due ones

    async def _check_topics(self) -> None:
        found, needed = await self._log.topics(), (self._topology.inbox, self._topology.checkpoints)
        missing = [f"{name} is missing" for name in needed if name not in found]
        other = find_mismatches(self._topology, {name: found[name] for name in needed if name in found})
        if missing or other:
            remedies = ["`mesh topics create` makes the missing ones"] * bool(missing) + remedies_for(other)
            problems = [*missing, *(topic.text for topic in other)]
            raise TopicsInvalid(self._log.url, problems, remedy="; ".join(remedies))
