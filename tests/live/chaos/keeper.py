"""Keeps one process of the mesh alive, as a supervisor would: whatever ends is started again."""

import asyncio
import random
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from bench.mesh_processes import Child

PATIENCE_S = 90.0
FAILPOINT = "tests.live.chaos.failpoint"


class Exit(NamedTuple):
    """How a process ended: exit status (negative: the signal), when (monotonic), and whether we made it end."""

    code: int
    at_s: float
    ours: bool
    last_lines: str


class Keeper:
    """`mesh up <arguments>`, again and again until `end`."""

    def __init__(
        self, name: str, arguments: tuple[str, ...], environ: Mapping[str, str], *, restart_s_max: float, seed: int
    ) -> None:
        self.name = name
        self.arguments = arguments
        self.environ = dict(environ)
        self.exits: list[Exit] = []
        self.child = Child(*arguments, environ=self.environ)
        self._restart_s_max = restart_s_max
        self._random = random.Random(f"{seed}:{name}")
        self._point = ""
        self._log = ""
        self._ours = False
        self._ending = False
        self._keeping: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Start the process and keep it."""
        self._keeping = asyncio.get_running_loop().create_task(self._keep(), name=f"keep {self.name}")

    async def ready(self, *, after: Child | None = None) -> None:
        """Returns when the process that runs now (or the one that comes after `after`) said that it is ready."""
        async with asyncio.timeout(PATIENCE_S):
            while self.child is after or not self.is_ready:  # noqa: ASYNC110  # the child is another one each time
                await asyncio.sleep(0.01)

    @property
    def is_ready(self) -> bool:
        """Whether there is a process, and it said so."""
        process = self.child.process
        return process is not None and process.returncode is None and self.child.ready.is_set()

    def change(self, *, point: str = "", log: str = "") -> None:
        """From the next start on: fail at this point, reach the log here. Without arguments: as it was.

        A point that ends the process counts for one start only.
        """
        self._point, self._log = point, log

    def send(self, number: signal.Signals) -> None:
        """Send a signal if there is a process. SIGKILL and SIGTERM are ours: the exit that follows is expected."""
        process = self.child.process
        if process is not None and process.returncode is None:
            self._ours = self._ours or number in (signal.SIGKILL, signal.SIGTERM)
            process.send_signal(number)

    async def exited(self, count: int) -> Exit:
        """The exit number `count`, counted from 0; waits for it."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.exits) <= count:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        return self.exits[count]

    async def replace(self, number: signal.Signals = signal.SIGTERM) -> Exit:
        """End the process by a signal and wait until the next one is ready."""
        before = self.child
        self.send(number)
        exit = await self.exited(len(self.exits))
        await self.ready(after=before)
        return exit

    async def end(self) -> int:
        """Drain, and start it no more. The exit status."""
        self._ending = True
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        assert self._keeping is not None
        try:
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.shield(self._keeping)
        except TimeoutError:
            self.send(signal.SIGKILL)
            await self._keeping
        return self.exits[-1].code

    @property
    def rss_mb(self) -> float:
        """Memory of the process that runs now."""
        assert self.child.process is not None
        status = Path(f"/proc/{self.child.process.pid}/status").read_text()
        return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))

    @property
    def surprises(self) -> list[Exit]:
        """Exits that nobody here caused."""
        return [exit for exit in self.exits if not exit.ours]

    async def _keep(self) -> None:
        while True:
            environ = dict(self.environ)
            if self._point:
                environ["CHAOS_POINT"] = self._point
            if self._log:
                environ["MESH_LOG"] = self._log
            self.child = Child(*self.arguments, environ=environ, module=FAILPOINT if self._point else "mesh")
            self._ours = self._point.startswith(("before", "after", "during"))
            self._point = "" if self._ours else self._point
            await self.child.spawn()
            assert self.child.process is not None
            code = await self.child.process.wait()
            self.exits.append(Exit(code, time.monotonic(), self._ours, "".join(list(self.child.lines)[-10:])))
            if self._ending:
                return
            await asyncio.sleep(self._random.uniform(0, self._restart_s_max))
            if self._ending:
                return
