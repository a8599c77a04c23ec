"""Worker processes as children: starts, watches, restarts and drains them.

A child drains when its standard input closes, so also when its parent is killed. It reports by a pipe that it is ready.
It inherits the parent's output, since agents may print. It has a session of its own, so that Ctrl-C at the terminal
reaches only the parent.
"""

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from itertools import count

from mesh.cli.framework.logs import Reporter
from mesh.core.address import host_and_port
from mesh.core.errors import ConfigInvalid, WorkerSpent

BACKOFF_S_MAX = 30.0
LIVED_S = 30.0
"""A child that lived this long failed for a new reason, so its backoff starts again."""
DRAIN_EXTRA_S = 10.0
MAIN = "import os, sys; sys.path[:] = sys.argv.pop(1).split(os.pathsep); from mesh.cli import main; main()"
"""Not `-m`, which searches the working directory first: it may hold a file with the name of a module."""


class Children:
    """`number` processes of `mesh up worker`, more or fewer with `scale`. Run with `run(stop)`."""

    def __init__(
        self,
        reporter: Reporter,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        *,
        number: int,
        drain_timeout_ms: int,
        folder: str,
        http: tuple[str, int] | None = None,
    ) -> None:
        """`folder`: the working directory of the children. `http`: host and port of the parent's metrics; those of
        child N have the port plus N."""
        self._reporter = reporter
        self._arguments = arguments
        self._environ, self._folder, self._http = {**os.environ, **environ}, folder, http
        self.number = number
        """The wanted number of children."""
        self._drain_s = drain_timeout_ms / 1_000 + DRAIN_EXTRA_S
        self._pids: dict[int, int] = {}
        self._ready: set[int] = set()
        """Children that have been ready at least once."""
        self._at_work: set[int] = set()
        """Children that are ready now."""
        self._endings: dict[int, asyncio.Event] = {}
        """Children by number, also draining ones, whose event is set."""
        self._group: asyncio.TaskGroup | None = None
        self.ready = asyncio.Event()
        """Set when the wanted number of children have been ready at least once."""

    @property
    def pids(self) -> list[int]:
        """Process ids of the living children, by number."""
        return [self._pids[number] for number in sorted(self._pids)]

    @property
    def settled(self) -> bool:
        """Whether every child is ready, and none drains."""
        return len(self._at_work) == len(self._endings) == self.number

    def kill(self) -> None:
        """Kill all children."""
        for pid in self._pids.values():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it has ended

    async def run(self, stop: asyncio.Event) -> None:
        """Keep the children running until `stop`, then drain them. Raises ConfigInvalid if one cannot start."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            self.scale(self.number)
            await stop.wait()
            self._group = None  # no child is started from here on
            for ending in self._endings.values():
                ending.set()

    def scale(self, number: int) -> None:
        """Change the number of children: start missing ones, drain those with the highest numbers. Return at once.

        Before `run`, this only sets the number; while the children are stopped, it does nothing.
        """
        self.number = number
        staying = [child for child, ending in sorted(self._endings.items()) if not ending.is_set()]
        for child in staying[number:]:
            self._endings[child].set()
        if (group := self._group) is None:
            return
        free = (child for child in count(1) if child not in self._endings)
        for _ in range(number - len(staying)):
            child, ending = next(free), asyncio.Event()
            self._endings[child] = ending
            group.create_task(self._keep(child, ending), name=f"child {child}")

    async def _keep(self, number: int, stop: asyncio.Event) -> None:
        try:
            await self._restart_loop(number, stop)
        finally:
            del self._endings[number]
            self._ready.discard(number)

    async def _restart_loop(self, number: int, stop: asyncio.Event) -> None:
        backoff_s = 1.0
        while not stop.is_set():
            began = time.monotonic()
            ready_in, ready_out = os.pipe()
            try:
                child = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-c", MAIN, os.pathsep.join(sys.path)),
                    *("up", "worker", "--child", f"{ready_out}", *self._http_of(number), *self._arguments),
                    stdin=PIPE,
                    env=self._environ,
                    cwd=self._folder,
                    pass_fds=[ready_out],
                    start_new_session=True,
                )
            finally:
                os.close(ready_out)
            self._pids[number] = child.pid
            asyncio.get_running_loop().add_reader(ready_in, self._read_ready, number, ready_in)
            try:
                code = await self._watch(number, child, stop)
            finally:
                self._pids.pop(number)
                self._at_work.discard(number)
                asyncio.get_running_loop().remove_reader(ready_in)
                os.close(ready_in)
            if stop.is_set():
                return
            if code in (1, 2) and number not in self._ready:
                raise ConfigInvalid(f"worker {number} cannot start", where=f"pid {child.pid}", got=f"exit code {code}")
            if time.monotonic() - began > LIVED_S:
                backoff_s = 1.0
            if code == WorkerSpent.exit_code:
                text = f"worker {number} (pid {child.pid}) ended since it had too many abandoned calls; restarting it"
                self._reporter.info(text, worker=number, pid=child.pid, code=code)
                continue
            self._reporter.warning(
                f"worker {number} (pid {child.pid}) {_end(code)}; restarting it in {backoff_s:g} s",
                worker=number,
                pid=child.pid,
                code=code,
            )
            try:
                async with asyncio.timeout(backoff_s):
                    await stop.wait()
            except TimeoutError:
                backoff_s = min(BACKOFF_S_MAX, backoff_s * 2)

    def _http_of(self, number: int) -> tuple[str, ...]:
        """Return the option by which a child serves its metrics and health."""
        if self._http is None:
            return ()
        host, port = self._http
        return ("--http", host_and_port(host, port and port + number))

    async def _watch(self, number: int, child: Process, stop: asyncio.Event) -> int:
        """Wait for the child's end. On `stop`, ask it to drain, and kill it if it does not in time."""
        assert child.stdin is not None  # it is a pipe
        ending = asyncio.get_running_loop().create_task(child.wait())
        stopping = asyncio.get_running_loop().create_task(stop.wait())
        try:
            await asyncio.wait((ending, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not ending.done():
                child.stdin.close()
                await asyncio.wait((ending,), timeout=self._drain_s)
            if not ending.done():
                self._reporter.warning(
                    f"worker {number} (pid {child.pid}) did not drain in time and is killed",
                    worker=number,
                    pid=child.pid,
                )
                child.kill()
            return await ending
        finally:
            if child.returncode is None:
                child.kill()
            stopping.cancel()
            await asyncio.gather(stopping, return_exceptions=True)

    def _read_ready(self, number: int, ready_in: int) -> None:
        """Read the byte that a child writes when it is ready; nothing comes if it ended before."""
        asyncio.get_running_loop().remove_reader(ready_in)
        if os.read(ready_in, 1):
            self._ready.add(number)
            self._at_work.add(number)
            if len(self._ready) >= self.number:
                self.ready.set()


def _end(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
