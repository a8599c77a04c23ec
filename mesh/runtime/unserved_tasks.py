"""Tasks of agents without a worker: they fail as they would if a worker had waited for their timeout.

Workers report timeouts; without one, no process would. So each orchestrator checks once a second which agents have no
worker, that is no member in their consumer group. It answers a task with `timed_out` once the task has lain there for
the agent's timeout and a grace. Then `decide` does what it does after any timeout (retry, fallback, dead letter). The
group's offset is committed behind the task, so that a later worker does not begin it. The log refuses that commit once
a worker has joined: from then on the tasks are the worker's again.

While a worker lives, a task may wait in its queue without limit and no timeout is reported: otherwise the tasks of a
busy mesh would be sent again. Tasks of a stopped agent (`mesh stop`) wait, too.
"""

from collections.abc import Callable, Sequence

from mesh.adapters.diagnostics import diagnostics
from mesh.adapters.ports import Clock, Commit, Log
from mesh.core.errors import Fenced, LogUnavailable
from mesh.core.protocol.codec import Unreadable, read_event
from mesh.core.protocol.event import NO_USAGE, TASK, Event, Fault
from mesh.core.protocol.record import NewRecord, Record, TopicPartition
from mesh.core.publishing.effect_records import inbox_record
from mesh.core.run.control import Control
from mesh.core.task import poison, result
from mesh.core.topology.model import AgentSpec, Topology
from mesh.runtime.loop import append_all

GRACE_MS = 5_000
"""Time that is longer than the replacement of a worker takes."""
LOOK_EVERY_MS, AGAIN_AFTER_MS = 1_000, 5_000
RECORDS_MAX = 500
READ_WAIT_MS = 1_000
_log = diagnostics("unserved_tasks")


class UnservedTasks:
    """The answers of one orchestrator to unserved tasks, in partitions with the numbers of its inbox partitions."""

    def __init__(
        self, log: Log, topology: Topology, clock: Clock, control: Callable[[], Control], *, grace_ms: int = GRACE_MS
    ) -> None:
        """`control` returns the present state of mesh.control."""
        self._log, self._topology, self._clock, self._control = log, topology, clock, control
        self._grace_ms = grace_ms
        self._since_ms: dict[str, float] = {}
        """Agent → the uptime of the machine at which it was first seen without a worker."""
        self.partitions: set[int] = set()
        """Numbers of the partitions that this process answers for."""

    async def run(self) -> None:
        """Check once a second, until cancelled. Raises NotFound without a topic of tasks.

        A check that the log does not answer is logged and repeated, since the runs do not depend on it. Whether agents
        had workers meanwhile is unknown, so their time begins again.
        """
        while True:
            pause_ms = LOOK_EVERY_MS
            try:
                await self.look()
            except LogUnavailable as error:
                self._since_ms.clear()
                pause_ms = AGAIN_AFTER_MS
                _log.warning("cannot tell which agents have no worker", reason=str(error), again_in_s=pause_ms / 1_000)
            await self._clock.sleep_ms(pause_ms)

    async def look(self) -> int:
        """Check once; return the number of tasks answered."""
        agents = self._topology.agents
        groups = {self._topology.group(name): name for name in agents}
        idle = {groups[group] for group in await self._log.idle_groups(list(groups))}
        now_ms, control, done = self._clock.uptime_ms(), self._control(), 0
        for name, spec in agents.items():
            if name not in idle or control.stop_of(name) is not None:
                self._since_ms.pop(name, None)
            elif now_ms - self._since_ms.setdefault(name, now_ms) >= spec.timeout_ms + self._grace_ms:
                done += await self._answer(spec)
        return done

    async def _answer(self, spec: AgentSpec) -> int:
        """Answer the tasks of an agent that have waited long enough."""
        topic, group = self._topology.tasks(spec.name), self._topology.group(spec.name)
        commits = await self._log.committed(group, topic)
        places: dict[TopicPartition, Commit] = {}
        for number, bounds in (await self._log.bounds(topic)).items():
            commit = commits.get(number, Commit(bounds.start))
            if number in self.partitions and max(commit.offset, bounds.start) < bounds.end:
                places[TopicPartition(topic, number)] = commit
        if not places:
            return 0
        answers, behind = self._answers(spec, places, await self._read(places))
        if not answers:
            return 0
        await append_all(self._log, answers, self._topology)
        try:
            await self._log.commit_idle(group, behind)
        except Fenced as fenced:
            _log.info("a worker has come", agent=spec.name, reason=str(fenced))
        self._report(spec, len(answers))
        return len(answers)

    async def _read(self, places: dict[TopicPartition, Commit]) -> Sequence[Record]:
        reader = self._log.reader({tp: commit.offset for tp, commit in places.items()})
        try:
            return await reader.poll(records_max=RECORDS_MAX, wait_ms=READ_WAIT_MS)
        finally:
            await reader.close()

    def _answers(
        self, spec: AgentSpec, places: dict[TopicPartition, Commit], records: Sequence[Record]
    ) -> tuple[list[NewRecord], dict[TopicPartition, Commit]]:
        """Make answers to the first tasks of each partition, and the commits behind them.

        A record that is no task is left to a worker, with all records behind it.
        """
        answers: list[NewRecord] = []
        behind: dict[TopicPartition, Commit] = {}
        limit_ms, log_ms, blocked = spec.timeout_ms + self._grace_ms, self._log.now_ms(), set[TopicPartition]()
        for record in records:
            tp = TopicPartition(record.topic, record.partition)
            # A record from so far ahead was written before the log's clock was set back.
            task = None if tp in blocked or abs(log_ms - record.timestamp) < limit_ms else read_event(record)
            if task is None or isinstance(task, Unreadable) or task.kind != TASK or task.agent != spec.name:
                blocked.add(tp)
                continue
            before = places[tp]
            marks = poison.decode(before.metadata, before.offset)
            answers.append(inbox_record(self._failed_answer(spec, task, marks, record.offset), self._topology))
            place = record.offset + 1
            behind[tp] = Commit(place, poison.encode(marks, place) if before.metadata else "")
        return answers, behind

    def _failed_answer(self, spec: AgentSpec, task: Event, marks: poison.CommitMarks, offset: int) -> Event:
        """Make the answer to a task. If a dead worker may have begun it, its use is charged as reserved."""
        begun = marks.working and offset < marks.claimed
        waited_ms = spec.timeout_ms + self._grace_ms
        text = f"no worker of {spec.name!r} was there for {waited_ms} ms: its timeout and {self._grace_ms} ms of grace"
        return result.failure_event(task, Fault("timed_out", text), None if begun else NO_USAGE)

    def _report(self, spec: AgentSpec, number: int) -> None:
        waited_s = (self._clock.uptime_ms() - self._since_ms[spec.name]) / 1_000
        _log.warning(
            "no worker lives, so tasks have timed out",
            agent=spec.name,
            tasks=number,
            without_worker_s=round(waited_s, 1),
            fix=f"Start the Faust app {spec.faust}"
            if spec.faust
            else f"`mesh up worker --agent {spec.name}` starts one",
        )
