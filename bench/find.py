"""How soon runs are found: `python -m bench.find --runs 200000`, `python -m bench.find --log kafka://127.0.0.1:9092`.

A log of ended runs is written (`bench.run_log`). The index of runs is built over all of it. Then one run is looked for
by its id and by its subject, and the latest 50 that fit filters, each with a look at what is new on the log, as a
command does it. `--folder` keeps the log, and takes one that is there.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench import run_log
from bench.report import save
from mesh.adapters.sqlite.run_index import RunIndexFile
from mesh.app.wiring import load_topology, open_read_log
from mesh.core.history.run_query import RunQuery
from mesh.operations.run_index import RunIndex, identity_of
from mesh.operations.run_selection import select_runs
from mesh.operations.runs import Runs
from mesh.settings import Settings

LATEST: Final = 50
FILTERS: Final = {
    "latest_s": RunQuery(),
    "latest_failed_s": RunQuery(state="failed"),
    "latest_of_agent_s": RunQuery(agent="ship", state="completed"),
    "latest_of_reason_s": RunQuery(code="exception"),
    "latest_of_subject_s": RunQuery(subject="*-0000000?"),
    "latest_open_s": RunQuery(state="open"),
    "longest_s": RunQuery(sort="took"),
}


async def measure(folder: Path, url: str) -> dict[str, Any]:
    """All figures over the log of a folder."""
    topology = load_topology(str(folder / "topics.yaml"))
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "runs.db"
        log = open_read_log(Settings(log=url))
        await log.start()
        bounds = [await log.bounds(topic) for topic in (topology.inbox, topology.outcomes)]
        records = sum(each.end - each.start for there in bounds for each in there.values())
        await log.close()

        async def look(use: Callable[[Runs, RunIndex], Awaitable[Any]]) -> tuple[float, float, Any]:
            """Seconds and processor seconds from the opening of the log to the result."""
            began, used = time.perf_counter(), time.process_time()
            log = open_read_log(Settings(log=url))
            await log.start()
            file = RunIndexFile(path)
            file.open(identity_of(topology, await log.topics()))
            index = RunIndex(log, topology, file)
            assert await index.catch_up()
            found = await use(Runs(log, topology, finder=index), index)
            file.close()
            await log.close()
            return round(time.perf_counter() - began, 3), round(time.process_time() - used, 3), found

        async def nothing(runs: Runs, index: RunIndex) -> int:
            return (await select_runs(runs, index, RunQuery(), limit=1))[0].opened_ms

        build_s, build_cpu_s, _ = await look(nothing)
        figures: dict[str, Any] = {
            "records": records,
            "build_s": build_s,
            "build_records_per_s": round(records / build_s),
            "build_records_per_cpu_s": round(records / build_cpu_s),
            "index_bytes": path.stat().st_size,
        }
        subject = "order-00000007"
        figures["by_subject_s"], _, run = await look(lambda runs, _: runs.find(subject))
        figures["by_id_s"], _, same = await look(lambda runs, _: runs.find(run.run_id))
        assert same.subject == subject
        for name, query in FILTERS.items():
            figures[name], _, rows = await look(partial(select_runs, query=query, limit=LATEST))
            assert rows, name
    return figures


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--log", default="", help="kafka://HOST:PORT; default: an embedded log")
    parser.add_argument("--runs", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, help="keeps the log; default: a temporary one")
    arguments = parser.parse_args()
    if arguments.runs < run_log.OPEN:
        parser.error(f"--runs: at least {run_log.OPEN:,}, since one run of so many stays open")
    with tempfile.TemporaryDirectory() as place:
        folder = arguments.folder or Path(place) / "found"
        url = arguments.log or f"sqlite:{(folder / '.mesh/mesh.db').absolute()}"
        if not (folder / "topics.yaml").exists():
            folder.mkdir(parents=True)
            (folder / "topics.yaml").write_text(run_log.TEXT)
            asyncio.run(run_log.write(folder, arguments.runs, arguments.log))
        figures = asyncio.run(measure(folder, url))
    figures = {"log": url.partition(":")[0], "runs": arguments.runs, **figures}
    print(json.dumps(figures, indent=2))
    save(f"find-{figures['log']}", figures)


if __name__ == "__main__":
    main()
