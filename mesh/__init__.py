"""The names an agent's author or an upstream system imports. Nothing else is public."""

from mesh.context import Context
from mesh.core.agent import Emit, Payload, agent
from mesh.core.errors import Conflict, MeshError

__all__ = ["Conflict", "Context", "Emit", "MeshError", "Payload", "agent"]
