"""The embedded mesh for your own tests: real orchestrator, real worker, a log in a temporary file.

    async with MeshTest(topology="topics.yaml") as mesh:
        run = await mesh.publish("order.placed", {"order_id": "o-1", "lines": []})
        outcome = await run.outcome()

Nothing to install, nothing left behind. `mesh.board` is the blackboard, `mesh.log` the log.
"""

import tempfile
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mesh.adapters.ports import Board, Log
from mesh.app.process import Process, running
from mesh.app.wiring import load_agents, load_topology, open_board, open_log
from mesh.client import Mesh, Run
from mesh.core.task.agent import agent_of
from mesh.core.topology.loader import load
from mesh.settings import Settings

DRAIN_TIMEOUT_MS = 1_000
"""An agent that has not ended with its test is not waited for as one in production is."""


class MeshTest:
    """A whole mesh in this process. `topology`: a path, or the text of one; `agents` replaces functions by name."""

    def __init__(
        self, topology: str = "topics.yaml", *, agents: Mapping[str, Callable[..., Any]] | None = None
    ) -> None:
        self.topology = load(topology) if "\n" in topology else load_topology(topology)
        given = {name: agent_of(function) for name, function in (agents or {}).items()}
        if unknown := set(given) - set(self.topology.agents):
            raise KeyError(
                f"the topology has no agent {sorted(unknown)[0]!r}; it has {', '.join(self.topology.agents)}"
            )
        missing = set(self.topology.agents) - set(given)
        self._agents = {**(load_agents(self.topology) if missing else {}), **given}
        self._exits = AsyncExitStack()
        self.log: Log
        self.board: Board
        self.client: Mesh

    async def __aenter__(self) -> Self:
        folder = self._exits.enter_context(tempfile.TemporaryDirectory(prefix="mesh-test-"))
        settings = Settings(
            log=f"sqlite:{Path(folder) / 'mesh.db'}",
            session_timeout_ms=5_000,
            drain_timeout_ms=DRAIN_TIMEOUT_MS,
        )
        self.log = open_log(settings)
        self.board = open_board(settings, self.topology.prefix, beside=self.log)
        await self.log.start()
        self._exits.push_async_callback(self.log.close)
        await self.board.start()
        self._exits.push_async_callback(self.board.close)
        process = Process(self.log, self.topology, settings, agents=self._agents, board=self.board)
        self.process = await self._exits.enter_async_context(running(process))
        self.client = Mesh(self.log, self.topology)
        self._exits.push_async_callback(self.client.close)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._exits.__aexit__(kind, error, trace)

    async def publish(self, type: str, payload: Any, **options: Any) -> Run:
        """As `Mesh.publish`."""
        return await self.client.publish(type, payload, **options)
