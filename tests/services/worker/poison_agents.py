"""An agent for worker processes, where a cell can import it: some of its tasks kill whoever begins them.

It writes each start of a task to the file STARTS names, a line with its number and its process. A task below 0 ends the
process at once, or by cancelling all that runs in it; one of a thousand or more takes so many milliseconds.
"""

import asyncio
import os

from tests.services.worker.counting_agents import Answer, Ask

CANCELS_ALL = -7


async def echo(ask: Ask) -> Answer:
    told = os.open(os.environ["STARTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(told, b"%d %d\n" % (ask.n, os.getpid()))
    os.close(told)
    await asyncio.sleep(0)
    if ask.n == CANCELS_ALL:
        for running in asyncio.all_tasks():
            running.cancel()
        await asyncio.Event().wait()
    if ask.n < 0:
        os._exit(1)
    await asyncio.sleep(0.02 if ask.n < 1_000 else ask.n / 1_000)
    return Answer(n=ask.n)
