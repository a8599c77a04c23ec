"""Agents that do to their process what agents do."""

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

from mesh import Context, Payload


class Ask(Payload, type="ask"):
    what: str


class Told(Payload, type="told"):
    pid: int
    text: str = ""


left: list[asyncio.Future[None]] = []


async def wild(ask: Ask, ctx: Context) -> Told | None:
    """By word."""
    match ask.what:
        case "board":
            await ctx.board.put("said", {"by": os.getpid()})
            ctx.spend(usd="0.1")
        case "facts":
            return Told(pid=os.getpid(), text=f"{ctx.now_ms} {ctx.random().random()} {ctx.sandbox}")
        case "exit":
            os._exit(9)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "raise":
            raise SystemExit(4)
        case "leave thread":
            threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
        case "leave task":
            left.append(asyncio.ensure_future(asyncio.sleep(600)))
        case "hang":
            await asyncio.Event().wait()
        case "block":
            time.sleep(600)  # noqa: ASYNC251  # as a careless one does
        case "cancel":
            for task in asyncio.all_tasks():
                task.cancel()
            await asyncio.Event().wait()
        case "close":
            os.closerange(3, 256)
        case "fork":  # the copy holds all that its parent held
            multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,)).start()
            os._exit(9)
        case "begin":
            return Told(pid=subprocess.Popen(("sleep", "60")).pid)  # noqa: ASYNC220
        case "terminate":
            begun = subprocess.Popen(("sleep", "60"))  # noqa: ASYNC220
            begun.terminate()
            return Told(pid=os.getpid(), text=str(begun.wait()))
        case "print":
            print("printed")
        case "read":
            return Told(pid=os.getpid(), text=sys.stdin.read())
        case "child":  # it outlives its parent
            subprocess.Popen(("sleep", "5"), close_fds=False)  # noqa: ASYNC220
            os._exit(9)
    return Told(pid=os.getpid())


def blocking(ask: Ask) -> Told:
    """In a thread."""
    if ask.what == "hang":
        time.sleep(600)
    return Told(pid=os.getpid(), text=ask.what)
