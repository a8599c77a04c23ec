"""The names an agent's author or an upstream system imports. Nothing else is public.

Names for upstream systems load what they need when they are first used, so that `import mesh` stays cheap.
"""

from typing import TYPE_CHECKING, Any

from mesh.context import Context
from mesh.core.agent import Emit, Payload, agent
from mesh.core.errors import (
    BoardUnavailable,
    Conflict,
    InvalidInput,
    LogUnavailable,
    MeshError,
    NotAccepted,
    WaitTimeout,
)

if TYPE_CHECKING:
    from mesh.client import Mesh, Outcome, Run

__all__ = [
    "BoardUnavailable",
    "Conflict",
    "Context",
    "Emit",
    "InvalidInput",
    "LogUnavailable",
    "Mesh",
    "MeshError",
    "NotAccepted",
    "Outcome",
    "Payload",
    "Run",
    "WaitTimeout",
    "agent",
]


def __getattr__(name: str) -> Any:
    if name in ("Mesh", "Outcome", "Run"):
        from mesh import client

        return getattr(client, name)
    raise AttributeError(f"module 'mesh' has no attribute {name!r}")
