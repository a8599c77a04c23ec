"""state: what an event costs when many runs are open."""

import gc
import time
from collections.abc import Sequence
from itertools import islice

from bench.decide import AT_MS, MESHES, answer, memory, partition, requests
from bench.field import Setup
from bench.report import LESS, Figure, middle, significant
from bench.workloads import Workload
from mesh.core.protocol.codec import internal_headers
from mesh.core.protocol.event import Event
from mesh.core.protocol.record import StoredRecord
from mesh.core.publishing.effect_records import record_of
from mesh.core.run.effects import Note, PublishTask, Schedule
from mesh.core.state.partition_state import Partition

OPEN = (1_000, 10_000, 100_000)
MILLION, LONG_S = 1_000_000, 30.0
"""A million open runs as well in a long measuring: it takes more than a gigabyte, and about a minute."""
MEASURED = 1_000
ROUNDS = 5
MESH = MESHES["one step"]


def fold(state: Partition, event: Event, offset: int) -> tuple[float, list[PublishTask]]:
    """One event as the orchestrator's process takes it, and the seconds of CPU time that took."""
    stored = StoredRecord(
        MESH.inbox, 0, offset, AT_MS, event.run_id.encode(), event.data, tuple(internal_headers(event))
    )
    began = time.process_time()
    effects = state.step(stored)
    for effect in effects:
        if not isinstance(effect, Note | Schedule):
            record_of(effect, MESH)
    return time.process_time() - began, [effect for effect in effects if isinstance(effect, PublishTask)]


def cost(open_runs: int) -> list[float]:
    """Microseconds of CPU time an event, in several rounds, with so many runs open beside those measured."""
    state = partition(MESH)
    coming = requests(open_runs + ROUNDS * MEASURED)
    offset = 0
    for event in islice(coming, open_runs):
        fold(state, event, offset)
        offset += 1
    gc.collect()
    gc.freeze()  # a service does so too
    samples = []
    for _ in range(ROUNDS):
        spent = 0.0
        for event in islice(coming, MEASURED):
            took, (task,) = fold(state, event, offset)
            answered, _none = fold(state, answer(task, MESH), offset + 1)
            spent, offset = spent + took + answered, offset + 2
        samples.append(spent / (2 * MEASURED) * 1e6)
    gc.unfreeze()
    assert len(state.runs) == open_runs
    return samples


async def run(setup: Setup) -> Sequence[Figure]:
    """The cost at each number of open runs, and the memory of one."""
    sizes = (*OPEN, MILLION) if setup.seconds >= LONG_S else OPEN
    found: list[Figure] = []
    for open_runs in sizes:
        setup.say(f"{open_runs:,} open runs")
        found.append(middle("cpu_us_per_event", cost(open_runs), "µs", LESS, open_runs=open_runs))
    growth = found[-1].value / found[0].value
    bytes_of = memory(MESH, 2_000)
    return [
        *found,
        Figure("most_to_fewest", significant(growth), "x", LESS),
        *(Figure(name, size, "B", LESS) for name, size in bytes_of.items()),
    ]


WORKLOAD = Workload(
    "state",
    "cost of an event at many open runs",
    "One partition in one process, no log: CPU time to read, decide and write out an event of a one-step run while so "
    "many other runs wait for their answers; and the memory of a run, by tracemalloc. A million of them with "
    f"--for {LONG_S:g}s or longer.",
    run,
    on_log=False,
)
