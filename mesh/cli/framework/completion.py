"""Names for the shell's completion, from topics.yaml. Errors are ignored: completion prints nothing else."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mesh.core.topology.model import Topology


def agents(incomplete: str) -> list[tuple[str, str]]:
    """Names of agents, with the types that they subscribe to."""
    return _names(lambda mesh: {name: f"subscribes to {', '.join(spec.on)}" for name, spec in mesh.agents.items()})


def types(incomplete: str) -> list[tuple[str, str]]:
    """Ingress types, with their topic."""
    return _names(lambda mesh: {name: rule.name for name, rule in mesh.ingress.items()})


def _names(of: "Callable[[Topology], dict[str, str]]") -> list[tuple[str, str]]:
    from mesh.app.wiring import load_topology
    from mesh.core.errors import MeshError
    from mesh.settings import load

    try:
        return sorted(of(load_topology(load().settings.topology)).items())
    except MeshError:
        return []  # the next real command says what is wrong
