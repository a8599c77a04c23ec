"""The monitor: counts records in windows of time and publishes them on mesh.windows. It is never in the way.

It reads with a group of its own and writes to mesh.windows alone. Its state is the log: a commit says where to begin so
that every window that is not published is counted again (`core.metrics.windows`). So a monitor that is killed, or whose
group is deleted, publishes the same windows later. An error is logged and the monitor begins again; no other service
notices.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Protocol

from mesh.adapters.diagnostics import LimitedLog
from mesh.adapters.ports import SESSION_TIMEOUT_MS, Clock, Commit, Log, Refused
from mesh.core.errors import MeshError
from mesh.core.metrics.alerts import AlertFact, alert_record, changes, fold_alerts, fold_fact, stop_of
from mesh.core.metrics.measurements import source_topics
from mesh.core.metrics.window_records import WindowPart, window_record
from mesh.core.metrics.windows import BASE_MS, GRACE_MS, PartitionWindows, Restart, Scoped, add_window, start_of
from mesh.core.protocol.event import derive_id
from mesh.core.protocol.record import NewRecord, Record, TopicPartition
from mesh.core.run.control import NOTHING, control_record, fold_control
from mesh.core.topology.model import Topology
from mesh.runtime.log_reader import read_records
from mesh.runtime.loop import Holding, Loop

PUBLISH_EVERY_MS = 500
"""How often windows that have ended are published."""
AGAIN_MS = 1_000
"""Pause before the monitor begins again after an error."""


class Source(Protocol):
    """Reads the source topics for counts (`begin`, `take`, `restart`, `drop` of a Monitor) until `stop`."""

    async def run(self, counts: "Monitor", ready: asyncio.Event, stop: asyncio.Event) -> None: ...


class Monitor:
    """Run one with `await Monitor(...).run(stop)`."""

    def __init__(
        self,
        log: Log,
        topology: Topology,
        clock: Clock,
        *,
        records_max: int = 500,
        session_timeout_ms: int = SESSION_TIMEOUT_MS,
        source: Source | None = None,
    ) -> None:
        """`source`: what reads the records; by default a member of a group, as for the other services."""
        self._log, self._topology, self._clock = log, topology, clock
        self._records_max, self._session_timeout_ms = records_max, session_timeout_ms
        self._source = source
        self._diagnostics = LimitedLog("monitor")
        self._parts: dict[TopicPartition, PartitionWindows] = {}
        self._over: dict[tuple[TopicPartition, int], Scoped] = {}
        """Windows that are forgotten by their partition, as long as an alert looks at them."""
        self._since_ms = self._evaluated_ms = 0
        """Log time from which windows are known, and the end of the last window that alerts were compared with."""
        self._publishing = asyncio.Lock()
        self.alerts: Mapping[str, AlertFact] = {}
        """The alerts that are active, by key, as this monitor saw them last."""
        self.ready = asyncio.Event()
        """Set when the monitor reads from all its partitions."""

    @property
    def holding(self) -> Holding:
        """The partitions that are counted here."""
        return Holding(self._topology.group("monitor"), len(self._parts), self.ready.is_set())

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set. An error of the log, such as a missing topic, is logged; then it begins again."""
        try:
            while not stop.is_set():
                try:
                    await self._run_once(stop)
                except MeshError as error:
                    self.ready.clear()
                    self._diagnostics.warning("the monitor begins again", (type(error).__name__,), reason=str(error))
                    await self._pause(stop)
        finally:
            self._diagnostics.flush()

    async def _run_once(self, stop: asyncio.Event) -> None:
        self._over.clear()
        self._since_ms = start_of(self._log.now_ms()) + BASE_MS
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        if self._source is None:
            members = self._loop()
            ready, reading = members.ready, loop.create_task(members.run(stop), name="read for windows")
        else:
            reading = loop.create_task(self._source.run(self, ready, stop), name="read for windows")
        publishing = loop.create_task(self._publish_often(ready), name="publish windows")
        try:
            done, _ = await asyncio.wait((reading, publishing), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            await self._publish(list(self._parts), unfinished=True)
        finally:
            for task in (publishing, reading):
                task.cancel()
            await asyncio.wait((publishing, reading))
            self._parts.clear()

    def _loop(self) -> Loop:
        return Loop(
            self._log,
            self,
            self._topology,
            group=self._topology.group("monitor"),
            topics=source_topics(self._topology),
            metadata=self,
            records_max=self._records_max,
            session_timeout_ms=self._session_timeout_ms,
        )

    async def _pause(self, stop: asyncio.Event) -> None:
        waiting = [
            asyncio.get_running_loop().create_task(stop.wait(), name="stop"),
            asyncio.get_running_loop().create_task(self._clock.sleep_ms(AGAIN_MS), name="pause"),
        ]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()

    # -------------------------------------------------------------------------------------------------- the stage

    async def restore(self, partition: TopicPartition, commit: Commit | None) -> int | None:
        """Return the offset from which every window that is not published can be counted (stage)."""
        restart = None if commit is None else read_restart(commit)
        if restart is None:
            restart = Restart((await self._log.bounds(partition.topic))[partition.partition].start, 0)
        self.begin(partition, restart)
        return restart.offset

    async def step(self, partition: TopicPartition, records: Sequence[Record]) -> Sequence[NewRecord]:
        """Count records (stage)."""
        self.take(partition, records)
        return ()

    def begin(self, partition: TopicPartition, restart: Restart) -> None:
        """Count a partition from a place on."""
        offset, since_ms = restart
        self._parts[partition] = PartitionWindows(self._topology, partition, since_ms=since_ms, next_offset=offset)

    def take(self, partition: TopicPartition, records: Sequence[Record]) -> None:
        """Count records, those that are counted already excepted."""
        self._parts[partition].take(records)

    def restart(self, partition: TopicPartition) -> Restart | None:
        """Return where to begin again; None for a partition that is not counted."""
        part = self._parts.get(partition)
        return None if part is None else part.restart()

    def drop(self, partition: TopicPartition) -> None:
        """Forget the windows of a partition (stage)."""
        self._parts.pop(partition, None)

    # ------------------------------------------------------------------------------------------------ its commits

    def metadata(self, partition: TopicPartition, offset: int) -> str:
        """Return where the next owner begins."""
        restart = self.restart(partition)
        return "" if restart is None else write_restart(restart._replace(offset=min(restart.offset, offset)))

    def committed(self, partition: TopicPartition, commit: Commit) -> None:
        """Note nothing: the windows that a commit covers are published already."""

    async def prepare_release(self, partitions: Sequence[TopicPartition], *, within_ms: float, last: bool) -> None:
        """Publish what was counted, so that the next owner has less to count. What is late is counted again."""
        try:
            async with asyncio.timeout(within_ms / 1_000):
                await self._publish(partitions, unfinished=True)
        except TimeoutError:
            self._diagnostics.warning("windows were not published in time", (), within_ms=within_ms)

    # ------------------------------------------------------------------------------------------------- publishing

    async def _publish_often(self, ready: asyncio.Event) -> None:
        await ready.wait()
        self.ready.set()
        while True:
            await self._clock.sleep_ms(PUBLISH_EVERY_MS)
            await self._publish(list(self._parts), unfinished=False)
            if self._topology.alerts:
                await self._watch_alerts()

    async def _publish(self, partitions: Sequence[TopicPartition], *, unfinished: bool) -> None:
        """Append the windows that changed, those that have not ended only if `unfinished`; then forget what is over."""
        async with self._publishing:
            now_ms = self._log.now_ms()
            parts = [self._parts[place] for place in partitions if place in self._parts]
            records: list[NewRecord] = []
            for part in parts:
                for start in sorted(part.changed):
                    ended = start + BASE_MS + GRACE_MS <= now_ms or start < start_of(part.last_ms)
                    if ended or unfinished:
                        part.changed.discard(start)
                        records += self._records_of(part, start)
            if not records:
                return
            for verdict in await self._log.append(records):
                if isinstance(verdict, Refused):
                    reason = verdict.message
                    self._diagnostics.warning(
                        "the log refused a window", (verdict.code,), code=verdict.code, reason=reason
                    )
            for part in parts:
                if self._topology.alerts:
                    self._over.update({(part.place, start): scopes for start, scopes in part.windows.items()})
                part.forget()

    def _records_of(self, part: PartitionWindows, start: int) -> list[NewRecord]:
        return [
            window_record(WindowPart(part.place, start, scope, part.next_offset, aggregate), self._topology)
            for scope, aggregate in part.windows[start].items()
        ]

    # ----------------------------------------------------------------------------------------------------- alerts

    async def _watch_alerts(self) -> None:
        """Compare alerts with the last whole windows, once for each window, when all its records are counted."""
        end_ms = start_of(self._log.now_ms() - GRACE_MS)
        if end_ms <= self._evaluated_ms or not await self._is_up_to_date():
            return
        self._evaluated_ms = end_ms
        oldest_ms = end_ms - max(rule.length_ms for rule in self._topology.alerts.values())
        self._over = {key: scopes for key, scopes in self._over.items() if key[1] >= oldest_ms}
        held = {(part.place, start): scopes for part in self._parts.values() for start, scopes in part.windows.items()}
        base: dict[int, Scoped] = {}
        for (_, start), scopes in {**self._over, **held}.items():
            add_window(base, start, scopes)
        await self._say(base, end_ms)

    async def _is_up_to_date(self) -> bool:
        """Whether this process counts all partitions, and has counted all that the log holds."""
        for topic in source_topics(self._topology):
            for number, bounds in (await self._log.bounds(topic)).items():
                part = self._parts.get(TopicPartition(topic, number))
                if part is None or part.next_offset < bounds.end:
                    return False
        return True

    async def _say(self, base: dict[int, Scoped], end_ms: int) -> None:
        topology, topic = self._topology, self._topology.control
        async with aclosing(read_records(self._log, topic, await self._log.bounds(topic))) as stored:
            records = [record async for record in stored]
        (control, _), active = fold_control(NOTHING, records), fold_alerts({}, records)
        facts = changes(topology, base, end_ms, active=active, control=control, since_ms=self._since_ms)
        said: list[NewRecord] = []
        for fact in facts:
            self._note(fact)
            said.append(alert_record(fact, topology))
            fold_fact(active, fact)
            stop = stop_of(fact, control)
            if stop is not None:
                control = control.with_switch(stop)
                said.append(control_record(stop, topology, event_id=derive_id("stop", fact.key, fact.at_ms)))
        if said:
            await self._log.append(said)
        self.alerts = active

    def _note(self, fact: AlertFact) -> None:
        sentence = f"alert {fact.name} of {fact.scope}: {fact.state}"
        self._diagnostics.warning(sentence, (fact.key,), reason=fact.why)


def write_restart(restart: Restart) -> str:
    """Write a restart as the metadata of a commit."""
    return f"windows {restart.offset} {restart.since_ms}"


def read_restart(commit: Commit) -> Restart | None:
    """Read what `write_restart` wrote; None for other metadata."""
    word, *numbers = commit.metadata.split(" ")
    if word != "windows" or len(numbers) != 2 or not all(number.isdecimal() for number in numbers):
        return None
    return Restart(int(numbers[0]), int(numbers[1]))
