"""Resources of agents: connection pools, clients, models. Each is opened once in a process and closed at its end."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any, Final

from mesh.adapters.diagnostics import diagnostics
from mesh.core.errors import MeshError
from mesh.core.task.agent import Agent, Lifespan

CLOSE_TIMEOUT_S: Final = 5.0
"""Time for all resources of a process to close."""
_log = diagnostics("worker")


class Lifespans:
    """The lifespans that one process has entered. Enter and close them in the same asyncio task."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._values: dict[Lifespan, Any] = {}

    def __bool__(self) -> bool:
        """True when there is something to close."""
        return bool(self._values)

    async def enter(self, agent: Agent) -> Any:
        """Return the resources of an agent, opened if no other agent has the same lifespan. Raises MeshError."""
        lifespan = agent.lifespan
        if lifespan is None:
            return None
        if lifespan not in self._values:
            try:
                self._values[lifespan] = await self._stack.enter_async_context(lifespan())
            except Exception as error:
                raise MeshError(
                    f"the lifespan of an agent failed: {type(error).__name__}: {error}",
                    where=agent.where,
                    remedy="The cause is in the traceback; start the process again when its resources can be opened",
                ) from error
        return self._values[lifespan]

    async def close(self, *, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Close all resources, the last one first. An error is logged: the process ends in any case."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._stack.aclose()
        except Exception as error:  # noqa: BLE001  # an author's code may raise anything
            _log.warning("resources of agents did not close", reason=f"{type(error).__name__}: {error}")
        self._values.clear()
