"""A cell: the process in which a task that may kill its process is called. `python -m mesh.cell FD PID`, by the worker
PID only.

Orders come by standard input, answers and what was written on the board go out by FD (`mesh.wire.cells`). When its
orders end, so does this process, at once, and all that agents began in its session: then its worker has ended, or has
died. Signals that ask to end are for the worker to hear. It offers itself first to a system that is out of memory:
nobody else is at work here.
"""

import asyncio
import importlib
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import Any, BinaryIO, NoReturn

from mesh.core import settle
from mesh.core.agent import Agent, describe
from mesh.core.errors import BoardUnavailable
from mesh.core.event import Event
from mesh.services.worker.function import Function, context_of, failed
from mesh.settings import Settings
from mesh.wire.cells import Order, Unloadable, find, frame, read_frame
from mesh.wire.clock import SystemClock
from mesh.wire.ports import Board
from mesh.wire.threads import Threads
from mesh.wiring import open_board

LOOK_EVERY_S = 1.0
"""How often it asks whether its worker lives. The end of its orders tells it at once, but for processes that the worker
was copied to: they hold them open."""


class Desk:
    """Answers orders, one after the other."""

    def __init__(self, board: Board, say: Callable[[object], None]) -> None:
        self._board, self._say = board, say
        self._agents: dict[str, Agent] = {}

    async def serve(self, orders: "asyncio.Queue[Order | str]") -> None:
        """Until the process ends."""
        while True:
            order = await orders.get()
            answer = self._load(order) if isinstance(order, str) else await self._answer(order)
            _flush()
            self._say(answer)

    def _load(self, where: str) -> Unloadable | None:
        try:
            if where not in self._agents:
                importlib.import_module(where.partition(":")[0])
                function: Any = find(where)
                found = getattr(function, "__mesh_agent__", None)
                self._agents[where] = found if isinstance(found, Agent) else describe(function)
        except (Exception, SystemExit) as error:  # noqa: BLE001  # the author's code, which may raise anything
            return Unloadable(f"{type(error).__name__}: {error}")
        return None

    async def _answer(self, order: Order) -> Event:
        agent, task = self._agents[order.where], order.task
        threads = None if agent.is_async else Threads(1, name=order.spec.name, abandoned=_nothing, late=_nothing)
        context = context_of(task, self._board, self._say)
        try:
            return await Function(order.spec, agent, SystemClock(), threads).answer(task, context, order.broken)
        except asyncio.CancelledError as error:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise  # it has cancelled all that runs here: this process ends
            return failed(task, context, settle.fault_of(error))
        except BaseException as error:  # noqa: BLE001  # an agent may raise anything, even SystemExit: its answer
            return failed(task, context, settle.fault_of(error))
        finally:
            if threads is not None:
                threads.close()


def _nothing() -> None:
    """Of threads: whoever gives up a call here kills the process."""


def _unmoved(number: int, frame: FrameType | None) -> None:
    """Of signals. Not SIG_IGN: what an agent begins would inherit that."""


def _flush() -> None:
    """What agents print stands there before their answer, since this process ends without a word."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # closed, or nobody reads it
            stream.flush()


def _end_all() -> NoReturn:
    """This process, and what agents have begun in its session."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(0)


def _watch(worker: int) -> None:
    while os.getppid() == worker:
        time.sleep(LOOK_EVERY_S)
    _end_all()


async def _main(settings: Settings, pipe: BinaryIO, say: Callable[[object], None]) -> None:
    loop, orders = asyncio.get_running_loop(), asyncio.Queue[Order | str]()

    def hear() -> None:
        while True:
            try:
                order = read_frame(pipe)
            except EOFError:
                _end_all()
            loop.call_soon_threadsafe(orders.put_nowait, order)

    Thread(target=hear, name="orders", daemon=True).start()
    board = open_board(settings)
    with suppress(BoardUnavailable):  # an agent's calls of it will fail, as they would in its worker
        await board.start()
    try:
        await Desk(board, say).serve(orders)
    except asyncio.CancelledError:  # by an agent, with all that runs here
        _flush()
        os._exit(1)  # at once: nobody waits here for what does not let itself be cancelled


def main() -> None:
    """See the module."""
    for asks in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(asks, _unmoved)
    with suppress(OSError):  # there is none but on Linux
        Path("/proc/self/oom_score_adj").write_text("1000")
    # What the agent begins or reads must not hold these.
    answers, orders = int(sys.argv[1]), os.fdopen(os.dup(0), "rb")
    os.set_inheritable(answers, False)
    for pipe in (answers, orders.fileno()):  # a copy of this process would else hide that we have died
        os.register_at_fork(after_in_child=partial(os.close, pipe))
    Thread(target=_watch, args=(int(sys.argv[2]),), name="worker", daemon=True).start()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)

    def say(told: object) -> None:
        rest = memoryview(frame(told))
        while rest:
            rest = rest[os.write(answers, rest) :]

    try:
        path, settings = read_frame(orders)
    except EOFError:
        _end_all()
    sys.path[:] = path
    asyncio.run(_main(settings, orders, say))


if __name__ == "__main__":
    main()
