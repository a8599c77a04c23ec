"""Cells: child processes in which a task that may kill its process is called, one at a time.

The death of a cell with one task in it is certain evidence, and nothing else dies with it. A cell is begun when one is
needed, serves one task after another, and ends when nobody wanted it for a while, or with its worker: its orders come
by its standard input, and at their end it goes (`mesh.app.isolation_child`). What it is told and what it says is
pickled: both ends are this program, and nobody else holds the pipes.
"""

import asyncio
import os
import pickle
import signal
import struct
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, BinaryIO, NamedTuple, Protocol

from mesh.adapters.diagnostics import diagnostics
from mesh.core.board.changelog import Change
from mesh.core.protocol.event import Event
from mesh.core.task.agent import Agent
from mesh.core.task.fault_injection import InjectedFault
from mesh.core.topology.model import AgentSpec
from mesh.runtime.execution import agent_modules

CELLS_MAX = 8
"""Cells of a worker at once. Each costs as much memory as a worker does that has done nothing."""
IDLE_S = 10.0
BEGIN_TIMEOUT_S = 60.0
"""A cell must have loaded its agent within this."""
BEGIN_AGAIN_S = 5.0
GONE_TIMEOUT_S = 2.0
MAIN = "import sys; sys.path[:] = sys.argv[3:]; from mesh.app.isolation_child import main; main()"
"""Not `-m`, which looks for everything in the working directory first."""
_LENGTH = struct.Struct(">I")
_log = diagnostics("worker")


class CallRequest(NamedTuple):
    """A task for a cell. `where`: its function, as `module:name`; `broken`: on purpose, just now."""

    spec: AgentSpec
    where: str
    task: Event
    broken: InjectedFault | None


class LoadRequest(NamedTuple):
    """The function that a cell is to load next. `folder`: of its module, if `mesh.runtime.execution.agent_modules`
    loaded that here."""

    folder: str
    where: str


class IsolatedProcessDied(Exception):
    """The process ended with the task in it. `code` is its exit code, negative for a signal."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code


class LoadFailure(NamedTuple):
    """What a cell says of a function that it cannot load. It ends then."""

    reason: str


class CallAnswer(NamedTuple):
    """What a cell says of a task. `clean`: nothing of it is left there."""

    event: Event
    clean: bool


class NotLoaded(Exception):
    """No other process can load the function, though this one has."""


class IsolatedProcess(Protocol):
    """A place where a task may die."""

    async def answer(self, order: CallRequest, changed: Callable[[Change], None] | None) -> Event:
        """What the function says. `changed` is told of what it writes on the board. Cancelled, the call is killed.
        Raises IsolatedProcessDied."""
        ...


class IsolatedProcesses(Protocol):
    """All that a worker may have."""

    def takes(self, agent: Agent) -> bool:
        """Whether another process could find this function."""
        ...

    def one(self, where: str) -> AbstractAsyncContextManager[IsolatedProcess]:
        """A cell that has loaded the function `where`, once one is free. Raises NotLoaded."""
        ...

    async def close(self) -> None:
        """End them."""
        ...


def frame(told: Any) -> bytes:
    """As it goes through a pipe."""
    body = pickle.dumps(told)
    return _LENGTH.pack(len(body)) + body


def read_frame(pipe: BinaryIO) -> Any:
    """The next thing told. Raises EOFError at the end."""
    head = pipe.read(_LENGTH.size)
    number = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else -1
    body = pipe.read(max(number, 0))
    if len(body) != number:
        raise EOFError  # in the middle, too: who told it was killed
    return pickle.loads(body)  # from the process that began this one


def find(where: str) -> object:
    """What stands under `module:name` among the modules that are loaded, or None."""
    module, _, name = where.partition(":")
    found: object = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


class ChildProcesses:
    """Cells as processes of their own. `facts` are what `mesh.app.isolation_child` is told at first."""

    def __init__(self, *facts: Any, number: int = CELLS_MAX, idle_s: float = IDLE_S) -> None:
        self._facts, self._idle_s = facts, idle_s
        self._places = asyncio.Semaphore(number)
        self._idle: list[_ChildProcess] = []
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False
        self._folder = os.getcwd()
        """What relative paths in the facts mean; an agent may have gone elsewhere since."""

    @property
    def pids(self) -> Sequence[int]:
        """Processes that wait for a task."""
        return [cell.pid for cell in self._idle]

    def takes(self, agent: Agent) -> bool:
        """See IsolatedProcesses. False for a function within another one, and for one of the started program."""
        return not agent.where.startswith("__main__:") and find(agent.where) is agent.function

    @asynccontextmanager
    async def one(self, where: str) -> AsyncIterator["_ChildProcess"]:
        """See IsolatedProcesses. Tries again until a process can be started, since a failed start says nothing about
        the task. A caller that waits between two tries does not count against the limit of processes."""
        while True:
            async with self._places:
                cell = await self._ready(where)
                if cell is not None:
                    try:
                        yield cell
                    finally:
                        self._put_back(cell)
                    return
            await asyncio.sleep(BEGIN_AGAIN_S)

    async def close(self) -> None:
        """See IsolatedProcesses."""
        self._closed = True
        for cell in list(self._idle):
            self._end(cell)
        if self._ending:
            await asyncio.gather(*self._ending)

    async def _ready(self, where: str) -> "_ChildProcess | None":
        """None: it cannot be begun."""
        try:
            async with asyncio.timeout(BEGIN_TIMEOUT_S):
                return await self._rested(where) or await self._loaded(where, await self._begun())
        except (OSError, IsolatedProcessDied, TimeoutError) as error:
            reason = str(error) or f"it was not ready in {BEGIN_TIMEOUT_S:g} s"
            what = "a process for a suspected task cannot be begun"
            _log.warning(what, function=where, reason=reason, again_in_s=BEGIN_AGAIN_S)
            return None

    async def _begun(self) -> "_ChildProcess":
        return await _ChildProcess.begin(self._facts, self._folder)

    async def _rested(self, where: str) -> "_ChildProcess | None":
        while self._idle:
            cell = self._idle.pop()
            cell.closing.cancel()
            with suppress(IsolatedProcessDied, NotLoaded):  # somebody has killed it; or a new one can load it
                return await self._loaded(where, cell)
        return None

    async def _loaded(self, where: str, cell: "_ChildProcess") -> "_ChildProcess":
        try:
            await cell.load(where)
        except BaseException:
            self._put_back(cell)
            raise
        return cell

    def _put_back(self, cell: "_ChildProcess") -> None:
        """It may rest; or it died or has something to do that nobody waits for, and is killed."""
        if cell.fit and not self._closed:
            self._idle.append(cell)
            cell.closing = asyncio.get_running_loop().call_later(self._idle_s, self._end, cell)
        else:
            cell.kill()
            self._see_off(cell)

    def _end(self, cell: "_ChildProcess") -> None:
        cell.closing.cancel()
        self._idle.remove(cell)
        self._see_off(cell)

    def _see_off(self, cell: "_ChildProcess") -> None:
        task = asyncio.get_running_loop().create_task(cell.end(), name="end a cell")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


class _ChildProcess:
    """One of them."""

    def __init__(self, process: Process, answers: asyncio.StreamReader, transport: asyncio.BaseTransport) -> None:
        self._process, self._answers, self._transport = process, answers, transport
        self.pid = process.pid
        self.fit = True
        """It lives and has nothing to do."""
        self._buried = False
        self.closing: asyncio.TimerHandle

    @classmethod
    async def begin(cls, facts: Sequence[Any], folder: str) -> "_ChildProcess":
        """A new process. Raises OSError."""
        answers = asyncio.StreamReader()
        reads, writes = os.pipe()
        try:
            transport, _ = await asyncio.get_running_loop().connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(answers), os.fdopen(reads, "rb", buffering=0)
            )
            try:  # the last that waits: cancelled, it leaves no process behind
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-c", MAIN, str(writes), str(os.getpid()), *sys.path),
                    stdin=PIPE,
                    pass_fds=[writes],
                    start_new_session=True,
                    cwd=folder,
                )
            except BaseException:
                transport.close()
                raise
        finally:
            os.close(writes)
        assert process.stdin is not None  # a pipe
        cell = cls(process, answers, transport)
        process.stdin.write(frame(facts))
        return cell

    async def load(self, where: str) -> None:
        """Returns when the function can be called there. Raises IsolatedProcessDied, NotLoaded."""
        answer = await self._ask(LoadRequest(agent_modules.home(where.partition(":")[0]), where), None)
        if isinstance(answer, LoadFailure):
            self.fit = False  # it ends
            raise NotLoaded(answer.reason)

    async def answer(self, order: CallRequest, changed: Callable[[Change], None] | None) -> Event:
        """See IsolatedProcess."""
        answer = await self._ask(order, changed)
        assert isinstance(answer, CallAnswer)  # as an order is
        self.fit = answer.clean
        return answer.event

    async def end(self) -> None:
        """Close its orders, and see that it goes."""
        assert self._process.stdin is not None  # a pipe
        self._process.stdin.close()
        await self._gone()

    def kill(self) -> None:
        """At once, with all that was begun in it."""
        if not self._buried:
            with suppress(ProcessLookupError):  # it leads a session of its own
                os.killpg(self.pid, signal.SIGKILL)

    async def _ask(self, what: object, changed: Callable[[Change], None] | None) -> object:
        self.fit = False
        try:
            await self._tell(what)
            while True:
                head = await self._answers.readexactly(_LENGTH.size)
                told = pickle.loads(await self._answers.readexactly(_LENGTH.unpack(head)[0]))  # our child
                if not isinstance(told, Change):
                    self.fit = True
                    return told
                if changed is not None:
                    changed(told)
        except (asyncio.IncompleteReadError, ConnectionError):
            raise IsolatedProcessDied(await self._gone()) from None

    async def _tell(self, what: object) -> None:
        assert self._process.stdin is not None  # a pipe
        self._process.stdin.write(frame(what))
        await self._process.stdin.drain()

    async def _gone(self) -> int:
        """Its exit code, soon."""
        try:
            async with asyncio.timeout(GONE_TIMEOUT_S):
                return await self._process.wait()
        except TimeoutError:
            self.kill()
            return await self._process.wait()
        finally:
            self.kill()
            self._buried = self._process.returncode is not None  # its number may be another one's from now on
            self._transport.close()
