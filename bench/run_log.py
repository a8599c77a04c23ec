"""A log of many ended runs, written without workers: `python -m bench.run_log FOLDER --runs 200000`.

Each run is decided as an orchestrator does it and answered as workers do it: three steps, an egress type, an outcome.
Some fail, and a few stay open. One of RARE each is a return, is flagged, times out, fans out, is dear: so that filters
have few to find. The folder gets topics.yaml and the embedded file, so every command works in it.

Only mesh.inbox and mesh.outcomes are written. `--whole` also writes tasks, dead letters and the egress topic, and
commits, as services do: `mesh replay --check` then compares all of it.
"""

import argparse
import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Appended, Commit, Log
from mesh.app.wiring import load_topology, open_log, topic_specs
from mesh.core.protocol.codec import read_event
from mesh.core.protocol.event import NO_USAGE, REQUESTED, Event, Fault, Part, Usage, run_id_of
from mesh.core.protocol.record import NewRecord, StoredRecord, TopicPartition
from mesh.core.publishing.effect_records import inbox_record, record_of
from mesh.core.run.effects import Finish, Note, PublishTask, Schedule
from mesh.core.state.partition_state import Partition
from mesh.core.task.result import failure_event, success_event
from mesh.core.topology.model import Topology
from mesh.runtime.topology_store import TopologyStore
from mesh.settings import Settings

TEXT: Final = """
mesh: {name: found, inbox: {partitions: 6}, limits: {deadline: 2d}}
topics:
  orders.placed: {ingress: order.placed, id: order_id, partitions: 1}
  orders.returned: {ingress: order.returned, id: order_id, partitions: 1}
  orders.done: {egress: order.fulfilled, partitions: 1}
agents:
  stock: {run: "bench.agents:echo", on: order.placed, emits: [stock.reserved, order.flagged], retry: {attempts: 1}}
  review: {run: "bench.agents:echo", on: order.flagged, emits: stock.reserved, retry: {attempts: 1}}
  refund: {run: "bench.agents:echo", on: order.returned, emits: order.fulfilled, retry: {attempts: 1}}
  pricing: {run: "bench.agents:echo", on: stock.reserved, emits: order.priced, retry: {attempts: 1}}
  ship: {run: "bench.agents:echo", on: order.priced, emits: order.fulfilled, retry: {attempts: 1}}
"""
FAILING: Final = 50
"""One run of so many fails at its second agent."""
OPEN: Final = 5_000
"""One run of so many gets no answer."""
RARE: Final = 10_000
"""One run of so many is each of these by its number: a return, flagged, timed out, fanned out, dear."""
RETURNED, FLAGGED, TIMED_OUT, FANNED_OUT, DEAR = 1_001, 2_002, 3_003, 4_004, 5_005
FAN: Final = 5
STEP: Final = 2_000
"""Runs that are open at a time."""


class Player:
    """Decides and answers the runs of one mesh, all partitions in this process."""

    def __init__(self, log: Log, topology: Topology, *, whole: bool = False) -> None:
        """`whole`: write tasks, dead letters and egress events, too."""
        self._log, self._topology, self._whole = log, topology, whole
        count = topology.inbox_partitions
        self._states = [Partition(topology, number=n, partitions=count) for n in range(count)]
        self._reader = log.reader({TopicPartition(topology.inbox, n): 0 for n in range(count)})

    async def play(self, numbers: Iterable[int]) -> None:
        """Play these runs to their ends. Each record is decided as the log gives it back, with its time."""
        events = [self._request(number) for number in numbers]
        outcomes: list[NewRecord] = []
        while events or outcomes:
            new = [inbox_record(event, self._topology) for event in events]
            assert all(isinstance(verdict, Appended) for verdict in await self._log.append([*new, *outcomes]))
            left, events, outcomes = len(new), [], []
            while left:
                for record in await self._reader.poll(records_max=STEP, wait_ms=1_000):
                    left -= 1
                    for effect in self._states[record.partition].step(record):
                        if isinstance(effect, PublishTask) and not effect.event.subject.startswith("open-"):
                            events.append(self._answer(effect))
                        if isinstance(effect, Finish) or (self._whole and not isinstance(effect, Note | Schedule)):
                            outcomes.append(record_of(effect, self._topology))

    async def commit(self) -> None:
        """Commit what was decided, as the orchestrator does, and the tasks of agents that answered all."""
        mesh = self._topology
        answering = [name for name, spec in mesh.agents.items() if mesh.ingress.keys().isdisjoint(spec.on)]
        groups = {mesh.group("orchestrator"): mesh.inbox} | {mesh.group(name): mesh.tasks(name) for name in answering}
        for group, topic in groups.items():
            ends = {TopicPartition(topic, n): Commit(each.end) for n, each in (await self._log.bounds(topic)).items()}
            await self._log.commit_idle(group, ends)

    async def close(self) -> None:
        """Stop reading."""
        await self._reader.close()

    def _request(self, number: int) -> Event:
        id = f"{'open' if number % OPEN == OPEN - 1 else 'order'}-{number:08d}"
        data = b'{"order_id":"%s","lines":[{"sku":"A-100","qty":%d}]}' % (id.encode(), number % 100)
        topic, type = "orders.placed", "order.placed"
        if number % RARE == RETURNED:
            topic, type = "orders.returned", "order.returned"
        run_id = run_id_of(f"/topics/{topic}", id)
        return Event(id, f"/topics/{topic}", type, REQUESTED, run_id, data, subject=id)

    def _answer(self, effect: PublishTask) -> Event:
        sent = record_of(effect, self._topology)
        task = read_event(StoredRecord(sent.topic, 0, 0, self._log.now_ms(), sent.key, sent.value, sent.headers))
        assert isinstance(task, Event)
        rare = int(task.subject.rpartition("-")[2]) % RARE
        if task.agent == "pricing":
            if int(task.run_id[:6], 16) % FAILING == 0:
                return failure_event(task, Fault("exception", "no price", "ValueError"), NO_USAGE)
            if rare == TIMED_OUT:
                return failure_event(task, Fault("timed_out", "no price in 30 s", ""), NO_USAGE)
        part = Part(self._topology.agents[task.agent].emits[0], b'{"total_cents":3238}')
        parts = [part]
        if task.agent == "stock" and rare == FLAGGED:
            parts = [Part("order.flagged", b"{}")]
        elif task.agent == "stock" and rare == FANNED_OUT:
            parts *= FAN
        return success_event(task, parts, Usage(500_000 if rare == DEAR else 1_000 + rare, 10))


async def write(folder: Path, runs: int, log_url: str = "", *, whole: bool = False) -> None:
    """Write a log of so many runs. `whole`: with all that services write."""
    topology = load_topology(str(folder / "topics.yaml"))
    url = log_url or f"sqlite:{folder / '.mesh/mesh.db'}"
    log = open_log(Settings(log=url))
    await log.start()
    try:
        await log.create_topics(topic_specs(topology))
        await TopologyStore(log, topology, SystemClock()).keep()
        player = Player(log, topology, whole=whole)
        for begin in range(0, runs, STEP):
            await player.play(range(begin, min(begin + STEP, runs)))
        await player.close()
        if whole:
            await player.commit()
    finally:
        await log.close()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=200_000)
    parser.add_argument("--log", default="", help="kafka://HOST:PORT; default: an embedded log in the folder")
    parser.add_argument("--whole", action="store_true", help="write tasks, dead letters, egress events, commits, too")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    (arguments.folder / "topics.yaml").write_text(TEXT)
    asyncio.run(write(arguments.folder, arguments.runs, arguments.log, whole=arguments.whole))


if __name__ == "__main__":
    main()
