"""Test kit: a whole mesh in this process, and the context for a unit test of one function.

    async with MeshTest("topics.yaml") as mesh:  # real orchestrator, real worker, a log in a temporary file
        run = await mesh.publish("order.placed", {"order_id": "o-1", "lines": []})
        outcome = await run.outcome()

    async with MeshTest.of(check, price, ship) as mesh:  # without topics.yaml: routes follow from signatures
        ...

    scored = await score(OrderPlaced(order_id="o-1"), context())  # one function, nothing started

    replay("recordings/wrong-price.jsonl", ignore=["quoted_at"])  # a recorded run still gives the same

`mesh.board` is the blackboard, `mesh.log` the log.
"""

import asyncio
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from mesh.adapters.memory_board import MemoryBoard
from mesh.adapters.ports import Board, Log
from mesh.app.process import Process, running
from mesh.app.recording_replay import replay_recording
from mesh.app.wiring import load_agents, load_topology, open_board, open_log
from mesh.client import Mesh, Run
from mesh.context import Context
from mesh.core.replay.answer_diff import Ignored
from mesh.core.replay.masked_values import not_compared
from mesh.core.replay.run_diff import diff_lines
from mesh.core.task.agent import agent_of
from mesh.core.topology.loader import load
from mesh.core.topology.model import Topology
from mesh.settings import Settings
from mesh.testing.signature_topology import Options, topology_of

__all__ = ["MemoryBoard", "MeshTest", "context", "replay", "topology_of"]

NOW_MS = 1_767_225_600_000
"""The time of a context unless a test gives another: 2026-01-01 00:00 UTC."""
DRAIN_TIMEOUT_MS = 1_000
"""Time for running agents at the end of a test; shorter than in production."""
BOARD_TIMEOUT_MS = 10_000
"""A machine that runs other tests at once is no outage of the board."""


class MeshTest:
    """A whole mesh in this process. `topology`: a path, the text of one, or one that `topology_of` made; `agents`
    replaces functions by name."""

    def __init__(
        self, topology: str | Topology = "topics.yaml", *, agents: Mapping[str, Callable[..., Any]] | None = None
    ) -> None:
        if isinstance(topology, str):
            topology = load(topology) if "\n" in topology else load_topology(topology)
        self.topology = topology
        given = {name: agent_of(function) for name, function in (agents or {}).items()}
        if unknown := set(given) - set(self.topology.agents):
            raise KeyError(
                f"the topology has no agent {sorted(unknown)[0]!r}; it has {', '.join(self.topology.agents)}"
            )
        missing = set(self.topology.agents) - set(given)
        self.agents = {**(load_agents(self.topology) if missing else {}), **given}
        self._exits = AsyncExitStack()
        self.log: Log
        self.board: Board
        self.client: Mesh

    @classmethod
    def of(
        cls, *functions: Callable[..., Any], options: Options | None = None, mesh: Mapping[str, Any] | None = None
    ) -> Self:
        """Make a mesh of these functions, wired by their signatures; see `topology_of`."""
        topology = topology_of(functions, options=options, mesh=mesh)
        return cls(topology, agents={function.__name__: function for function in functions})

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._exits.aclose()
            raise
        return self

    async def _start(self) -> None:
        folder = self._exits.enter_context(tempfile.TemporaryDirectory(prefix="mesh-test-"))
        settings = Settings(
            log=f"sqlite:{Path(folder) / 'mesh.db'}",
            session_timeout_ms=5_000,
            drain_timeout_ms=DRAIN_TIMEOUT_MS,
            board_timeout_ms=BOARD_TIMEOUT_MS,
        )
        self.log = open_log(settings)
        self.board = open_board(settings, self.topology.prefix, beside=self.log)
        await self.log.start()
        self._exits.push_async_callback(self.log.close)
        await self.board.start()
        self._exits.push_async_callback(self.board.close)
        process = Process(self.log, self.topology, settings, agents=self.agents, board=self.board)
        self.process = await self._exits.enter_async_context(running(process))
        self.client = Mesh(self.log, self.topology)
        self._exits.push_async_callback(self.client.close)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._exits.__aexit__(kind, error, trace)

    async def publish(self, type: str, payload: Any, **options: Any) -> Run:
        """As `Mesh.publish`."""
        return await self.client.publish(type, payload, **options)


def replay(
    recording: str | Path,
    *,
    topology: str | Topology = "topics.yaml",
    agents: Mapping[str, Callable[..., Any]] | None = None,
    ignore: Sequence[str] = (),
    timeout_s: float = 60.0,
) -> None:
    """Take every run of a recording (`mesh run export`) again by the functions of today.

    Raises AssertionError with the differences if an outcome or an answer is not the recorded one. `agents` replaces
    functions by name. `ignore`: paths of fields that may differ, such as `quoted_at` or `order.priced.lines.id`.
    """
    given = MeshTest(topology, agents=agents)

    async def differences() -> list[str]:
        lines: list[str] = []
        repetitions = replay_recording(
            recording, given.topology, given.agents, ignored=Ignored(ignore), timeout_s=timeout_s
        )
        async with aclosing(repetitions) as runs:
            async for each in runs:
                if not each.diff.same:
                    request = each.recorded.requests[0]
                    about = f"run {request.subject or request.run_id} ({request.type}) differs from {recording}"
                    lines += [about, *(f"  {line}" for line in diff_lines(each.diff))]
                    lines += [f"  {not_compared(each.diff.masked)}"] if each.diff.masked else []
        return lines

    found = asyncio.run(differences())
    if found:
        raise AssertionError("\n".join(found))


def context(
    *,
    board: Board | MemoryBoard | None = None,
    resources: Any = None,
    agent: str = "agent",
    run_id: str = "run",
    task_id: str = "task",
    attempt: int = 1,
    depth: int = 1,
    path: tuple[str, ...] = (),
    deadline_ms: int | None = None,
    now_ms: int = NOW_MS,
    sandbox: bool = False,
) -> Context:
    """Make the Context of a task, to call one agent's function without a mesh.

    `board`: a new, empty MemoryBoard by default; hand the same one to two contexts to test what agents share.
    `resources`: what the agent's lifespan would yield. Two contexts with one `task_id` stand for a repeated task, so
    `random()` gives both the same numbers. `now_ms` stands still at NOW_MS, so that a test gives the same every day.
    """
    return Context(
        agent=agent,
        run_id=run_id,
        task_id=task_id,
        attempt=attempt,
        depth=depth,
        path=path or (agent,),
        deadline_ms=deadline_ms,
        board=cast(Board, board if board is not None else MemoryBoard()),
        resources=resources,
        now_ms=now_ms,
        sandbox=sandbox,
    )
