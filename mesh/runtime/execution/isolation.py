"""Isolated processes: child processes that call a suspected task, one at a time.

The death of an isolated process with one task in it is certain evidence, and nothing else dies with it. The process is
started when one is needed and serves one task after another. It ends when it was idle for a while, or with its worker:
its requests come by its standard input, and it ends with them (`mesh.app.isolation_child`). Requests and answers are
pickled: both ends are this program, and no other process has the pipes.
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
from mesh.core.board.changelog import BoardChange
from mesh.core.protocol.event import Event
from mesh.core.task.agent import Agent
from mesh.core.task.fault_injection import InjectedFault
from mesh.core.topology.model import AgentSpec
from mesh.runtime.execution import agent_modules

PROCESSES_MAX = 8
"""Isolated processes of a worker at once. Each takes as much memory as a worker that has done nothing."""
IDLE_S = 10.0
START_TIMEOUT_S = 60.0
"""Time in which an isolated process must have loaded its agent."""
RETRY_S = 5.0
EXIT_TIMEOUT_S = 2.0
MAIN = "import sys; sys.path[:] = sys.argv[3:]; from mesh.app.isolation_child import main; main()"
"""The program of the child. `-m` would search the working directory first for every import."""
_LENGTH = struct.Struct(">I")
_log = diagnostics("worker")


class CallRequest(NamedTuple):
    """A request to call a task. `where`: its function as `module:name`; `broken`: a fault that `mesh break` injects."""

    spec: AgentSpec
    where: str
    task: Event
    broken: InjectedFault | None
    sandbox: bool = False


class BatchRequest(NamedTuple):
    """A request to call several tasks of a replay, one after the other."""

    spec: AgentSpec
    where: str
    tasks: Sequence[Event]


class LoadRequest(NamedTuple):
    """A request to load a function. `folder`: the folder of its module, if
    `mesh.runtime.execution.agent_modules` loaded it in this process."""

    folder: str
    where: str


class IsolatedProcessDied(Exception):
    """Raised when the process ended with the task in it. `code`: its exit code, negative for a signal."""

    def __init__(self, code: int) -> None:
        super().__init__(f"signal {-code}" if code < 0 else f"exit code {code}")
        self.code = code


class LoadFailure(NamedTuple):
    """The answer of a process that cannot load a function. It ends then."""

    reason: str


class CallAnswer(NamedTuple):
    """The answer to a task. `clean`: no thread or coroutine of the call is left in the process."""

    event: Event
    clean: bool


class BatchAnswer(NamedTuple):
    """The answers to a batch, each with the time of its call in milliseconds. `clean`: see CallAnswer."""

    events: Sequence[tuple[Event, float]]
    clean: bool


class NotLoaded(Exception):
    """Raised when no other process can load the function, although this one has."""


class IsolatedProcess(Protocol):
    """A process in which a task may die."""

    async def answer(self, order: CallRequest, changed: Callable[[BoardChange], None] | None) -> Event:
        """Call the function and return its event. `changed` gets each change that it writes to the board.

        Cancellation kills the call. Raises IsolatedProcessDied.
        """
        ...


class IsolatedProcesses(Protocol):
    """The isolated processes of a worker."""

    def can_run(self, agent: Agent) -> bool:
        """Return whether another process could find this function."""
        ...

    def acquire(self, where: str) -> AbstractAsyncContextManager[IsolatedProcess]:
        """Wait for a process that has loaded the function `where`. Raises NotLoaded."""
        ...

    async def close(self) -> None:
        """End all processes."""
        ...


def frame(message: Any) -> bytes:
    """Encode a message for a pipe: its length and its pickle."""
    body = pickle.dumps(message)
    return _LENGTH.pack(len(body)) + body


def read_frame(pipe: BinaryIO) -> Any:
    """Read the next message. Raises EOFError at the end."""
    head = pipe.read(_LENGTH.size)
    number = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else -1
    body = pipe.read(max(number, 0))
    if len(body) != number:
        raise EOFError  # also within a message, when the sender was killed
    return pickle.loads(body)  # from the parent process


def find(where: str) -> object:
    """Return the object at `module:name` among the loaded modules, or None."""
    module, _, name = where.partition(":")
    found: object = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


class ChildProcesses:
    """Isolated processes as child processes. `setup`: the first message to each, see `mesh.app.isolation_child`.

    `output`: file descriptor of their standard output; None: that of this process.
    """

    def __init__(
        self, *setup: Any, processes_max: int = PROCESSES_MAX, idle_s: float = IDLE_S, output: int | None = None
    ) -> None:
        self._setup, self._idle_s, self._output = setup, idle_s, output
        self._slots = asyncio.Semaphore(processes_max)
        self._idle: list[_ChildProcess] = []
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False
        self._folder = os.getcwd()
        """The folder of relative paths in `setup`. An agent may have changed the working directory since."""

    @property
    def pids(self) -> Sequence[int]:
        """Ids of the processes that wait for a task."""
        return [child.pid for child in self._idle]

    def can_run(self, agent: Agent) -> bool:
        """See IsolatedProcesses. False for a function within another one, and for one of the started program."""
        return not agent.where.startswith("__main__:") and find(agent.where) is agent.function

    @asynccontextmanager
    async def acquire(self, where: str) -> AsyncIterator["_ChildProcess"]:
        """See IsolatedProcesses. Tries again until a process can be started, since a failed start says nothing about
        the task. A caller that waits between two tries does not count against the limit of processes."""
        while True:
            async with self._slots:
                child = await self._ready(where)
                if child is not None:
                    try:
                        yield child
                    finally:
                        self._release(child)
                    return
            await asyncio.sleep(RETRY_S)

    async def close(self) -> None:
        """See IsolatedProcesses."""
        self._closed = True
        for child in list(self._idle):
            self._end_idle(child)
        if self._ending:
            await asyncio.gather(*self._ending)

    async def _ready(self, where: str) -> "_ChildProcess | None":
        """Return a process that has loaded the function, or None if none can be started."""
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while self._idle:
                    child = self._idle.pop()
                    child.idle_timer.cancel()
                    with suppress(IsolatedProcessDied, NotLoaded):  # it was killed, or a new one can load the function
                        return await self._load(where, child)
                return await self._load(where, await _ChildProcess.start(self._setup, self._folder, self._output))
        except (OSError, IsolatedProcessDied, TimeoutError) as error:
            reason = str(error) or f"it was not ready in {START_TIMEOUT_S:g} s"
            sentence = "a process for a suspected task cannot be started"
            _log.warning(sentence, function=where, reason=reason, again_in_s=RETRY_S)
            return None

    async def _load(self, where: str, child: "_ChildProcess") -> "_ChildProcess":
        try:
            await child.load(where)
        except BaseException:
            self._release(child)
            raise
        return child

    def _release(self, child: "_ChildProcess") -> None:
        """Keep a process for the next task; kill it if it died or still runs an abandoned call."""
        if child.reusable and not self._closed:
            self._idle.append(child)
            child.idle_timer = asyncio.get_running_loop().call_later(self._idle_s, self._end_idle, child)
        else:
            child.kill()
            self._end(child)

    def _end_idle(self, child: "_ChildProcess") -> None:
        child.idle_timer.cancel()
        self._idle.remove(child)
        self._end(child)

    def _end(self, child: "_ChildProcess") -> None:
        task = asyncio.get_running_loop().create_task(child.end(), name="end an isolated process")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


class _ChildProcess:
    """One child process."""

    def __init__(self, process: Process, answers: asyncio.StreamReader, transport: asyncio.BaseTransport) -> None:
        self._process, self._answers, self._transport = process, answers, transport
        self.pid = process.pid
        self.reusable = True
        """Whether it lives and has nothing to do."""
        self._reaped = False
        self.idle_timer: asyncio.TimerHandle

    @classmethod
    async def start(cls, setup: Sequence[Any], folder: str, output: int | None) -> "_ChildProcess":
        """Start a process. Raises OSError."""
        answers = asyncio.StreamReader()
        reads, writes = os.pipe()
        try:
            transport, _ = await asyncio.get_running_loop().connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(answers), os.fdopen(reads, "rb", buffering=0)
            )
            try:  # the last await in here: a cancelled start leaves no process behind
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-c", MAIN, str(writes), str(os.getpid()), *sys.path),
                    stdin=PIPE,
                    stdout=output,
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
        child = cls(process, answers, transport)
        process.stdin.write(frame(setup))
        return child

    async def load(self, where: str) -> None:
        """Return when the process has loaded the function. Raises IsolatedProcessDied, NotLoaded."""
        answer = await self._ask(LoadRequest(agent_modules.home(where.partition(":")[0]), where), None)
        if isinstance(answer, LoadFailure):
            self.reusable = False  # it ends
            raise NotLoaded(answer.reason)

    async def answer(self, order: CallRequest, changed: Callable[[BoardChange], None] | None) -> Event:
        """See IsolatedProcess."""
        answer = await self._ask(order, changed)
        assert isinstance(answer, CallAnswer)  # the answer to a CallRequest
        self.reusable = answer.clean
        return answer.event

    async def answer_batch(self, order: BatchRequest) -> Sequence[tuple[Event, float]]:
        """Call the function for each task; return the events with the times of the calls in milliseconds.

        Cancellation kills the call. Raises IsolatedProcessDied: which task killed it is not known.
        """
        answer = await self._ask(order, None)
        assert isinstance(answer, BatchAnswer)  # the answer to a BatchRequest
        self.reusable = answer.clean
        return answer.events

    async def end(self) -> None:
        """Close its standard input and wait for its exit."""
        assert self._process.stdin is not None  # a pipe
        self._process.stdin.close()
        await self._exit_code()

    def kill(self) -> None:
        """Kill the process and all that it has started, at once."""
        if not self._reaped:
            with suppress(ProcessLookupError):  # it leads a session of its own
                os.killpg(self.pid, signal.SIGKILL)

    async def _ask(self, request: object, changed: Callable[[BoardChange], None] | None) -> object:
        self.reusable = False
        assert self._process.stdin is not None  # a pipe
        try:
            self._process.stdin.write(frame(request))
            await self._process.stdin.drain()
            while True:
                head = await self._answers.readexactly(_LENGTH.size)
                message = pickle.loads(await self._answers.readexactly(_LENGTH.unpack(head)[0]))  # our child
                if not isinstance(message, BoardChange):
                    self.reusable = True
                    return message
                if changed is not None:
                    changed(message)
        except (asyncio.IncompleteReadError, ConnectionError):
            raise IsolatedProcessDied(await self._exit_code()) from None

    async def _exit_code(self) -> int:
        """Wait for the exit, kill the process if it takes too long, and return its exit code."""
        try:
            async with asyncio.timeout(EXIT_TIMEOUT_S):
                return await self._process.wait()
        except TimeoutError:
            self.kill()
            return await self._process.wait()
        finally:
            self.kill()
            self._reaped = self._process.returncode is not None  # the id may be another process's from now on
            self._transport.close()
