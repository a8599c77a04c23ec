"""The environment of a workload: the log that the user named or an embedded one, topics, services as processes.

    async with setup.field(written({"echo": "on: bench.ask, emits: bench.answer"})) as field:
        async with field.up(["orchestrator"], ["worker"]) as children:
            …

Names of topics have a mark, so that workloads do not share topics and no data of yours is touched. On a broker they
are not deleted. TLS and SASL are taken from the environment (MESH_KAFKA__…) by all processes.
"""

import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.mesh_processes import ROOT, Child, mesh_up
from mesh.adapters.ports import Board, Log
from mesh.app.wiring import load_topology, open_board, open_log, topic_specs
from mesh.client import Mesh
from mesh.core.topology.model import Topology
from mesh.settings import load

TEXT = """\
mesh: {{name: bench, prefix: bench{mark}, inbox: {{partitions: {partitions}}}, limits: {{{limits}}}}}
topics:
  bench.asks{mark}: {{ingress: {heard}, id: id, partitions: {partitions}}}
  bench.answers{mark}: {{egress: bench.answer, partitions: {partitions}}}
agents:
{agents}
"""
LIMITS = "deadline: 10m"
BOARD_TIMEOUT_MS = 10_000
"""A long call is a figure and does not end the workload."""


@dataclass(frozen=True)
class Setup:
    """The options of the user, the same for every workload."""

    log: str = ""
    """sqlite:PATH or kafka://HOST:PORT; empty: an embedded log in a temporary folder."""
    board: str = ""
    """sqlite:PATH or redis://HOST:PORT; empty: an embedded board in a temporary folder."""
    seconds: float = 5.0
    """About how long a workload measures; preparing comes on top."""
    say: Callable[[str], None] = field(default=lambda text: None, compare=False)
    """Called with a text that says what is done now."""

    @property
    def kind(self) -> str:
        """`sqlite` or `kafka`, for names of files."""
        return self.log.partition(":")[0] or "sqlite"

    @asynccontextmanager
    async def field(self, text: str) -> AsyncIterator["Field"]:
        """Open a log with the topics of a mesh; see `written` for the text."""
        with tempfile.TemporaryDirectory(prefix="mesh-bench-") as folder:
            path = Path(folder) / "topics.yaml"
            path.write_text(text.replace("{mark}", f"-{time.time_ns() % 10**10}"))
            urls = {
                "log": anchored(self.log) or f"sqlite:{folder}/mesh.db",
                "board": anchored(self.board) or f"sqlite:{folder}/board.db",
                "topology": str(path),
            }
            settings = load(urls | {"board_timeout_ms": BOARD_TIMEOUT_MS}, directory=ROOT).settings
            topology = load_topology(str(path))
            log = open_log(settings, client="bench")
            await log.start()
            try:
                await log.create_topics(topic_specs(topology))
                mesh = Mesh(log, topology)
                yield Field(log, topology, mesh, urls, open_board(settings, topology.prefix))
                await mesh.close()
            finally:
                await log.close()


@dataclass(frozen=True)
class Field:
    """A log with topics, on which services can be started."""

    log: Log
    topology: Topology
    mesh: Mesh
    urls: Mapping[str, str]
    board: Board
    """Not started."""

    def up(
        self, *services: Sequence[str], environ: dict[str, str] | None = None
    ) -> AbstractAsyncContextManager[list[Child]]:
        """One `mesh up …` for each list of services; ready inside the block, drained and ended after it."""
        return mesh_up(services, **self.urls, environ=environ)


def written(agents: Mapping[str, str], *, partitions: int = 4, limits: str = LIMITS) -> str:
    """topics.yaml of a mesh: agent of bench/agents.py → its other words, as YAML in one line. `{mark}` is left in the
    text for `Setup.field` to fill in."""
    lines = [f'  {name}: {{run: "bench.agents:{name}", {words}}}' for name, words in agents.items()]
    heard = next((f"bench.{name}" for name in ("wait", "burn") if name in agents), "bench.ask")
    return TEXT.format(mark="{mark}", heard=heard, partitions=partitions, limits=limits, agents="\n".join(lines))


def anchored(url: str) -> str:
    """The same address for processes that work in another folder: a relative path of an embedded file means here."""
    scheme, _, rest = url.partition(":")
    return f"sqlite:{Path(rest.removeprefix('//')).absolute()}" if scheme == "sqlite" and rest else url


def memory_mib(child: Child, field: str = "VmRSS") -> float:
    """Memory of a process now, or at its peak (`VmHWM`), in MiB."""
    assert child.process is not None
    for line in Path(f"/proc/{child.process.pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return round(int(line.split()[1]) / 1_024, 1)
    raise RuntimeError(f"the system does not report {field}")


def cpu_s(children: Sequence[Child]) -> dict[str, float]:
    """Processor time of each service so far, those of one kind together."""
    used: dict[str, float] = {}
    for child in children:
        name = "+".join(child.arguments) or "all"
        used[name] = used.get(name, 0.0) + child.cpu_s()
    return used
