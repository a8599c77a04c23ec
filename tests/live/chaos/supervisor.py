"""Keeps one process of the mesh alive, as a supervisor would: whatever ends is started again."""

import asyncio
import random
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.mesh_processes import Child
from mesh.cli.framework.failure import BUG_REMEDY

PATIENCE_S = 180.0
FAILPOINT = "tests.live.chaos.failpoint"
LIMITS = ("files:", "memory:")
"""Points that leave a process too little to live on. It may end then, if it names the limit and not a bug."""
FILES_MORE_MAX, THREADS_MORE_MAX, RSS_MORE_MAX, RSS_MORE_MB_MAX = 12, 8, 0.2, 40
"""I12: by how much a process may grow from one rest to a later one; its memory by that part, and what is left of the
highest flood between them."""
GROWN_S = 120.0
"""Before, the memory of a process still grows."""


class Exit(NamedTuple):
    """The end of a process: exit status (negative: the signal), time (monotonic), and whether the test caused it."""

    code: int
    at_s: float
    ours: bool
    last_lines: str


class Footprint(NamedTuple):
    """The resources of a process, `age_s` seconds after it began."""

    age_s: float
    rss_mb: float
    files: int
    threads: int


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
        self._began_s = 0.0
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
    def footprint(self) -> Footprint:
        """Return the resources of the running process."""
        assert self.child.process is not None
        place = Path(f"/proc/{self.child.process.pid}")
        told = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines() if ":" in line)
        return Footprint(
            time.monotonic() - self._began_s,
            int(told["VmRSS"].split()[0]) / 1024,
            len(list((place / "fd").iterdir())),
            int(told["Threads"]),
        )

    @property
    def rss_mb(self) -> float:
        """Memory of the process that runs now."""
        return self.footprint.rss_mb

    @property
    def surprises(self) -> list[Exit]:
        """Return the exits that the test did not cause."""
        return [exit for exit in self.exits if not exit.ours]

    async def _keep(self) -> None:
        while True:
            environ, point = dict(self.environ), self._point
            if point:
                environ["CHAOS_POINT"] = point
            if self._log:
                environ["MESH_LOG"] = self._log
            self.child = Child(*self.arguments, environ=environ, module=FAILPOINT if point else "mesh")
            self._ours = point.startswith(("before", "after", "during"))
            self._point = "" if self._ours else self._point
            await self.child.spawn()
            self._began_s = time.monotonic()
            assert self.child.process is not None
            code = await self.child.process.wait()
            lines = "".join(list(self.child.lines)[-10:])
            ours = self._ours or (point.startswith(LIMITS) and BUG_REMEDY not in lines)
            self.exits.append(Exit(code, time.monotonic(), ours, lines))
            if self._ending:
                return
            await asyncio.sleep(self._random.uniform(0, self._restart_s_max))
            if self._ending:
                return


def leaks(arguments: Sequence[str], found: Sequence[Footprint]) -> list[str]:
    """I12: what one process kept, from its first rest to its last. The memory of an orchestrator grows with the runs
    that it remembers, so that is left out."""
    first, last = found[0], found[-1]
    told = [
        _grown("files", first, last, first.files, last.files, first.files + FILES_MORE_MAX),
        _grown("threads", first, last, first.threads, last.threads, first.threads + THREADS_MORE_MAX),
    ]
    old = next((footprint for footprint in found if footprint.age_s >= GROWN_S), None)
    if old is not None and arguments[0] != "orchestrator":
        told.append(_grown("MB", old, last, old.rss_mb, last.rss_mb, old.rss_mb * (1 + RSS_MORE_MAX) + RSS_MORE_MB_MAX))
    return [f"I12 mesh up {' '.join(arguments)}: {text}" for text in told if text]


def _grown(what: str, since: Footprint, last: Footprint, before: float, after: float, limit: float) -> str:
    if after <= limit:
        return ""
    ages = f"after {since.age_s:.0f} s, {after:.0f} after {last.age_s:.0f} s"
    return f"{before:.0f} {what} {ages}; expected at most {limit:.0f}"
