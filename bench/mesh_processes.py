"""A mesh in processes of its own, for benchmarks and trials: started by the command that users type, ended by pid."""

import asyncio
import os
import re
import signal
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from mesh.app.wiring import load_topology

ROOT = Path(__file__).parents[1]
READY_TIMEOUT_S = 60.0
LINES_KEPT_MAX = 2_000


def private_topology(source: Path, folder: Path, mark: str) -> Path:
    """A topology with a prefix and domain topics of its own, so that runs do not meet on one broker.

    `mark` begins with `-` and is put behind the prefix and behind every domain topic.
    """
    topology = load_topology(str(source))
    text = re.sub(r"(?m)^  prefix: .*\n", "", source.read_text())
    text = text.replace(
        f"\n  name: {topology.name}\n", f"\n  name: {topology.name}\n  prefix: {topology.prefix}{mark}\n", 1
    )
    for topic in topology.topics:
        text = text.replace(f"\n  {topic}:", f"\n  {topic}{mark}:", 1)
    path = folder / "topics.yaml"
    path.write_text(text)
    return path


class Child:
    """One `mesh up …` in a process of its own. `module`: what to run instead of `mesh`, with the same arguments."""

    def __init__(self, *arguments: str, environ: dict[str, str], module: str = "mesh") -> None:
        self.arguments = arguments
        self.lines: deque[str] = deque(maxlen=LINES_KEPT_MAX)
        """The latest lines of its stderr."""
        self._environ = environ
        self._module = module
        self.process: asyncio.subprocess.Process | None = None
        self.starting: asyncio.Future[None] | None = None
        """Set if no caller waited for `start`; then `end` waits for it."""
        self.ready = asyncio.Event()
        """Set when the process has reported on stderr that it is ready."""
        self.ready_s = 0.0

    async def start(self) -> None:
        """Returns when the process says on stderr that it is ready."""
        await self.spawn()
        ready = asyncio.ensure_future(self.ready.wait())
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                await asyncio.wait((ready, self._reading), return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        if not self.ready.is_set():
            raise RuntimeError(f"mesh up {' '.join(self.arguments)} ended:\n{''.join(self.lines)}")

    async def spawn(self) -> None:
        """Begin, and wait for nothing."""
        began = time.monotonic()
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", self._module, "up", *self.arguments),
            cwd=ROOT,
            env={**os.environ, **self._environ},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        assert self.process.stderr is not None
        self._reading = asyncio.ensure_future(self._read(self.process.stderr, began))

    async def _read(self, stream: asyncio.StreamReader, began: float) -> None:
        while line := await stream.readline():
            self.lines.append(line.decode("utf-8", "replace"))
            if not self.ready.is_set() and "ready" in self.lines[-1]:
                self.ready_s = time.monotonic() - began
                self.ready.set()

    def cpu_s(self) -> float:
        """Processor time used so far, user and system, in seconds."""
        assert self.process is not None
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """SIGKILL: no goodbye."""
        assert self.process is not None
        self.process.kill()

    def again(self) -> "Child":
        """A new child like this one."""
        return Child(*self.arguments, environ=self._environ, module=self._module)

    async def end(self) -> int:
        """Ask to drain (SIGTERM) and wait; the exit status."""
        if self.starting is not None:
            await self.starting
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            code = await self.process.wait()
        await self._reading
        return code


@asynccontextmanager
async def mesh_up(
    services: Sequence[Sequence[str]], *, log: str, board: str, topology: str, environ: dict[str, str] | None = None
) -> AsyncIterator[list[Child]]:
    """Child processes, one for each list of arguments to `mesh up`; all ready inside the block, ended after it."""
    settings = {"MESH_LOG": log, "MESH_BOARD": board, "MESH_TOPOLOGY": topology, **(environ or {})}
    children = [Child(*arguments, environ=settings) for arguments in services]
    try:
        await asyncio.gather(*(child.start() for child in children))
        yield children
    finally:
        for child in children:
            if child.process is not None or child.starting is not None:
                await child.end()
