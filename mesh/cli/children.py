"""Worker processes as children: started, watched, started again when they die, drained when we stop.

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

from mesh.cli.logs import Voice
from mesh.core.errors import ConfigInvalid, WorkerSpent

BACKOFF_S_MAX = 30.0
LIVED_S = 30.0
"""A child that lived this long failed for a new reason: its backoff begins anew."""
DRAIN_EXTRA_S = 10.0


class Children:
    """`number` processes of `mesh up worker`. Run with `run(stop)`."""

    def __init__(
        self,
        voice: Voice,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        *,
        number: int,
        drain_timeout_ms: int,
    ) -> None:
        self._voice = voice
        self._arguments = arguments
        self._environ = {**os.environ, **environ}
        self._number = number
        self._drain_s = drain_timeout_ms / 1_000 + DRAIN_EXTRA_S
        self._pids: dict[int, int] = {}
        self._ready: set[int] = set()
        self.ready = asyncio.Event()
        """Set when every child has been ready at least once."""

    @property
    def pids(self) -> list[int]:
        """Process ids of the children that live, by number."""
        return [self._pids[number] for number in sorted(self._pids)]

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
            for number in range(1, self._number + 1):
                group.create_task(self._keep(number, stop), name=f"child {number}")

    async def _keep(self, number: int, stop: asyncio.Event) -> None:
        backoff_s = 1.0
        while not stop.is_set():
            began = time.monotonic()
            told, tells = os.pipe()
            try:
                child = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "mesh", "up", "worker", "--child", f"{tells}", *self._arguments),
                    stdin=PIPE,
                    env=self._environ,
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
                self._voice.info(text, worker=number, pid=child.pid, code=code)
                continue
            self._voice.warning(
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
                self._voice.warning(
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
            if len(self._ready) == self._number:
                self.ready.set()


def _end(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
