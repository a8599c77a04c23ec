"""Tells when something is due to within about a tenth of a millisecond.

A timer of asyncio's loop comes up to a millisecond late, since epoll waits in whole ones and rounds up. To who asks
every two milliseconds and measures three that is not nothing, and it is none of the mesh's.
"""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator


async def beats(began: float, rate: float, count: int) -> AsyncGenerator[float, None]:
    """Times on `time.perf_counter`, each when it has come; at once, one after the other, those that are past."""
    loop = asyncio.get_running_loop()
    due: asyncio.Queue[float] = asyncio.Queue()
    ended = threading.Event()

    def beat() -> None:
        for n in range(count):
            at = began + n / rate
            delay = at - time.perf_counter()
            if ended.wait(delay) if delay > 0 else ended.is_set():
                return
            loop.call_soon_threadsafe(due.put_nowait, at)

    beating = asyncio.ensure_future(asyncio.to_thread(beat))
    try:
        for _ in range(count):
            yield await due.get()
    finally:
        ended.set()
        await beating
