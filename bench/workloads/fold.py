"""fold: how fast the inbox is read again, as recovery, replay and verify do."""

import gc
import time
from collections.abc import Sequence

from bench.decide import MESHES, fold_all, played
from bench.field import Setup
from bench.report import NONE, Figure, middle
from bench.workloads import Workload
from bench.workloads.hop import python_alone

RUNS = 2_000
ROUNDS_MIN = 3
YARDSTICK_TASKS = 1_000


async def run(setup: Setup) -> Sequence[Figure]:
    """Events a second and core, for each kind of mesh, and beside a loop whose speed no change of the mesh affects."""
    found: list[Figure] = []
    for name, mesh in MESHES.items():
        setup.say(name)
        inbox = played(mesh, RUNS)
        gc.collect()
        gc.freeze()  # what was prepared for measuring is no part of what is measured
        samples: list[float] = []
        beside: list[float] = []
        end = time.perf_counter() + setup.seconds / len(MESHES)
        while len(samples) < ROUNDS_MIN or time.perf_counter() < end:
            began = time.process_time()
            fold_all(mesh, inbox)
            samples.append(len(inbox) / (time.process_time() - began))
            beside.append(samples[-1] / python_alone(YARDSTICK_TASKS))
        gc.unfreeze()
        found.append(middle("events_per_s", samples, "events/s", mesh=name))
        found.append(middle("events_of_python_alone", beside, "x", NONE, mesh=name))
    return found


WORKLOAD = Workload(
    "fold",
    "silent folding of the inbox",
    f"The inbox of {RUNS:,} runs is folded again and again in one process, no log and no effect performed: events over "
    "CPU time. Beside it: the same as a multiple of a loop that only validates, sums and encodes tasks.",
    run,
    on_log=False,
)
