"""A worker in a process of its own: `python -m tests.services.worker.child FILE WHERE`. Ends by SIGTERM, or dies.

WHERE is `apart` or `here`: whether a task that may kill its process is begun in another one.
"""

import asyncio
import signal
import sys

from mesh.adapters.clock import SystemClock
from mesh.app.wiring import open_board, open_log
from mesh.core.task.agent import describe
from mesh.runtime.execution.isolation import ChildProcesses
from mesh.services.worker import Worker, WorkerOptions
from mesh.settings import Settings
from tests.services.worker.counting_agents import topology
from tests.services.worker.poison_agents import echo


async def main(file: str, where: str) -> None:
    """Work until SIGTERM."""
    settings = Settings(log=f"sqlite:{file}", session_timeout_ms=5_000, board_prefix="mesh")
    log, board = open_log(settings), open_board(settings, "mesh")
    await log.start()
    await board.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    isolated_processes = ChildProcesses(settings) if where == "apart" else None
    mesh = topology(timeout="60s", lanes=16)
    worker = Worker(
        *(log, board, mesh, {"echo": describe(echo)}, SystemClock()),
        WorkerOptions(session_timeout_ms=5_000),
        isolated_processes=isolated_processes,
    )
    await worker.run(stop)
    await board.close()
    await log.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
