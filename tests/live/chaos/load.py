"""Upstream: asks at a steady rate, keeps the ledger, and sees when each outcome comes."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import orjson

from mesh.adapters.ports import Log, Reader, Refused
from mesh.core.errors import LogUnavailable
from mesh.core.protocol.event import run_id_of
from mesh.core.protocol.record import NewRecord, Record, TopicPartition
from tests.live.chaos.ledger import Entry, Ledger


class Upstream:
    """The submitter and the only reader of outcomes on this side. `topics`: type of request → ingress topic."""

    def __init__(self, log: Log, ledger: Ledger, outcomes: str, topics: dict[str, str]) -> None:
        self._log, self._ledger, self._outcomes, self._topics = log, ledger, outcomes, topics
        self.asked: dict[str, Entry] = {}
        self.ended: dict[str, float] = {}
        """Run → when its outcome was read, wall clock."""
        self.bodies: dict[str, bytes] = {}
        self.errors: list[str] = []
        """Asks that had to be repeated, with the reason."""
        self._news = asyncio.Event()
        self._number = 0

    async def ask(self, type: str, phase: str, *, count: int = 1, **fields: Any) -> list[str]:
        """Ask for runs, again until the log has acknowledged. Answers their ids."""
        topic = self._topics[type]
        ids = [f"{phase.replace('!', '.')}-{(self._number + n)}" for n in range(count)]
        self._number += count
        runs = [run_id_of(f"/topics/{topic}", id) for id in ids]
        entries = [Entry(run, phase, time.time()) for run in runs]
        self._ledger.asked(entries)
        self.asked.update((entry.run, entry) for entry in entries)
        records = [NewRecord(topic, id.encode(), orjson.dumps({"id": id, **fields})) for id in ids]
        while True:
            try:
                verdicts = await self._log.append(records)
                break
            except LogUnavailable as error:
                self.errors.append(str(error))
                await asyncio.sleep(0.1)
        refused = [str(verdict) for verdict in verdicts if isinstance(verdict, Refused)]
        assert refused == [], f"the log refused requests: {refused}"
        self._ledger.acked(runs)
        return runs

    def told(self, entries: Sequence[Entry]) -> None:
        """Take into the ledger what another client asked, and the log acknowledged."""
        self._ledger.asked(entries)
        self._ledger.acked(entry.run for entry in entries)
        self.asked.update((entry.run, entry) for entry in entries)

    async def steadily(self, phase: str, *, rate: float, enough: asyncio.Event, count_min: int = 0) -> None:
        """Ask for trees, `rate` a second (open loop), until it is enough and at least `count_min` were asked."""
        began = time.monotonic()
        number = 0
        async with asyncio.TaskGroup() as group:
            while not enough.is_set() or number < count_min:
                group.create_task(self.ask("chaos.ask", phase))
                number += 1
                await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))

    async def watch(self) -> None:
        """Read outcomes for ever, through outages."""
        positions = {
            TopicPartition(self._outcomes, p): b.start for p, b in (await self._log.bounds(self._outcomes)).items()
        }
        while True:
            reader = self._log.reader(positions)
            try:
                await self._follow(reader, positions)
            except LogUnavailable as error:
                self.errors.append(str(error))
                await asyncio.sleep(0.1)
            finally:
                await reader.close()

    async def _follow(self, reader: Reader, positions: dict[TopicPartition, int]) -> None:
        while True:
            records: Sequence[Record] = await reader.poll(records_max=1_000, wait_ms=200)
            now = time.time()
            for record in records:
                run = (record.key or b"").decode()
                self.ended.setdefault(run, now)
                self.bodies.setdefault(run, record.value or b"")
                positions[TopicPartition(record.topic, record.partition)] = record.offset + 1
            if records:
                self._news.set()

    async def all_ended(self, runs: Sequence[str], patience_s: float) -> set[str]:
        """Wait until all of these have an outcome. Answers those that have none when patience is over."""
        try:
            async with asyncio.timeout(patience_s):
                while not all(run in self.ended for run in runs):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            pass  # the checker names them
        return {run for run in runs if run not in self.ended}

    async def progress(self, count: int, phase: str, patience_s: float = 60.0) -> None:
        """Wait until `count` runs of a phase have ended."""
        async with asyncio.timeout(patience_s):
            while len(self.latencies(phase)) < count:
                self._news.clear()
                await self._news.wait()

    def of(self, phase: str) -> list[str]:
        """Runs asked in a phase, trees and others."""
        return [run for run, entry in self.asked.items() if entry.phase.partition("!")[0] == phase]

    def latencies(self, phase: str) -> list[float]:
        """Seconds from ask to outcome of the trees of a phase, sorted."""
        runs = [(run, entry) for run, entry in self.asked.items() if entry.phase == phase]
        return sorted(self.ended[run] - entry.asked_s for run, entry in runs if run in self.ended)
