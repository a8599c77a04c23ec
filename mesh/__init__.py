"""The names an agent's author or an upstream system imports. Nothing else is public.

Each is loaded when it is first used, so that `import mesh` and `mesh --version` cost next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mesh.client import Mesh, Outcome
    from mesh.context import Context
    from mesh.core.errors import (
        BoardUnavailable,
        Conflict,
        InvalidInput,
        LogUnavailable,
        MeshError,
        NotAccepted,
        WaitTimeout,
    )
    from mesh.core.task.agent import Emit, Later, Payload, Reject, agent

__all__ = [
    "BoardUnavailable",
    "Conflict",
    "Context",
    "Emit",
    "InvalidInput",
    "Later",
    "LogUnavailable",
    "Mesh",
    "MeshError",
    "NotAccepted",
    "Outcome",
    "Payload",
    "Reject",
    "WaitTimeout",
    "agent",
]


_HOMES = {
    "mesh.client": ("Mesh", "Outcome"),
    "mesh.context": ("Context",),
    "mesh.core.task.agent": ("Emit", "Later", "Payload", "Reject", "agent"),
    "mesh.core.errors": (
        *("BoardUnavailable", "Conflict", "InvalidInput", "LogUnavailable"),
        *("MeshError", "NotAccepted", "WaitTimeout"),
    ),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            found = globals()[name] = getattr(import_module(home), name)
            return found
    raise AttributeError(f"module 'mesh' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
