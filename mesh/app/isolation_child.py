"""The isolated process that calls a task which may kill its process. Only `mesh.runtime.execution.isolation` starts it.

Its arguments are the number of the pipe for answers, the process id of its worker, and the module search path. Orders
come by standard input; answers and board changes go out by the pipe. The first message holds the settings; in a replay
also the past of the board, which functions then see as it stood at the time of their task. When the input ends, the
worker has ended or died, and this process ends with all processes that agents began in its session. It ends at once
while a task runs, else after the resources of agents were closed. Signals that ask to end are ignored: they are for the
worker.
"""

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any, BinaryIO, NoReturn

from mesh.adapters.clock import SystemClock
from mesh.adapters.memory_board import board_at
from mesh.adapters.ports import Board
from mesh.app.wiring import open_board
from mesh.core.board.past_values import PastBoard
from mesh.core.errors import BoardUnavailable
from mesh.core.protocol.event import Event
from mesh.core.task import result
from mesh.core.task.agent import Agent, agent_of
from mesh.core.topology.model import AgentSpec
from mesh.runtime.execution import agent_modules, loop_guard
from mesh.runtime.execution.contexts import Contexts, within
from mesh.runtime.execution.isolation import (
    BatchAnswer,
    BatchRequest,
    CallAnswer,
    CallRequest,
    LoadFailure,
    LoadRequest,
    find,
    frame,
    read_frame,
)
from mesh.runtime.execution.threads import Threads
from mesh.services.worker.invocation import Function, context_of, failed
from mesh.services.worker.lifespans import Lifespans
from mesh.settings import Settings

LOOK_EVERY_S = 1.0
"""Interval of checks that the worker lives. The end of the input shows its death at once, unless a forked copy of the
worker holds the input open."""
CLOSE_TIMEOUT_S = 1.0
"""Time for the resources of agents to close after the last order; the worker kills this process after 2 s."""
LOOKS, LOOKS_S = 10, 0.005
"""Number and interval of checks that a call has left no thread and no asyncio task."""
Order = CallRequest | BatchRequest | LoadRequest


class RequestServer:
    """Serves orders one after the other."""

    def __init__(self, board_of: Callable[[Event], Board], send: Callable[[object], None]) -> None:
        self._board_of, self._send = board_of, send
        self._agents: dict[str, Agent] = {}
        self._folders: dict[str, str] = {}
        """Folder by function that was loaded from it."""
        self._threads, self._tasks = 0, 1
        """Numbers of threads and asyncio tasks before the first task of the loaded agent."""
        self._contexts = Contexts()
        self._lifespans = Lifespans()
        self._resources: dict[str, object] = {}
        """Value of the lifespan by function."""
        self.closable = False
        """No order is being served, and resources of agents are open."""

    async def serve(self, orders: "asyncio.Queue[Order | None]") -> None:
        """Serve orders until None comes, then close the resources of agents."""
        while (order := await orders.get()) is not None:
            if isinstance(order, LoadRequest):
                self._send(await self._load(order))
            elif isinstance(order, BatchRequest):
                answers = await self._answer_batch(order)
                _flush()
                self._send(BatchAnswer(answers, clean=await self._clean()))
            else:
                answer = await within(self._contexts.new(), self._answer(order))
                _flush()
                self._send(CallAnswer(answer, clean=await self._clean()))
            self.closable = bool(self._lifespans)
        await self._lifespans.close(timeout_s=CLOSE_TIMEOUT_S)

    async def _load(self, wanted: LoadRequest) -> LoadFailure | None:
        folder, where = wanted
        try:
            if self._folders.get(where) != folder:
                if folder:
                    agent_modules.use(folder)
                agent_modules.load(where.partition(":")[0])
                function: Any = find(where)
                agent = agent_of(function)
                self._resources[where] = await self._lifespans.enter(agent)
                self._agents[where], self._folders[where] = agent, folder
                self._threads, self._tasks = threading.active_count(), len(asyncio.all_tasks())
                self._contexts = Contexts()
        except (Exception, SystemExit) as error:  # noqa: BLE001  # the author's code, which may raise anything
            return LoadFailure(f"{type(error).__name__}: {error}")
        return None

    async def _clean(self) -> bool:
        """Return whether the task left nothing that could end the process of the next task."""
        for _ in range(LOOKS):
            if len(asyncio.all_tasks()) <= self._tasks and threading.active_count() <= self._threads:
                return True
            await asyncio.sleep(LOOKS_S)
        return False

    async def _answer_batch(self, batch: BatchRequest) -> list[tuple[Event, float]]:
        threads, answers = self._threads_of(batch.spec, batch.where), []
        try:
            for task in batch.tasks:
                order, began_s = CallRequest(batch.spec, batch.where, task, None, sandbox=True), time.perf_counter()
                answer = await within(self._contexts.new(), self._call(order, threads))
                answers.append((answer, (time.perf_counter() - began_s) * 1_000))
        finally:
            if threads is not None:
                threads.close()
        return answers

    async def _answer(self, order: CallRequest) -> Event:
        threads = self._threads_of(order.spec, order.where)
        try:
            return await self._call(order, threads)
        finally:
            if threads is not None:
                threads.close()

    def _threads_of(self, spec: AgentSpec, where: str) -> Threads | None:
        """Return a thread for calls of a blocking function."""
        if self._agents[where].is_async:
            return None
        return Threads(1, name=spec.name, on_abandon=_ignore, on_late=_ignore)

    async def _call(self, order: CallRequest, threads: Threads | None) -> Event:
        agent, task = self._agents[order.where], order.task
        resources = self._resources[order.where]
        context = context_of(task, self._board_of(task), self._send, resources, sandbox=order.sandbox)
        try:
            return await Function(order.spec, agent, SystemClock(), threads).answer(task, context, order.broken)
        except asyncio.CancelledError as error:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise  # the agent has cancelled all tasks here: this process ends
            return failed(task, context, result.fault_of(error, agent_modules.user_frame))
        except BaseException as error:  # noqa: BLE001  # an agent may raise anything, even SystemExit
            return failed(task, context, result.fault_of(error, agent_modules.user_frame))


def _ignore() -> None:
    """Ignore abandoned threads: the worker kills this process instead."""


def _ignore_signal(number: int, frame: FrameType | None) -> None:
    """Ignore a signal. Processes that an agent starts would inherit SIG_IGN."""


def _flush() -> None:
    """Flush the output of agents before their answer, since this process ends without doing so."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # closed, or without a reader
            stream.flush()


def _end_all() -> NoReturn:
    """End this process and the processes that agents have begun in its session."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(0)


def _watch(worker: int) -> None:
    """End when the worker has died."""
    while os.getppid() == worker:
        time.sleep(LOOK_EVERY_S)
    _end_all()


async def _main(settings: Settings, past: PastBoard | None, pipe: BinaryIO, send: Callable[[object], None]) -> None:
    loop, orders = asyncio.get_running_loop(), asyncio.Queue[Order | None]()

    def read_orders() -> None:
        while True:
            try:
                order = read_frame(pipe)
            except EOFError:
                if not server.closable:
                    _end_all()
                loop.call_soon_threadsafe(orders.put_nowait, None)
                time.sleep(CLOSE_TIMEOUT_S)
                _end_all()
            server.closable = False
            loop.call_soon_threadsafe(orders.put_nowait, order)

    board = open_board(settings, settings.board_prefix)
    with suppress(BoardUnavailable):  # board calls of agents will fail, as in the worker
        await board.start()
    server = RequestServer((lambda task: board) if past is None else partial(board_at, past), send)
    threading.Thread(target=read_orders, name="orders", daemon=True).start()
    try:
        await server.serve(orders)
        _flush()
        _end_all()
    except asyncio.CancelledError:  # an agent has cancelled all tasks here
        _flush()
        os._exit(1)  # at once, since a task may ignore its cancellation


def main() -> None:
    """Run the process; see the module."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _ignore_signal)
    # Processes and code of agents must not get hold of these pipes.
    answers, orders = int(sys.argv[1]), os.fdopen(os.dup(0), "rb")
    os.set_inheritable(answers, False)
    for pipe in (answers, orders.fileno()):  # a forked copy would hide the death of this process
        os.register_at_fork(after_in_child=partial(os.close, pipe))
    threading.Thread(target=_watch, args=(int(sys.argv[2]),), name="worker", daemon=True).start()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)

    def send(message: object) -> None:
        rest = memoryview(frame(message))
        while rest:
            rest = rest[os.write(answers, rest) :]

    try:
        settings, *past = read_frame(orders)
    except EOFError:
        _end_all()
    loop_guard.run(_main(settings, past[0] if past else None, orders, send))
