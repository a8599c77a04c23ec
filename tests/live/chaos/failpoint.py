"""`mesh` in a process that fails at a given point: `python -m tests.live.chaos.failpoint up orchestrator`.

`CHAOS_POINT=name:n` ends the process (status 137, as by SIGKILL) at the n-th pass of that point. The others change how
it runs:

    before-append after-append before-commit after-commit during-restore during-revoke
    slow-restore:ms    every restore takes that much longer
    files:n memory:mb  limits of the process
    clock:s            the wall clock is ahead by that much (behind: -s), as on a machine whose clock is wrong.
    step:s             the same from two seconds after the start on, as after a change of the clock
"""

import asyncio
import os
import resource
import time
from collections.abc import Awaitable, Callable
from typing import Any

from mesh.adapters.kafka.log import KafkaLog
from mesh.adapters.kafka.member import KafkaMember
from mesh.cli import main
from mesh.runtime.loop import Loop
from mesh.services.orchestrator import Orchestrator

KILLED = 137
STEP_AFTER_S = 2.0
Method = Callable[..., Awaitable[Any]]


def wrapped(
    owner: type, name: str, around: Callable[[Method, tuple[Any, ...], dict[str, Any]], Awaitable[Any]]
) -> None:
    """Put `around` in the place of a method; it gets the method and the arguments of the call."""
    method: Method = getattr(owner, name)

    async def instead(*args: Any, **kwargs: Any) -> Any:
        return await around(method, args, kwargs)

    setattr(owner, name, instead)


def die_at(owner: type, name: str, *, count: int, before: bool) -> None:
    """End the process at the `count`-th call of a method, before it begins or after it has ended."""
    left = count

    async def around(method: Method, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        nonlocal left
        left -= 1
        if before and left <= 0:
            os._exit(KILLED)
        answer = await method(*args, **kwargs)
        if left <= 0:
            os._exit(KILLED)
        return answer

    wrapped(owner, name, around)


async def begun(method: Method, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """End the process when the method has begun and waits for the first time."""
    doing = asyncio.ensure_future(method(*args, **kwargs))
    await asyncio.sleep(0)
    os._exit(KILLED)
    return await doing


def set_clock(shift_s: int, *, after_s: float) -> None:
    """Move the wall clock of this process once it is `after_s` old. Monotonic time goes on as it was."""
    right, right_ns, from_s = time.time, time.time_ns, time.monotonic() + after_s

    def shift() -> int:
        return shift_s if time.monotonic() >= from_s else 0

    time.time = lambda: right() + shift()
    time.time_ns = lambda: right_ns() + shift() * 10**9


def install(point: str) -> None:
    """Make this process fail at the point."""
    name, _, number = point.partition(":")
    count = int(number or 1)
    match name:
        case "before-append" | "after-append":
            die_at(KafkaLog, "append", count=count, before=name == "before-append")
        case "before-commit" | "after-commit":
            die_at(KafkaMember, "commit", count=count, before=name == "before-commit")
        case "during-restore":
            wrapped(Orchestrator, "restore", begun)
        case "during-revoke":
            die_at(Loop, "revoked", count=count, before=True)
        case "slow-restore":

            async def slowly(method: Method, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
                await asyncio.sleep(count / 1000)
                return await method(*args, **kwargs)

            wrapped(Orchestrator, "restore", slowly)
        case "clock" | "step":
            set_clock(count, after_s=0 if name == "clock" else STEP_AFTER_S)
        case "files":
            resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))
        case "memory":
            resource.setrlimit(resource.RLIMIT_AS, (count << 20, count << 20))
        case _:
            raise SystemExit(f"no point is called {name!r}")


if __name__ == "__main__":
    install(os.environ["CHAOS_POINT"])
    main()
