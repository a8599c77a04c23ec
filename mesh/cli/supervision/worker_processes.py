"""Worker processes as children: started, watched, started again when they die, drained when we stop or want fewer.

A child lives as long as its standard input is open: if we are killed, it drains by itself. It says by a pipe that it is
ready; its output is ours, since agents may print. It leads a session of its own, so that Ctrl-C at the terminal reaches
only us.
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
from mesh.core.errors import ConfigInvalid, WorkerSpent

BACKOFF_S_MAX = 30.0
LIVED_S = 30.0
"""A child that lived this long failed for a new reason: its backoff begins anew."""
DRAIN_EXTRA_S = 10.0
MAIN = "import os, sys; sys.path[:] = sys.argv.pop(1).split(os.pathsep); from mesh.cli import main; main()"
"""Not `-m`, which looks for every module in the working directory first. That may hold a file of the same name."""


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
    ) -> None:
        """`folder`: the working directory of the children."""
        self._reporter = reporter
        self._arguments = arguments
        self._environ, self._folder = {**os.environ, **environ}, folder
        self.number = number
        """So many there should be."""
        self._drain_s = drain_timeout_ms / 1_000 + DRAIN_EXTRA_S
        self._pids: dict[int, int] = {}
        self._ready: set[int] = set()
        """Those that have been ready at least once."""
        self._at_work: set[int] = set()
        """Those that are."""
        self._endings: dict[int, asyncio.Event] = {}
        """Children by number, those too that drain: their event is set."""
        self._group: asyncio.TaskGroup | None = None
        self.ready = asyncio.Event()
        """Set when as many as there should be have been ready at least once."""

    @property
    def pids(self) -> list[int]:
        """Process ids of the children that live, by number."""
        return [self._pids[number] for number in sorted(self._pids)]

    @property
    def settled(self) -> bool:
        """Every child is at work, and none drains."""
        return len(self._at_work) == len(self._endings) == self.number

    def kill(self) -> None:
        """End them at once."""
        for pid in self._pids.values():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it has just ended by itself

    async def run(self, stop: asyncio.Event) -> None:
        """Keep them running until `stop`, then drain them. Raises ConfigInvalid if one cannot start at all."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            self.scale(self.number)
            await stop.wait()
            self._group = None  # from here on nobody is started
            for ending in self._endings.values():
                ending.set()

    def scale(self, number: int) -> None:
        """Have so many from now on: start the missing ones, drain those with the highest numbers. Returns at once.
        While none run, only the number is noted; when they are being stopped, nothing happens."""
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
            await self._again_and_again(number, stop)
        finally:
            del self._endings[number]
            self._ready.discard(number)

    async def _again_and_again(self, number: int, stop: asyncio.Event) -> None:
        backoff_s = 1.0
        while not stop.is_set():
            began = time.monotonic()
            told, tells = os.pipe()
            try:
                child = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-c", MAIN, os.pathsep.join(sys.path)),
                    *("up", "worker", "--child", f"{tells}", *self._arguments),
                    stdin=PIPE,
                    env=self._environ,
                    cwd=self._folder,
                    pass_fds=[tells],
                    start_new_session=True,
                )
            finally:
                os.close(tells)
            self._pids[number] = child.pid
            asyncio.get_running_loop().add_reader(told, self._heard, number, told)
            try:
                code = await self._watch(number, child, stop)
            finally:
                self._pids.pop(number)
                self._at_work.discard(number)
                asyncio.get_running_loop().remove_reader(told)
                os.close(told)
            if stop.is_set():
                return
            if code in (1, 2) and number not in self._ready:
                raise ConfigInvalid(f"worker {number} cannot start", where=f"pid {child.pid}", got=f"exit code {code}")
            if time.monotonic() - began > LIVED_S:
                backoff_s = 1.0
            if code == WorkerSpent.exit_code:
                text = f"worker {number} (pid {child.pid}) ended for calls that do not end; started anew"
                self._reporter.info(text, worker=number, pid=child.pid, code=code)
                continue
            self._reporter.warning(
                f"worker {number} (pid {child.pid}) {_end(code)}; started again in {backoff_s:g} s",
                worker=number,
                pid=child.pid,
                code=code,
            )
            try:
                async with asyncio.timeout(backoff_s):
                    await stop.wait()
            except TimeoutError:
                backoff_s = min(BACKOFF_S_MAX, backoff_s * 2)

    async def _watch(self, number: int, child: Process, stop: asyncio.Event) -> int:
        """Until the child has ended; asks it to when we stop, and ends it when it does not."""
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

    def _heard(self, number: int, told: int) -> None:
        """A child writes one byte when it is ready; at its end there is nothing more to read."""
        asyncio.get_running_loop().remove_reader(told)
        if os.read(told, 1):
            self._ready.add(number)
            self._at_work.add(number)
            if len(self._ready) >= self.number:
                self.ready.set()


def _end(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
