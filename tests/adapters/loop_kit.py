"""A loop that stands still, as that of a process does which was stopped or had no processor."""

import asyncio
import time
from collections.abc import Callable


def stand_still(seconds: float) -> None:
    """Other threads go on."""
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        pass


def turns(count: int, each: Callable[[], None]) -> None:
    """Calls it now and in each turn of the running loop that follows, `count` times in all."""
    each()
    if count > 1:
        asyncio.get_running_loop().call_soon(turns, count - 1, each)
