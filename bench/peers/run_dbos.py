"""run1 and run3 on DBOS, its system database in SQLite (its default): an async workflow of one step or three.

Its logs are off, and its workflows are requested in-process, which is the shortest way. On Postgres it is faster; that
is not built here yet. Postgres' own processes leave the process group, so `kills.Process` could neither kill them nor
measure their processor time.
"""

import asyncio

from dbos import DBOS, SetWorkflowID  # type: ignore[import-not-found,unused-ignore]

from bench.peers.run_load import drive, parse_options

RUNS = parse_options()


@DBOS.step()  # type: ignore[untyped-decorator,unused-ignore]
async def step(number: int, ask: str) -> str:
    """One durable step."""
    return await RUNS.step(number, ask)


@DBOS.workflow()  # type: ignore[untyped-decorator,unused-ignore]
async def run(ask: str) -> str:
    """All steps, one after the other."""
    for number in range(1, RUNS.steps + 1):
        ask = await step(number, ask)
    return ask


async def accept(id: str, ask: str) -> None:
    """Returns when the run is in the database."""
    with SetWorkflowID(id):
        await DBOS.start_workflow_async(run, ask)


async def call(id: str, ask: str) -> None:
    """Returns with the outcome."""
    with SetWorkflowID(id):
        await run(ask)


async def serve() -> None:
    """Recovers what was under way, then asks."""
    database = f"sqlite:///{RUNS.folder}/dbos.sqlite"
    DBOS(config={"name": "peer", "system_database_url": database, "log_level": "ERROR", "application_version": "1"})
    DBOS.launch()
    await drive(RUNS, call=call, accept=accept)


if __name__ == "__main__":
    asyncio.run(serve())
