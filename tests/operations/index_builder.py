"""A process that builds the index of runs in small steps: `python -m tests.operations.index_builder FOLDER INDEX`.

It prints a line after each step, so that a test can kill it between two of them or within the next one.
"""

import asyncio
import sys

from mesh.adapters.sqlite.run_index import RunIndexFile
from mesh.app.wiring import load_topology, open_read_log
from mesh.operations import run_index
from mesh.settings import Settings


async def build(folder: str, path: str, step_records: int) -> None:
    """Build to the end."""
    run_index.STEP_RECORDS = step_records  # type: ignore[misc]
    topology = load_topology(f"{folder}/topics.yaml")
    log = open_read_log(Settings(log=f"sqlite:{folder}/.mesh/mesh.db"))
    await log.start()
    file = RunIndexFile(path)
    file.open(run_index.identity_of(topology, await log.topics()))
    index = run_index.RunIndex(log, topology, file)
    await index.catch_up(lambda step, read, total: print(step, read, total, flush=True))
    file.close()
    await log.close()


if __name__ == "__main__":
    asyncio.run(build(sys.argv[1], sys.argv[2], int(sys.argv[3])))
