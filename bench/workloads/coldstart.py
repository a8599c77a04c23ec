"""coldstart: from nothing to the first outcome."""

import asyncio
import sys
import time
from collections.abc import Sequence

from bench.field import Setup
from bench.load import burst, watching
from bench.mesh_processes import ROOT
from bench.report import LESS, Figure, middle
from bench.workloads import Workload
from bench.workloads.run1 import TEXT

IMPORTS_MIN, OUTCOMES_MIN = 5, 3
CODE = "import time; began = time.perf_counter(); import mesh; print((time.perf_counter() - began) * 1000)"


async def import_ms() -> float:
    """Measure `import mesh` in a fresh Python, without the start of Python itself."""
    python = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CODE), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await python.communicate()
    return float(out)


async def first_outcome_s(setup: Setup) -> float:
    """From the start of `mesh up` to the outcome of a request that waited for it."""
    async with setup.field(TEXT) as field, watching(field) as outcomes:
        began = time.perf_counter()
        asked = asyncio.ensure_future(burst(field.mesh, outcomes, 1))
        async with field.up(["orchestrator", "worker"]):
            await asked
            return time.perf_counter() - began


async def run(setup: Setup) -> Sequence[Figure]:
    """Both, several times."""
    end = time.perf_counter() + setup.seconds
    imports = [await import_ms() for _ in range(IMPORTS_MIN)]
    outcomes: list[float] = []
    while len(outcomes) < OUTCOMES_MIN or time.perf_counter() < end:
        setup.say(f"start {len(outcomes) + 1}")
        outcomes.append(await first_outcome_s(setup))
    return [
        middle("import_ms", imports, "ms", LESS),
        middle("first_outcome_s", outcomes, "s", LESS),
    ]


WORKLOAD = Workload(
    "coldstart",
    "import, and start to first outcome",
    "`import mesh` in a fresh Python; and `mesh up orchestrator worker` on a log that has only topics, from the start "
    "of the process to the outcome of a request that lay there before it.",
    run,
)
