"""A worker in a process of its own: `python -m tests.services.worker.child FILE STARTS`. Ends by SIGTERM, or dies.

It writes each start of a task to STARTS, a line with its number and its process. A task below 0 ends the process at
once, or by cancelling all that runs in it; one of a thousand or more takes so many milliseconds.
"""

import asyncio
import os
import signal
import sys

from mesh.core.agent import describe
from mesh.services.worker import Worker
from mesh.settings import Settings
from mesh.wire.clock import SystemClock
from mesh.wiring import open_board, open_log
from tests.services.worker.desk import Answer, Ask, topology

CANCELS_ALL = -7


async def main(file: str, starts: str) -> None:
    """Work until SIGTERM."""
    settings = Settings(log=f"sqlite:{file}", session_timeout_ms=5_000)
    log, board = open_log(settings), open_board(settings)
    await log.start()
    await board.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    told = os.open(starts, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    async def echo(ask: Ask) -> Answer:
        os.write(told, b"%d %d\n" % (ask.n, os.getpid()))
        await asyncio.sleep(0)
        if ask.n == CANCELS_ALL:
            for running in asyncio.all_tasks():
                running.cancel()
            await asyncio.Event().wait()
        if ask.n < 0:
            os._exit(1)
        await asyncio.sleep(0.02 if ask.n < 1_000 else ask.n / 1_000)
        return Answer(n=ask.n)

    mesh = topology(timeout="60s", lanes=16)
    await Worker(log, board, mesh, {"echo": describe(echo)}, SystemClock(), session_timeout_ms=5_000).run(stop)
    await board.close()
    await log.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
