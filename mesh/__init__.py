"""The names that an agent's author or an upstream system imports; the errors are in `mesh.errors`.

Each name is loaded at its first use, so that `import mesh` and `mesh --version` stay fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mesh.adapters.ports import Count
    from mesh.client import Mesh, Outcome, Result, Run
    from mesh.context import AgentBoard, Context, Item
    from mesh.core.errors import BoardUnavailable as BoardUnavailable
    from mesh.core.errors import Conflict as Conflict
    from mesh.core.errors import InvalidInput as InvalidInput
    from mesh.core.errors import LogUnavailable as LogUnavailable
    from mesh.core.errors import MeshError
    from mesh.core.errors import NotAccepted as NotAccepted
    from mesh.core.errors import WaitTimeout as WaitTimeout
    from mesh.core.task.agent import Emit, Payload, Reject, RetryLater, agent
    from mesh.core.task.agent import Later as Later

__all__ = [
    "AgentBoard",
    "Context",
    "Count",
    "Emit",
    "Item",
    "Mesh",
    "MeshError",
    "Outcome",
    "Payload",
    "Reject",
    "Result",
    "RetryLater",
    "Run",
    "agent",
]


_HOMES = {
    "mesh.adapters.ports": ("Count",),
    "mesh.client": ("Mesh", "Outcome", "Result", "Run"),
    "mesh.context": ("AgentBoard", "Context", "Item"),
    "mesh.core.task.agent": ("Emit", "Later", "Payload", "Reject", "RetryLater", "agent"),
    "mesh.core.errors": (
        "MeshError",
        *("BoardUnavailable", "Conflict", "InvalidInput", "LogUnavailable", "NotAccepted", "WaitTimeout"),
    ),
}
"""Module → names. `Later`, the old name of RetryLater, and the errors besides MeshError stay importable from here."""


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            found = globals()[name] = getattr(import_module(home), name)
            return found
    raise AttributeError(f"module 'mesh' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
