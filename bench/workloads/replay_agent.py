"""replay_agent: how fast recorded tasks of one agent are given to its function again, beside the worker's own speed."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.agents import echo
from bench.field import Setup
from bench.report import Figure, significant
from bench.workloads import Workload
from mesh.adapters.ports import Appended, Log
from mesh.adapters.sqlite import SqliteBoard, SqliteLog
from mesh.app.agent_replay import Compared, replay_agent
from mesh.app.process import Process, running
from mesh.app.wiring import topic_specs
from mesh.core.board.past_values import MemoryPast
from mesh.core.protocol.codec import event_headers
from mesh.core.protocol.event import TASK, Event, derive_id
from mesh.core.protocol.record import NewRecord
from mesh.core.task.agent import agent_of
from mesh.core.topology.loader import load
from mesh.core.topology.model import Topology
from mesh.operations.replay.task_answers import Period, Skipped, read_task_answers
from mesh.settings import Settings

TASKS = 30_000
BATCH = 1_000
AGENT = "echo"
TOPOLOGY = """
mesh: {name: bench, prefix: bench, inbox: {partitions: 6}}
topics: {bench.asks: {ingress: bench.ask}, bench.answers: {egress: bench.answer}}
agents: {echo: {run: "bench.agents:echo", on: bench.ask, emits: bench.answer}}
"""


async def fill(log: Log, mesh: Topology) -> None:
    """Write the tasks of one agent."""
    await log.create_topics(topic_specs(mesh))
    for first in range(0, TASKS, BATCH):
        records = [_task(number, mesh) for number in range(first, min(TASKS, first + BATCH))]
        assert all(isinstance(verdict, Appended) for verdict in await log.append(records)), "the log refused a task"


def _task(number: int, mesh: Topology) -> NewRecord:
    id = derive_id("bench", number)
    run = f"run-{number}"
    data = b'{"id":"%d","text":"%s","numbers":[1,2,3,4,5]}' % (number, b"x" * 120)
    task = Event(f"{id}:1", "/mesh/bench", "bench.ask", TASK, run, data, 0, run, AGENT, id, 1, (AGENT,))
    return NewRecord(mesh.tasks(AGENT), id.encode(), data, event_headers(task))


async def worked(log: SqliteLog, board: SqliteBoard, mesh: Topology) -> float:
    """Let a worker answer all tasks; return its tasks a second of CPU time."""
    process = Process(
        log, mesh, Settings(log=log.url), services=["worker"], agents={AGENT: agent_of(echo)}, board=board
    )
    assert process.worker is not None
    began = time.perf_counter()
    async with running(process):
        while process.worker.counts[AGENT].succeeded < TASKS:  # noqa: ASYNC110  # what is counted has no event
            await asyncio.sleep(0.01)
        return TASKS / (time.perf_counter() - began)


async def replayed(log: SqliteLog, mesh: Topology) -> float:
    """Give all tasks to the function again and compare; return tasks a second."""
    verdicts: list[str] = []

    def told(compared: Compared) -> None:
        verdicts.append(compared.verdict)

    began = time.perf_counter()
    async with aclosing(read_task_answers(log, mesh, AGENT, Period(), Skipped())) as batches:
        await replay_agent(mesh, AGENT, agent_of(echo), batches, MemoryPast(), on_result=told)
    rate = TASKS / (time.perf_counter() - began)
    assert len(verdicts) == TASKS, f"{len(verdicts)} of {TASKS} tasks were replayed"
    assert set(verdicts) <= {"same", "slower"}, set(verdicts)
    return rate


async def run(setup: Setup) -> Sequence[Figure]:
    """Tasks a second: of a worker, and of the replay."""
    mesh = load(TOPOLOGY)
    with TemporaryDirectory(prefix="mesh-bench-") as folder:
        log = SqliteLog(Path(folder) / "mesh.db")
        await log.start()
        board = SqliteBoard(log.file, prefix=mesh.prefix)
        await board.start()
        setup.say(f"{TASKS:,} tasks")
        await fill(log, mesh)
        worker = await worked(log, board, mesh)
        rates: list[float] = []
        end = time.perf_counter() + setup.seconds
        while not rates or time.perf_counter() < end:
            rates.append(await replayed(log, mesh))
        await board.close()
        await log.close()
    return [
        Figure("worker_tasks_per_s", significant(worker), "tasks/s"),
        Figure("replay_tasks_per_s", significant(max(rates)), "tasks/s"),
        Figure("of_worker", significant(max(rates) / worker), "x"),
    ]


WORKLOAD = Workload(
    "replay_agent",
    "recorded tasks given to their function again",
    f"{TASKS:,} tasks are answered by a worker in one process, then given to the same function again as "
    "`mesh replay --agent` does, in processes of its own, and the answers compared. Tasks over time.",
    run,
    on_log=False,
)
